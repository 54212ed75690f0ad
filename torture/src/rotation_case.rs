//! A case of the campaign of logrotate, and what became of it.

use std::fmt;

use crate::account::{Loss, Sum};
use crate::rotation_mode::Mode;

/// How files are rotated, and whether the service runs meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How files are rotated.
    pub mode: Mode,
    /// The service runs meanwhile.
    pub is_running: bool,
}

impl Case {
    /// Consecutive seeds go through all modes, half of them running; then the other halves.
    pub fn of(seed: u64) -> Case {
        let modes = Mode::ALL.len() as u64;
        let at = seed % modes;
        let mode = Mode::ALL.get(at as usize).copied().unwrap_or(Mode::Create);
        Case { mode, is_running: (at + seed / modes).is_multiple_of(2) }
    }

    /// Which lines may be missing.
    pub fn loss(self) -> Loss {
        match self.mode {
            mode if mode.truncates() => Loss::Truncated,
            Mode::RotateZero if !self.is_running => Loss::Deleted,
            _ => Loss::Nothing,
        }
    }

    /// A deleted file is gone at the next start, and it is not known whether more was written to it.
    pub fn may_lose_sight(self) -> bool {
        !self.is_running && self.mode.deletes()
    }

    /// What a writer writes to a file that was rotated away can be read.
    pub fn writers_may_be_late(self) -> bool {
        self.is_running || !self.mode.deletes()
    }
}

/// All of them.
pub fn all_cases() -> impl Iterator<Item = Case> {
    (0..2 * Mode::ALL.len() as u64).map(Case::of)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { mode, is_running } = self;
        write!(f, "{mode}, {}", if *is_running { "running" } else { "stopped" })
    }
}

/// What a case did.
pub struct Seen {
    /// Which.
    pub case: Case,
    /// Of all files at once.
    pub rotations: u64,
    /// How often a writer was late.
    pub late: u64,
    /// By SIGKILL.
    pub kills: u64,
    /// Clean ones.
    pub stops: u64,
    /// The result of its lines.
    pub sum: Sum,
}
