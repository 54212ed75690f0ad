//! Supervision: what each group is doing and why, what the last run was doing, and the watchdog.
//!
//! [`judge`] is pure: it makes a verdict from counters and times (docs/explanation/supervision.md has its table).
//! [`Supervision`] keeps the times of changes. [`Supervisor`] is the thread that reads the status, writes EVENTS, and ends a
//! process whose disk hangs; it never waits for the owner without a deadline.

mod blocked;
mod cause;
mod commands;
mod consumers;
mod events;
mod failing;
mod healthy;
mod inputs;
mod judge;
mod judge_log;
mod last_run;
mod processor;
mod program;
mod rates;
mod state;
mod stopped;
mod supervision;
mod supervisor;
mod uncalled;
mod verdict;
mod wording;

pub use cause::{Cause, Seen};
pub use commands::{Commands, Started, quoted};
pub use events::{Entry, Event, Events};
pub use inputs::{
    AtRisk, Behind, ConfigRefused, DiskSettings, GroupInputs, JudgeSettings, LeftOut, LogInputs, Outside,
    Pauses, WhyUnreadable,
};
pub use judge::judge;
pub use judge_log::{judge_log, notes_on};
pub use last_run::{Ended, LastRun, last_run};
pub use processor::{ProcessorKind, ProcessorName};
pub use program::ProgramFile;
pub use state::State;
pub use stopped::{StoppedGroup, judge_end, judge_stopped};
pub use supervision::Supervision;
pub use supervisor::{Supervisor, WatchSettings};
pub use verdict::{Report, Verdict};
pub use wording::soon;
