//! The service: builds the parts, starts them, and stops them in the order that loses nothing. The only file that
//! knows all of them.
//!
//! A clean stop: the tail first, then the workers, which get [`FINISH_WAIT`] for the batch that is out, then the
//! owner. What was not finished comes again at the next start.
// long: the one place where all parts meet

mod build;
mod config_file;
mod crews;
mod notify;
mod preview;
mod reload;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use spillq_storage::{Error, Log, Options};
use tokio::signal::unix::{SignalKind, signal};

pub use preview::{command_missing, preview};
pub use reload::Reread;
use watched::Watched;
pub(crate) use watched::{killers, out_at_the_end};

use build::{SourcePaths, disk_options, group_settings, tail_settings, when_full};
use crews::Crews;
use notify::Manager;
use reload::{Live, Reload, said};

use crate::config::{Kind, Settings};
use crate::http::{Addresses, Api, ConfigDoor, StatusJson, reason, serve, unread};
use crate::plain::{counted, waiting};
use crate::processor::{Epoch, Orders, Processor};
use crate::queue::{Command, GroupStatus, MaxLag, Phase, Queue, Status, now_ms};
use crate::supervise::{Started, State, Supervisor};
use crate::tail::{Tail, TailHandle};

/// How long a clean stop waits for the batches that are out.
const FINISH_WAIT: Duration = Duration::from_secs(10);
/// How long it waits for them to end once they were told to.
const END_WAIT: Duration = Duration::from_secs(5);
/// How often is looked whether everything is done.
const LOOK: Duration = Duration::from_millis(50);
/// Without progress for so long, a command that ends by itself says what it waits for.
const STALLED: Duration = Duration::from_secs(10);

/// The log and its journals take about 20, a batch and its command 8, the socket and its clients the rest; with fewer,
/// an append or an ack could fail.
const DESCRIPTORS_MIN: u64 = 64;

/// Why the service did not do its job.
#[derive(Debug)]
pub enum ServiceError {
    /// The store: could not be opened, or failed.
    Store(Error),
    /// A part could not be started, or a setting does not fit the store; with the next step.
    Start(String, Option<String>),
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> ServiceError {
        ServiceError::Store(error)
    }
}

/// When it ends by itself.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Whether files are followed.
    pub follow: bool,
    /// End when all files were read and nothing waits for a processor.
    pub once: bool,
    /// End when nothing waits for these groups.
    pub drain: Option<Drain>,
    /// Read the configuration again on SIGHUP and when its file changes.
    pub reread: Option<Reread>,
    /// How it was started, for the commands that verdicts suggest.
    pub started: Started,
}

/// What `drain` is to do.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// One group, or all that have a processor.
    pub group: Option<String>,
    /// Lines to deliver at most.
    pub max_lines: Option<u64>,
    /// Time to take at most.
    pub time_max: Option<Duration>,
    /// Lines a second.
    pub rate: Option<u64>,
}

/// What a drain has done and has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Lines acked or set aside since it started.
    pub lines: u64,
    /// Bytes of them, estimated.
    pub bytes: u64,
    /// Lines that still wait.
    pub lines_left: u64,
    /// Bytes of them, estimated.
    pub bytes_left: u64,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// The last look at everything.
    pub status: StatusJson,
    /// Nothing waited any more, in a plan that ends by itself.
    pub all_done: bool,
    /// The drain's account.
    pub progress: Progress,
    /// Of a run that reads to the end: what matched and could not be read, each with the reason.
    pub unread: Vec<String>,
    /// Of a run that ends by itself: the groups whose lines cannot be delivered, each with the reason. It ended for them.
    pub stuck: Vec<String>,
}

