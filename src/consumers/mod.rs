//! Consumers: programs that lease lines and settle them by themselves, over any protocol (`http::consumers` is the one there is).
//!
//! A lease is a range of lines with a token, which nobody can guess, and a deadline. There are no sessions: whoever has the
//! token settles the lease. The owner of the log decides what is leased and what a settlement means, as for any processor
//! (docs/explanation/delivery.md); what is here is lost with the process, and the lines are then delivered again.

mod access;
mod ahead;
mod coordinator;
mod settlement;
mod table;
mod token;
mod view;
mod why;

pub use access::{Access, Caller, Denied};
pub use coordinator::{Ask, Body, Claim, Coordinator, Form, GroupView, Leased, Refusal, SettleRefusal};
pub use settlement::{Settlement, Wrong};
pub use table::Gone;
pub use token::LeaseToken;
pub use view::{ConsumerView, ExpiredView, HeldView, Seen};
pub use why::Why;
