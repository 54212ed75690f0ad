//! What can be wrong. Each cause has one word that doctor, metrics, alerts and the runbook share.

use std::fmt;

/// When a cause can be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// While the service runs.
    Running,
    /// About the previous run.
    Afterwards,
    /// Only when somebody runs `doctor`: on the host, or on a stopped store.
    OnDemand,
}

/// Makes the causes, the list of all of them, and their words from one table.
macro_rules! causes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $word:literal, $seen:ident;)+) => {
        /// What is wrong. docs/how-to/operate.md has a section for the word of each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause { $($(#[doc = $meaning])+ $name,)+ }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Cause] = &[$(Cause::$name),+];

            /// Its word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Cause::$name => $word),+ }
            }

            /// When it can be reported.
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
    /// The same, and acked lines of other groups stay on disk because of it.
    PinsLog = "pins_log", Running;
    /// A command fails again and again.
    Crashing = "crashing", Running;
    /// The kernel killed a command because memory ran out.
    ProcessorOom = "processor_oom", Running;
    /// A batch exceeds its timeout.
    Hung = "hung", Running;
    /// Acks arrive, but the ack floor does not rise, or disk space is not freed.
    NotClearing = "not_clearing", Running;
    /// In strict order one line keeps failing without being blamed, and all lines behind it wait.
    HeldLine = "held_line", Running;
    /// The destination is misconfigured.
    Refused = "refused", Running;
    /// As many lines in a row were rejected as `retry.rejects` allows: the command is assumed to be wrong, not the lines.
    EveryLineRejected = "every_line_rejected", Running;
    /// The destination has lost lines that it had stored.
    DestinationLost = "destination_lost", Running;
    /// The destination fails for all lines.
    Outage = "outage", Running;
    /// More lines arrive than are acked.
    FallingBehind = "falling_behind", Running;
    /// A block cannot be read.
    Damage = "damage", Running;
    /// Lines were dead-lettered, and no operator has decided about them yet.
    DeadLetters = "dead_letters", Running;
    /// The limit of dead letters is reached.
    DeadLettersFull = "dead_letters_full", Running;
    /// The log is at its limit.
    DiskFull = "disk_full", Running;
    /// Other files fill the file system.
    DiskFilledByOthers = "disk_filled_by_others", Running;
    /// The file system of the data dir is mounted read-only.
    DiskReadOnly = "disk_read_only", Running;
    /// A group is at its `max_lag`, and ingestion waits for it.
    MaxLag = "max_lag", Running;
    /// Ingestion pauses, and files with unread bytes were rotated away.
    RotationRisk = "rotation_risk", Running;
    /// A followed file cannot be read.
    SourceUnreadable = "source_unreadable", Running;
    /// More files match than are followed at once.
    TooManyFiles = "too_many_files", Running;
    /// A read of a followed file does not return.
    TailHung = "tail_hung", Running;
    /// Lines wait, and no consumer asks for them.
    NoConsumer = "no_consumer", Running;
    /// Consumers lease lines, and do not settle them in time.
    LeasesExpire = "leases_expire", Running;
    /// The process ended while lines were in flight.
    ConsumerVanished = "consumer_vanished", OnDemand;
    /// A line was the only one in flight each time the process died.
    KillerLine = "killer_line", Running;
    /// The configuration on disk is not valid, and an earlier one is still in effect.
    ConfigRefused = "config_refused", Running;
    /// Several runs in a row ended without a clean stop.
    CrashLoop = "crash_loop", Running;
    /// The last run was killed.
    Killed = "killed", Afterwards;
    /// The last run was killed because memory ran out.
    OutOfMemory = "out_of_memory", Afterwards;
    /// The last run ended itself because a commit did not return.
    Stuck = "stuck", Afterwards;
    /// The user who runs `doctor` may not use the data dir.
    Permissions = "permissions", OnDemand;
    /// The clock is wrong.
    Clock = "clock", OnDemand;
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
