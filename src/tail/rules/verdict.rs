//! Who a compressed file is that was checked: rows 14 to 17 and 20 of `docs/explanation/tail.md`.
//!
//! It is new, or a duplicate of a source that is still there, or what is left of one that is gone. No source ends as long as
//! a compressed file may be what is left of it. Nothing here decompresses.

use spillq_storage::SourceId;

use crate::tail::bytes::check::Check;
use crate::tail::bytes::open::open;
use crate::tail::bytes::reader::Look;
use crate::tail::clock::Now;
use crate::tail::find::walk::Found;
use crate::tail::known::form::{Compressed, State, Whole};
use crate::tail::known::identity::{
    Decision, Evidence, FINGERPRINT_BYTES, Fingerprint, Held, Likeness, OwnPath, SAME_PATH_BYTES, decide,
};
use crate::tail::known::rotated_name::is_named_as;
use crate::tail::known::source::Source;
use crate::tail::rules::compressed::{Job, Slot};
use crate::tail::rules::identify::At;
use crate::tail::rules::opened::Opened;
use crate::tail::rules::order::is_rotation_of;
use crate::tail::worker::Worker;

/// Who a checked file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Duplicate(SourceId),
    /// What is left of a source, which goes on at this offset.
    Rest(SourceId, u64),
    /// Where that source is, or how far it is read, is not known yet.
    Later,
}

impl Worker {
    /// What was checked is somebody: the table.
    pub(crate) fn judge(&mut self, id: SourceId, now: Now) {
        let Some(Slot { job: Job::Check(check), .. }) = self.slot.take_if(|slot| slot.id == id) else {
            return;
        };
        let Some(whole) = check.whole() else {
            return self.wait(id);
        };
        let verdict = self.verdict(id, &check, whole, now);
        match verdict {
            Verdict::Rest(of, to) => return self.rest(id, of, to, whole, now),
            Verdict::Later => {
                self.scan_wanted = true;
                return self.wait(id);
            }
            Verdict::Duplicate(of) => {
                let before = self.table.get(id).and_then(|source| source.after);
                self.stand_for(id, before, of);
            }
            Verdict::New => {}
        }
        let Some(source) = self.table.get_mut(id) else {
            return;
        };
        source.fingerprint = Fingerprint::of(check.start());
        if source.error.take().is_some() {
            tracing::info!(path = %source.path.display(), "complete now");
        }
        let (size, state) = match verdict {
            Verdict::Duplicate(of) => (0, State::Duplicate { of, whole }),
            _ => (whole.size, State::Whole(whole)),
        };
        source.size = size;
        if let Some(compressed) = source.compressed.as_mut() {
            (compressed.form, compressed.state) = (check.form, state);
        }
        self.queue(id);
    }

    /// Rows 14 to 17, and 20.
    fn verdict(&mut self, id: SourceId, check: &Check, whole: Whole, now: Now) -> Verdict {
        let Some((path, is_gone)) = self.table.get(id).map(|one| (one.path.clone(), one.missed > 0)) else {
            return Verdict::Later;
        };
        for candidate in &check.candidates {
            let Some(own_path) = self.own_path(candidate.id, now) else {
                continue;
            };
            let Some(source) = self.table.get(candidate.id) else {
                continue;
            };
            let offset = source.offset;
            let is_here = own_path == OwnPath::Here;
            // A short content may be a header that many files have.
            let is_told = whole.size >= SAME_PATH_BYTES || is_gone || is_named_as(&path, &source.path);
            let is_alike = match &source.compressed {
                Some(compressed) => compressed.whole() == Some(whole),
                None => candidate.is_duplicate(),
            };
            let is_rest = !is_here && (whole.size >= offset || is_rotation_of(&path, source));
            let is_duplicate = is_alike && (is_told || is_rest);
            if is_here || source.file.is_some() && candidate.is_compared {
                if is_duplicate {
                    return Verdict::Duplicate(candidate.id);
                }
                continue;
            }
            let fingerprint = source.fingerprint.compare(check.start());
            let decision = decide(&Evidence {
                // Of one that is changed in place nothing but the content tells.
                same_path: *source.path == *path && source.replaced == 0,
                same_inode: false,
                fingerprint,
                size: whole.size,
                offset,
                before_offset: candidate.matches(offset) || is_duplicate && offset <= whole.size,
                point: candidate.point(),
                first_look: !source.looked,
                own_path,
                fresh: false,
                compared: source.compared(),
                // What is held open was compared byte by byte above, or is not what is in here.
                nothing_read: false,
                held: Held::No,
                named: is_rotation_of(&path, source),
            });
            let to = match decision {
                Decision::Continue | Decision::Copy => Some(offset),
                Decision::CopyRead => Some(whole.size),
                Decision::CopyFrom(to) => Some(to),
                _ => is_duplicate.then_some(whole.size.min(offset)),
            };
            // It was read on while the file was checked.
            let has_moved = fingerprint == Likeness::Equal
                && source.resume_points.crc_at(offset).is_some()
                && !candidate.knows(offset);
            let is_on_its_way =
                source.replaced == 0 && (source.seen == self.scan_number || source.missed == 1);
            match to {
                None if has_moved => return Verdict::Later,
                Some(_) if is_on_its_way || is_read(source) => return Verdict::Later,
                Some(to) => return Verdict::Rest(candidate.id, to),
                None => {}
            }
        }
        Verdict::New
    }

