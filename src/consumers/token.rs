//! The token of a lease: 128 random bits, and the run of the service that gave it out.

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

const RANDOM_BYTES: usize = 16;

/// Names a lease to the consumer that has it. It counts in one run of the service, and is never logged: `Debug` leaves it out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    run: u64,
    random: [u8; RANDOM_BYTES],
}

impl LeaseToken {
    /// A new one.
    ///
    /// # Errors
    /// If the kernel has no random numbers, which happens only while it boots.
    pub(super) fn new(run: u64) -> io::Result<LeaseToken> {
        let mut random = [0; RANDOM_BYTES];
        let mut filled = 0;
        while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += getrandom(rest, GetRandomFlags::empty())?;
        }
        Ok(LeaseToken { run, random })
    }

    /// Reads what [`LeaseToken::text`] wrote; `None` if it is not a token.
    #[must_use]
    pub fn parse(text: &str) -> Option<LeaseToken> {
        let (run, hex) = text.split_once('-')?;
        let is_plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        if hex.len() != 2 * RANDOM_BYTES || !is_plain(hex) || !is_plain(run) || run.starts_with('0') {
            return None;
        }
        let random = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
        Some(LeaseToken { run: run.parse().ok()?, random })
    }

    /// As it travels.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}-{:032x}", self.run, u128::from_be_bytes(self.random))
    }

    /// The run of the service that gave it out.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.run
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseToken({}-…)", self.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_never_shown() {
        let token = LeaseToken::new(7).unwrap();
        assert_eq!(LeaseToken::parse(&token.text()), Some(token));
        assert_ne!(LeaseToken::new(7).unwrap(), token);
        assert_eq!((token.run(), token.text().len()), (7, 34));
        assert_eq!(format!("{token:?}"), "LeaseToken(7-…)");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(LeaseToken::parse(&format!("12-{hex}")).is_some());
        for text in ["", "-", hex, &format!("x-{hex}"), &format!("01-{hex}"), &format!("-{hex}")] {
            assert_eq!(LeaseToken::parse(text), None, "{text}");
        }
        for hex in [
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789ABCDEF",
            "+123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(LeaseToken::parse(&format!("1-{hex}")), None, "{hex}");
        }
    }
}
