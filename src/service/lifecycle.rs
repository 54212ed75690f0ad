//! A run of the service from its start to its clean stop.
//!
//! A clean stop ends the tail first, then the workers, which get [`FINISH_WAIT`] for the batch in flight, then the owner
//! of the log. Lines of a batch that did not finish come again at the next start.

use std::time::Duration;

use spillq_storage::Error;
use tokio::signal::unix::SignalKind;

use super::drain::{Account, served_groups};
use super::notify::Manager;
use super::plan::{Ended, Plan, Progress, ServiceError};
use super::reload::{Cause, Live, Reload, listen};
use super::startup::{Parts, ask};
use crate::config::Settings;
use crate::http::{SOCKET, unread};
use crate::processor::{Orders, Processor};

/// How long a clean stop waits for the batches in flight.
const FINISH_WAIT: Duration = Duration::from_secs(10);
/// How long it waits after it has told the processors to give up.
const END_WAIT: Duration = Duration::from_secs(5);
/// How often a run that ends by itself checks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

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

/// [`run`] inside another program: each processor of `own` gets the batches of the group that it is named with, in
/// addition to the processors of the settings. See `examples/embed.rs`.
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
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let served = served_groups(settings, plan, &own);
    let (mut reload, config) = plan.reread.clone().map(Reload::new).transpose()?.unzip();
    let (mut parts, first) = Parts::start(settings, plan, own, config).await?;
    let mut account = Account::new(plan, served, first);
    let mut manager = Manager::from_environment();
    manager.ready(parts.queue.handle());
    manager.watch(&parts.queue.pulse());
    let ends_by_itself = plan.once || plan.drain.is_some();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            error = parts.queue.failed() => return Err(ServiceError::Store(error)),
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: stopping");
                break;
            }
            _ = interrupt.recv() => {
                tracing::info!("SIGINT: stopping");
                break;
            }
            _ = look.tick(), if ends_by_itself => {
                let read_all = parts.live.tail.as_ref().is_none_or(|tail| tail.done() || tail.has_ended());
                let status = ask(&mut parts.queue).await?;
                let progress = account.progress(&status);
                on_progress(progress);
                if account.is_over(&status, progress, read_all, !parts.live.workers.is_empty()) {
                    break;
                }
            }
            Some(ended) = parts.live.workers.ended() => {
                for error in ended? {
                    tracing::error!("{error}");
                }
                parts.live.supervision.set_processors(parts.live.workers.names());
            }
            cause = wanted(&mut reload) => {
                if let Some(reload) = &mut reload {
                    reload.carry_out(cause, &mut parts.live, &manager).await;
                }
            }
        }
    }
    manager.stopping();
    stop(parts, settings, account).await
}

/// Stops the parts in the order that loses nothing.
async fn stop(parts: Parts, settings: &Settings, account: Account<'_>) -> Result<Ended, ServiceError> {
    let Parts { mut queue, live: Live { tail, mut workers, coordinator, .. }, api, served, supervisor } =
        parts;
    let unread = match tail.clone().filter(|_| account.plan.once) {
        Some(tail) => tokio::task::spawn_blocking(move || unread(&tail))
            .await
            .unwrap_or_else(|error| vec![format!("could not list the unread files: {error}")]),
        None => Vec::new(),
    };
    if let Some(tail) = tail {
        let stopped = tokio::task::spawn_blocking(move || tail.stop()).await.unwrap_or(false);
        if !stopped {
            tracing::warn!("the tail hangs in a read and is left behind; its checkpoints are in the log");
        }
    }
    workers.end_all(Orders::Finish);
    let (_, finished) =
        tokio::join!(coordinator.stop(FINISH_WAIT), tokio::time::timeout(FINISH_WAIT, workers.all_ended()));
    if finished.is_err() {
        workers.end_all(Orders::GiveUp);
        if tokio::time::timeout(END_WAIT, workers.all_ended()).await.is_err() {
            tracing::warn!("a processor did not end in time; its lines come again at the next start");
        }
    }
    let Ok(status) = api.status().await else { return Err(queue.failed().await.into()) };
    let last = ask(&mut queue).await?;
    let progress = account.progress(&last);
    served.abort();
    // While the lock is still held: a socket that exists belongs to a service that runs.
    drop(std::fs::remove_file(settings.data_dir.join(SOCKET)));
    tokio::task::spawn_blocking(move || queue.stop().map(|()| supervisor.stop(&last)))
        .await
        .unwrap_or_else(|_| Err(Error::Poisoned("the owner of the log panicked".to_owned())))?;
    let all_done = account.all_done && progress.lines_left == 0;
    Ok(Ended { status, all_done, progress, unread, stuck: account.stuck })
}

async fn wanted(reload: &mut Option<Reload>) -> Cause {
    match reload {
        Some(reload) => reload.wanted().await,
        None => std::future::pending().await,
    }
}