    /// The source `of` goes on in the compressed file, at `to`; the provisional source of that is no more.
    fn rest(&mut self, id: SourceId, of: SourceId, to: u64, whole: Whole, now: Now) {
        if !self.open_source(id) {
            return;
        }
        let Some(mut provisional) = self.table.remove(id) else {
            return;
        };
        self.let_go(id);
        self.let_go(of);
        self.endings.retain(|ending| ending.0 != of);
        self.forget(&provisional);
        let (Some(file), Some(compressed)) = (provisional.file.take(), provisional.compressed.take()) else {
            return;
        };
        self.open = self.open.saturating_sub(1);
        self.stand_for(id, provisional.after, of);
        let Some(source) = self.table.get_mut(of) else {
            return;
        };
        let destroyed = source.size.saturating_sub(source.offset.max(whole.size));
        if destroyed > 0 && source.compressed.is_none() {
            self.counters.destroyed(&source.path, source.offset, destroyed);
        }
        if to < source.offset {
            if to == whole.size {
                source.resume_points.set(to, whole.end);
            } else {
                source.resume_points.cut(to);
                self.counters.rolled_back += 1;
                self.counters.rolled_back_bytes += source.offset - to;
                let (path, from) = (source.path.display(), source.offset);
                tracing::warn!(%path, from, to, "rolled back: the compressed copy ends below what was read");
            }
            (source.offset, source.in_part) = (to, false);
        }
        if u64::from(source.fingerprint.len) > whole.size {
            source.fingerprint = provisional.fingerprint;
        }
        source.size = whole.size;
        source.replaced = 0;
        let found = Found {
            path: provisional.path.to_path_buf(),
            device: provisional.device,
            inode: provisional.inode,
            size: compressed.form.size,
            mtime_ns: provisional.mtime_ns,
            ctime_ns: 0,
            follow: Some(provisional.follow),
            has_place: true,
            was_refused: false,
        };
        tracing::debug!(path = %found.path.display(), source = of.0, to, "what is left of a source is compressed");
        let look = Look { size: compressed.form.size, start: Vec::new(), form: Some(compressed.form) };
        let state = State::Whole(whole);
        source.compressed = Some(Compressed::new(compressed.form, state, compressed.since_ms));
        self.take_over(of, Opened { found, file, look }, At::Offset, now);
        self.owe_checkpoint(of);
    }

    /// A source whose duplicate is a compressed file, and that is gone, goes on there. Its writer may have it open still, so one that
    /// is held open is read from its descriptor until it is quiet.
    pub(crate) fn settle_duplicates(&mut self, now: Now) {
        let duplicate = |source: &Source| match source.compressed.as_ref()?.state {
            State::Duplicate { of, whole } => Some((source.id, of, whole)),
            _ => None,
        };
        let duplicates: Vec<_> = self.table.iter().filter_map(duplicate).collect();
        for (id, of, whole) in duplicates {
            let Some(source) = self.table.get(of) else {
                // Who it was is not known any more.
                if let Some(compressed) = self.table.get_mut(id).and_then(|source| source.compressed.as_mut())
                {
                    compressed.state = State::Unchecked;
                }
                self.queue(id);
                continue;
            };
            let wait_ms = self.rotate_wait_ms(source);
            let quiet_ms = now.boot_ms.saturating_sub(source.active_ms.max(source.gone_ms.unwrap_or(0)));
            let is_quiet = source.is_caught_up() && (self.once || quiet_ms >= wait_ms);
            if source.replaced > 0 || source.missed >= 2 && (source.file.is_none() || is_quiet) {
                let to = source.offset.min(whole.size);
                self.rest(id, of, to, whole, now);
            }
        }
    }

    /// Whether a compressed file that is not checked may be what is left of the source.
    pub(crate) fn is_awaited(&mut self, id: SourceId) -> bool {
        let Some(print) = self.table.get(id).map(|source| source.fingerprint) else {
            return false;
        };
        let mut looked_into = Vec::new();
        for source in self.table.iter().filter(|source| source.id != id && !source.inactive) {
            let Some(compressed) = source.compressed.as_ref() else {
                continue;
            };
            match compressed.state {
                State::Duplicate { of, .. } if of == id => return true,
                _ if !compressed.is_open() => {}
                _ if print.len == 0 || source.fingerprint == print => return true,
                // Two whole kilobytes that differ, or the beginning of a smaller file.
                _ if usize::from(print.len.min(source.fingerprint.len)) < FINGERPRINT_BYTES => {
                    looked_into.push((source.path.clone(), source.follow));
                }
                _ => {}
            }
        }
        looked_into.into_iter().any(|(path, follow)| {
            let opened = open(&path, self.discover.way(Some(follow), &path));
            let look = opened.ok().and_then(|(file, _)| self.reader.look(&file).ok());
            // What is shorter than the fingerprint may be the beginning of the source.
            look.is_some_and(|look| print.compare(&look.start) != Likeness::Differs)
        })
    }
}

/// Held open with whole lines that are not read.
fn is_read(source: &Source) -> bool {
    source.replaced == 0 && source.file.is_some() && source.error.is_none() && !source.is_caught_up()
}
