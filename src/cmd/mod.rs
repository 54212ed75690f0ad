//! The subcommands, one file each, and how all of them end.
//!
//! Data goes to standard output, messages to standard error. A command that could not do its job returns a
//! [`Failure`]. It does not print it, and does not end the process.

pub mod backup;
#[cfg(feature = "cli-extras")]
mod bench;
pub mod config;
mod consumers;
pub mod dead_letter;
#[cfg(feature = "cli-extras")]
mod demo;
pub mod doctor;
pub mod drain;
pub mod extras;
pub mod group;
pub mod inspect;
mod lease;
mod output;
pub mod pages;
mod place;
mod progress;
pub mod repair;
pub mod restore;
pub mod run;
pub mod source;
pub mod status;
mod store;
pub mod test_consumer;
#[cfg(feature = "cli-extras")]
mod top;
pub mod verify;
mod volatile;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{DataDirArgs, StoreArgs};
use crate::config::{ConfigError, DEFAULT_DATA_DIR, Loaded, Overrides, Settings, Sources};
use crate::file_limit;
use crate::plain::escape;
use crate::service::command_missing;
use crate::supervise::Started;

/// The exit status of a command. Scripts depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success, or a clean stop.
    Fine = 0,
    /// The answer is no (damage found, lines left, unhealthy), or the disk is full. Another try may succeed.
    No = 1,
    /// The command could not run: usage, configuration, permission.
    CouldNotRun = 2,
    /// The store failed, or is damaged. A restart does not help.
    StoreFailed = 3,
    /// The watchdog ended the process, which was stuck.
    Stuck = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do its job.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    details: Vec<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
}

