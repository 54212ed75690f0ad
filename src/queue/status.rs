//! What the owner tells of the log and its groups. Plain data; who shows it decides how.

use bytes::Bytes;
use spillq_storage::{Counters, GroupId, Loss, Quarantined, Seq, SeqRange, SourceId};

/// A look at everything that the owner knows.
#[derive(Clone, Debug)]
pub struct Status {
    /// The oldest seq that a segment holds.
    pub first_seq: Seq,
    /// The seq of the next line.
    pub next_seq: Seq,
    /// Segment files.
    pub segments: u64,
    /// Bytes on disk, journals and reserve included.
    pub disk_bytes: u64,
    /// Raw bytes appended since the store was created.
    pub appended_bytes: u64,
    /// Why lines are not taken in now.
    pub full: Option<String>,
    /// Bytes of lines in memory.
    pub window_bytes: u64,
    /// How often the store was opened.
    pub run: u64,
    /// What has happened since it was opened.
    pub counters: Counters,
    /// What opening found that was not as it should be.
    pub findings: Vec<String>,
    /// What repairs have set aside.
    pub quarantined: Quarantined,
    /// Lines that are lost.
    pub losses: Vec<Loss>,
    /// The sources with their checkpoints.
    pub sources: Vec<(SourceId, Bytes)>,
    /// The groups.
    pub groups: Vec<GroupStatus>,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Its number in the store.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// What it does, one word: `idle`, `running`, `retrying`, `refused`, `blocked`, `paused`.
    pub state: &'static str,
    /// Why, where that is not plain.
    pub reason: Option<String>,
    /// Everything up to here is acked or dead.
    pub ack_floor: Seq,
    /// Lines of the log that it has not acked.
    pub lag_lines: u64,
    /// The first of them.
    pub oldest: Option<Seq>,
    /// Bytes of lag, estimated from what its segments hold on average.
    pub lag_bytes: u64,
    /// Lines out with processors.
    pub leased: u64,
    /// Which.
    pub leases: Vec<SeqRange>,
    /// Dead letters that are held.
    pub dead_letters: u64,
    /// Lines acked since the group was created.
    pub acked_lines: u64,
    /// The last failure, for people.
    pub last_failure: Option<String>,
}
