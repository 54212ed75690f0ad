//! A file that a scan found and opened.

use std::fs::File;

use crate::tail::bytes::reader::Look;
use crate::tail::find::walk::Found;

pub(crate) struct Opened {
    pub(crate) found: Found,
    pub(crate) file: File,
    pub(crate) look: Look,
}
