//! What a group is set to: plain data, with the defaults of a group that no configuration names.

use spillq_storage::DiskOptions;

use super::WhenFull;
use super::lag::MaxLag;
use super::retry::{RetrySettings, Stuck};

/// What a group is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Its name.
    pub name: String,
    /// Where it begins when it is new: at the oldest line still held, or behind the newest.
    pub from_beginning: bool,
    /// Whether a batch waits for the one before it.
    pub strict: bool,
    /// Leases at once.
    pub in_flight: usize,
    /// Lines of a batch at most.
    pub batch_lines: u64,
    /// Bytes of a batch at most; a longer line is one of its own.
    pub batch_bytes: u64,
    /// How long a smaller batch waits for more lines.
    pub linger_ms: u64,
    /// A batch that takes longer is ended, and comes again.
    pub timeout_ms: u64,
    /// What follows a failure.
    pub retry: RetrySettings,
    /// Whether damaged lines are passed over, or hold the group.
    pub skip_damage: bool,
    /// What it may leave behind.
    pub max_lag: MaxLag,
    /// Lines that its processors get in a second, all together.
    pub rate: Option<u64>,
}

/// What an owner at work can be set to otherwise.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The groups by name. One that the log does not have is made; one that is not named goes on with the defaults.
    pub groups: Vec<GroupSettings>,
    /// Limits of the log; of the reserve nothing changes.
    pub disk: DiskOptions,
    /// What happens at the limit.
    pub when_full: WhenFull,
}

impl GroupSettings {
    /// The defaults, for a group that no configuration names.
    #[must_use]
    pub fn named(name: &str) -> GroupSettings {
        GroupSettings {
            name: name.to_owned(),
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
        }
    }
}
