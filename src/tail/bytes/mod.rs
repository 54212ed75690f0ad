//! From the bytes of files to blocks of lines.

pub(crate) mod check;
pub(crate) mod compress;
pub(crate) mod decompress;
pub(crate) mod file;
pub(crate) mod fill;
pub(crate) mod frames;
pub(crate) mod lines;
pub(crate) mod open;
pub(crate) mod reader;
