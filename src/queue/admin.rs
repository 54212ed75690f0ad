//! What an operator can ask of the log: groups and dead letters. The same requests serve a running service and a
//! stopped one, whose log a command opens for the purpose.

use std::time::Duration;

use spillq_storage::{DeadLetter, Seq, SeqRange, Snapshot};
use thiserror::Error;

/// How long a hold lasts without being renewed: a copy that died does not keep files for ever.
pub(super) const HOLD: Duration = Duration::from_secs(60);
/// Dead letters in one answer.
pub const DEAD_LETTERS_SHOWN_MAX: usize = 1_000;

/// Lines that one request parks: each is synced, and everything else waits meanwhile.
pub(super) const PARKED_MAX: usize = 500;

/// Groups that a log can have when one is added to it: the configuration takes as many sections. Each is in every manifest,
/// and keeps lines on disk that nobody may be waiting for.
pub(super) const GROUPS_MAX: usize = 64;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Creates a group, at the oldest line that is held or behind the newest.
    AddGroup {
        /// Its name.
        name: String,
        /// Whether it gets the lines that are there.
        from_beginning: bool,
    },
    /// Removes a group with all that waits for it and its dead letters.
    RemoveGroup {
        /// Which group.
        name: String,
        /// Also if that discards lines.
        discard_lines: bool,
    },
    /// Stops or resumes new leases, over restarts too.
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
        /// All of them, if no lines are named, only with this.
        discard_lines: bool,
    },
    /// A snapshot to copy, and nothing removed for a minute; with a token, as much time again.
    Hold {
        /// The hold to renew.
        token: Option<u64>,
    },
    /// The copy is done: files may be removed again.
    LetGo {
        /// Which hold.
        token: u64,
    },
    /// Moves a group: from there on everything waits, before it nothing does.
    Seek {
        /// Which group.
        group: String,
        /// Where to.
        to: SeekTo,
        /// Also if that skips lines that wait.
        discard_lines: bool,
        /// Only say what it would do.
        only_look: bool,
    },
    /// Ends every back-off of a group, and delivers a line once more that is held because the process died with it.
    RetryNow(String),
    /// Moves waiting lines to the dead letters, at most 500 at a time; lines that do not wait are passed over.
    Park {
        /// Which group.
        group: String,
        /// Which lines.
        seqs: Vec<SeqRange>,
    },
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// A line, or the nearest one that is stored.
    Seq(Seq),
    /// The first line appended then or later: milliseconds since 1970.
    Time(u64),
    /// The oldest line that is stored.
    Beginning,
    /// Behind the newest.
    End,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is so, durably.
    Done,
    /// So many lines were affected, durably.
    Lines(u64),
    /// Lines became dead letters, durably.
    Parked {
        /// How many.
        lines: u64,
        /// Others of those that were asked for still wait: to be asked for again.
        more: bool,
    },
    /// Dead letters.
    DeadLetters(Vec<DeadLetter>),
    /// Nothing is removed for a minute from now; renewed, without the snapshot.
    Held {
        /// Names the hold.
        token: u64,
        /// What to copy.
        snapshot: Option<Box<Snapshot>>,
    },
    /// A group was moved, durably; or would be.
    Sought {
        /// The first line that waits now, if there is one so far.
        to: Seq,
        /// Lines that were settled and wait again.
        again: u64,
        /// Lines that waited and do not any more.
        skipped: u64,
    },
}

/// Why a request was not carried out. Nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such group.
    #[error("there is no group {name}; there are: {there}")]
    NoGroup {
        /// What was asked for.
        name: String,
        /// What there is.
        there: String,
    },
    /// There is one of that name.
    #[error("there is a group {0} already")]
    GroupExists(String),
    /// The bound of groups is reached.
    #[error("there are {0} groups, and {GROUPS_MAX} at most; `spillq group remove` one that nobody reads")]
    TooManyGroups(usize),
    /// A name that is none.
    #[error("a group's name is 1 to 64 of a-z, 0-9, - and _, found {0:?}")]
    GroupName(String),
    /// Without groups nothing would ever be removed from disk.
    #[error("{0} is the last group, which cannot be removed")]
    LastGroup(String),
    /// It would discard lines, and that was not asked for.
    #[error(
        "that would discard {lines} of group {group}: {what}; --discard-lines does it, and it cannot be undone"
    )]
    WouldDiscard {
        /// The group.
        group: String,
        /// How many lines, in words.
        lines: String,
        /// Which.
        what: &'static str,
    },
    /// A processor or somebody else works on it.
    #[error("group {0} has lines out with its processor; pause it and try again")]
    GroupBusy(String),
    /// Not in the log, or acked, or dead already.
    #[error("line {seq} is not waiting for group {group}")]
    NotWaiting {
        /// The group.
        group: String,
        /// The line.
        seq: Seq,
    },
    /// None of several.
    #[error("none of these lines waits for group {0}")]
    NoneWaiting(String),
    /// Out with a processor.
    #[error("line {0} is out with its processor; try again when that has ended")]
    Leased(Seq),
    /// The bound of dead letters is reached.
    #[error("group {0} can have no more dead letters; retry or discard some")]
    DeadLettersFull(String),
    /// No such dead letters.
    #[error("group {group} has no dead letter at {seqs}")]
    NoDeadLetter {
        /// The group.
        group: String,
        /// What was asked for.
        seqs: String,
    },
    /// Somebody else copies, or the hold has run out.
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
    /// The place cannot be found.
    #[error("cannot find that time in the log: {0}; name a seq instead")]
    NoPlace(String),
    /// The log failed, or is closing.
    #[error("the log failed meanwhile")]
    Failed,
}

/// Whether a group may have this name.
#[must_use]
pub fn is_group_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}
