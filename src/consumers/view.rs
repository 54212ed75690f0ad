//! What is known of consumers and of the leases that are out, for `status`, `doctor` and metrics.

use spillq_storage::SeqRange;

/// What is known of the consumers of one group, for its diagnosis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Most recently seen first.
    pub consumers: Vec<ConsumerView>,
    /// The leases that are out, oldest first.
    pub held: Vec<HeldView>,
    /// Leases that expired since the last one was settled.
    pub expired_in_a_row: u64,
    /// The last of these.
    pub last_expired: Option<ExpiredView>,
    /// Leases that were given out in this run of the service.
    pub leased: u64,
    /// Settlements that counted.
    pub settled: u64,
    /// Leases that expired.
    pub expired: u64,
}

/// A consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerView {
    /// Its name.
    pub name: String,
    /// When it last asked or settled.
    pub last_ms: u64,
    /// Requests for lines.
    pub asked: u64,
    /// Leases that it got.
    pub leased: u64,
    /// Settlements that counted.
    pub settled: u64,
    /// Leases that expired.
    pub expired: u64,
    /// Lines that it acked.
    pub acked_lines: u64,
}

/// A lease that expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredView {
    /// The consumer that had it.
    pub consumer: String,
    /// Its lines.
    pub range: SeqRange,
    /// When.
    pub at_ms: u64,
}

/// A lease that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldView {
    /// The consumer that has it.
    pub consumer: String,
    /// Its lines.
    pub range: SeqRange,
    /// When it began.
    pub since_ms: u64,
    /// When it expires.
    pub until_ms: u64,
}
