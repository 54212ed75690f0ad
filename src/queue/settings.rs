//! The settings of the owner and its groups: plain data, with the defaults of a group that no configuration names.

use spillq_storage::DiskOptions;

use super::lag::MaxLag;
use super::sources::SourceGlobs;
use crate::secret::Secret;

/// What happens when the log has reached `disk.limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Ingestion pauses.
    #[default]
    Pause,
    /// The oldest segment is dropped, even if some group needs it.
    DropOldest,
}

/// What becomes of a line that fails without being blamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stuck {
    /// It is retried until it succeeds or an operator decides; in strict order it holds the group.
    #[default]
    Hold,
    /// It becomes a dead letter after `attempts` failures alone, once `give_up_after_ms` have passed since the first.
    DeadLetter,
}

/// How deliveries are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// The first back-off.
    pub initial_ms: u64,
    /// The longest back-off.
    pub max_ms: u64,
    /// The failures (or deaths) of a line alone after which it can become a dead letter.
    pub attempts: u32,
    /// The rejected lines in a row after which the group stops instead of dead-lettering the next one.
    pub rejects: u32,
    /// For how long a line must have failed before [`Stuck::DeadLetter`] applies.
    pub give_up_after_ms: u64,
    /// What becomes of a line that fails without being blamed.
    pub stuck: Stuck,
}

/// The settings of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Its name.
    pub name: String,
    /// Whose lines it gets.
    pub sources: SourceGlobs,
    /// Where a new group begins: at the oldest line that is stored, or behind the newest.
    pub from_beginning: bool,
    /// Whether a batch waits for the batch before it.
    pub strict: bool,
    /// Leases at once.
    pub in_flight: usize,
    /// Lines of a batch at most.
    pub batch_lines: u64,
    /// Bytes of a batch at most; a longer line is a batch by itself.
    pub batch_bytes: u64,
    /// How long a smaller batch waits for more lines.
    pub linger_ms: u64,
    /// A batch that takes longer is ended, and delivered again.
    pub timeout_ms: u64,
    /// What follows a failure.
    pub retry: RetrySettings,
    /// Whether the group skips damaged lines, or is blocked by them.
    pub skip_damage: bool,
    /// The bounds of its lag.
    pub max_lag: MaxLag,
    /// Lines a second for all its processors together.
    pub rate: Option<u64>,
    /// The bearer token of its consumers, if it is not the common one.
    pub token: Option<Secret>,
}

/// Settings that can change while the owner runs.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The groups by name. One that the log does not have is created; one that is missing here continues with the
    /// defaults.
    pub groups: Vec<GroupSettings>,
    /// Limits of the log. The reserve does not change.
    pub disk: DiskOptions,
    /// What happens when the log is full.
    pub when_full: WhenFull,
}

impl GroupSettings {
    /// The defaults, for a group that no configuration names.
    #[must_use]
    pub fn named(name: &str) -> GroupSettings {
        GroupSettings {
            name: name.to_owned(),
            sources: SourceGlobs::default(),
            from_beginning: true,
            strict: true,
            in_flight: 1,
            batch_lines: 10_000,
            batch_bytes: 4 << 20,
            linger_ms: 0,
            timeout_ms: 30_000,
            retry: RetrySettings {
                initial_ms: 200,
                max_ms: 30_000,
                attempts: 8,
                rejects: 100,
                give_up_after_ms: 600_000,
                stuck: Stuck::Hold,
            },
            skip_damage: false,
            max_lag: MaxLag::default(),
            rate: None,
            token: None,
        }
    }
}
