//! The sources that an unidentified file may be, by what a scan has found so far.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsString;

use spillq_storage::SourceId;

use crate::tail::known::{FINGERPRINT_BYTES, Fingerprint, Presence, Source, base};
use crate::tail::rules::{Book, Families, Opened, order};

/// A short file is compared with this many sources of its name in other folders, and with this many that are gone, the
/// newest: there may be thousands.
const SAME_NAME_MAX: usize = 64;

/// Made once in a scan, when the first unidentified file asks for it.
#[derive(Debug)]
pub(crate) struct Index {
    fingerprints: HashMap<Fingerprint, Vec<SourceId>>,
    pub(crate) families: Families,
    /// By the name that their file had at first, in any folder: a copy may be made into another one. Only short files
    /// ask for it.
    names: OnceCell<HashMap<OsString, Vec<SourceId>>>,
    /// Those that are not at their path.
    missing: Vec<SourceId>,
}

impl Index {
    pub(crate) fn new(book: &Book) -> Index {
        let mut fingerprints: HashMap<_, Vec<_>> = HashMap::new();
        // Of a provisional one nothing was read.
        let is_known = |source: &&Source| source.fingerprint.len > 0 && !source.is_provisional();
        for source in book.sources().iter().filter(is_known) {
            fingerprints.entry(source.fingerprint).or_default().push(source.id);
        }
        let is_missing = |source: &&Source| {
            source.presence != Presence::Inactive && !source.presence.is_found_by(book.scan())
        };
        Index {
            fingerprints,
            families: order::families(book),
            names: OnceCell::new(),
            missing: book.sources().iter().filter(is_missing).map(|source| source.id).collect(),
        }
    }

    /// The sources that begin as a file does. The longest content comes first: if it fits, it is the best evidence.
    pub(crate) fn candidates(&self, book: &Book, opened: &Opened) -> Vec<SourceId> {
        let mut candidates: Vec<SourceId> = Fingerprint::prefixes(&opened.look.start)
            .filter_map(|print| self.fingerprints.get(&print))
            .flatten()
            .copied()
            .collect();
        candidates.extend(self.longer(book, opened));
        candidates.sort_by_key(|id| book.get(*id).map(|source| std::cmp::Reverse(source.compared())));
        candidates
    }

    /// Sources whose fingerprint covers more than a short file has: those that are missing, and those whose name, without a
    /// number, it has. All sources would be too many to compare each new file with.
    fn longer(&self, book: &Book, opened: &Opened) -> Vec<SourceId> {
        let len = opened.look.start.len();
        if len >= FINGERPRINT_BYTES || opened.look.form.is_some() {
            return Vec::new();
        }
        let family = order::family_of(book, &opened.found.path);
        let at_path = book.sources().at(&family);
        let names = self.names.get_or_init(|| names(book));
        let named = base(&opened.found.path).file_name().and_then(|name| names.get(name));
        let named = named.into_iter().flatten().rev().take(SAME_NAME_MAX);
        let family = self.families.get(&family).into_iter().flatten();
        // A resume point is compared without a look at any file; an open file is read, so not thousands of them.
        let missing = || self.missing.iter().filter_map(|id| book.get(*id));
        let by_point = missing().filter(|source| source.resume_points.is_in(&opened.look.start));
        let open = missing().rev().filter(|source| book.files().has(source.id)).take(SAME_NAME_MAX);
        let missing = by_point.chain(open).map(|source| &source.id);
        let mut ids: Vec<SourceId> = family.chain(named).chain(missing).chain(&at_path).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| {
            book.get(*id).is_some_and(|source| {
                usize::from(source.fingerprint.len) > len
                    && !source.is_provisional()
                    && source.compressed.is_none()
            })
        });
        ids
    }
}

/// The sources by the name without a number that their file had at first.
fn names(book: &Book) -> HashMap<OsString, Vec<SourceId>> {
    let mut names = HashMap::<_, Vec<_>>::new();
    for source in book.sources().iter() {
        if let Some(name) = base(source.first_path()).file_name() {
            names.entry(name.to_owned()).or_default().push(source.id);
        }
    }
    names
}
