//! Tests of the tail as a whole, on real files.
//!
//! Most drive the worker step by step with a clock of their own and a log that answers when it is told to; `thread`
//! runs the real thing.

mod copies;
mod follow;
mod kept;
mod links;
mod logrotate;
mod many;
mod model;
mod order;
mod packed;
mod refollow;
mod refused;
mod released;
mod rotation;
mod streams;
mod support;
mod swap;
mod thread;
mod unread;
