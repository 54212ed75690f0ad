//! Supervision: what each group is doing and why, what the last run was doing, and the watchdog.
//!
//! [`judge`] is pure: counters and times in, a verdict out (docs/supervision.md has its table). [`Supervision`] keeps
//! the times of changes; [`Supervisor`] is the thread that looks, writes EVENTS and ends a process whose disk hangs.
//! It must never wait for the owner without a deadline.

mod events;
mod history;
mod host;
mod inputs;
mod judge;
mod last_run;
mod supervisor;

pub use events::{Entry, Event, Events};
pub use history::{Outside, Report, Supervision};
pub use inputs::{GroupInputs, JudgeSettings, LogInputs};
pub use judge::{Verdict, judge, judge_log};
pub use last_run::{Ended, LastRun, last_run};
pub use supervisor::{Supervisor, WatchSettings};
