//! The HTTP interface of a running service. The unix socket in the data dir serves all requests; TCP addresses, if configured,
//! serve those that only read.
//!
//! Wire types live here and nowhere else. A user who may open the data dir may use the socket.

mod client;
mod consumers;
mod doctor;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod listeners;
mod outside;
mod programs;
mod refused;
mod reload;
mod seek;
mod server;
mod socket;
mod wire;

pub use client::{Answered, Client, ClientError};
pub use consumers::{
    AckJson, AllJson, BadLineJson, CannotBind, ConsumerJson, ConsumerSockets, ExtendJson, ExtendedJson,
    FailJson, GroupConsumersJson, HeldJson, LeaseRequestJson, LeftJson, SettleJson, SettledJson, ThroughJson,
};
pub use doctor::{DoctorJson, LastRunJson, VerdictJson};
pub use listeners::Addresses;
pub use outside::{file_system_bytes, free_bytes, is_read_only, outside, unread};
pub use reload::{ChangeJson, ConfigHandle, ConfigJson, ReloadJson, ReloadReply};
pub use server::{Api, serve};
pub use socket::SOCKET;
pub use wire::{
    AdminJson, AnswerJson, AnsweredBy, DeadLetterJson, ErrorJson, GivenJson, GroupJson, Labels,
    LeasedLineJson, LineJson, LogJson, LossesJson, ProcessJson, SeekToJson, SoughtJson, SourceJson,
    SourceNames, StatusJson, reason, time,
};
