//! Reads the configuration again while the service runs: on SIGHUP, when the file's content changes, and on request. It
//! takes effect as a whole, except for what needs a restart, or not at all.
//!
//! One reload at a time; a client that asks during one gets the answer of the next. Before anything changes, a reload
//! checks all that `config check` checks, the globs, and that each new processor can be built. Then it sets, in this
//! order: the owner's groups and limits, the followed files, the processors, and the limits of verdicts.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::build::{SourcePaths, never, owner_settings};
use super::config_file::{self, Content};
use super::notify::Manager;
use super::plan::{Reread, ServiceError};
use super::preview::preview_of_groups;
use super::watched::disk_settings;
use super::worker_pool::{Groups, WorkerPool};
use crate::config::{Again, ConfigError, Settings, Sources, load_again};
use crate::consumers::{Access, Coordinator};
use crate::http::{ChangeJson, ConfigHandle, ConfigJson, ReloadJson, ReloadReply, time};
use crate::queue::{Command, Handle, millis, wall_ms};
use crate::supervise::{ConfigRefused, Supervision};
use crate::tail::{Follow, Follows, TailHandle};

/// The parts whose settings can change, and the settings in effect.
pub(super) struct Live {
    pub(super) settings: Settings,
    pub(super) handle: Handle,
    pub(super) tail: Option<Arc<TailHandle>>,
    pub(super) workers: WorkerPool,
    pub(super) supervision: Supervision,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) paths: SourcePaths,
    /// Groups that the processors of an embedding program serve.
    pub(super) own_groups: Vec<String>,
}

/// Why the configuration is read again.
pub(super) enum Cause {
    Signal,
    File(Content),
    Asked(ReloadReply),
}

/// Reads the configuration again.
pub(super) struct Reload {
    sources: Sources,
    /// The content that was last accepted or refused.
    seen: Content,
    hangup: Signal,
    file: mpsc::Receiver<Content>,
    asked: mpsc::Receiver<ReloadReply>,
    config: ConfigHandle,
}

impl Reload {
    /// Starts to listen for reasons to reload. Requests over the socket come through the [`ConfigHandle`].
    pub(super) fn new(Reread { sources, text }: Reread) -> Result<(Reload, ConfigHandle), ServiceError> {
        let hangup = listen(SignalKind::hangup())?;
        let file = sources.file.as_ref().map(|file| sources.working_dir.join(file).display().to_string());
        let (config, asked) =
            ConfigHandle::new(ConfigJson { file, read: time(wall_ms()), ..ConfigJson::default() });
        let file = config_file::follow(sources.clone());
        let reload = Reload { sources, seen: Ok(text), hangup, file, asked, config: config.clone() };
        Ok((reload, config))
    }

    /// Waits for a reason to reload.
    pub(super) async fn wanted(&mut self) -> Cause {
        tokio::select! {
            Some(()) = self.hangup.recv() => Cause::Signal,
            Some(content) = self.file.recv() => Cause::File(content),
            Some(asker) = self.asked.recv() => Cause::Asked(asker),
            // No source of reasons ends before the service does.
            else => std::future::pending().await,
        }
    }

    /// Reads the configuration, applies it or nothing, and answers those who asked.
    pub(super) async fn carry_out(&mut self, cause: Cause, live: &mut Live, manager: &Manager) {
        let mut askers = Vec::new();
        let content = match cause {
            Cause::File(content) => {
                // A signal may have brought a newer content already. If the file changed again, another event follows.
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
                    Ok(again) => live.apply(again).await,
                    Err(error) => Err(problems_of(error)),
                },
                Err(error) => Err(vec![error]),
            };
            self.report(outcome, &live.supervision)
        };
        manager.ready_again();
        for asker in askers {
            // A client that has gone away gets no answer; the reload stays in effect.
            let _ = asker.send(outcome.clone());
        }
    }

    fn report(&self, outcome: Result<ReloadJson, Vec<String>>, supervision: &Supervision) -> ReloadJson {
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
                self.config.update(|current| {
                    current.read = time(wall_ms());
                    current.reloads += 1;
                    (current.refused, current.needs_restart) = (Vec::new(), needs_restart);
                });
                taken
            }
            Err(problems) => {
                tracing::error!(
                    "the configuration is refused, and nothing was changed: {}",
                    problems.join("; ")
                );
                self.config.update(|current| current.refused.clone_from(&problems));
                let file = self.config.current().file.unwrap_or_default();
                supervision.set_refused(Some(ConfigRefused { file, problems: problems.clone() }));
                ReloadJson { problems, ..ReloadJson::default() }
            }
        }
    }
}