impl Failure {
    /// What was attempted, on what, and what was found: lower case, no full stop.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), details: Vec::new(), source: None, hint: None }
    }

    /// A failure of a command that could not run.
    pub fn could_not_run(message: impl Into<String>) -> Failure {
        Failure::new(Exit::CouldNotRun, message)
    }

    /// A failure of a store that failed or is damaged.
    pub fn store(message: impl Into<String>) -> Failure {
        Failure::new(Exit::StoreFailed, message)
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        let source = source.into();
        if file_limit::is_too_large(source.as_ref()) && self.hint.is_none() {
            self.hint = Some(file_limit::hint());
        }
        self.source = Some(source);
        self
    }

    /// Adds the next step, printed on a line by itself.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds findings, printed on a line each.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = String>) -> Failure {
        self.details.extend(details);
        self
    }

    /// The exit status of the process.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints it to standard error.
    pub fn print(&self) {
        // Without a standard error that can be written to, there is no other way to report it.
        let _ = writeln!(io::stderr(), "spillq: {self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.message))?;
        let mut cause: Option<&dyn Error> = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = cause {
            write!(f, ": {}", escape(&error.to_string()))?;
            cause = error.source();
        }
        for detail in &self.details {
            write!(f, "\n  {}", escape(detail))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", escape(hint))?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// The failure of a run that ended although lines are left, because they cannot be delivered.
fn stuck(groups: Vec<String>) -> Failure {
    Failure::new(Exit::No, "not every line could be delivered")
        .with_details(groups)
        .hint("the next run delivers the waiting lines; `spillq inspect` prints a line")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let failure = Failure::could_not_run(error.to_string());
        match error {
            ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                failure.hint("`spillq config init` writes one").because(source)
            }
            ConfigError::Read { source, .. } => failure.because(source),
            ConfigError::Problems { problems, .. } => {
                failure.with_details(problems.iter().map(ToString::to_string))
            }
        }
    }
}

/// The settings for a command, from the file if one is named, the environment, and the command line, which overrides
/// both. Warnings are logged.
///
/// # Errors
/// All problems of the settings, as one failure.
pub fn settings(file: Option<&Path>, overrides: Overrides) -> Result<Loaded, Failure> {
    load(&sources(file, overrides)?)
}

/// Where the settings for a command come from.
///
/// # Errors
/// When the working directory cannot be found.
pub fn sources(file: Option<&Path>, overrides: Overrides) -> Result<Sources, Failure> {
    let (file, working_dir) = (file.map(Path::to_path_buf), working_dir()?);
    Ok(Sources { file, working_dir, environment: crate::config::environment(), overrides })
}

/// The settings from these sources. Warnings are logged.
///
/// # Errors
/// As [`settings`].
pub fn load(sources: &Sources) -> Result<Loaded, Failure> {
    let loaded = crate::config::load(sources)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// The data dir of a command that needs nothing else of a configuration. Warnings about the file are not logged: `run` logs
/// them.
///
/// # Errors
/// When the configuration is wrong.
pub fn store_dir(args: &StoreArgs) -> Result<PathBuf, Failure> {
    Ok(data_dir(&args.data_dir, store_settings(args)?.as_ref()))
}

/// The settings of the configuration that a command about a store names, if it names one.
fn store_settings(args: &StoreArgs) -> Result<Option<Settings>, Failure> {
    Ok(match &args.config {
        Some(file) => Some(crate::config::load(&sources(Some(file), Overrides::default())?)?.settings),
        None => None,
    })
}

/// `--data-dir`, otherwise the data dir of the configuration if there is one, otherwise `SPILLQ_DATA_DIR` or
/// `./spillq-data`.
fn data_dir(option: &DataDirArgs, settings: Option<&Settings>) -> PathBuf {
    match (&option.data_dir, settings) {
        (Some(dir), _) => dir.clone(),
        (None, Some(settings)) => settings.data_dir.clone(),
        (None, None) => std::env::var_os("SPILLQ_DATA_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_DATA_DIR), PathBuf::from),
    }
}

/// Refuses a COMMAND of the command line that cannot be run: nothing would ever be delivered.
///
/// # Errors
/// With the reason.
fn refuse_missing(settings: &Settings, group: Option<&str>, command: &[OsString]) -> Result<(), Failure> {
    let processor = settings.processor(group.unwrap_or(crate::config::DEFAULT_GROUP));
    match processor.filter(|_| !command.is_empty()).and_then(|processor| command_missing(&processor.kind)) {
        None => Ok(()),
        Some(why) => Err(Failure::could_not_run(format!("COMMAND cannot be run: {why}"))
            .hint("nothing was started; COMMAND is a program and its arguments, without a shell")),
    }
}

/// How this process was started, from which verdicts suggest commands.
///
/// # Errors
/// When the working directory cannot be found.
fn started(settings: &Settings, config: Option<&Path>, command: &[OsString]) -> Result<Started, Failure> {
    let args: Vec<OsString> = std::env::args_os().collect();
    // The keys of [service] say how commands are typed, and are not part of a command.
    let is_ours = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"SPILLQ_") && !name.starts_with(b"SPILLQ_SERVICE_")
    };
    let variables: Vec<_> = std::env::vars_os().filter(|(name, _)| is_ours(name)).collect();
    let typed = Started::of(&args, command, &working_dir()?, config, &variables);
    Ok(in_service(typed, settings))
}

/// Adds what the configuration says: how commands are typed on this host, and which groups can be drained.
fn in_service(started: Started, settings: &Settings) -> Started {
    let service = &settings.service;
    Started {
        prefix: service.command_prefix.clone(),
        stopped_prefix: service.stopped_prefix.clone(),
        start: service.start_command.clone(),
        serves_consumers: !settings.consumers.listen.is_empty(),
        processors: settings.processors.iter().map(|processor| processor.group.clone()).collect(),
        ..started
    }
}

fn working_dir() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .map_err(|error| Failure::could_not_run("cannot find the working directory").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_causes_and_the_next_step() {
        let failure = Failure::store("cannot open ./q")
            .because(io::Error::other("disk on fire"))
            .hint("`spillq verify` reads all of it");
        assert_eq!(
            failure.to_string(),
            "cannot open ./q: disk on fire\nhint: `spillq verify` reads all of it"
        );
        assert_eq!(failure.exit(), Exit::StoreFailed);
    }
}
