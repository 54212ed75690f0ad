//! The API of consumers: programs lease lines and settle them over HTTP (docs/how-to/consumers.md). It has separate sockets,
//! which administer nothing; the socket in the data dir serves it too.

mod body;
mod error;
#[cfg(test)]
mod openapi;
mod patience;
mod request;
mod routes;
mod sockets;
mod whole;
mod wire;

pub(super) use request::Peer;
pub(super) use routes::router;
pub use sockets::{CannotBind, ConsumerSockets};
pub(super) use wire::consumers_of;
pub use wire::{
    AckJson, AllJson, BadLineJson, ConsumerJson, ExtendJson, ExtendedJson, FailJson, GroupConsumersJson,
    HeldJson, LeaseRequestJson, LeftJson, SettleJson, SettledJson, ThroughJson,
};
