//! What is known of the followed files: plain data and pure rules. Nothing here reads a file.

pub(crate) mod form;
pub(crate) mod identity;
pub(crate) mod open_files;
pub(crate) mod queues;
pub(crate) mod record;
pub(crate) mod rotated_name;
pub(crate) mod source;
pub(crate) mod table;

pub(crate) use form::{Compressed, Form, State, Whole};
pub(crate) use identity::{
    COPY_WAIT_MS, Decision, Evidence, FINGERPRINT_BYTES, Fingerprint, Held, Likeness, OwnPath,
    RESUME_POINT_BYTES, ResumePoints, SAME_PATH_BYTES, crc_before, decide,
};
pub(crate) use open_files::OpenFiles;
pub(crate) use queues::{Checkpoints, Turns};
pub(crate) use record::SourceRecord;
pub(crate) use rotated_name::{base, is_named_as, uncompressed, unrotated};
pub(crate) use source::{Ending, Location, Presence, Source};
pub(crate) use table::{SOURCES_MAX, Table};
