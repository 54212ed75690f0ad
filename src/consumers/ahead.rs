//! The next lines of a group, read while a consumer works on those before them.
//!
//! Only whole batches are read ahead, one of each group, and only while no other request of the group waits: the next request takes
//! it, whosever that is. They are not leased until then. What nobody takes is released when the lease has expired that it
//! was read behind. They count as leased in the memory budget: each group has a share for one batch that is read ahead.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillq_storage::GroupId;
use tokio::task::JoinHandle;

use crate::processor::{Feed, Read};
use crate::queue::Offer;

/// How long the owner is waited for: if it has no lines now, few come at a time, and they make a larger batch later.
const OFFER_WAIT: Duration = Duration::from_millis(100);

/// Lines and bytes that a request takes at most.
pub(super) type Limits = (Option<u64>, Option<u64>);

/// What is read ahead, by group.
#[derive(Default)]
pub(super) struct Ahead(Mutex<BTreeMap<GroupId, Reading>>);

struct Reading {
    until_ms: u64,
    limits: Limits,
    task: JoinHandle<Option<Ready>>,
}

/// Lines that are read. If they are dropped, they are offered again.
pub(super) struct Ready(Option<(Feed, Read)>);

impl Ready {
    pub(super) fn take(mut self) -> Option<(Feed, Read)> {
        self.0.take()
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some((feed, read)) = self.0.take() {
            // If the owner has ended, there is nothing to release.
            let _ = feed.release(read.offer);
        }
    }
}

impl Ahead {
    /// Begins to read a batch of at most `bytes_max`, unless that is being done or fewer than `least` lines are there: for a request
    /// with the same `limits`. It is kept until `until_ms`, by the clock for deadlines.
    pub(super) fn begin(
        &self,
        mut feed: Feed,
        limits: Limits,
        (least, bytes_max): (u64, u64),
        until_ms: u64,
    ) {
        let group = feed.group;
        let mut readings = self.lock();
        if readings.contains_key(&group) {
            return;
        }
        let task = tokio::spawn(async move {
            let mut asked = feed.ask(true).ok()?;
            let offer: Offer = tokio::time::timeout(OFFER_WAIT, &mut asked.answer).await.ok()?.ok()?;
            drop(asked);
            if offer.range.lines() < least {
                feed.release(offer).ok()?;
                return None;
            }
            let lines_max = limits.0.unwrap_or(u64::MAX).max(1);
            let read = feed.read(offer, lines_max, bytes_max, None).await.ok()??;
            Some(Ready(Some((feed, read))))
        });
        readings.insert(group, Reading { until_ms, limits, task });
    }

    /// What is read ahead of a group, or is being read, for a request with these limits. For another one it is released.
    pub(super) fn take(&self, group: GroupId, limits: Limits) -> Option<JoinHandle<Option<Ready>>> {
        let reading = self.lock().remove(&group)?;
        if reading.limits == limits {
            return Some(reading.task);
        }
        release(reading.task);
        None
    }

    /// Releases what is read ahead of a group.
    pub(super) fn release(&self, group: GroupId) {
        if let Some(reading) = self.lock().remove(&group) {
            release(reading.task);
        }
    }

    /// Releases what nobody took in time.
    pub(super) fn expire(&self, now_ms: u64) {
        let mut readings = self.lock();
        let over: Vec<GroupId> =
            readings.iter().filter(|(_, reading)| reading.until_ms <= now_ms).map(|(id, _)| *id).collect();
        for group in over {
            if let Some(reading) = readings.remove(&group) {
                release(reading.task);
            }
        }
    }

    /// When the next is released, if nobody takes it.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.lock().values().map(|reading| reading.until_ms).min()
    }

    /// Releases everything: other settings apply from now on, or the service stops.
    pub(super) fn clear(&self) {
        std::mem::take(&mut *self.lock()).into_values().for_each(|reading| release(reading.task));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases what a task has read, or reads at the moment.
fn release(task: JoinHandle<Option<Ready>>) {
    drop(tokio::spawn(async move { drop(task.await) }));
}
