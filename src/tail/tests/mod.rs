//! Tests of the tail as a whole, on real files.
//!
//! Most drive the worker step by step, with a clock of their own and a log that answers on request; `thread` runs the real
//! thread.

mod compressed;
mod copies;
mod follow;
mod inactive;
mod kept;
mod links;
mod logrotate;
mod many;
mod model;
mod order;
mod pace;
mod refused;
mod released;
mod rotation;
mod streams;
mod support;
mod swap;
mod thread;
mod unread;
