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

/// The lines that wait for a group.
pub(super) struct Waiting {
    /// Those that it has never settled, of any source, in rising order.
    ranges: Vec<SeqRange>,
    /// Dead letters that were put back: its own, whatever its globs say.
    revived: u64,
}

impl Waiting {
    pub(super) fn of(log: &State, group: &GroupState) -> Waiting {
        let all = SeqRange::new(Seq::FIRST, log.next_seq().prev());
        let ranges = all.into_iter().flat_map(|all| group.acks().gaps(all)).collect();
        Waiting { ranges, revived: group.revived().len() as u64 }
    }
}

/// How many lines of `waiting` are of these sources, and an estimate of their bytes. Those of a damaged block count: whoever
/// reads them finds the damage. So do those that are missing or cannot be read, if `even_missing`.
///
/// # Errors
/// If it `is_over` before the end; or lines are missing, as their segment was removed meanwhile, or cannot be read.
pub(super) fn count(
    mut reader: Reader,
    members: &Members,
    waiting: &Waiting,
    even_missing: bool,
    is_over: &dyn Fn() -> bool,
) -> Result<(u64, u64), String> {
    let (mut lines, mut bytes) = (waiting.revived, 0);
    for range in &waiting.ranges {
        let mut from = range.first;
        while from <= range.last {
            if is_over() {
                return Err("it was ended".to_owned());
            }
            let by_source = match reader.by_source(from) {
                Ok(by_source) => by_source,
                Err(error) => {
                    let last = match &error {
                        ReadError::Damaged { range: lost, .. } => lost.last,
                        ReadError::Absent { next: Some(next), .. } if even_missing => next.prev(),
                        _ if even_missing => range.last,
                        _ => return Err(error.to_string()),
                    };
                    let last = last.max(from).min(range.last);
                    lines += last.0 - from.0 + 1;
                    from = last.next();
                    continue;
                }
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
    count(view.reader(), &members, &Waiting::of(view.state(), group), true, &is_over).ok()
}
