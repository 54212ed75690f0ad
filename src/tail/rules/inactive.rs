//! Sources that no follow names.
//!
//! A source is *inactive* while no follow names its path or the one that it was rotated from: its file is closed and not
//! read, and its checkpoint stays in the log, over restarts too. When a follow names it again, it resumes at its offset,
//! after the same look at its content as after a restart. It does not end for not being found. Only if places for other
//! files are short, and its file is gone, it makes room.

use std::io::ErrorKind;
use std::path::Path;

use spillq_storage::SourceId;

use crate::tail::find::Follows;
use crate::tail::known::{Ending, Presence, Source};
use crate::tail::rules::Book;

/// These follows from now on. The next scan looks for what they name.
pub(crate) fn refollow(book: &mut Book, follows: Follows) {
    book.set_follows(follows);
    assign(book);
}

/// Each source belongs to the follow that names it, or is inactive.
pub(crate) fn assign(book: &mut Book) {
    let ids: Vec<SourceId> = book.sources().iter().map(|source| source.id).collect();
    for id in ids {
        let Some(source) = book.get(id) else {
            continue;
        };
        let own = book.follows().names(source.path());
        let former = || source.rotated_from.as_deref().and_then(|path| book.follows().names(path));
        let follow = own.or_else(former);
        let Some(source) = book.get_mut(id) else {
            continue;
        };
        match follow {
            Some(follow) => {
                source.follow = follow;
                source.outside = own.is_none();
                if source.presence == Presence::Inactive {
                    source.presence = Presence::Here { scan: 0 };
                }
            }
            None if source.presence == Presence::Inactive => {}
            None => {
                source.deactivate();
                book.close(id);
                book.keep(id);
            }
        }
    }
}

/// Places are short: inactive sources whose files are gone end.
pub(crate) fn end_gone(book: &mut Book) {
    let is_gone =
        |path: &Path| std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let is_useless = |source: &&Source| source.presence == Presence::Inactive && is_gone(source.path());
    let gone: Vec<SourceId> = book.sources().iter().filter(is_useless).map(|source| source.id).collect();
    for id in gone {
        book.end_soon(id, Ending::Finished);
    }
}
