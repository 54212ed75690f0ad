//! The workers of all groups: who is at work, who is to be, and who takes over when.
//!
//! A worker that is not wanted any more takes no new batch, finishes the one that is out, and ends. While one of a group
//! ends none of that group begins, nor one that writes the same file. A worker whose processor and group are as before is
//! left alone: other terms reach it by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use spillq_storage::GroupId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ServiceError;
use super::build::{SourcePaths, build, kind_of};
use super::preview::program_file;
use crate::config::{self, Settings};
use crate::processor::{Epoch, Limits, Orders, Pace, Processor, Terms, Worker};
use crate::queue::{GroupSettings, Handle, Queue, Replays, Window};
use crate::supervise::{ProcessorKind, ProcessorName};

/// The groups as the owner has them.
pub(super) type Groups = [(GroupId, Arc<GroupSettings>)];

/// All workers.
pub(super) struct Crews {
    at_work: JoinSet<u64>,
    hands: BTreeMap<u64, Hand>,
    next_hand: u64,
    wanted: BTreeMap<String, Wanted>,
    terms: BTreeMap<String, watch::Sender<Terms>>,
    /// Lines a second, whatever the groups say.
    rate: Option<u64>,
    limits: Limits,
    handle: Handle,
    window: Arc<Window>,
    epoch: Epoch,
    paths: SourcePaths,
    replays: Replays,
}

/// One worker.
struct Hand {
    group: String,
    id: GroupId,
    /// From the configuration; one that a program brought along is never replaced.
    processor: Option<config::Processor>,
    name: ProcessorName,
    orders: watch::Sender<Orders>,
    is_ending: bool,
}

/// Who is to work for a group.
struct Wanted {
    id: GroupId,
    processor: config::Processor,
    hands: usize,
    timeout: Duration,
}

impl Crews {
    /// Nobody yet. `lines_left` and `rate` bound all of them together, and each.
    pub(super) fn new(
        queue: &Queue,
        epoch: Epoch,
        paths: SourcePaths,
        lines_left: Option<u64>,
        rate: Option<u64>,
    ) -> Crews {
        Crews {
            at_work: JoinSet::new(),
            hands: BTreeMap::new(),
            next_hand: 0,
            wanted: BTreeMap::new(),
            terms: BTreeMap::new(),
            rate,
            limits: Limits { lines_left: lines_left.map(|lines| Arc::new(AtomicU64::new(lines))) },
            handle: queue.handle(),
            window: queue.window(),
            epoch,
            paths,
            replays: Replays::default(),
        }
    }

    /// Where seeks are asked for that give lines again.
    pub(super) fn replays(&self) -> Replays {
        self.replays.clone()
    }

    /// A program's own processor gets the batches of that group, where there is one.
    pub(super) fn employ(&mut self, group: &str, processor: Box<dyn Processor>, groups: &Groups) {
        self.offer_terms(groups);
        if let Some((id, _)) = groups.iter().find(|(_, settings)| settings.name == group) {
            self.begin(group, *id, processor, None);
        }
    }

    /// Builds what is new in `settings`, and throws it away: an error now changes nothing.
    pub(super) fn try_out(&self, settings: &Settings) -> Result<(), ServiceError> {
        for processor in &settings.processors {
            let known =
                self.wanted.get(&processor.group).is_some_and(|wanted| wanted.processor == *processor);
            if !known {
                let timeout = settings.group(&processor.group).map(|group| group.timeout).unwrap_or_default();
                build(processor, self.epoch, timeout, &self.paths)?;
            }
        }
        Ok(())
    }

    /// From now on the processors of `settings` are to work, for those of `groups` that `serves` says. Gives what could
    /// not be started.
    pub(super) fn set(
        &mut self,
        settings: &Settings,
        groups: &Groups,
        serves: impl Fn(&str) -> bool,
    ) -> Vec<ServiceError> {
        self.offer_terms(groups);
        let wanted = settings.processors.iter().filter(|processor| serves(&processor.group));
        let wanted = wanted.filter_map(|processor| {
            let (id, group) = groups.iter().find(|(_, group)| group.name == processor.group)?;
            let timeout = Duration::from_millis(group.timeout_ms);
            let (processor, hands) = (processor.clone(), group.in_flight);
            Some((processor.group.clone(), Wanted { id: *id, processor, hands, timeout }))
        });
        self.wanted = wanted.collect();
        self.fill()
    }

    /// When a worker has ended: whom that made room for, and what could not be started. `None` when none works.
    pub(super) async fn ended(&mut self) -> Option<Result<Vec<ServiceError>, ServiceError>> {
        let hand = match self.at_work.join_next().await? {
            Ok(hand) => hand,
            Err(error) => {
                let what = format!("a worker ended by itself: {error}");
                return Some(Err(ServiceError::Start(what, None)));
            }
        };
        let hand = self.hands.remove(&hand);
        if let Some(hand) = hand.filter(|hand| !hand.is_ending)
            && let Some(wanted) = self.wanted.get_mut(&hand.group)
        {
            // It has delivered all that it may.
            wanted.hands = wanted.hands.saturating_sub(1);
        }
        Some(Ok(self.fill()))
    }

