//! The queue: one owner of the log, and what it can be asked.
//!
//! A plain thread owns the log. All other code sends it commands through a [`Handle`]. The owner gathers the commands that
//! wait into one commit, makes it durable with one sync, and answers only then. The queue knows no files, no HTTP and no
//! processor.

mod admin;
mod clock;
mod command;
mod count;
mod failure;
mod group;
mod group_name;
mod hold;
mod lag;
#[cfg(test)]
mod model_test;
mod own;
mod owner;
mod phase;
mod pulse;
mod replay;
mod retry;
mod settings;
mod share;
mod sources;
mod status;
mod thread;
mod window;

pub use admin::{Admin, Answer, DEAD_LETTERS_SHOWN_MAX, Refusal, SeekTo};
pub use clock::{millis, now_ms, wall_ms};
pub use command::{
    Append, Appended, Closed, Command, Counted, Handle, Lease, Offer, Rejected, Settled, Ticket, Verdict,
};
pub use count::own_lines_waiting;
pub use failure::{FailureKind, OomKill};
pub use group_name::group_name;
pub use lag::{LagPolicy, MaxLag};
pub use own::{Own, Taken};
pub use phase::{Blocked, EveryLineRejected, LagReached, Phase, WhyFull, no_space};
pub use pulse::Pulse;
pub use replay::{Replay, ReplayError, Replays};
pub use settings::{Configuration, GroupSettings, RetrySettings, Stuck, WhenFull};
pub use sources::{Members, Origin, SourceGlobs};
pub use status::{
    Activity, DestinationLost, Discarded, DiscardedBy, Failing, GroupStatus, HeldLine, Status, Usage, Waits,
};
pub use thread::Queue;
pub use window::{Lent, Window};
