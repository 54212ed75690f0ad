//! The service: builds the parts, starts them, and stops them in the order that loses nothing. Only the files of this
//! folder know all parts.

mod build;
mod config_file;
mod drain;
mod lifecycle;
mod notify;
mod plan;
mod preview;
mod reload;
mod startup;
mod watched;
mod worker_pool;

pub use build::labels_of;
pub use lifecycle::{run, run_with};
pub use plan::{Drain, Ended, Plan, Progress, Reread, ServiceError};
pub use preview::{command_missing, preview};
pub(crate) use watched::{disk_settings, in_flight_at_the_end, killers};