    /// The processors at work, by group.
    pub(super) fn names(&self) -> BTreeMap<String, ProcessorName> {
        self.hands.values().map(|hand| (hand.group.clone(), hand.name.clone())).collect()
    }

    /// Groups whose new processor waits for a batch of the one before it.
    pub(super) fn waiting(&self) -> Vec<String> {
        let ending = |group: &String| self.hands.values().any(|hand| hand.is_ending && hand.group == *group);
        self.wanted.keys().filter(|group| ending(group)).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at_work.is_empty()
    }

    /// The service stops: nobody takes over any more.
    pub(super) fn tell_all(&mut self, orders: Orders) {
        self.wanted.clear();
        for hand in self.hands.values_mut() {
            hand.is_ending = true;
            hand.orders.send_replace(orders);
        }
    }

    /// Waits until nobody works.
    pub(super) async fn all_ended(&mut self) {
        while self.ended().await.is_some() {}
    }

    fn offer_terms(&mut self, groups: &Groups) {
        self.terms.retain(|name, _| groups.iter().any(|(_, group)| group.name == *name));
        for (_, settings) in groups {
            let rate = settings.rate.into_iter().chain(self.rate).min();
            let settings = Arc::clone(settings);
            match self.terms.get(&settings.name) {
                None => {
                    let (name, pace) = (settings.name.clone(), rate.map(Pace::new));
                    self.terms.insert(name, watch::channel(Terms { settings, pace }).0);
                }
                Some(terms) => {
                    terms.send_modify(|terms| {
                        // A pace that goes on goes on from where it is.
                        if terms.pace.as_ref().map(Pace::lines_per_second) != rate {
                            terms.pace = rate.map(Pace::new);
                        }
                        terms.settings = settings;
                    });
                }
            }
        }
    }

    /// Ends who is not wanted, and begins who is and may.
    fn fill(&mut self) -> Vec<ServiceError> {
        let mut working: BTreeMap<String, usize> = BTreeMap::new();
        for hand in self.hands.values_mut().filter(|hand| !hand.is_ending) {
            let Some(processor) = &hand.processor else { continue };
            let wanted = self.wanted.get(&hand.group);
            let wanted = wanted.filter(|wanted| wanted.processor == *processor && wanted.id == hand.id);
            let working = working.entry(hand.group.clone()).or_default();
            if wanted.is_some_and(|wanted| *working < wanted.hands) {
                *working += 1;
            } else {
                hand.is_ending = true;
                hand.orders.send_replace(Orders::Finish);
            }
        }
        let begin: Vec<(String, usize)> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| self.may_begin(wanted))
            .map(|(group, wanted)| {
                let working = working.get(group).copied().unwrap_or_default();
                (group.clone(), wanted.hands.saturating_sub(working))
            })
            .collect();
        let mut failed = Vec::new();
        for (group, hands) in begin {
            for _ in 0..hands {
                let Some(Wanted { id, processor, timeout, .. }) = self.wanted.get(&group) else { continue };
                let (id, processor) = (*id, processor.clone());
                match build(&processor, self.epoch.of_group(id), *timeout, &self.paths) {
                    Ok(built) => self.begin(&group, id, built, Some(processor)),
                    Err(error) => failed.push(error),
                }
            }
        }
        failed
    }

    fn may_begin(&self, wanted: &Wanted) -> bool {
        let file = |processor: &config::Processor| match &processor.kind {
            config::Kind::File { path } => Some(path.clone()),
            _ => None,
        };
        let to = file(&wanted.processor);
        let mut ending = self.hands.values().filter(|hand| hand.is_ending);
        !ending.any(|hand| {
            let writes = hand.processor.as_ref().and_then(file);
            hand.group == wanted.processor.group || (to.is_some() && writes == to)
        })
    }

    fn begin(
        &mut self,
        group: &str,
        id: GroupId,
        built: Box<dyn Processor>,
        processor: Option<config::Processor>,
    ) {
        let Some(terms) = self.terms.get(group) else { return };
        let kind = processor.as_ref().map_or(ProcessorKind::Own, |processor| kind_of(&processor.kind));
        let program = processor.as_ref().and_then(|processor| program_file(&processor.kind));
        let name = ProcessorName { kind, about: built.about(), program };
        tracing::info!(group, processor = name.to_string(), "a processor is at work");
        if let Some(program) = name.program.clone() {
            let group = group.to_owned();
            // It is started with the first batch, which may be long in coming. Its file system may hang.
            drop(tokio::task::spawn_blocking(move || {
                if let Some(why) = program.missing() {
                    tracing::warn!(group, "the command cannot be run: {why}");
                }
            }));
        }
        let (orders, listens) = watch::channel(Orders::Work);
        let (handle, window) = (self.handle.clone(), Arc::clone(&self.window));
        let asked = (listens, self.replays.open(group, built.keeps_note()));
        let worker = Worker::new(built, handle, (id, terms.subscribe()), window, self.limits.clone(), asked);
        let hand = self.next_hand;
        self.next_hand += 1;
        self.at_work.spawn(async move {
            worker.run().await;
            hand
        });
        self.hands
            .insert(hand, Hand { group: group.to_owned(), id, processor, name, orders, is_ending: false });
    }
}
