//! The configuration, read again while the service runs: on SIGHUP, when the file has another content, and when somebody
//! asks. All of it is taken, but for what needs a restart, or nothing.
//!
//! One at a time; who asks meanwhile gets the answer of the next. What is checked before anything is changed: all that
//! `config check` checks, the globs, and that each new processor can be made. Then, in this order: groups and limits at
//! the owner, what is followed, processors, what is judged by.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::ServiceError;
use super::build::{follows, never, owner_settings};
use super::config_file::{self, Content};
use super::crews::Crews;
use super::notify::Manager;
use super::watched::disk_settings;
use crate::config::{Again, ConfigError, STDIN, Settings, Sources, load_again};
use crate::http::{Asker, ChangeJson, ConfigDoor, ConfigJson, ReloadJson, time};
use crate::queue::{Command, Handle, wall_ms};
use crate::supervise::{ConfigRefused, Supervision};
use crate::tail::{Follows, TailHandle};

/// Where the settings came from, to read them again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// File, environment, command line.
    pub sources: Sources,
    /// The content of the file that runs.
    pub text: String,
}

/// The parts that can be set otherwise, and what they are set to.
pub(super) struct Live {
    pub(super) settings: Settings,
    pub(super) handle: Handle,
    pub(super) tail: Option<Arc<TailHandle>>,
    pub(super) crews: Crews,
    pub(super) supervision: Supervision,
}

/// What makes the service read its configuration again.
pub(super) enum Cause {
    Signal,
    File(Content),
    Asked(Asker),
}

/// Reads it again.
pub(super) struct Reload {
    sources: Sources,
    /// What was taken or refused last.
    seen: Content,
    hangup: Signal,
    file: mpsc::Receiver<Content>,
    asked: mpsc::Receiver<Asker>,
    door: ConfigDoor,
}

impl Reload {
    /// Begins to listen. The door is for who asks over the socket.
    pub(super) fn new(Reread { sources, text }: Reread) -> Result<(Reload, ConfigDoor), ServiceError> {
        let hangup = signal(SignalKind::hangup())
            .map_err(|error| ServiceError::Start(format!("could not listen for signals: {error}"), None))?;
        let file = sources.file.as_ref().map(|file| sources.working_dir.join(file).display().to_string());
        let (door, asked) =
            ConfigDoor::new(ConfigJson { file, read: time(wall_ms()), ..ConfigJson::default() });
        let file = config_file::follow(sources.clone());
        let reload = Reload { sources, seen: Ok(text), hangup, file, asked, door: door.clone() };
        Ok((reload, door))
    }

    /// Waits for a reason to.
    pub(super) async fn wanted(&mut self) -> Cause {
        tokio::select! {
            Some(()) = self.hangup.recv() => Cause::Signal,
            Some(content) = self.file.recv() => Cause::File(content),
            Some(asker) = self.asked.recv() => Cause::Asked(asker),
            // None of them ends before the service does.
            else => std::future::pending().await,
        }
    }

    /// Reads it, and takes it or nothing.
    pub(super) async fn carry_out(&mut self, cause: Cause, live: &mut Live, manager: &Manager) {
        let mut askers = Vec::new();
        let content = match cause {
            Cause::File(content) => {
                // It may be older than what a signal has made known. If it is not what is there, that will be told too.
                if content == self.seen || content != config_file::read(&self.sources).await {
                    return;
                }
                content
            }
            Cause::Signal => config_file::read(&self.sources).await,
            Cause::Asked(asker) => {
                askers.push(asker);
                while let Ok(another) = self.asked.try_recv() {
                    askers.push(another);
                }
                config_file::read(&self.sources).await
            }
        };
        manager.reloading();
        self.seen = content.clone();
        let outcome = if self.sources.file.is_none() {
            let what = "there is no configuration file to read again: all settings came from the command line and the environment";
            tracing::warn!("{what}");
            ReloadJson { problems: vec![what.to_owned()], ..ReloadJson::default() }
        } else {
            let outcome = match content {
                Ok(text) => match load_again(&self.sources, &text, &live.settings) {
                    Ok(again) => live.take(again).await,
                    Err(error) => Err(problems_of(error)),
                },
                Err(error) => Err(vec![error]),
            };
            self.tell(outcome, &live.supervision)
        };
        manager.ready_again();
        for asker in askers {
            // Who asked and went away does not hear it; what was done stays done.
            let _ = asker.send(outcome.clone());
        }
    }

