//! What is known of the followed files: plain data and pure rules. Nothing here reads a file.

pub(crate) mod form;
pub(crate) mod identity;
pub(crate) mod open_files;
pub(crate) mod queues;
pub(crate) mod record;
pub(crate) mod rotated_name;
pub(crate) mod source;
pub(crate) mod table;
