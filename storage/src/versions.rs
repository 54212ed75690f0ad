//! The types of records in a store: their names in errors, the version that is written, and the oldest that is read.

use crate::codec::Versioned;
use crate::ids::{GroupId, Seq};
use crate::manifest::State;
use crate::record::{Record, RecordRef};
use crate::retained::DeadLetter;
use crate::{version1, version2};

impl Versioned for Record {
    const NAME: &'static str = "a journal record";
    /// 2: kinds of losses; failures and deaths in place of attempts; leases that count nothing. 3: blocks that are
    /// referenced.
    const VERSION: u8 = 3;
    const OLDEST: u8 = 1;

    fn decode_older(version: u8, body: &[u8]) -> Result<Record, String> {
        if version == 1 { version1::Record::decode(body) } else { version2::Record::decode(body) }
    }
}

/// It is only written.
impl Versioned for RecordRef<'_> {
    const NAME: &'static str = Record::NAME;
    const VERSION: u8 = Record::VERSION;
}

impl Versioned for State {
    const NAME: &'static str = "a manifest";
    /// 2: as [`Record`]. It has not changed since.
    const VERSION: u8 = 2;
    const OLDEST: u8 = 1;

    fn decode_older(_: u8, body: &[u8]) -> Result<State, String> {
        version1::State::decode(body)
    }
}

impl Versioned for DeadLetter {
    const NAME: &'static str = "a dead letter";
    /// 2: with its cause.
    const VERSION: u8 = 2;
    const OLDEST: u8 = 1;

    fn decode_older(_: u8, body: &[u8]) -> Result<DeadLetter, String> {
        version1::DeadLetter::decode(body)
    }
}

/// The end of a dead letter: of which group, and of which line.
impl Versioned for (GroupId, Seq) {
    const NAME: &'static str = "the end of a dead letter";
    const VERSION: u8 = 1;
}
