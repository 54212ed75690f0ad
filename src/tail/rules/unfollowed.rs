//! Files and folders that match and are not followed: remembered from scan to scan, counted, and reported.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::plain::counted;
use crate::tail::clock::Now;
use crate::tail::error::ReadError;
use crate::tail::find::{Found, LeftOut, Refused, Without};
use crate::tail::rules::Book;

/// New files of one scan that cannot be followed and have a message each: as many as a person reads.
const REPORTED_EACH_MAX: usize = 5;
/// Between two messages about one count, however it changes.
const PAUSE_MS: u64 = 60 * 1_000;
/// After this time the message is repeated, for readers of the end of the log.
const AGAIN_MS: u64 = 60 * 60 * 1_000;

/// What matches and is not followed.
#[derive(Debug, Default)]
pub(crate) struct Unfollowed {
    /// What cannot be followed. Reported once, and again only after a scan that did not meet it.
    pub(crate) refused: Refused,
    /// The same, of the scan before.
    refused_before: Refused,
    refused_notice: Notice,
    /// Files that have no place.
    pub(crate) left_out: LeftOut,
    left_out_notice: Notice,
    /// Paths of sources that were truncated since the last scan: what is there now comes before other new files.
    pub(crate) vacated: HashSet<Arc<Path>>,
}

impl Unfollowed {
    /// A scan begins.
    pub(crate) fn begin_scan(&mut self) {
        self.refused_before = std::mem::take(&mut self.refused);
    }

    /// A file that is not a source cannot be read.
    pub(crate) fn refuse_found(&mut self, found: &Found, error: &ReadError) {
        self.left_out.add(found, Without::Permission);
        self.refused.add(&found.path, error.why(), || error.to_string());
    }

    /// The scan is over: how many files have no place. One message for all of them.
    pub(crate) fn report_left_out(&mut self, book: &mut Book, now: Now) {
        let has_returned = self.left_out.has_returned();
        self.left_out.close();
        let (files, limit) = (self.left_out.files(), book.sources_max);
        // Some turned out to continue a source, or cannot be read: their places are given to others at once.
        if files > 0 && has_returned && !book.is_full() {
            book.scan_wanted = true;
        }
        if !self.left_out_notice.is_due(files, now.boot_ms) {
            return;
        }
        if files == 0 {
            tracing::info!("all files that match are followed again");
            return;
        }
        book.counters.errors += 1;
        let example =
            self.left_out.named().first().map(|path| path.display().to_string()).unwrap_or_default();
        let left = counted(files as u64, "file");
        let verb = if files == 1 { "matches and is" } else { "match and are" };
        let (limit, inactive) = (counted(limit as u64, "file"), inactive_places(book));
        tracing::warn!(
            files,
            %example,
            "{left} {verb} not followed: at most {limit} are followed at once, those modified last first{inactive}. Another \
             one is followed when a followed file has been deleted and `rotate_wait` is over. Narrow `include`, add to \
             `exclude`, or delete finished files"
        );
    }

    /// The scan is over: a few new ones have a message each, more of them have one together.
    pub(crate) fn report_refused(&mut self, book: &mut Book, now: Now) {
        self.refused.close();
        let new: Vec<_> = self.refused.new_since(&self.refused_before).collect();
        let is_all_named = self.refused.unnamed() == 0;
        // With more than can be named it is not known which are new: all of them are counted.
        let all = if is_all_named { 0 } else { self.refused.files() };
        let is_due = self.refused_notice.is_due(all, now.boot_ms) && all > 0;
        book.counters.errors += new.len() as u64 + u64::from(is_due);
        if is_all_named && new.len() <= REPORTED_EACH_MAX {
            for (path, why) in new {
                tracing::warn!(path = %path.display(), "not followed: {why}");
            }
            return;
        }
        let files = match is_all_named {
            true => new.len(),
            false if is_due || !new.is_empty() => all,
            false => return,
        };
        if let Some((_, example)) = new.first().copied().or_else(|| self.refused.named().next()) {
            tracing::warn!(
                files,
                "{} match and cannot be followed, for example: {example}; `spillq doctor` names more",
                counted(files as u64, "file")
            );
        }
    }
}

/// If some places are taken by files that no section matches: narrower globs alone do not free them.
fn inactive_places(book: &Book) -> String {
    let inactive = book.sources().inactive();
    if inactive == 0 {
        return String::new();
    }
    format!(
        "; {} that no [[follow]] matches now {} counted, to be resumed later",
        counted(inactive as u64, "file"),
        if inactive == 1 { "is" } else { "are" }
    )
}

/// What was reported last of one count. It is worth a message once when there are some; then when it has at least doubled
/// or halved, at most once a minute; and every hour.
#[derive(Debug, Default)]
struct Notice {
    /// The count, and when.
    last: Option<(usize, u64)>,
}

impl Notice {
    /// Whether `count` is to be reported now; it is then taken as reported.
    fn is_due(&mut self, count: usize, now_ms: u64) -> bool {
        let is_due = match self.last {
            None => count > 0,
            Some((last, at_ms)) => {
                let since_ms = now_ms.saturating_sub(at_ms);
                let has_changed = count > 2 * last || 2 * count < last;
                has_changed && since_ms >= PAUSE_MS || count > 0 && since_ms >= AGAIN_MS
            }
        };
        if is_due {
            self.last = Some((count, now_ms));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_reported_once_then_after_a_change_or_a_long_while() {
        let mut notice = Notice::default();
        let minute = PAUSE_MS;
        let seen: Vec<bool> = [
            (0, 0),
            (100, 1),
            (100, 1_000),
            (200, 2 * minute),
            (201, 3 * minute),
            (450, 3 * minute + 1),
            (450, 4 * minute),
            (0, 4 * minute + 1),
            (0, 5 * minute),
            (0, AGAIN_MS * 3),
            (1, AGAIN_MS * 3 + 1),
            (1, AGAIN_MS * 4),
            (1, AGAIN_MS * 4 + 1),
        ]
        .into_iter()
        .map(|(count, now_ms)| notice.is_due(count, now_ms))
        .collect();
        let expected = [false, true, false, false, true, false, true, false, true, false, true, false, true];
        assert_eq!(seen, expected);
    }
}
