//! How a running service is asked: HTTP over the unix socket in the data dir.
//!
//! Wire types live here and nowhere else. The socket is the only door; who may open the data dir may use it.

mod client;
mod doctor;
mod server;
mod wire;

pub use client::{Client, ClientError};
pub use doctor::{DoctorJson, LastRunJson, VerdictJson};
pub use server::{Api, SOCKET, free_bytes, outside, serve};
pub use wire::{
    AdminJson, AnswerJson, DeadLetterJson, ErrorJson, GroupJson, LineJson, LogJson, LossesJson, SeekToJson,
    SoughtJson, SourceJson, SourceNames, StatusJson,
};