/// Runs the service until its plan is done, or a signal ends it.
///
/// # Errors
/// See [`ServiceError`].
pub fn run(
    settings: &Settings,
    plan: &Plan,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Ended, ServiceError> {
    run_with(settings, plan, Vec::new(), on_progress)
}

/// [`run`] within a program of yours: each of `own` gets the batches of the group it is named with, beside the
/// processors of the settings. See `examples/embed.rs`.
///
/// # Errors
/// See [`ServiceError`].
pub fn run_with(
    settings: &Settings,
    plan: &Plan,
    own: Vec<(String, Box<dyn Processor>)>,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Ended, ServiceError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("spillq-worker")
        .enable_all()
        .build()
        .map_err(|error| ServiceError::Start(format!("could not start the runtime: {error}"), None))?;
    let result = runtime.block_on(run_within(settings, plan, own, on_progress));
    // A processor that blocks a thread must not hold up the end of the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn run_within(
    settings: &Settings,
    plan: &Plan,
    own: Vec<(String, Box<dyn Processor>)>,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Ended, ServiceError> {
    let mut signals = Signals::new()?;
    let served_groups = served_groups(settings, plan, &own);
    let (mut reload, door) = plan.reread.clone().map(Reload::new).transpose()?.unzip();
    let parts = Parts::start(settings, plan, own, door).await?;
    let Parts { mut queue, mut live, api, served, supervisor } = parts;
    let handle = queue.handle();
    let first = ask(&mut queue).await?;
    let mut manager = Manager::from_environment();
    manager.ready(handle.clone());
    manager.watch(&queue.pulse());
    let started = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut all_done = false;
    let mut moved = (0, Instant::now());
    let mut stuck = Vec::new();
    loop {
        tokio::select! {
            error = queue.failed() => return Err(ServiceError::Store(error)),
            name = signals.next() => {
                tracing::info!("{name}: stopping");
                break;
            }
            _ = look.tick(), if plan.once || plan.drain.is_some() => {
                let read_all = live.tail.as_ref().is_none_or(|tail| tail.done() || tail.has_ended());
                let status = ask(&mut queue).await?;
                let progress = account(&first, &status, &served_groups);
                on_progress(progress);
                if progress.lines != moved.0 {
                    moved = (progress.lines, Instant::now());
                } else if moved.1.elapsed() >= STALLED && progress.lines_left > 0 {
                    moved.1 = Instant::now();
                    tell_why_it_waits(&status, &served_groups);
                }
                let over = plan.drain.as_ref().and_then(|drain| drain.time_max).is_some_and(|max| started.elapsed() >= max);
                all_done = read_all && progress.lines_left == 0;
                // While ingestion is paused nothing more is read: what holds a group may be why.
                if read_all || status.full.is_some() {
                    stuck = stuck_groups(&status, &served_groups);
                }
                if all_done || over || !stuck.is_empty() || (plan.drain.is_some() && live.crews.is_empty()) {
                    break;
                }
            }
            Some(ended) = live.crews.ended() => {
                for error in ended? {
                    tracing::error!("{}", said(&error));
                }
                live.supervision.set_processors(live.crews.names());
            }
            cause = wanted(&mut reload) => {
                if let Some(reload) = &mut reload {
                    reload.carry_out(cause, &mut live, &manager).await;
                }
            }
        }
    }
    manager.stopping();
    let Live { tail, mut crews, .. } = live;
    let unread = match tail.clone().filter(|_| plan.once) {
        Some(tail) => tokio::task::spawn_blocking(move || unread(&tail)).await.unwrap_or_else(|error| {
            vec![format!("it is not known which files: asking for them failed: {error}")]
        }),
        None => Vec::new(),
    };
    if let Some(tail) = tail {
        let stopped = tokio::task::spawn_blocking(move || stop_tail(tail)).await.unwrap_or(false);
        if !stopped {
            tracing::warn!("the tail hangs in a read and was left behind; its checkpoints are in the log");
        }
    }
    crews.tell_all(Orders::Finish);
    if tokio::time::timeout(FINISH_WAIT, crews.all_ended()).await.is_err() {
        crews.tell_all(Orders::GiveUp);
        if tokio::time::timeout(END_WAIT, crews.all_ended()).await.is_err() {
            tracing::warn!("a processor did not end in time; its lines come again at the next start");
        }
    }
    let Ok(status) = api.status().await else { return Err(queue.failed().await.into()) };
    let last = ask(&mut queue).await?;
    let progress = account(&first, &last, &served_groups);
    served.abort();
    // Removed while the lock is held: a socket that is there belongs to a service that runs.
    drop(std::fs::remove_file(settings.data_dir.join(crate::http::SOCKET)));
    tokio::task::spawn_blocking(move || queue.stop().map(|()| supervisor.stop(&last)))
        .await
        .unwrap_or_else(|_| Err(Error::Poisoned("the owner of the log panicked".to_owned())))?;
    Ok(Ended { status, all_done: all_done && progress.lines_left == 0, progress, unread, stuck })
}

async fn wanted(reload: &mut Option<Reload>) -> reload::Cause {
    match reload {
        Some(reload) => reload.wanted().await,
        None => std::future::pending().await,
    }
}

/// The last holder stops it; the server's share of it was only for looking.
fn stop_tail(tail: Arc<TailHandle>) -> bool {
    tail.stop()
}

/// An owner that does not answer any more has ended, and its end says why.
async fn ask(queue: &mut Queue) -> Result<Status, ServiceError> {
    match queue.handle().ask(Command::Status).await {
        Ok(status) => Ok(status),
        Err(_closed) => Err(queue.failed().await.into()),
    }
}

/// Why a run that is to end by itself cannot get to its end, a sentence for each group: nothing waits but lines that an
/// operator has to decide about, or that failed alone as often as it tries. Empty while any group gets on.
fn stuck_groups(status: &Status, served: &[String]) -> Vec<String> {
    let waits = |group: &&GroupStatus| served.contains(&group.name) && group.lag_lines > 0;
    let behind: Vec<&GroupStatus> = status.groups.iter().filter(waits).collect();
    if !behind.iter().all(|group| group.is_exhausted) {
        return Vec::new();
    }
    let sentence = |group: &&GroupStatus| {
        let GroupStatus { name, lag_lines, attempts_max, .. } = group;
        let lines = waiting(*lag_lines);
        let why = match &group.phase {
            Phase::Retrying { .. } => {
                format!("each failed alone {}", counted(u64::from(*attempts_max), "time"))
            }
            Phase::Refused { rejected: None, .. } => "the destination refuses everything".to_owned(),
            Phase::Refused { rejected: Some(rejected), .. } => {
                format!("every line is rejected, line {} too", rejected.seq)
            }
            Phase::Paused => "an operator paused the group".to_owned(),
            phase => reason(phase, now_ms()).unwrap_or_else(|| "none of them can be delivered".to_owned()),
        };
        let last = group.last_failure.as_deref().and_then(|failure| failure.lines().next());
        let last = last.map(|last| format!(" (the last failure: {last})")).unwrap_or_default();
        format!("group {name}: {lines}: {why}{last}")
    };
    behind.iter().map(sentence).collect()
}

/// A drain that does not get on says why, so that it can be told from a slow one.
fn tell_why_it_waits(status: &Status, served: &[String]) {
    for group in status.groups.iter().filter(|group| served.contains(&group.name) && group.lag_lines > 0) {
        let reason = reason(&group.phase, now_ms()).unwrap_or_else(|| "a batch is out".to_owned());
        let state = State::from(&group.phase).word();
        tracing::warn!(group = group.name, state, waits = group.lag_lines, "{reason}");
    }
}

/// The groups whose lines are handed out, and counted.
fn served_groups(settings: &Settings, plan: &Plan, own: &[(String, Box<dyn Processor>)]) -> Vec<String> {
    let only = plan.drain.as_ref().and_then(|drain| drain.group.as_ref());
    let configured = settings.processors.iter().map(|processor| &processor.group);
    configured
        .chain(own.iter().map(|(group, _)| group))
        .filter(|name| only.is_none_or(|only| only == *name))
        .cloned()
        .collect()
}

/// What was done since `first`, for the groups that are served.
fn account(first: &Status, now: &Status, served: &[String]) -> Progress {
    let counts = |group: &&GroupStatus| served.contains(&group.name);
    let mut progress = Progress::default();
    for group in now.groups.iter().filter(counts) {
        let before = first.groups.iter().find(|before| before.id == group.id);
        let (acked, bytes) = before.map_or((0, 0), |before| (before.acked_lines, before.lag_bytes));
        let dead = before.map_or(0, |before| group.dead_letters.saturating_sub(before.dead_letters));
        progress.lines += group.acked_lines - acked + dead;
        progress.bytes += bytes.saturating_sub(group.lag_bytes);
        progress.lines_left += group.lag_lines;
        progress.bytes_left += group.lag_bytes;
    }
    progress
}

struct Parts {
    queue: Queue,
    live: Live,
    api: Api,
    served: tokio::task::JoinHandle<()>,
    supervisor: Supervisor,
}

impl Parts {
    async fn start(
        settings: &Settings,
        plan: &Plan,
        own: Vec<(String, Box<dyn Processor>)>,
        door: Option<ConfigDoor>,
    ) -> Result<Parts, ServiceError> {
        enough_to_run(settings)?;
        // Before the log is opened: an address that another has is no reason to hand lines out and stop.
        let bound = Addresses::bind(&settings.http.addresses(), &settings.http.hosts).await;
        let addresses = bound.map_err(|(address, error)| cannot_listen(address, &error))?;
        let options = Options { disk: disk_options(&settings.disk), ..Options::default() };
        let opened = Instant::now();
        let log = if plan.drain.is_some() {
            Log::open(&settings.data_dir, options)?
        } else {
            Log::open_or_create(&settings.data_dir, options)?
        };
        let state = log.state();
        if let Some(name) = plan.drain.as_ref().and_then(|drain| drain.group.as_ref())
            && state.group(name).is_none()
        {
            let there = state.groups.values().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ");
            let hint = format!("the store has: {there}");
            return Err(ServiceError::Start(format!("there is no group {name} to drain"), Some(hint)));
        }
        for finding in log.findings() {
            tracing::warn!("{finding}");
        }
        let (lines, run) = (state.next_seq.prev().0, state.run);
        let (epoch, first_start, next_source) = (Epoch::of_store(state), state.run == 1, state.next_source);
        let known: Vec<_> = state
            .sources
            .iter()
            .filter(|(_, source)| !source.forgotten)
            .map(|(id, source)| (*id, bytes::Bytes::copy_from_slice(&source.checkpoint)))
            .collect();
        // Stored lines name the forgotten ones too.
        let paths = SourcePaths::new(state.sources.iter().map(|(id, source)| (*id, &source.checkpoint[..])));
        let mut groups = group_settings(settings, &log);
        if plan.drain.is_some() {
            // Nothing is taken in for which room would have to be made.
            groups.iter_mut().for_each(|group| group.max_lag = MaxLag::default());
        }
        if plan.once || plan.drain.is_some() {
            // There may be no more lines to wait for.
            groups.iter_mut().for_each(|group| group.linger_ms = 0);
        }
        if let Some(rate) = plan.drain.as_ref().and_then(|drain| drain.rate) {
            // No batch is more than a second's lines.
            groups.iter_mut().for_each(|group| group.batch_lines = group.batch_lines.min(rate.max(1)));
        }
        let watched = Watched::before(settings, &log)?;
        let window_bytes = usize::try_from(settings.window.bytes).unwrap_or(usize::MAX);
        let mut queue = Queue::start_with(log, groups, window_bytes, when_full(&settings.disk))?;
        tracing::info!(
            data_dir = %settings.data_dir.display(), lines, run, ms = opened.elapsed().as_millis() as u64, "the log is open"
        );
        let tail = if plan.follow {
            let handle = queue.handle();
            let tail = Tail::start(tail_settings(settings, plan, first_start), known, next_source, handle)
                .map_err(|error| ServiceError::Start(error.to_string(), None))?;
            Some(Arc::new(tail))
        } else {
            None
        };
        paths.refresh_from(tail.clone());
        let drain = plan.drain.clone().unwrap_or_default();
        let mut crews = Crews::new(&queue, epoch, paths, drain.max_lines, drain.rate);
        let Ok(groups) = queue.handle().ask(Command::Groups).await else {
            return Err(queue.failed().await.into());
        };
        let serves = |name: &str| drain.group.as_ref().is_none_or(|only| only == name);
        for (group, processor) in own.into_iter().filter(|(group, _)| serves(group)) {
            crews.employ(&group, processor, &groups);
        }
        if let Some(error) = crews.set(settings, &groups, serves).into_iter().next() {
            return Err(error);
        }
        let (supervision, supervisor) =
            watched.start(settings, &plan.started, &crews.names(), &queue, tail.clone())?;
        if plan.drain.is_some() {
            supervision.set_served(served_groups(settings, plan, &[]));
        }
        let api =
            Api::new(queue.handle(), queue.window(), tail.clone(), supervision.clone(), &settings.data_dir);
        let api = api.with_config(door).with_replays(crews.replays());
        let serving = serve(&settings.data_dir, addresses, api.clone()).map_err(|error| {
            let socket = settings.data_dir.join(crate::http::SOCKET);
            ServiceError::Start(format!("could not listen on {}: {error}", socket.display()), None)
        })?;
        let served = tokio::spawn(serving);
        let live = Live { settings: settings.clone(), handle: queue.handle(), tail, crews, supervision };
        Ok(Parts { queue, live, api, served, supervisor })
    }
}

/// Refuses to start without what everything else needs: a service that fails in the middle of its work is worse.
fn enough_to_run(settings: &Settings) -> Result<(), ServiceError> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < DESCRIPTORS_MIN {
        let what =
            format!("{limit} file descriptors are too few: the service needs at least {DESCRIPTORS_MIN}");
        let hint = "raise the limit: `ulimit -n 1024`, or LimitNOFILE=16384 of the unit".to_owned();
        return Err(ServiceError::Start(what, Some(hint)));
    }
    if std::path::Path::new("/proc/self/exe").exists() {
        return Ok(());
    }
    let is_command = |kind: &Kind| matches!(kind, Kind::Exec { .. } | Kind::ExecStream { .. });
    if settings.processors.iter().any(|processor| is_command(&processor.kind)) {
        let what = "/proc is not mounted: commands are started, watched and ended through it".to_owned();
        let hint = "mount it: `mount -t proc proc /proc`; destinations such as http and file work without"
            .to_owned();
        return Err(ServiceError::Start(what, Some(hint)));
    }
    tracing::warn!("/proc is not mounted: out-of-memory kills and memory use are not reported");
    Ok(())
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
            "ports below 1024 want more rights: choose a higher one".to_owned()
        }
        _ => "listen under [http] names it".to_owned(),
    };
    ServiceError::Start(format!("could not listen on {address}: {error}"), Some(hint))
}

/// What ends the service from outside.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals, ServiceError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| ServiceError::Start(format!("could not listen for signals: {error}"), None))
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
