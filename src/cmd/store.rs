//! Opening a store or asking the service on it, for all commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spillq_storage::{DiskOptions, Error, Keep, Log, Options, View};

use super::{Exit, Failure, data_dir, store_settings};
use crate::cli::StoreArgs;
use crate::config::Settings;
use crate::file_limit;
use crate::http::{AdminJson, AnswerJson, Client, ClientError, Labels, StatusJson};
use crate::queue::{Command, GroupSettings, Queue, WhenFull, no_space, own_lines_waiting, wall_ms};
use crate::service::{ServiceError, labels_of};
use crate::supervise::{Event, Events};
use crate::tail::first_path;

/// An error of the store, with the next step.
pub(super) fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match &error {
        Error::InUse { .. } => Failure::could_not_run(message)
            .hint("stop that process first; `spillq status` needs no stop"),
        Error::NotAStore { .. } => Failure::could_not_run(message)
            .hint("name an empty folder, or one that does not exist, with --data-dir"),
        Error::OfAnotherUser { owner, .. } => Failure::could_not_run(message)
            .hint(format!("run spillq as that user (`sudo -u '#{owner}' spillq ...`), or give it the data dir with chown -R")),
        Error::OpenToOthers { path, .. } => {
            Failure::could_not_run(message).hint(format!("chmod 700 {}", path.display()))
        }
        Error::Missing { .. } => Failure::could_not_run(message)
            .hint("name the right folder with --data-dir; `spillq run` makes a store"),
        Error::Version { .. } => {
            Failure::could_not_run(message)
                .hint("nothing was changed; use the version of spillq that wrote the store, or a later one")
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
            "nothing was changed; make a copy of the data dir, then see with `spillq repair --dry-run` what can be kept",
        ),
        // The store is sound: a service manager may start it again.
        Error::Io { .. } if error.is_no_space() => Failure::new(Exit::No, message)
            .hint("acknowledged lines are safe; free space on that file system and start again"),
        // The store and the disk are sound, but another start would fail too.
        Error::Io { .. } if file_limit::is_too_large(&error) => Failure::could_not_run(message)
            .hint(format!("acknowledged lines are safe; {}", file_limit::hint())),
        Error::Io { .. } | Error::Poisoned(_) => {
            Failure::store(message).hint("acknowledged lines are safe; start again when the disk works")
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Failure {
        match error {
            ServiceError::Store(error) => failure(error),
            ServiceError::Start(message, hint) => Failure { hint, ..Failure::could_not_run(message) },
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::could_not_run(error.to_string())
    }
}

/// Opens a store that no service has open, for reading.
pub(super) fn view(data_dir: &Path) -> Result<View, Failure> {
    View::open(data_dir).map_err(|error| match error {
        // The service was asked first: it runs, but its socket is missing.
        Error::InUse { .. } => Failure::could_not_run(error.to_string()).hint(
            "it does not answer on its socket; a service makes a missing socket again within seconds: try again",
        ),
        error => failure(error),
    })
}

/// Who answers what a command asks about a store.
pub(super) enum Store {
    Service(Client),
    /// The files in this folder, which are not changed; and the labels of its sources, if a configuration is named.
    Disk(PathBuf, Box<View>, Option<Labels>),
}

impl Store {
    /// The service that runs on a data dir; its files if none runs.
    pub(super) fn of(data_dir: &Path) -> Result<Store, Failure> {
        match Client::connect(data_dir) {
            Some(service) => Ok(Store::Service(service)),
            None => Ok(Store::Disk(data_dir.to_owned(), Box::new(view(data_dir)?), None)),
        }
    }

    /// The same for a command that prints lines: those of a stopped store have the labels that the named configuration gives
    /// them.
    pub(super) fn with_labels(args: &StoreArgs) -> Result<Store, Failure> {
        let settings = store_settings(args)?;
        let mut store = Store::of(&data_dir(&args.data_dir, settings.as_ref()))?;
        if let (Store::Disk(_, view, labels), Some(settings)) = (&mut store, settings) {
            let of = labels_of(view.state(), &settings);
            *labels = Some(of.map_err(|error| Failure::could_not_run(error.to_string()))?);
        }
        Ok(store)
    }

    pub(super) fn status(&self) -> Result<StatusJson, Failure> {
        match self {
            Store::Service(service) => Ok(service.get("/v1/status")?),
            Store::Disk(_, view, _) => Ok(StatusJson::on_disk(view, wall_ms())),
        }
    }

    /// The same; of a stopped store, groups over some sources have the lines of these only, as `settings` says which.
    pub(super) fn status_with(&self, settings: Option<&Settings>) -> Result<StatusJson, Failure> {
        let mut status = self.status()?;
        if let (Store::Disk(_, view, _), Some(settings)) = (self, settings) {
            let own = own_lines(view, settings);
            for group in &mut status.groups {
                let Some(counted) = own.get(&group.group) else { continue };
                group.counting = counted.is_none();
                (group.lag_lines, group.lag_bytes) = counted.unwrap_or((group.lag_lines, group.lag_bytes));
                group.reason = group.reason.take().filter(|_| group.lag_lines > 0);
            }
        }
        Ok(status)
    }
}

/// How long a command counts the lines of groups over some sources in a stopped store: some 20 GB of lines.
const COUNT_WAIT: Duration = Duration::from_secs(5);

/// Of each group over some sources in a stopped store: its lines that wait and their bytes; `None` if they are too many to be
/// counted.
pub(super) fn own_lines(view: &View, settings: &Settings) -> BTreeMap<String, Option<(u64, u64)>> {
    let until = Instant::now() + COUNT_WAIT;
    let some = settings.groups.iter().filter(|group| !group.sources.is_all());
    let count = |group: &GroupSettings| {
        let (_, state) = view.state().group(&group.name)?;
        let counted = own_lines_waiting(view, state, &group.sources, first_path, until);
        Some((group.name.clone(), counted))
    };
    some.filter_map(count).collect()
}

/// Carries out a request: the service does it, or if none runs, this process. A message says which.
pub(super) fn administer(data_dir: &Path, request: AdminJson) -> Result<AnswerJson, Failure> {
    if let Some(service) = Client::connect(data_dir) {
        tracing::info!("asking the service that runs on {}", data_dir.display());
        return Ok(service.post("/v1/admin", &request)?);
    }
    tracing::info!("no service runs on {}: changing the store directly", data_dir.display());
    // `disk.keep` is not known here: nothing is removed.
    let disk = DiskOptions { keep: Keep::Age(u64::MAX), ..DiskOptions::default() };
    let log = Log::open(data_dir, Options { disk, ..Options::default() }).map_err(failure)?;
    let queue = Queue::start(log, Vec::new(), 0, WhenFull::Pause, |_| None).map_err(failure)?;
    let answer = queue.handle().ask_blocking(|reply| Command::Admin(request.into(), reply));
    let status = queue.handle().ask_blocking(Command::Status);
    // Recorded here, because no supervisor runs.
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
    fn a_full_disk_may_be_tried_again_and_a_broken_one_not() {
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
