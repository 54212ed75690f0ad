//! What commands share when they open a store or ask the service on it.

use std::path::Path;

use spillq_storage::{DiskOptions, Error, Keep, Log, Options, View};

use super::{Exit, Failure};
use crate::file_limit;
use crate::http::{AdminJson, AnswerJson, Client, ClientError};
use crate::queue::{Command, Queue, WhenFull, no_space, wall_ms};
use crate::service::ServiceError;
use crate::supervise::{Event, Events};

/// An error of the store, with the next step.
pub(super) fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match &error {
        Error::InUse { .. } => Failure::could_not_run(message)
            .hint("stop that process first; `spillq status` asks it without stopping it"),
        Error::NotAStore { .. } => Failure::could_not_run(message)
            .hint("name an empty folder, or one that does not exist yet, with --data-dir"),
        Error::OfAnotherUser { owner, .. } => Failure::could_not_run(message)
            .hint(format!("run spillq as that user (`sudo -u '#{owner}' spillq ...`), or give it the data dir with chown -R")),
        Error::OpenToOthers { path, .. } => {
            Failure::could_not_run(message).hint(format!("chmod 700 {}", path.display()))
        }
        Error::Missing { .. } => Failure::could_not_run(message)
            .hint("name the folder with --data-dir; `spillq run` makes a store in it"),
        Error::Version { .. } => {
            Failure::could_not_run(message)
                .hint("nothing was changed; use the version of spillq that wrote it, or a later one")
        }
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::could_not_run(message).hint("run spillq as the user that owns the data dir")
        }
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
            Failure::could_not_run(message).hint("name a folder with --data-dir")
        }
        Error::Full(full) => {
            Failure::could_not_run(no_space(full)).hint("free space on that file system, or raise disk.limit")
        }
        Error::Damaged { .. } => Failure::store(message).hint(
            "nothing was changed; copy the data dir away, then `spillq repair --dry-run` says what can be kept",
        ),
        // Nothing is wrong with the store: whoever starts services may try again by himself.
        Error::Io { .. } if error.is_no_space() => Failure::new(Exit::No, message)
            .hint("what was acknowledged is safe; make room on that file system and start again"),
        // Nothing is wrong with the store or the disk, and another start changes nothing.
        Error::Io { .. } if file_limit::is_too_large(&error) => Failure::could_not_run(message)
            .hint(format!("what was acknowledged is safe; {}", file_limit::hint())),
        Error::Io { .. } | Error::Poisoned(_) => {
            Failure::store(message).hint("what was acknowledged is safe; start again when the disk is well")
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Failure {
        match error {
            ServiceError::Store(error) => failure(error),
            ServiceError::Start(message, hint) => {
                let failure = Failure::could_not_run(message);
                match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::could_not_run(error.to_string())
    }
}

/// Looks at a store that nobody has open.
pub(super) fn view(data_dir: &Path) -> Result<View, Failure> {
    View::open(data_dir).map_err(|error| match error {
        // The service was asked first: it runs, and its socket is not there.
        Error::InUse { .. } => Failure::could_not_run(error.to_string()).hint(
            "it does not answer on its socket: a service makes a socket that was removed again within seconds; try again",
        ),
        error => failure(error),
    })
}

/// Carries out a request: by the service where one runs, otherwise on the store itself. Says which on standard
/// error.
pub(super) fn administer(data_dir: &Path, request: AdminJson) -> Result<AnswerJson, Failure> {
    if let Some(service) = Client::connect(data_dir) {
        tracing::info!("asking the service that runs on {}", data_dir.display());
        return Ok(service.post("/v1/admin", &request)?);
    }
    tracing::info!("no service runs on {}: working on the store itself", data_dir.display());
    // How long settled lines stay is the service's to say.
    let disk = DiskOptions { keep: Keep::Age(u64::MAX), ..DiskOptions::default() };
    let log = Log::open(data_dir, Options { disk, ..Options::default() }).map_err(failure)?;
    let queue = Queue::start(log, Vec::new(), 0, WhenFull::Pause).map_err(failure)?;
    let answer = queue.handle().ask_blocking(|reply| Command::Admin(request.into(), reply));
    let status = queue.handle().ask_blocking(Command::Status);
    // While the store is ours: there is no supervisor that would do it.
    if let Some(discarded) = status.ok().and_then(|status| status.discarded.into_iter().next()) {
        let (mut events, _) = Events::open(data_dir).map_err(failure)?;
        events.write(wall_ms(), Event::of_discarded(&discarded)).map_err(failure)?;
    }
    queue.stop().map_err(failure)?;
    let answer = answer.map_err(|closed| Failure::store(closed.to_string()))?;
    let answer = answer.map_err(|refusal| Failure::could_not_run(refusal.to_string()))?;
    Ok(answer.into())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_disk_without_room_is_worth_another_start_and_a_broken_one_is_not() {
        let exit = |error: i32| {
            let (attempted, path) = ("create", "journal/00000002".into());
            failure(Error::Io { attempted, path, source: io::Error::from_raw_os_error(error) }).exit()
        };
        assert_eq!(exit(rustix::io::Errno::NOSPC.raw_os_error()), Exit::No);
        assert_eq!(exit(rustix::io::Errno::DQUOT.raw_os_error()), Exit::No);
        assert_eq!(exit(rustix::io::Errno::IO.raw_os_error()), Exit::StoreFailed);
        assert_eq!(exit(rustix::io::Errno::FBIG.raw_os_error()), Exit::CouldNotRun, "a limit of the process");
    }
}
