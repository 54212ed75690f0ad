//! What of `kept/` can be read, for a repair: found without the state of a log, and written again entry by entry.

use super::{FOLDER, FRAME_BYTES, Kind, MAGIC, newest, parse, path};
use crate::block::BlockHeader;
use crate::codec;
use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::ids::{GroupId, Seq, SeqRange, StoreId};
use crate::loss::RetainedMark;
use crate::retained::DeadLetter;

/// The newest generation, as far as it can be read.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) generation: u64,
    /// Place and length of the sound entries, in order.
    frames: Vec<(u64, usize)>,
    /// Lines that it holds.
    pub(crate) lines: Vec<SeqRange>,
    /// Dead letters that have not ended.
    pub(crate) letters: Vec<(GroupId, Seq)>,
    /// What cannot be read.
    pub(crate) findings: Vec<String>,
}

impl Survey {
    /// Reads it. Commits rely on the part before `relied`; a torn end after that is normal after a crash.
    pub(crate) fn of(disk: &dyn Disk, store: StoreId, relied: RetainedMark) -> Result<Survey> {
        let mut survey = Survey::default();
        let names = disk.list_if_exists(FOLDER).during("list", FOLDER)?;
        let Some(generation) = newest(&names) else {
            survey.findings.push("kept/ has no file".to_owned());
            return Ok(survey);
        };
        survey.generation = generation;
        let name = path(generation);
        let bytes = disk.open(&name, false).and_then(|file| file.read_all()).during("read", &name)?;
        let relied_bytes = if relied.generation == generation { relied.bytes as usize } else { 0 };
        if generation < relied.generation || bytes.len() < relied_bytes {
            let (has, wrote, newest) = (bytes.len(), relied.bytes, path(relied.generation));
            survey.findings.push(format!("{name} is {has} bytes long, {wrote} of {newest} were written"));
        }
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some((kind, body)) = parse(rest) {
                let bytes = FRAME_BYTES + body.len();
                match survey.note(kind, body, store) {
                    Ok(()) => survey.frames.push((at as u64, bytes)),
                    // Another version of the program wrote it: it is moved to the quarantine with the file.
                    Err(what) => survey.findings.push(format!("{name}: the entry at {at}: {what}")),
                }
                at += bytes;
                continue;
            }
            // As at opening: what no commit relies on is removed, with all that follows it.
            let is_known = relied.generation == generation;
            if is_known && at >= relied_bytes {
                break;
            }
            let behind = rest.get(1..).unwrap_or_default();
            let sound = memchr::memmem::find_iter(behind, &MAGIC)
                .find(|found| parse(behind.get(*found..).unwrap_or_default()).is_some());
            let next = sound.map_or(bytes.len(), |found| at + 1 + found);
            if sound.is_some() || is_known {
                survey.findings.push(format!("{name}: {} bytes at {at} cannot be read", next - at));
            }
            at = next;
        }
        Ok(survey)
    }

    fn note(&mut self, kind: u8, body: &[u8], store: StoreId) -> std::result::Result<(), String> {
        if kind == Kind::Lines as u8 {
            self.lines.extend(BlockHeader::parse(body, store).map(|header| header.range()));
        } else if kind == Kind::Dead as u8 {
            let (DeadLetter { group, seq, .. }, _) = codec::decode(body)?;
            self.letters.push((group, seq));
        } else {
            let (ended, _) = codec::decode::<(GroupId, Seq)>(body)?;
            self.letters.retain(|letter| *letter != ended);
        }
        Ok(())
    }

    /// Writes the sound entries to the next generation, durably, and removes the damaged one, which must have another name
    /// in the quarantine.
    pub(crate) fn write_anew(&self, disk: &dyn Disk) -> Result<RetainedMark> {
        disk.make_folder(FOLDER).during("create", FOLDER)?;
        let generation = self.generation + 1;
        let (temporary, name) = (format!("{FOLDER}/.tmp-{generation:08}"), path(generation));
        let file = disk.create(&temporary).during("create", &temporary)?;
        let mut len = 0;
        if self.generation > 0 {
            let damaged = path(self.generation);
            let old = disk.open(&damaged, false).during("open", &damaged)?;
            for (at, bytes) in &self.frames {
                let frame = old.read_range(*at, *bytes).during("read", &damaged)?;
                file.write_at(&frame, len).during("write to", &temporary)?;
                len += *bytes as u64;
            }
        }
        file.sync().during("sync", &temporary)?;
        disk.rename(&temporary, &name).during("rename", &temporary)?;
        disk.sync_dir(FOLDER).during("sync", FOLDER)?;
        if self.generation > 0 {
            let damaged = path(self.generation);
            disk.remove_file(&damaged).during("remove", &damaged)?;
            disk.sync_dir(FOLDER).during("sync", FOLDER)?;
        }
        Ok(RetainedMark { generation, bytes: len })
    }

    /// How far a commit may rely on the file as it is.
    pub(crate) fn mark(&self) -> RetainedMark {
        let bytes = self.frames.last().map_or(0, |(at, bytes)| at + *bytes as u64);
        RetainedMark { generation: self.generation, bytes }
    }

    /// The file.
    pub(crate) fn file(&self) -> Option<String> {
        (self.generation > 0).then(|| path(self.generation))
    }
}
