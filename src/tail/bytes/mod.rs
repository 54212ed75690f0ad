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

pub(crate) use check::{Candidate, Check};
pub(crate) use compress::{Compressor, Jobs};
pub(crate) use decompress::{Decompressor, Fault, form_of, is_compressed};
pub(crate) use file::{ctime_ns, mtime_ns, read_full, read_up_to};
pub(crate) use fill::{APPEND_BYTES, Filler};
pub(crate) use frames::Frames;
pub(crate) use lines::{Split, flags, split};
pub(crate) use open::{Way, kind, leads_below, open_fifo};
pub(crate) use reader::{Look, Reader, Turn};
