//! Whole numbers as JSON has them: `100.0` is one, and some languages write it so.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// The numbers of which all smaller ones have a form with a fraction of zero.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number from 0 on.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        deserializer.deserialize_any(AnyNumber)
    }
}

struct AnyNumber;

impl Visitor<'_> for AnyNumber {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 on")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
        Ok(Whole(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
        u64::try_from(number).map(Whole).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
        match number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number) {
            true => Ok(Whole(number as u64)),
            false => Err(E::invalid_value(Unexpected::Float(number), &self)),
        }
    }
}

/// A number.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

/// A number, or null.
pub(super) fn option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::<Whole>::deserialize(deserializer).map(|number| number.map(|Whole(number)| number))
}

/// Pairs of numbers.
pub(super) fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[u64; 2]>, D::Error> {
    let pairs = Vec::<[Whole; 2]>::deserialize(deserializer)?;
    Ok(pairs.into_iter().map(|pair| pair.map(|Whole(number)| number)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let read = |text: &str| serde_json::from_str::<Whole>(text).ok().map(|Whole(number)| number);
        for (text, number) in
            [("0", 0), ("100", 100), ("100.0", 100), ("1e3", 1_000), ("18446744073709551615", u64::MAX)]
        {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in ["-1", "1.5", "-0.5", "1e300", "\"1\"", "null", "true", "[]"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
