//! What is now at the path of a source, looked at when another file may be that source.

use std::fs;
use std::os::unix::fs::MetadataExt;

use spillq_storage::SourceId;

use crate::tail::bytes::Reader;
use crate::tail::clock::Now;
use crate::tail::known::{Likeness, OwnPath, Presence};
use crate::tail::rules::Book;

/// What is at the path; compares the content if the file is the same by its inode. `None` if there is no such source.
pub(crate) fn own_path(book: &mut Book, reader: &mut Reader, id: SourceId, now: Now) -> Option<OwnPath> {
    let source = book.get(id)?;
    if source.presence.is_replaced() {
        return Some(OwnPath::Truncated);
    }
    let (own, size) = match fs::metadata(source.path()) {
        Ok(meta) if source.is_file(meta.dev(), meta.ino()) => (OwnPath::Here, meta.len()),
        Ok(_) => (OwnPath::Taken, 0),
        Err(_) => (OwnPath::Gone, 0),
    };
    // If it is out of sight, the open file shows whether it was truncated since.
    let at_path = match own {
        OwnPath::Here => match book.open_path(source) {
            Ok((file, _)) => Some(file),
            Err(_) => return Some(own),
        },
        _ => None,
    };
    let Some(file) = at_path.as_ref().or_else(|| book.files().get(id)) else {
        return Some(own);
    };
    let Ok(same) = reader.look(file).and_then(|look| reader.compare(file, &look, source)) else {
        return Some(own);
    };
    let is_known = same.fingerprint == Likeness::Equal || source.may_be_another(same.size);
    if !(same.before_offset && is_known) {
        // An inactive source is not given up for that: nobody asked for its file.
        if source.presence != Presence::Inactive {
            book.mark_replaced(id);
        }
        return Some(OwnPath::Truncated);
    }
    // A copy can be as long as the source is by now, not as it was at the last look.
    if source.compressed.is_none() && size > source.size {
        if let Some(source) = book.get_mut(id) {
            (source.size, source.active_ms) = (size, now.boot_ms);
        }
        book.queue(id);
    }
    Some(own)
}
