//! One value of the configuration, and what it may be. Each reader says what it expects where it refuses.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::settings::Word;
use super::value::{duration_text, parse_duration, parse_size, size_text};

/// One value, in a file or in the environment.
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Boolean(bool),
    /// From the environment, where everything is text.
    Variable(&'a str),
    /// A list, a table, a date.
    Other,
}

impl Scalar<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Scalar::Text(text) | Scalar::Variable(text) => Some(text),
            _ => None,
        }
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Scalar::Integer(integer) => Some(*integer),
            Scalar::Variable(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

pub(super) fn scalar<'v>(value: &'v DeValue<'_>) -> Scalar<'v> {
    match value {
        DeValue::String(text) => Scalar::Text(text),
        DeValue::Integer(integer) => {
            i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Scalar::Other, Scalar::Integer)
        }
        DeValue::Boolean(boolean) => Scalar::Boolean(*boolean),
        _ => Scalar::Other,
    }
}

/// Yes or no.
pub(super) fn boolean(scalar: &Scalar<'_>) -> Result<bool, String> {
    match scalar {
        Scalar::Boolean(boolean) => Ok(*boolean),
        Scalar::Variable("true") => Ok(true),
        Scalar::Variable("false") => Ok(false),
        _ => Err("expected true or false, without quotes".to_owned()),
    }
}

/// A size within bounds.
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Scalar<'_>) -> Result<u64, String> {
    move |scalar| {
        let bytes = match scalar {
            Scalar::Integer(bytes) => u64::try_from(*bytes).ok(),
            other => other.text().and_then(parse_size),
        };
        let bytes = bytes.ok_or("not a size; write it as \"50GiB\"")?;
        within(bytes, &bounds, |bytes| format!("{:?}", size_text(bytes)))
    }
}

/// A duration within bounds.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Scalar<'_>) -> Result<Duration, String> {
    move |scalar| {
        let duration = scalar.text().and_then(parse_duration);
        let duration = duration.ok_or("not a duration; write it as \"30s\", \"200ms\" or \"1h 30m\"")?;
        within(duration, &bounds, |duration| format!("{:?}", duration_text(duration)))
    }
}

/// A number within bounds.
pub(super) fn number(bounds: RangeInclusive<u64>) -> impl Fn(&Scalar<'_>) -> Result<u64, String> {
    move |scalar| {
        let number = scalar.integer().and_then(|number| u64::try_from(number).ok());
        let number = number.ok_or_else(|| {
            format!("not a number from {} to {}, without quotes", bounds.start(), bounds.end())
        })?;
        within(number, &bounds, |number| number.to_string())
    }
}

/// One of the words of `W`.
pub(super) fn word<W: Word>(scalar: &Scalar<'_>) -> Result<W, String> {
    let known = || {
        let words: Vec<String> = W::ALL.iter().map(|(word, _)| format!("{word:?}")).collect();
        words.join(" or ")
    };
    let written = scalar.text().unwrap_or_default();
    if W::LATER.contains(&written) {
        return Err(format!("not in this version; write {}", known()));
    }
    W::ALL
        .iter()
        .find(|(word, _)| *word == written)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("expected {}", known()))
}

/// A text that is not empty, as `read` takes it.
pub(super) fn text<T>(read: impl Fn(&str) -> Result<T, String>) -> impl Fn(&Scalar<'_>) -> Result<T, String> {
    any_text(move |text| match text {
        "" => Err("is empty".to_owned()),
        text => read(text),
    })
}

/// A text, as `read` takes it.
pub(super) fn any_text<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&Scalar<'_>) -> Result<T, String> {
    move |scalar| read(scalar.text().ok_or("not a text; write it in quotes")?)
}

fn within<T: PartialOrd + Copy>(
    value: T,
    bounds: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> Result<T, String> {
    if value < *bounds.start() {
        Err(format!("too small; at least {}", show(*bounds.start())))
    } else if value > *bounds.end() {
        Err(format!("too large; at most {}", show(*bounds.end())))
    } else {
        Ok(value)
    }
}
