//! The states of a group or of the log. Each has one word that `status`, `doctor`, metrics and EVENTS share.

use crate::queue::Phase;

/// Makes the states, the list of all of them, and their words from one table.
macro_rules! states {
    ($($(#[doc = $meaning:literal])+ $name:ident = $word:literal;)+) => {
        /// What a group or the log is doing: a [`Phase`], or what a verdict adds to it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum State { #[default] $($(#[doc = $meaning])+ $name,)+ }

        impl State {
            /// All of them.
            pub const ALL: &'static [State] = &[$(State::$name),+];

            /// Its word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(State::$name => $word),+ }
            }
        }
    };
}

states! {
    /// Nothing waits.
    Idle = "idle";
    /// Lines are delivered.
    Running = "running";
    /// Lines failed and are delivered again later, or the destination is down.
    Retrying = "retrying";
    /// The destination refuses all lines.
    Refused = "refused";
    /// It cannot continue by itself.
    Blocked = "blocked";
    /// An operator paused it.
    Paused = "paused";
    /// A batch exceeds its timeout.
    Hung = "hung";
    /// A command keeps failing.
    Crashing = "crashing";
    /// Lines wait and nothing is leased.
    NeverCalled = "never_called";
    /// Acks arrive, but the ack floor does not rise, or disk space is not freed.
    NotClearing = "not_clearing";
    /// A batch takes long, or more lines arrive than are acked.
    Slow = "slow";
}

impl State {
    /// The state of a stored word; `None` for a word of another version.
    #[must_use]
    pub fn of_word(word: &str) -> Option<State> {
        State::ALL.iter().copied().find(|state| state.word() == word)
    }
}

impl From<&Phase> for State {
    fn from(phase: &Phase) -> State {
        match phase {
            Phase::Idle => State::Idle,
            Phase::Running => State::Running,
            Phase::Retrying { .. } => State::Retrying,
            Phase::Refused { .. } => State::Refused,
            Phase::Blocked(_) => State::Blocked,
            Phase::Paused => State::Paused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_one_state() {
        for state in State::ALL {
            assert_eq!(State::of_word(state.word()), Some(*state));
        }
        assert_eq!(State::of_word("of another version"), None);
    }
}
