//! Every cause that a verdict can have: the words that doctor, metrics, alerts and the runbook share.

/// Where a cause is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// By the running service.
    Running,
    /// Of the run before, when it is over.
    Afterwards,
    /// By who types `doctor`: around the store.
    Typed,
}

/// All of them. What is judged is checked against this in debug builds; a test wants an alert for each that a service
/// can tell.
pub const CAUSES: &[(&str, Seen)] = &[
    ("never_called", Seen::Running),
    ("crashing", Seen::Running),
    ("hung", Seen::Running),
    ("not_clearing", Seen::Running),
    ("refused", Seen::Running),
    ("outage", Seen::Running),
    ("falling_behind", Seen::Running),
    ("dead_letters_full", Seen::Running),
    ("damage", Seen::Running),
    ("disk_full", Seen::Running),
    ("disk_filled_by_others", Seen::Running),
    ("rotation_risk", Seen::Running),
    ("source_unreadable", Seen::Running),
    ("tail_hung", Seen::Running),
    ("killer_line", Seen::Running),
    ("crash_loop", Seen::Running),
    ("config_refused", Seen::Running),
    ("killed", Seen::Afterwards),
    ("out_of_memory", Seen::Afterwards),
    ("stuck", Seen::Afterwards),
    ("permissions", Seen::Typed),
    ("clock", Seen::Typed),
];

/// Whether a word is one of them.
#[must_use]
pub fn is_cause(word: &str) -> bool {
    CAUSES.iter().any(|(cause, _)| *cause == word)
}