    fn tell(&self, outcome: Result<ReloadJson, Vec<String>>, supervision: &Supervision) -> ReloadJson {
        match outcome {
            Ok(taken) => {
                for note in &taken.notes {
                    tracing::info!("{note}");
                }
                for ChangeJson { what, needs_restart } in &taken.changes {
                    match needs_restart {
                        true => tracing::warn!("the configuration says {what}: that needs a restart"),
                        false => tracing::info!("{what}"),
                    }
                }
                let live = taken.changes.iter().filter(|change| !change.needs_restart).count();
                tracing::info!(changes = live, "the configuration was read again");
                let needs_restart = taken.changes.iter().filter(|change| change.needs_restart);
                let needs_restart = needs_restart.map(|change| change.what.clone()).collect();
                supervision.set_refused(None);
                self.door.tell(|told| {
                    told.read = time(wall_ms());
                    told.reloads += 1;
                    (told.refused, told.needs_restart) = (Vec::new(), needs_restart);
                });
                taken
            }
            Err(problems) => {
                tracing::error!(
                    "the configuration is refused, and nothing was changed: {}",
                    problems.join("; ")
                );
                self.door.tell(|told| told.refused.clone_from(&problems));
                let file = self.door.told().file.unwrap_or_default();
                supervision.set_refused(Some(ConfigRefused { file, problems: problems.clone() }));
                ReloadJson { problems, ..ReloadJson::default() }
            }
        }
    }
}

impl Live {
    /// Sets all parts, or, where one cannot be, none.
    async fn take(&mut self, again: Again) -> Result<ReloadJson, Vec<String>> {
        let Again { settings, changes, warnings } = again;
        let follows =
            Follows::new(follows(&settings), &never(&settings)).map_err(|error| vec![error.to_string()])?;
        self.crews.try_out(&settings).map_err(|error| vec![said(&error)])?;
        let configuration = owner_settings(&settings);
        let groups = self.handle.ask(|reply| Command::Configure(Box::new(configuration), reply)).await;
        // The service ends with the log, and says why.
        let groups = groups.map_err(|closed| vec![closed.to_string()])?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let mut notes = warnings;
        let other_files =
            (&settings.follow, never(&settings)) != (&self.settings.follow, never(&self.settings));
        if let Some(tail) = self.tail.clone().filter(|_| other_files)
            && !tokio::task::spawn_blocking(move || tail.follow(follows)).await.unwrap_or(false)
        {
            notes.push("a file hangs in a read: what is followed changes when that ends".to_owned());
        }
        let follows_input = |settings: &Settings| {
            settings.follow.iter().any(|follow| follow.include.iter().any(|glob| glob == STDIN))
        };
        if follows_input(&settings) != follows_input(&self.settings) {
            notes.push("standard input: whether it is followed changes with the next start".to_owned());
        }
        let failed = self.crews.set(&settings, &groups, |_| true);
        for error in &failed {
            tracing::error!("{}", said(error));
        }
        notes.extend(failed.iter().map(said));
        for group in self.crews.waiting() {
            notes.push(format!("processor of {group}: begins when the batch that is out has ended"));
        }
        let stall_after_ms = millis(settings.stall_after);
        self.supervision.set_measures(stall_after_ms, disk_settings(&settings.disk));
        self.supervision.set_processors(self.crews.names());
        self.settings = settings;
        let changes = changes
            .into_iter()
            .map(|change| ChangeJson { what: change.what, needs_restart: change.needs_restart })
            .collect();
        Ok(ReloadJson { taken: true, changes, notes, problems: Vec::new() })
    }
}

fn problems_of(error: ConfigError) -> Vec<String> {
    match error {
        ConfigError::Problems { problems, .. } => problems.iter().map(ToString::to_string).collect(),
        error @ ConfigError::Read { .. } => vec![error.to_string()],
    }
}

/// In one line.
pub(super) fn said(error: &ServiceError) -> String {
    match error {
        ServiceError::Store(error) => error.to_string(),
        ServiceError::Start(what, _) => what.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
