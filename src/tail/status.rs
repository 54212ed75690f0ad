//! What the tail is doing: a snapshot on request.
//!
//! The worker makes it between two rounds, so nothing on the hot path is locked. A worker that hangs in a read leaves the
//! last snapshot, with its time.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use spillq_storage::SourceId;

use crate::plain::size;
use crate::unreadable::Unreadable;

/// What the tail counted since it started. Every loss that is logged is counted here too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lines delivered to the log, parts of long lines each counted.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sources that a power cut made shorter than their checkpoint.
    pub rolled_back: u64,
    /// Bytes between the resume point where their reading resumed and their old checkpoint.
    pub rolled_back_bytes: u64,
    /// Sources whose file was truncated or replaced in place.
    pub truncated: u64,
    /// Bytes that were truncated or deleted before they were read, as far as they were ever seen.
    pub destroyed_unread_bytes: u64,
    /// Sources that ended as gone while their file was not open: not found since the start, or closed as descriptors ran short.
    /// Whether all of it was read is not known.
    pub lost_sight: u64,
    /// Files that were gone and read to their end, and closed before `rotate_wait` was over as descriptors ran short.
    pub released_early: u64,
    /// Times that a file or folder became unreadable.
    pub errors: u64,
    /// Scans done.
    pub scans: u64,
    /// Appends sent to the log.
    pub appends: u64,
}

impl Counters {
    /// Counts a source that resumes at `to`, below its checkpoint.
    pub(crate) fn rolled_back(&mut self, from: u64, to: u64) {
        self.rolled_back += 1;
        self.rolled_back_bytes += from - to;
    }

    /// Counts and reports bytes that were truncated or deleted before they were read.
    pub(crate) fn destroyed(&mut self, path: &Path, offset: u64, bytes: u64) {
        self.destroyed_unread_bytes += bytes;
        let size = size(bytes);
        tracing::error!(path = %path.display(), offset, bytes, "{size} were destroyed before they were read");
    }
}

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It has unread bytes.
    Reading,
    /// All its whole lines are in the log, or on the way there.
    CaughtUp,
    /// It waits for the rest of an older file of the same path.
    Blocked,
    /// Its path is gone; an open file is read until it is quiet.
    Gone,
    /// It cannot be read; see the error.
    Failed,
    /// No follow names it any more: its checkpoint stays, and it resumes there when one does.
    Inactive,
    /// Standard input or a FIFO: its bytes cannot be read again.
    Stream,
    /// One that has ended.
    Ended,
}

impl SourceState {
    /// All of them.
    pub const ALL: [SourceState; 8] = [
        SourceState::Reading,
        SourceState::CaughtUp,
        SourceState::Blocked,
        SourceState::Gone,
        SourceState::Failed,
        SourceState::Inactive,
        SourceState::Stream,
        SourceState::Ended,
    ];

    /// A word for programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            SourceState::Reading => "reading",
            SourceState::CaughtUp => "caught_up",
            SourceState::Blocked => "blocked",
            SourceState::Gone => "gone",
            SourceState::Failed => "failed",
            SourceState::Inactive => "not_followed",
            SourceState::Stream => "stream",
            SourceState::Ended => "ended",
        }
    }

    /// The state of a word; `None` if there is none.
    #[must_use]
    pub fn of_word(word: &str) -> Option<SourceState> {
        SourceState::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// One followed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its number in the log.
    pub source: SourceId,
    /// Where it was last seen.
    pub path: PathBuf,
    /// Where it was before it was renamed or copied away: the path that its section names.
    pub followed_as: PathBuf,
    /// The end of the last line delivered to the log.
    pub offset: u64,
    /// The file's last known size in bytes.
    pub size: u64,
    /// What it is doing.
    pub state: SourceState,
    /// It was renamed or copied away, or deleted.
    pub rotated: bool,
    /// Whether its file is open: then it can be read to its end even if it is deleted.
    pub held_open: bool,
    /// Why it cannot be read, if so.
    pub last_error: Option<Unreadable>,
}

/// Files that match and are not followed, since no more are followed at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOutFiles {
    /// How many.
    pub files: usize,
    /// Some of them, at most 20.
    pub named: Vec<PathBuf>,
    /// How many are followed at most.
    pub limit: usize,
    /// Of these places, how many are kept for files that no section matches now.
    pub inactive: usize,
}

/// All of it at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken. If that is long ago, the tail hangs in a read, or has ended.
    pub taken_at: SystemTime,
    /// What was counted.
    pub counters: Counters,
    /// The followed files, oldest source first.
    pub sources: Vec<SourceStatus>,
    /// Files that were found and are not sources yet: empty, or perhaps a copy under way.
    pub waiting_files: usize,
    /// Files that the last scan found by a glob, empty ones too. One that two globs name counts twice.
    pub matched_files: usize,
    /// Files and folders that cannot be followed, and why; at most 100 of them.
    pub refused: Vec<(PathBuf, Unreadable)>,
    /// How many there are.
    pub refused_files: usize,
    /// Files that match and are not followed, since no more are followed at once.
    pub left_out: LeftOutFiles,
    /// Since when the log has not answered the oldest append, if one is under way: how long ingestion has waited.
    pub waits_for_log_since: Option<SystemTime>,
    /// Bytes of lines that were read and are not durable yet.
    pub buffered_bytes: u64,
    /// Everything was read, in once mode.
    pub done: bool,
    /// The log closed, and the tail with it.
    pub closed: bool,
}

/// Before the first.
impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot {
            taken_at: SystemTime::UNIX_EPOCH,
            counters: Counters::default(),
            sources: Vec::new(),
            waiting_files: 0,
            matched_files: 0,
            refused: Vec::new(),
            refused_files: 0,
            left_out: LeftOutFiles::default(),
            waits_for_log_since: None,
            buffered_bytes: 0,
            done: false,
            closed: false,
        }
    }
}
