//! Builds the parts and starts them, each after those that it needs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use spillq_storage::{Log, Options};

use super::build::{SourcePaths, group_settings, never, tail_settings};
use super::drain::served_groups;
use super::plan::{Plan, ServiceError};
use super::reload::Live;
use super::watched::Watched;
use super::worker_pool::WorkerPool;
use crate::config::Settings;
use crate::consumers::{Access, Coordinator};
use crate::http::{Addresses, Api, CannotBind, ConfigHandle, ConsumerSockets, SOCKET, serve};
use crate::processor::{Epoch, Processor};
use crate::queue::{Command, GroupSettings, MaxLag, Queue, Status};
use crate::supervise::Supervisor;
use crate::tail::{Follows, TailHandle, first_path};

/// The log and its journals take about 20, a batch and its command 8, the socket and its clients the rest; with fewer,
/// an append or an ack could fail.
const DESCRIPTORS_MIN: u64 = 64;

/// The running parts.
pub(super) struct Parts {
    pub(super) queue: Queue,
    pub(super) live: Live,
    pub(super) api: Api,
    /// Serves `api`, and consumers.
    pub(super) served: tokio::task::JoinHandle<()>,
    pub(super) supervisor: Supervisor,
}

impl Parts {
    /// Starts them. The status is that before the first line was read or delivered: what the run does is counted from it.
    pub(super) async fn start(
        settings: &Settings,
        plan: &Plan,
        own: Vec<(String, Box<dyn Processor>)>,
        config: Option<ConfigHandle>,
    ) -> Result<(Parts, Status), ServiceError> {
        check_process(settings)?;
        // Before the log is opened: a service that cannot listen must not deliver lines first.
        let bound = Addresses::bind(&settings.http.addresses(), &settings.http.hosts).await;
        let addresses = bound.map_err(|(address, error)| cannot_listen(address, &error))?;
        Access::check(&settings.groups, settings.consumers.token.as_ref()).map_err(token_unreadable)?;
        let sockets = match plan.drain {
            // Only processors drain.
            Some(_) => ConsumerSockets::default(),
            None => bind_sockets(settings).await?,
        };
        let opened = Instant::now();
        let log = open_log(settings, plan)?;
        let state = log.state();
        let (lines, run, next_source) = (state.next_seq().prev().0, state.run(), state.next_source());
        let known = state.sources().iter().filter(|(_, source)| !source.forgotten);
        let known = known.map(|(id, source)| (*id, Bytes::copy_from_slice(&source.checkpoint))).collect();
        let epoch = Epoch::of_store(state);
        let paths = SourcePaths::of(state);
        let follows = Follows::new(settings.follow.clone(), &never(settings));
        paths.set_follows(follows.map_err(|error| ServiceError::Start(error.to_string(), None))?);
        let groups = groups_for(settings, plan, &log);
        let watched = Watched::before(settings, &log)?;
        let mut queue = Queue::start(log, groups, settings.window_bytes, settings.when_full, first_path)?;
        tracing::info!(
            data_dir = %settings.data_dir.display(), lines, run, ms = opened.elapsed().as_millis() as u64, "the log is open"
        );
        let first = ask(&mut queue).await?;
        let tail = if plan.follow {
            let tail = TailHandle::start(
                tail_settings(settings, plan, run == 1),
                known,
                next_source,
                queue.handle(),
            );
            Some(Arc::new(tail.map_err(|error| ServiceError::Start(error.to_string(), None))?))
        } else {
            None
        };
        paths.refresh_from(tail.clone());
        let paths_of_live = paths.clone();
        let own_groups: Vec<String> = own.iter().map(|(group, _)| group.clone()).collect();
        let coordinator = Coordinator::new(queue.handle(), queue.window(), epoch, run, paths.lookup());
        let workers = start_workers(settings, plan, own, &mut queue, (epoch, paths)).await?;
        let (supervision, supervisor) =
            watched.start(settings, &plan.started, &workers.names(), &queue, tail.clone())?;
        if plan.drain.is_some() {
            supervision.set_served(served_groups(settings, plan, &[]));
        }
        let api =
            Api::new(queue.handle(), queue.window(), tail.clone(), supervision.clone(), &settings.data_dir);
        let api = api
            .with_config(config)
            .with_replays(workers.replays())
            .with_coordinator(Arc::clone(&coordinator));
        let serving = serve(&settings.data_dir, addresses, api.clone()).map_err(|error| {
            let socket = settings.data_dir.join(SOCKET);
            ServiceError::Start(format!("could not listen on {}: {error}", socket.display()), None)
        })?;
        let (look, is_open) =
            (Arc::downgrade(&coordinator), !settings.consumers.listen.is_empty() && plan.drain.is_none());
        supervision.set_consumers(move || {
            look.upgrade().map(|coordinator| coordinator.seen(is_open)).unwrap_or_default()
        });
        let mut live = Live {
            settings: settings.clone(),
            handle: queue.handle(),
            tail,
            workers,
            supervision,
            coordinator: Arc::clone(&coordinator),
            paths: paths_of_live,
            own_groups,
        };
        let Ok(groups) = queue.handle().ask(Command::Groups).await else {
            return Err(queue.failed().await.into());
        };
        live.open_groups(&groups).map_err(token_unreadable)?;
        let served = tokio::spawn(async move {
            tokio::join!(serving, sockets.serve(Arc::clone(&coordinator)), coordinator.run());
        });
        Ok((Parts { queue, live, api, served, supervisor }, first))
    }
}

