//! The workers of all groups: starts them, ends them, and replaces them when the configuration changes.
//!
//! A worker that is no longer wanted takes no new batch, finishes the one in flight, and ends. While a worker of a group
//! is ending, no other of that group starts, nor one that writes the same file. A worker whose processor and group are
//! unchanged keeps running: other limits reach it through a channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use spillq_storage::GroupId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ServiceError;
use super::build::{SourcePaths, build};
use super::preview::program_file;
use crate::config::{self, Settings};
use crate::processor::{DeliverySettings, Epoch, Limits, Orders, Pace, Processor, Worker};
use crate::queue::{GroupSettings, Handle, Queue, Replays, Window};
use crate::supervise::{ProcessorKind, ProcessorName};

/// The groups as the owner has them.
pub(super) type Groups = [(GroupId, Arc<GroupSettings>)];

/// All workers, by number.
pub(super) struct WorkerPool {
    tasks: JoinSet<u64>,
    workers: BTreeMap<u64, Running>,
    next_worker: u64,
    wanted: BTreeMap<String, Wanted>,
    delivery: BTreeMap<String, watch::Sender<DeliverySettings>>,
    /// Lines a second, in addition to the groups' rates.
    rate: Option<u64>,
    limits: Limits,
    handle: Handle,
    window: Arc<Window>,
    epoch: Epoch,
    paths: SourcePaths,
    replays: Replays,
}

/// A worker that runs.
struct Running {
    group: String,
    id: GroupId,
    /// From the configuration. `None` for the processor of an embedding program, which is never replaced.
    processor: Option<config::Processor>,
    name: ProcessorName,
    orders: watch::Sender<Orders>,
    is_ending: bool,
}

/// The workers that a group should have.
struct Wanted {
    id: GroupId,
    processor: config::Processor,
    workers: usize,
    timeout: Duration,
}

impl WorkerPool {
    /// An empty pool. `lines_left` bounds what all workers deliver together, `rate` what each group gets.
    pub(super) fn new(
        queue: &Queue,
        epoch: Epoch,
        paths: SourcePaths,
        lines_left: Option<u64>,
        rate: Option<u64>,
    ) -> WorkerPool {
        WorkerPool {
            tasks: JoinSet::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            wanted: BTreeMap::new(),
            delivery: BTreeMap::new(),
            rate,
            limits: Limits { lines_left: lines_left.map(|lines| Arc::new(AtomicU64::new(lines))) },
            handle: queue.handle(),
            window: queue.window(),
            epoch,
            paths,
            replays: Replays::default(),
        }
    }

    /// Where a seek asks a worker to deliver lines again.
    pub(super) fn replays(&self) -> Replays {
        self.replays.clone()
    }

    /// Starts a worker with the processor of an embedding program, if `groups` has the group.
    pub(super) fn start_embedded(&mut self, group: &str, processor: Box<dyn Processor>, groups: &Groups) {
        self.publish_settings(groups);
        if let Some((id, _)) = groups.iter().find(|(_, settings)| settings.name == group) {
            self.start(group, *id, processor, None);
        }
    }

