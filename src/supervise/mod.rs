//! Supervision: what each group is doing and why, what the last run was doing, and the watchdog.
//!
//! [`judge`] is pure: counters and times in, a verdict out (docs/explanation/supervision.md has its table). [`Supervision`] keeps
//! the times of changes; [`Supervisor`] is the thread that looks, writes EVENTS and ends a process whose disk hangs.
//! It must never wait for the owner without a deadline.

mod blocked;
mod cause;
mod events;
mod failing;
mod held;
mod history;
mod host;
mod inputs;
mod judge;
mod judge_log;
mod last_run;
mod oom;
mod processor;
mod program;
mod rates;
mod report;
mod state;
mod stopped;
mod supervisor;
mod typed;
mod uncalled;
mod verdict;
mod well;
mod words;

pub use cause::{Cause, Seen};
pub use events::{Entry, Event, Events};
pub use history::{Outside, Supervision};
pub use inputs::{
    AtRisk, Behind, ConfigRefused, DiskSettings, GroupInputs, JudgeSettings, LeftOut, LogInputs, Pauses,
    WhyUnreadable,
};
pub use judge::judge;
pub use judge_log::{judge_log, notes_on};
pub use last_run::{Ended, LastRun, last_run};
pub use processor::{ProcessorKind, ProcessorName};
pub use program::ProgramFile;
pub use report::Report;
pub use state::State;
pub use stopped::{StoppedGroup, judge_end, judge_stopped};
pub use supervisor::{Supervisor, WatchSettings};
pub use typed::{Started, Typed, quoted};
pub use verdict::Verdict;
pub use words::soon;
