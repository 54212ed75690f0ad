//! Counts the lines of a group over some sources that wait, from the headers of the blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use spillq_storage::{GroupId, GroupState, ReadError, Reader, Seq, SeqRange, State, View};

use super::sources::{Members, Origin, SourceGlobs};

/// How often an idle owner looks whether a count is done.
pub(super) const COUNT_LOOK: Duration = Duration::from_millis(50);

/// A count of the lines of one group that wait, in a thread of its own.
pub(super) struct Counting {
    pub(super) group: GroupId,
    pub(super) number: u64,
    pub(super) result: Receiver<Result<(u64, u64), String>>,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// The lines that wait for a group, of any source, in rising order.
pub(super) fn waiting(log: &State, group: &GroupState) -> Vec<SeqRange> {
    let all = SeqRange::new(Seq::FIRST, log.next_seq().prev());
    let mut waiting: Vec<SeqRange> = all.into_iter().flat_map(|all| group.acks().gaps(all)).collect();
    waiting.extend(group.revived().iter().map(|seq| SeqRange::one(*seq)));
    waiting.sort_unstable();
    waiting
}

/// How many lines of `waiting` are of these sources, and an estimate of their bytes. Lines of a damaged block do not count.
///
/// # Errors
/// If it `is_over` before the end, or lines cannot be read.
pub(super) fn count(
    mut reader: Reader,
    members: &Members,
    waiting: &[SeqRange],
    is_over: &dyn Fn() -> bool,
) -> Result<(u64, u64), String> {
    let (mut lines, mut bytes) = (0, 0);
    for range in waiting {
        let mut from = range.first;
        while from <= range.last {
            if is_over() {
                return Err("it was ended".to_owned());
            }
            let by_source = match reader.by_source(from) {
                Ok(by_source) => by_source,
                Err(ReadError::Damaged { range: lost, .. }) => {
                    from = lost.last.max(from).next();
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            };
            let mut behind = from.next();
            for of in by_source {
                behind = behind.max(of.range.last.next());
                let Some(within) = of.range.intersection(*range) else { continue };
                let first = within.first.max(from);
                if let Some(within) = SeqRange::new(first, within.last).filter(|_| members.has(of.source)) {
                    lines += within.lines();
                    bytes += of.bytes * within.lines() / of.range.lines();
                }
            }
            from = behind;
        }
    }
    Ok((lines, bytes))
}

/// The lines, and an estimate of their bytes, that wait for a group with these globs in a store that no service has open;
/// `None` if they cannot be counted before `until`.
#[must_use]
pub fn own_lines_waiting(
    view: &View,
    group: &GroupState,
    globs: &SourceGlobs,
    origin: Origin,
    until: Instant,
) -> Option<(u64, u64)> {
    let members = Members::of(globs, view.state().sources(), origin).ok()?;
    let is_over = || Instant::now() >= until;
    count(view.reader(), &members, &waiting(view.state(), group), &is_over).ok()
}
