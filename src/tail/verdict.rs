//! Who a packed file is that was checked: rows 14 to 17 and 20 of `docs/explanation/tail.md`.
//!
//! It is new, or a twin of a source that is still there, or what is left of one that is gone. No source ends as long as
//! a packed file may be what is left of it. Nothing here unpacks.

use std::path::Path;

use spillq_storage::SourceId;

use super::check::Check;
use super::discover::Found;
use super::identity::{
    Decision, Evidence, FINGERPRINT_BYTES, Fingerprint, Held, Likeness, OwnPath, SAME_PATH_BYTES, decide,
};
use super::open::open;
use super::packed::{Job, Packed, Slot, State, Whole};
use super::reader::Look;
use super::recognise::{At, Opened};
use super::rotation::{is_rotation_of, unpacked};
use super::source::Source;
use super::worker::{Now, Worker};

/// Who a checked file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Twin(SourceId),
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
                self.sweep_wanted = true;
                return self.wait(id);
            }
            Verdict::Twin(of) => {
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
            Verdict::Twin(of) => (0, State::Twin { of, whole }),
            _ => (whole.size, State::Whole(whole)),
        };
        source.size = size;
        if let Some(packed) = source.packed.as_mut() {
            (packed.form, packed.state) = (check.form, state);
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
            let is_alike = match &source.packed {
                Some(packed) => packed.whole() == Some(whole),
                None => candidate.is_twin(),
            };
            let is_rest = !is_here && (whole.size >= offset || is_rotation_of(&path, source));
            let is_twin = is_alike && (is_told || is_rest);
            if is_here || source.file.is_some() && candidate.is_compared {
                if is_twin {
                    return Verdict::Twin(candidate.id);
                }
                continue;
            }
            let fingerprint = source.fingerprint.compare(check.start());
            let decision = decide(&Evidence {
                // Of one that is changed in place nothing but the content tells.
                same_path: *source.path == *path && source.displaced == 0,
                same_inode: false,
                fingerprint,
                size: whole.size,
                offset,
                before_offset: candidate.matches(offset) || is_twin && offset <= whole.size,
                rung: candidate.rung(),
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
                _ => is_twin.then_some(whole.size.min(offset)),
            };
            // It was read on while the file was checked.
            let has_moved = fingerprint == Likeness::Equal
                && source.ladder.crc_at(offset).is_some()
                && !candidate.knows(offset);
            let is_on_its_way =
                source.displaced == 0 && (source.seen == self.sweep_number || source.missed == 1);
            match to {
                None if has_moved => return Verdict::Later,
                Some(_) if is_on_its_way || is_read(source) => return Verdict::Later,
                Some(to) => return Verdict::Rest(candidate.id, to),
                None => {}
            }
        }
        Verdict::New
    }

    /// The source `of` goes on in the packed file, at `to`; the provisional source of that is no more.
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
        let (Some(file), Some(packed)) = (provisional.file.take(), provisional.packed.take()) else {
            return;
        };
        self.open = self.open.saturating_sub(1);
        self.stand_for(id, provisional.after, of);
        let Some(source) = self.table.get_mut(of) else {
            return;
        };
        let destroyed = source.size.saturating_sub(source.offset.max(whole.size));
        if destroyed > 0 && source.packed.is_none() {
            self.counters.destroyed(&source.path, source.offset, destroyed);
        }
        if to < source.offset {
            if to == whole.size {
                source.ladder.set(to, whole.end);
            } else {
                source.ladder.cut(to);
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
        source.displaced = 0;
        let found = Found {
            path: provisional.path.to_path_buf(),
            device: provisional.device,
            inode: provisional.inode,
            size: packed.form.size,
            mtime_ns: provisional.mtime_ns,
            ctime_ns: 0,
            follow: Some(provisional.follow),
            has_place: true,
            was_refused: false,
        };
        tracing::debug!(path = %found.path.display(), source = of.0, to, "what is left of a source is packed");
        let look = Look { size: packed.form.size, start: Vec::new(), form: Some(packed.form) };
        let state = State::Whole(whole);
        source.packed = Some(Packed::new(packed.form, state, packed.since_ms));
        self.take_over(of, Opened { found, file, look }, At::Offset, now);
        self.owe_checkpoint(of);
    }

    /// A source whose twin is a packed file, and that is gone, goes on there. Its writer may have it open still, so one that
    /// is held open is read from its descriptor until it is quiet.
    pub(crate) fn settle_twins(&mut self, now: Now) {
        let twin = |source: &Source| match source.packed.as_ref()?.state {
            State::Twin { of, whole } => Some((source.id, of, whole)),
            _ => None,
        };
        let twins: Vec<_> = self.table.iter().filter_map(twin).collect();
        for (id, of, whole) in twins {
            let Some(source) = self.table.get(of) else {
                // Who it was is not known any more.
                if let Some(packed) = self.table.get_mut(id).and_then(|source| source.packed.as_mut()) {
                    packed.state = State::Unchecked;
                }
                self.queue(id);
                continue;
            };
            let wait_ms = self.rotate_wait_ms(source);
            let quiet_ms = now.boot_ms.saturating_sub(source.active_ms.max(source.gone_ms.unwrap_or(0)));
            let is_quiet = source.is_caught_up() && (self.once || quiet_ms >= wait_ms);
            if source.displaced > 0 || source.missed >= 2 && (source.file.is_none() || is_quiet) {
                let to = source.offset.min(whole.size);
                self.rest(id, of, to, whole, now);
            }
        }
    }

    /// Whether a packed file that is not checked may be what is left of the source.
    pub(crate) fn is_awaited(&mut self, id: SourceId) -> bool {
        let Some(print) = self.table.get(id).map(|source| source.fingerprint) else {
            return false;
        };
        let mut looked_into = Vec::new();
        for source in self.table.iter().filter(|source| source.id != id && !source.resting) {
            let Some(packed) = source.packed.as_ref() else {
                continue;
            };
            match packed.state {
                State::Twin { of, .. } if of == id => return true,
                _ if !packed.is_open() => {}
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
    source.displaced == 0 && source.file.is_some() && source.error.is_none() && !source.is_caught_up()
}

/// Whether a packed file has the name of another and a suffix.
pub(crate) fn is_named_as(packed: &Path, plain: &Path) -> bool {
    unpacked(packed).is_some_and(|name| name == plain)
}