impl Live {
    /// Lets consumers lease from the groups without a processor.
    pub(super) fn open_groups(&mut self, groups: &Groups) -> Result<(), String> {
        let has_processor = |name: &str| {
            self.settings.processor(name).is_some() || self.own_groups.iter().any(|own| own == name)
        };
        let token = self.settings.consumers.token.as_ref();
        let is_configured = |name: &str| self.settings.group(name).is_some();
        self.coordinator.set(Access::new(groups, token, has_processor, is_configured)?);
        Ok(())
    }

    /// Sets all parts, or none if one cannot be set.
    async fn apply(&mut self, again: Again) -> Result<ReloadJson, Vec<String>> {
        let Again { settings, changes, warnings } = again;
        let follows = Follows::new(settings.follow.clone(), &never(&settings));
        let follows = follows.map_err(|error| vec![error.to_string()])?;
        let labelled = Follows::new(settings.follow.clone(), &never(&settings));
        let labelled = labelled.map_err(|error| vec![error.to_string()])?;
        self.workers.check(&settings).map_err(|error| vec![error.to_string()])?;
        Access::check(&settings.groups, settings.consumers.token.as_ref()).map_err(|error| vec![error])?;
        let configuration = owner_settings(&settings);
        let groups = self.handle.ask(|reply| Command::Configure(Box::new(configuration), reply)).await;
        // The service ends together with the log, and reports the reason.
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
            notes.push(
                "the read of a followed file hangs: the followed files change when it returns".to_owned(),
            );
        }
        let follows_input = |settings: &Settings| settings.follow.iter().any(Follow::has_input);
        if follows_input(&settings) != follows_input(&self.settings) {
            notes.push("standard input: whether it is followed changes at the next start".to_owned());
        }
        self.paths.set_follows(labelled);
        let failed = self.workers.set(&settings, &groups, |_| true);
        for error in &failed {
            tracing::error!("{error}");
        }
        notes.extend(failed.iter().map(ToString::to_string));
        for group in self.workers.waiting() {
            notes.push(format!("processor of group {group}: starts when the batch in flight has ended"));
        }
        let stall_after_ms = millis(settings.stall_after);
        self.supervision.set_limits(stall_after_ms, disk_settings(&settings.disk));
        self.supervision.set_processors(self.workers.names());
        let previewed = settings.clone();
        match tokio::task::spawn_blocking(move || preview_of_groups(&previewed)).await {
            Ok(Ok(found)) => notes.extend(found),
            Ok(Err(error)) => notes.push(error.to_string()),
            Err(error) => notes.push(format!("which files go to which group is not known: {error}")),
        }
        self.settings = settings;
        if let Err(error) = self.open_groups(&groups) {
            // It was there a moment ago. Consumers keep the access that they had.
            tracing::error!("{error}");
            notes.push(error);
        }
        let changes = changes
            .into_iter()
            .map(|change| ChangeJson { what: change.what, needs_restart: change.needs_restart })
            .collect();
        Ok(ReloadJson { taken: true, changes, notes, problems: Vec::new() })
    }
}

/// Listens for a signal.
pub(super) fn listen(kind: SignalKind) -> Result<Signal, ServiceError> {
    signal(kind).map_err(|error| ServiceError::Start(format!("could not listen for signals: {error}"), None))
}

fn problems_of(error: ConfigError) -> Vec<String> {
    match error {
        ConfigError::Problems { problems, .. } => problems.iter().map(ToString::to_string).collect(),
        error @ ConfigError::Read { .. } => vec![error.to_string()],
    }
}
