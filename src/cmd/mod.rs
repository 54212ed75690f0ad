//! The subcommands, one file each, and how all of them end.
//!
//! Data goes to standard output, messages to standard error. A command that could not do its job returns a
//! [`Failure`]; it never prints one, and never ends the process by itself.

pub mod backup;
#[cfg(feature = "cli-extras")]
mod bench;
pub mod config;
pub mod dead_letter;
#[cfg(feature = "cli-extras")]
mod demo;
pub mod doctor;
pub mod drain;
pub mod extras;
pub mod group;
pub mod inspect;
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

use crate::cli::StoreArgs;
use crate::config::{ConfigError, DEFAULT_DATA_DIR, Loaded, Overrides, Service, Settings, Sources};
use crate::file_limit;
use crate::plain::escape;
use crate::service::command_missing;
use crate::supervise::Started;

/// How a command ends: a contract that others script against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped cleanly.
    Fine = 0,
    /// The answer is no: damage found, not drained, unhealthy, no room on the disk. Another try may do.
    No = 1,
    /// It could not run: usage, configuration, permission.
    CouldNotRun = 2,
    /// The store failed, or is damaged. Not to be restarted.
    StoreFailed = 3,
    /// It was stuck, and ended by its own watchdog.
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

    /// It could not run.
    pub fn could_not_run(message: impl Into<String>) -> Failure {
        Failure::new(Exit::CouldNotRun, message)
    }

    /// The store failed or is damaged.
    pub fn store(message: impl Into<String>) -> Failure {
        Failure::new(Exit::StoreFailed, message)
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        let source = source.into();
        if file_limit::is_too_large(source.as_ref()) && self.hint.is_none() {
            self.hint = Some(file_limit::hint());
        }
        self.source = Some(source);
        self
    }

    /// Adds the next step, told on a line of its own.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds findings, told on a line each.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = String>) -> Failure {
        self.details.extend(details);
        self
    }

    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints it to standard error.
    pub fn tell(&self) {
        // Where standard error is gone, or full, there is nobody to tell; that is no reason to panic.
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

/// A run that was to end by itself ended for groups whose lines cannot be delivered.
fn stuck(groups: Vec<String>) -> Failure {
    Failure::new(Exit::No, "not every line could be delivered")
        .with_details(groups)
        .hint("what waits is delivered by the next run; `spillq inspect` shows a line")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        match &error {
            ConfigError::Read { source, .. } => {
                let missing = source.kind() == io::ErrorKind::NotFound;
                let mut failure = Failure::could_not_run(error.to_string());
                if missing {
                    failure = failure.hint("`spillq config init` writes a documented one");
                }
                match error {
                    ConfigError::Read { source, .. } => failure.because(source),
                    ConfigError::Problems { .. } => failure,
                }
            }
            ConfigError::Problems { problems, .. } => Failure::could_not_run(error.to_string())
                .with_details(problems.iter().map(ToString::to_string)),
        }
    }
}

/// The settings for a command: the file if one is named, the environment, and the command line over both.
/// Warnings are logged.
///
/// # Errors
/// All that is wrong with them, as one failure.
pub fn settings(file: Option<&Path>, overrides: Overrides) -> Result<Loaded, Failure> {
    load(&sources(file, overrides)?)
}

/// Where the settings for a command come from.
///
/// # Errors
/// When there is no working directory.
pub fn sources(file: Option<&Path>, overrides: Overrides) -> Result<Sources, Failure> {
    let (file, working_dir) = (file.map(Path::to_path_buf), working_dir()?);
    Ok(Sources { file, working_dir, environment: crate::config::environment(), overrides })
}

/// The settings from there. Warnings are logged.
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

/// The data dir of a command that needs nothing else of a configuration: `--data-dir`, otherwise what the file says that
/// is named, otherwise as [`data_dir`] finds it. Warnings about the file are for those who run it.
///
/// # Errors
/// When the configuration is wrong.
pub fn store_dir(args: &StoreArgs) -> Result<PathBuf, Failure> {
    let option = args.data_dir.data_dir.as_deref();
    let Some(file) = &args.config else { return Ok(data_dir(option)) };
    let overrides = Overrides { data_dir: option.map(Path::to_path_buf), ..Overrides::default() };
    Ok(crate::config::load(&sources(Some(file), overrides)?)?.settings.data_dir)
}

/// The data dir of a command that reads no configuration: the option, `SPILLQ_DATA_DIR`, or `./spillq-data`.
#[must_use]
pub fn data_dir(option: Option<&Path>) -> PathBuf {
    option.map(Path::to_path_buf).unwrap_or_else(|| {
        std::env::var_os("SPILLQ_DATA_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_DATA_DIR), PathBuf::from)
    })
}

/// Refuses a command that was typed behind `--` and cannot be run: nothing would ever be delivered.
///
/// # Errors
/// With what is wrong with its file.
fn refuse_missing(settings: &Settings, group: Option<&str>, command: &[OsString]) -> Result<(), Failure> {
    let processor = settings.processor(group.unwrap_or(crate::config::DEFAULT_GROUP));
    match processor.filter(|_| !command.is_empty()).and_then(|processor| command_missing(&processor.kind)) {
        None => Ok(()),
        Some(why) => Err(Failure::could_not_run(format!("COMMAND cannot be run: {why}"))
            .hint("nothing was started; COMMAND is a program and its arguments, without a shell")),
    }
}

/// How this process was started, for the commands that verdicts suggest.
///
/// # Errors
/// When there is no working directory.
fn started(settings: &Settings, config: Option<&Path>, command: &[OsString]) -> Result<Started, Failure> {
    let args: Vec<OsString> = std::env::args_os().collect();
    // Those of [service] say how to type commands, and are no part of one.
    let is_ours = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"SPILLQ_") && !name.starts_with(b"SPILLQ_SERVICE_")
    };
    let variables: Vec<_> = std::env::vars_os().filter(|(name, _)| is_ours(name)).collect();
    let typed = Started::of(&args, command, &working_dir()?, config, &variables);
    Ok(in_service(typed, &settings.service))
}

/// With how commands are typed where it runs.
fn in_service(started: Started, service: &Service) -> Started {
    Started {
        prefix: service.command_prefix.clone(),
        stopped_prefix: service.stopped_prefix.clone(),
        start: service.start_command.clone(),
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
    fn a_failure_tells_its_chain_and_the_next_step() {
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
