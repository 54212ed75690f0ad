//! Which run of the service wrote something to a destination: who is late, and who has a copy of the store.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

/// A run of the service, or one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Greater than those of the runs before: the time when it began, in milliseconds, and more than what was seen of others.
    pub(super) number: u64,
    /// Another one in each run, to tell two services with a copy of one store from each other.
    pub(super) id: String,
}

impl Run {
    /// The run that begins now.
    pub(super) fn begin() -> Run {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Run { number, id: format!("{:016x}", fastrand::u64(..)) }
    }
}

/// `1796112000000-9f3ad2c40b1e5f67`.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.id)
    }
}

impl FromStr for Run {
    type Err = String;

    fn from_str(text: &str) -> Result<Run, String> {
        let wrong = || format!("not a run of spillq: {text:?}");
        let (number, id) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Run { number: number.parse().map_err(|_| wrong())?, id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_back_and_a_later_one_has_a_greater_number() {
        let run = Run::begin();
        assert_eq!(run.to_string().parse(), Ok(run.clone()));
        assert!(Run::begin().number >= run.number && Run::begin().id != run.id);
        for wrong in ["", "17", "a-3", "-1-a", "x"] {
            assert!(wrong.parse::<Run>().is_err(), "{wrong}");
        }
    }
}
