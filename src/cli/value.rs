//! Values of options: their types, how they are read, and what is said of those that are wrong.

use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use spillq_storage::{Seq, SeqRange};

use crate::config::{parse_duration, parse_size};
use crate::messages::Format;
use crate::supervise::Cause;
use crate::tail;

/// Levels of messages.
pub(super) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A format of messages, by its word.
pub(super) fn log_format() -> impl TypedValueParser<Value = Format> {
    let words = PossibleValuesParser::new(["text", "json"]);
    words.map(|word| if word == "json" { Format::Json } else { Format::Text })
}

/// Where to begin with a file, or with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Beginning {
    /// With the oldest line
    Beginning,
    /// Behind the newest line
    End,
}

impl From<Beginning> for tail::From {
    fn from(from: Beginning) -> tail::From {
        match from {
            Beginning::Beginning => tail::From::Beginning,
            Beginning::End => tail::From::End,
        }
    }
}

/// A line that is rejected, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The line.
    pub seq: Seq,
    /// Why; may be empty.
    pub reason: String,
}

/// How long `group lease` may wait: the socket of the service cuts requests off later.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(25);
    duration(text).and_then(|wait| match wait <= MOST {
        true => Ok(wait),
        false => Err("too long; at most \"25s\"".to_owned()),
    })
}

/// `17` or `17=no such coin`.
pub(super) fn bad(text: &str) -> Result<Bad, String> {
    let (number, reason) = text.split_once('=').unwrap_or((text, ""));
    Ok(Bad { seq: seq(number)?, reason: reason.to_owned() })
}

/// How lines are passed to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputForm {
    /// As they are in their files
    Lines,
    /// One JSON object per line
    Ndjson,
}

/// Where a group moves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line.
    Seq(Seq),
    /// The first line appended since.
    Time(SystemTime),
    /// The first line appended within this time.
    Ago(Duration),
    /// The oldest stored line.
    Beginning,
    /// Behind the newest line.
    End,
}

/// A value that its check refused, in one line: `--for 5 parsecs: not a duration; ...`. `None` for other errors, which
/// clap words well.
pub(super) fn usage(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg)?;
    let option = argument.split(" <").next().unwrap_or(argument);
    let why = std::error::Error::source(error)?;
    Some(format!("{option} {}: {why}", text(ContextKind::InvalidValue)?))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration; write it as 90s, 10m or 1h30m".to_owned())
}

/// A number of lines. `1_000_000` is accepted, because it is easier to read.
pub(super) fn count(text: &str) -> Result<u64, String> {
    text.replace('_', "")
        .parse()
        .map_err(|_| "not a number of lines; write it as 1000000 or 1_000_000".to_owned())
}

/// Bytes, at least one.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).or_else(|| text.parse().ok());
    size.filter(|size| *size > 0).ok_or_else(|| "not a size; write it as 64KiB, 1MiB or 1048576".to_owned())
}

/// A number of lines, at least one.
pub(super) fn some_lines(text: &str) -> Result<u64, String> {
    count(text).and_then(|lines| if lines > 0 { Ok(lines) } else { Err("at least 1".to_owned()) })
}

/// The time of a lease.
pub(super) fn lease_time(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(12 * 60 * 60);
    let time = duration(text)?;
    if (LEAST..=MOST).contains(&time) { Ok(time) } else { Err("from \"100ms\" to \"12h\"".to_owned()) }
}

/// The token of a lease, or `-`.
pub(super) fn lease_token(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("empty; `spillq group lease` prints the token".to_owned()),
        token => Ok(token.to_owned()),
    }
}

/// How many lines to measure with.
pub(super) fn measured(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("without a line there is nothing to measure".to_owned()),
        lines => Ok(lines),
    }
}

pub(super) fn place(text: &str) -> Result<Place, String> {
    match text {
        "beginning" => return Ok(Place::Beginning),
        "end" => return Ok(Place::End),
        _ => {}
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return seq(text).map(Place::Seq);
    }
    let time = humantime::parse_rfc3339_weak(text).ok().map(Place::Time);
    time.or_else(|| parse_duration(text).map(Place::Ago)).ok_or_else(|| {
        "not a line to move to; write a seq, a time in UTC (2026-03-01T08:00:00Z), how long ago (24h), beginning or end".to_owned()
    })
}

/// The words of all causes, for `doctor --explain`.
pub(super) fn causes() -> PossibleValuesParser {
    Cause::ALL.iter().map(|cause| cause.word()).collect::<Vec<_>>().into()
}

pub(super) fn seq(text: &str) -> Result<Seq, String> {
    match text.parse() {
        Ok(number) if number >= Seq::FIRST.0 => Ok(Seq(number)),
        _ => Err("not a seq; seqs are numbers from 1".to_owned()),
    }
}

pub(super) fn seqs(text: &str) -> Result<SeqRange, String> {
    let range = match text.split_once('-') {
        Some((first, last)) => seq(first).and_then(|first| Ok((first, seq(last)?))),
        None => seq(text).map(|only| (only, only)),
    };
    range
        .ok()
        .and_then(|(first, last)| SeqRange::new(first, last))
        .ok_or_else(|| "neither a seq nor a range of them; write it as 100 or 100-120".to_owned())
}