    /// Builds the processors that are new in `settings`, and drops them again: an error here has changed nothing.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), ServiceError> {
        for processor in &settings.processors {
            let known =
                self.wanted.get(&processor.group).is_some_and(|wanted| wanted.processor == *processor);
            if !known {
                let timeout_ms = settings.group(&processor.group).map_or(0, |group| group.timeout_ms);
                build(processor, self.epoch, Duration::from_millis(timeout_ms), &self.paths)?;
            }
        }
        Ok(())
    }

    /// Runs the processors of `settings` from now on, of those groups that `serves` accepts. Returns the errors of those
    /// that could not be started.
    pub(super) fn set(
        &mut self,
        settings: &Settings,
        groups: &Groups,
        serves: impl Fn(&str) -> bool,
    ) -> Vec<ServiceError> {
        self.publish_settings(groups);
        let wanted = settings.processors.iter().filter(|processor| serves(&processor.group));
        let wanted = wanted.filter_map(|processor| {
            let (id, group) = groups.iter().find(|(_, group)| group.name == processor.group)?;
            let timeout = Duration::from_millis(group.timeout_ms);
            let (processor, workers) = (processor.clone(), group.in_flight);
            Some((processor.group.clone(), Wanted { id: *id, processor, workers, timeout }))
        });
        self.wanted = wanted.collect();
        self.fill()
    }

    /// Waits until a worker ends, and starts those that waited for it. Returns the errors of those that could not be
    /// started; `None` when no worker runs.
    pub(super) async fn ended(&mut self) -> Option<Result<Vec<ServiceError>, ServiceError>> {
        let worker = match self.tasks.join_next().await? {
            Ok(worker) => worker,
            Err(error) => {
                let what = format!("a worker ended unexpectedly: {error}");
                return Some(Err(ServiceError::Start(what, None)));
            }
        };
        let worker = self.workers.remove(&worker);
        if let Some(worker) = worker.filter(|worker| !worker.is_ending)
            && let Some(wanted) = self.wanted.get_mut(&worker.group)
        {
            // It has delivered as many lines as it may.
            wanted.workers = wanted.workers.saturating_sub(1);
        }
        Some(Ok(self.fill()))
    }

    /// The processors that run, by group.
    pub(super) fn names(&self) -> BTreeMap<String, ProcessorName> {
        self.workers.values().map(|worker| (worker.group.clone(), worker.name.clone())).collect()
    }

    /// Groups whose new processor waits for the last batch of the one before it.
    pub(super) fn waiting(&self) -> Vec<String> {
        let ending =
            |group: &String| self.workers.values().any(|worker| worker.is_ending && worker.group == *group);
        self.wanted.keys().filter(|group| ending(group)).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Orders all workers to end. No other starts after that.
    pub(super) fn end_all(&mut self, orders: Orders) {
        self.wanted.clear();
        for worker in self.workers.values_mut() {
            worker.is_ending = true;
            worker.orders.send_replace(orders);
        }
    }

    /// Waits until no worker runs.
    pub(super) async fn all_ended(&mut self) {
        while self.ended().await.is_some() {}
    }

    /// Sends the settings and the pace of each group to its workers, and keeps them for those to come.
    fn publish_settings(&mut self, groups: &Groups) {
        self.delivery.retain(|name, _| groups.iter().any(|(_, group)| group.name == *name));
        for (_, settings) in groups {
            let rate = settings.rate.into_iter().chain(self.rate).min();
            let settings = Arc::clone(settings);
            match self.delivery.get(&settings.name) {
                None => {
                    let (name, pace) = (settings.name.clone(), rate.map(Pace::new));
                    self.delivery.insert(name, watch::channel(DeliverySettings { settings, pace }).0);
                }
                Some(delivery) => {
                    delivery.send_modify(|delivery| {
                        // A new pace would forget the batches that are not paid for yet.
                        if delivery.pace.as_ref().map(Pace::lines_per_second) != rate {
                            delivery.pace = rate.map(Pace::new);
                        }
                        delivery.settings = settings;
                    });
                }
            }
        }
    }

    /// Ends the workers that are not wanted, and starts those that are missing and may start.
    fn fill(&mut self) -> Vec<ServiceError> {
        let mut working: BTreeMap<String, usize> = BTreeMap::new();
        for worker in self.workers.values_mut().filter(|worker| !worker.is_ending) {
            let Some(processor) = &worker.processor else { continue };
            let wanted = self.wanted.get(&worker.group);
            let wanted = wanted.filter(|wanted| wanted.processor == *processor && wanted.id == worker.id);
            let working = working.entry(worker.group.clone()).or_default();
            if wanted.is_some_and(|wanted| *working < wanted.workers) {
                *working += 1;
            } else {
                worker.is_ending = true;
                worker.orders.send_replace(Orders::Finish);
            }
        }
        let missing: Vec<(String, usize)> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| self.may_start(wanted))
            .map(|(group, wanted)| {
                let working = working.get(group).copied().unwrap_or_default();
                (group.clone(), wanted.workers.saturating_sub(working))
            })
            .collect();
        let mut failed = Vec::new();
        for (group, workers) in missing {
            for _ in 0..workers {
                let Some(Wanted { id, processor, timeout, .. }) = self.wanted.get(&group) else { continue };
                let (id, processor) = (*id, processor.clone());
                match build(&processor, self.epoch.of_group(id), *timeout, &self.paths) {
                    Ok(built) => self.start(&group, id, built, Some(processor)),
                    Err(error) => failed.push(error),
                }
            }
        }
        failed
    }

    fn may_start(&self, wanted: &Wanted) -> bool {
        let to = wanted.processor.kind.file();
        let mut ending = self.workers.values().filter(|worker| worker.is_ending);
        !ending.any(|worker| {
            let writes = worker.processor.as_ref().and_then(|processor| processor.kind.file());
            worker.group == wanted.processor.group || (to.is_some() && writes == to)
        })
    }

    fn start(
        &mut self,
        group: &str,
        id: GroupId,
        built: Box<dyn Processor>,
        processor: Option<config::Processor>,
    ) {
        let Some(delivery) = self.delivery.get(group) else { return };
        let kind = processor.as_ref().map_or(ProcessorKind::Own, |processor| processor.kind.of());
        let program = processor.as_ref().and_then(|processor| program_file(&processor.kind));
        let name = ProcessorName { kind, about: built.about(), program };
        tracing::info!(group, processor = name.to_string(), "processor started");
        if let Some(program) = name.program.clone() {
            let group = group.to_owned();
            // The command itself starts with the first batch, which may be hours away. Its file system may hang.
            drop(tokio::task::spawn_blocking(move || {
                if let Some(why) = program.missing() {
                    tracing::warn!(group, "the command cannot be run: {why}");
                }
            }));
        }
        let (orders, listens) = watch::channel(Orders::Work);
        let (handle, window) = (self.handle.clone(), Arc::clone(&self.window));
        let asked = (listens, self.replays.open(group, built.keeps_note()));
        let worker =
            Worker::new(built, handle, (id, delivery.subscribe()), window, self.limits.clone(), asked);
        let number = self.next_worker;
        self.next_worker += 1;
        self.tasks.spawn(async move {
            worker.run().await;
            number
        });
        self.workers.insert(
            number,
            Running { group: group.to_owned(), id, processor, name, orders, is_ending: false },
        );
    }
}
