//! What programs read and send: the JSON of status, lines, dead letters and requests. docs/reference/http.md explains it:
//! here a field has a comment if its name does not say enough.
#![allow(missing_docs)]

mod admin;
mod line;
mod status;

pub use crate::plain::rfc3339 as time;
pub use admin::{AdminJson, AnswerJson, ErrorJson, GivenJson, SeekToJson, SoughtJson};
pub use line::{DeadLetterJson, Labels, LeasedLineJson, LineJson, SourceNames};
pub use status::{AnsweredBy, GroupJson, LogJson, LossesJson, ProcessJson, SourceJson, StatusJson, reason};
