//! The types of records in a store: their names in errors, the version that is written, and the oldest that is read.

use crate::codec::{Versioned, Written};
use crate::ids::{GroupId, Seq};
use crate::manifest::State;
use crate::record::{Record, RecordRef};
use crate::retained::DeadLetter;
use crate::version1;

impl Written for Record {
    const NAME: &'static str = "a journal record";
    /// 2: kinds of losses; failures and deaths in place of attempts; leases that count nothing.
    const VERSION: u8 = 2;
}

impl Written for RecordRef<'_> {
    const NAME: &'static str = Record::NAME;
    const VERSION: u8 = Record::VERSION;
}

impl Versioned for Record {
    const OLDEST: u8 = 1;

    fn decode_older(_: u8, body: &[u8]) -> Result<Record, String> {
        version1::Record::decode(body)
    }
}

impl Written for State {
    const NAME: &'static str = "a manifest";
    /// 2: as [`Record`].
    const VERSION: u8 = 2;
}

impl Versioned for State {
    const OLDEST: u8 = 1;

    fn decode_older(_: u8, body: &[u8]) -> Result<State, String> {
        version1::State::decode(body)
    }
}

impl Written for DeadLetter {
    const NAME: &'static str = "a dead letter";
    /// 2: with its cause.
    const VERSION: u8 = 2;
}

impl Versioned for DeadLetter {
    const OLDEST: u8 = 1;

    fn decode_older(_: u8, body: &[u8]) -> Result<DeadLetter, String> {
        version1::DeadLetter::decode(body)
    }
}

/// The end of a dead letter: of which group, and of which line.
impl Written for (GroupId, Seq) {
    const NAME: &'static str = "the end of a dead letter";
    const VERSION: u8 = 1;
}

impl Versioned for (GroupId, Seq) {}
