//! What an operator can ask of the log. A running service and a command that opens the log of a stopped one carry out
//! the same requests.

use spillq_storage::backup::Snapshot;
use spillq_storage::{DeadLetter, Seq, SeqRange};
use thiserror::Error;

/// Dead letters in one answer.
pub const DEAD_LETTERS_SHOWN_MAX: usize = 1_000;

/// Lines that one request parks: each is synced, and all other commands wait meanwhile.
pub(super) const PARKED_MAX: usize = 500;

/// Groups of a log when one is added; the configuration accepts as many. Each is in every manifest, and keeps lines on
/// disk.
pub(super) const GROUPS_MAX: usize = 64;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Creates a group, at the oldest line that is stored or behind the newest.
    AddGroup {
        /// Its name.
        name: String,
        /// Whether it gets the lines that are stored.
        from_beginning: bool,
    },
    /// Removes a group with its waiting lines and its dead letters.
    RemoveGroup {
        /// Which group.
        name: String,
        /// Even if that discards lines.
        discard_lines: bool,
    },
    /// Stops or resumes new leases. Survives restarts.
    Pause {
        /// Which group.
        name: String,
        /// Stop, or resume.
        paused: bool,
    },
    /// The dead letters of a group from a seq on, at most [`DEAD_LETTERS_SHOWN_MAX`].
    DeadLetters {
        /// Which group.
        group: String,
        /// From which seq.
        from: Seq,
    },
    /// Delivers dead letters again; `None` means all.
    Retry {
        /// Which group.
        group: String,
        /// Which lines.
        seqs: Option<Vec<SeqRange>>,
    },
    /// Ends dead letters for good; `None` means all.
    Discard {
        /// Which group.
        group: String,
        /// Which lines.
        seqs: Option<Vec<SeqRange>>,
        /// Needed to discard all of them.
        discard_lines: bool,
    },
    /// A snapshot to copy. No file is removed for a minute; with a token, for another minute.
    Hold {
        /// The hold to renew.
        token: Option<u64>,
    },
    /// The copy is done: files may be removed again.
    ReleaseHold {
        /// Which hold.
        token: u64,
    },
    /// Moves a group: all lines from there on wait, and none before.
    Seek {
        /// Which group.
        group: String,
        /// Where to.
        to: SeekTo,
        /// Even if that skips lines that wait.
        discard_lines: bool,
        /// Only report what the seek would do.
        dry_run: bool,
    },
    /// Ends every back-off of a group. A line that is held because the process died with it is delivered once more.
    RetryNow(String),
    /// Moves waiting lines to the dead letters, at most 500 at a time. Lines that do not wait are ignored.
    Park {
        /// Which group.
        group: String,
        /// Which lines.
        seqs: Vec<SeqRange>,
    },
}

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// A line, or the nearest one that is stored.
    Seq(Seq),
    /// The first line appended at that time or later, in milliseconds since 1970.
    Time(u64),
    /// The oldest line that is stored.
    Beginning,
    /// Behind the newest line.
    End,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, durably.
    Done,
    /// This many lines were affected, durably.
    Lines(u64),
    /// Lines became dead letters, durably.
    Parked {
        /// How many.
        lines: u64,
        /// Others of the requested lines still wait; the request can be repeated.
        more: bool,
    },
    /// Dead letters.
    DeadLetters(Vec<DeadLetter>),
    /// No file is removed for a minute from now.
    Held {
        /// Names the hold.
        token: u64,
        /// What to copy; `None` if the hold was renewed.
        snapshot: Option<Box<Snapshot>>,
    },
    /// A group was moved, durably; or would be, of a dry run.
    Sought {
        /// The first line that waits now, if it exists yet.
        to: Seq,
        /// Lines that were settled, and wait again.
        again: u64,
        /// Lines that waited, and were skipped.
        skipped: u64,
    },
}

/// Why a request was not carried out. Nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such group.
    #[error("there is no group {name}; there are: {there}")]
    NoGroup {
        /// The requested name.
        name: String,
        /// The names of all groups.
        there: String,
    },
    /// The group exists already.
    #[error("there is a group {0} already")]
    GroupExists(String),
    /// The limit of groups is reached.
    #[error("there are {0} groups, and {GROUPS_MAX} at most; `spillq group remove` one that is not used")]
    TooManyGroups(usize),
    /// The name that was given, and what a name is made of.
    #[error("{0}")]
    GroupName(String),
    /// Without any group no line would ever be removed from disk.
    #[error("{0} is the last group, which cannot be removed")]
    LastGroup(String),
    /// The request would discard lines, without saying that it may.
    #[error(
        "that would discard {lines} of group {group}: {what}; --discard-lines does it, and it cannot be undone"
    )]
    WouldDiscard {
        /// The group.
        group: String,
        /// How many lines: `1 line`, `12 lines`.
        lines: String,
        /// Which lines.
        what: &'static str,
    },
    /// Lines of the group are in flight.
    #[error("group {0} has lines in flight; pause it and try again")]
    GroupBusy(String),
    /// The line is not in the log, or settled already.
    #[error("line {seq} is not waiting for group {group}")]
    NotWaiting {
        /// The group.
        group: String,
        /// The line.
        seq: Seq,
    },
    /// None of several lines waits.
    #[error("none of these lines waits for group {0}")]
    NoneWaiting(String),
    /// The line is in flight.
    #[error("line {0} is in flight; try again when its batch has ended")]
    Leased(Seq),
    /// The limit of dead letters is reached.
    #[error("group {0} can have no more dead letters; retry or discard some")]
    DeadLettersFull(String),
    /// None of the lines is a dead letter.
    #[error("group {group} has no dead letter at {seqs}")]
    NoDeadLetter {
        /// The group.
        group: String,
        /// The requested lines.
        seqs: String,
    },
    /// Another backup has the hold, or the hold has expired.
    #[error("{0}")]
    Hold(&'static str),
    /// The line cannot be read.
    #[error("line {seq} cannot be read: {what}")]
    Unreadable {
        /// The line.
        seq: Seq,
        /// What was found.
        what: String,
    },
    /// The time cannot be found.
    #[error("cannot find that time in the log: {0}; name a seq instead")]
    TimeNotFound(String),
    /// The log failed, or is closing.
    #[error("the log failed meanwhile")]
    Failed,
}

/// Why an operator's request ended without an answer.
#[derive(Debug, Error)]
pub(super) enum AdminError {
    /// It was refused. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] spillq_storage::Error),
}