/// The status; an owner that does not answer has ended, and its result says why.
pub(super) async fn ask(queue: &mut Queue) -> Result<Status, ServiceError> {
    match queue.handle().ask(Command::Status).await {
        Ok(status) => Ok(status),
        Err(_closed) => Err(queue.failed().await.into()),
    }
}

/// Refuses to start without what every part needs: a service that fails in the middle of its work is worse.
fn check_process(settings: &Settings) -> Result<(), ServiceError> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < DESCRIPTORS_MIN {
        let what =
            format!("{limit} file descriptors are too few: the service needs at least {DESCRIPTORS_MIN}");
        let hint = "raise the limit: `ulimit -n 1024`, or LimitNOFILE=16384 of the unit".to_owned();
        return Err(ServiceError::Start(what, Some(hint)));
    }
    if Path::new("/proc/self/exe").exists() {
        return Ok(());
    }
    if settings.processors.iter().any(|processor| processor.kind.of().is_command()) {
        let what = "/proc is not mounted: commands are started, watched and ended through it".to_owned();
        let hint = "mount it: `mount -t proc proc /proc`; destinations such as http and file work without"
            .to_owned();
        return Err(ServiceError::Start(what, Some(hint)));
    }
    tracing::warn!("/proc is not mounted: out-of-memory kills and memory use are not reported");
    Ok(())
}

fn open_log(settings: &Settings, plan: &Plan) -> Result<Log, ServiceError> {
    let options = Options { disk: settings.disk, ..Options::default() };
    let log = match plan.drain {
        Some(_) => Log::open(&settings.data_dir, options)?,
        None => Log::open_or_create(&settings.data_dir, options)?,
    };
    let state = log.state();
    if let Some(name) = plan.drain.as_ref().and_then(|drain| drain.group.as_ref())
        && state.group(name).is_none()
    {
        let there = state.groups().values().map(|group| group.name()).collect::<Vec<_>>().join(", ");
        let hint = format!("the store has: {there}");
        return Err(ServiceError::Start(format!("there is no group {name} to drain"), Some(hint)));
    }
    for finding in log.findings() {
        tracing::warn!("{finding}");
    }
    Ok(log)
}

/// The configured groups, changed as the plan demands.
fn groups_for(settings: &Settings, plan: &Plan, log: &Log) -> Vec<GroupSettings> {
    let mut groups = group_settings(settings, log);
    let drain = plan.drain.as_ref();
    for group in &mut groups {
        if drain.is_some() {
            // A drain ingests nothing for which space would have to be made.
            group.max_lag = MaxLag::default();
        }
        if drain.is_some() || plan.once {
            // There may be no more lines to wait for.
            group.linger_ms = 0;
        }
        if let Some(rate) = drain.and_then(|drain| drain.rate) {
            // No batch is larger than one second's lines.
            group.batch_lines = group.batch_lines.min(rate.max(1));
        }
    }
    groups
}

async fn start_workers(
    settings: &Settings,
    plan: &Plan,
    own: Vec<(String, Box<dyn Processor>)>,
    queue: &mut Queue,
    (epoch, paths): (Epoch, SourcePaths),
) -> Result<WorkerPool, ServiceError> {
    let drain = plan.drain.clone().unwrap_or_default();
    let mut workers = WorkerPool::new(queue, epoch, paths, drain.max_lines, drain.rate);
    let Ok(groups) = queue.handle().ask(Command::Groups).await else {
        return Err(queue.failed().await.into());
    };
    let serves = |name: &str| drain.group.as_ref().is_none_or(|only| only == name);
    for (group, processor) in own.into_iter().filter(|(group, _)| serves(group)) {
        workers.start_embedded(&group, processor, &groups);
    }
    match workers.set(settings, &groups, serves).into_iter().next() {
        Some(error) => Err(error),
        None => Ok(workers),
    }
}

fn token_unreadable(error: String) -> ServiceError {
    let hint = "token under [consumers] or [[group]] names the file or the variable".to_owned();
    ServiceError::Start(error, Some(hint))
}

/// Binds the sockets of consumers.
async fn bind_sockets(settings: &Settings) -> Result<ConsumerSockets, ServiceError> {
    let consumers = &settings.consumers;
    let mode = (consumers.socket_mode, consumers.socket_group.as_deref());
    let bound = ConsumerSockets::bind(&consumers.unix(), &consumers.tcp(), mode, &settings.http.hosts).await;
    bound.map_err(|CannotBind { socket, error, hint }| {
        ServiceError::Start(format!("could not listen on {socket}: {error}"), Some(hint))
    })
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> ServiceError {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!(
                "another program has it: `ss -ltnp 'sport = :{port}'` names it; or change listen under [http]"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this host has it: `ip address` lists them".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need more privileges: choose a higher one".to_owned()
        }
        _ => "listen under [http] names it".to_owned(),
    };
    ServiceError::Start(format!("could not listen on {address}: {error}"), Some(hint))
}
