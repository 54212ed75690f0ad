//! What can be wrong, each with one word that doctor, metrics, alerts and the runbook share.

use std::fmt;

/// Where a cause is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// By the running service.
    Running,
    /// Of the run before, when it is over.
    Afterwards,
    /// By who types `doctor`: around the store, or on one that is stopped.
    Typed,
}

/// Makes the causes, the list of all of them, and their words from one table.
macro_rules! causes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $word:literal, $seen:ident;)+) => {
        /// What is wrong. The word of each is a section of docs/how-to/operate.md, which says what to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause { $($(#[doc = $meaning])+ $name,)+ }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Cause] = &[$(Cause::$name),+];

            /// In one word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Cause::$name => $word),+ }
            }

            /// Where it is seen.
            #[must_use]
            pub fn seen(self) -> Seen {
                match self { $(Cause::$name => Seen::$seen),+ }
            }
        }
    };
}

causes! {
    /// Lines wait and nothing is leased.
    NeverCalled = "never_called", Running;
    /// The same, and the other groups' disk is held by it.
    PinsLog = "pins_log", Running;
    /// A command fails again and again.
    Crashing = "crashing", Running;
    /// The kernel killed a command for want of memory.
    ProcessorOom = "processor_oom", Running;
    /// A batch goes past its time-out.
    Hung = "hung", Running;
    /// Acks arrive, and the ack floor or the disk does not move.
    NotClearing = "not_clearing", Running;
    /// In strict order one line fails again and again without being blamed, and everything behind it waits.
    HeldLine = "held_line", Running;
    /// The destination is set up wrongly.
    Refused = "refused", Running;
    /// As many lines in a row as may be were rejected: the command is taken to be wrong, not the lines.
    EveryLineRejected = "every_line_rejected", Running;
    /// The destination has no more what it had taken.
    DestinationLost = "destination_lost", Running;
    /// The destination fails for everything.
    Outage = "outage", Running;
    /// More lines come in than are acked, and the disk will be full.
    FallingBehind = "falling_behind", Running;
    /// A block cannot be read.
    Damage = "damage", Running;
    /// Lines were dead-lettered, and nobody has decided about them yet.
    DeadLetters = "dead_letters", Running;
    /// No more lines can be dead-lettered.
    DeadLettersFull = "dead_letters_full", Running;
    /// The log is at its limit.
    DiskFull = "disk_full", Running;
    /// The file system is full of what is not ours.
    DiskFilledByOthers = "disk_filled_by_others", Running;
    /// The file system of the data dir is mounted read-only.
    DiskReadOnly = "disk_read_only", Running;
    /// A group is at its `max_lag`, and taking in waits for it.
    MaxLag = "max_lag", Running;
    /// Taking in pauses, and files with unread bytes are rotated away.
    RotationRisk = "rotation_risk", Running;
    /// A followed file cannot be read.
    SourceUnreadable = "source_unreadable", Running;
    /// More files match than are followed at once.
    TooManyFiles = "too_many_files", Running;
    /// A read of a followed file does not return.
    TailHung = "tail_hung", Running;
    /// The process ended while lines were out: whoever had them is gone.
    ConsumerVanished = "consumer_vanished", Typed;
    /// A line that was out alone each time that the process died.
    KillerLine = "killer_line", Running;
    /// The configuration on disk is not valid, and an earlier one runs on.
    ConfigRefused = "config_refused", Running;
    /// Runs end without a clean stop, one after the other.
    CrashLoop = "crash_loop", Running;
    /// The last run was killed.
    Killed = "killed", Afterwards;
    /// It was killed for want of memory.
    OutOfMemory = "out_of_memory", Afterwards;
    /// It ended itself because a commit did not return.
    Stuck = "stuck", Afterwards;
    /// The data dir may not be used by who asks.
    Permissions = "permissions", Typed;
    /// The clock is wrong.
    Clock = "clock", Typed;
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_causes_share_a_word() {
        let mut words: Vec<&str> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Cause::ALL.len());
    }
}
