//! The queue: one owner of the log, and who may ask it what.
//!
//! A plain thread owns the log. Everybody else sends it commands through a [`Handle`]; it gathers what waits into
//! one commit, makes that durable once, and only then answers. The queue knows no files, no HTTP and no
//! processor.

mod command;
mod retry;
mod window;

pub use command::{Append, Appended, Closed, Command, Handle, Ticket};
