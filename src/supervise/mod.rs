//! Supervision: what each group is doing and why, what the last run was doing, and the watchdog.
//!
//! [`judge`] is pure: counters and times in, a verdict out (docs/supervision.md has its table). [`Supervision`] keeps
//! the times of changes; [`Supervisor`] is the thread that looks, writes EVENTS and ends a process whose disk hangs.
//! It must never wait for the owner without a deadline.

mod blocked;
mod cause;
mod events;
mod held;
mod history;
mod host;
mod inputs;
mod judge;
mod judge_log;
mod last_run;
mod processor;
mod rates;
mod state;
mod supervisor;
mod typed;
mod verdict;

pub use cause::{Cause, Seen};
pub use events::{Entry, Event, Events};
pub use history::{Outside, Report, Supervision};
pub use inputs::{
    AtRisk, Behind, ConfigRefused, DiskSettings, GroupInputs, JudgeSettings, LogInputs, Pauses,
};
pub use judge::{judge, soon};
pub use judge_log::{judge_log, notes_on};
pub use last_run::{Ended, LastRun, last_run};
pub use processor::{ProcessorKind, ProcessorName};
pub use state::State;
pub use supervisor::{Supervisor, WatchSettings};
pub use typed::{Typed, quoted};
pub use verdict::Verdict;
