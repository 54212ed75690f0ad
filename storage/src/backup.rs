//! Backup and restore.
//!
//! Files only grow. So the first bytes of each file, up to the length that a [`Snapshot`] has, are its state, however late
//! they are copied, if no file is removed meanwhile ([`crate::Log::hold_removal`]). A [`Restore`] makes a store of these
//! files with a new journal. It takes names and sizes from the manifest: no path in an archive is ever used.

mod restore;
mod snapshot;

pub use restore::Restore;
pub use snapshot::{BackupFile, Snapshot};

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{GroupId, Seq, SeqRange, SourceId};
    use crate::{BlockBuilder, Commit, DiskOptions, GroupChange, Log, Options};

    fn options() -> Options {
        let disk = DiskOptions { reserve_bytes: 0, min_free_bytes: 0, ..DiskOptions::default() };
        Options { segment_bytes: 2_000, disk, ..Options::default() }
    }

    fn append(log: &mut Log, from: u64) {
        for number in from..from + 50 {
            let mut builder = BlockBuilder::new();
            let line = format!("line {number:094}\n");
            builder.push_whole(SourceId(1), number * 100, line.as_bytes(), 1);
            let checkpoints = vec![(SourceId(1), Bytes::copy_from_slice(&[number as u8]))];
            log.commit(&Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }).unwrap();
        }
    }

    #[test]
    fn the_files_of_a_snapshot_stay_while_removal_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, target) = (folder.path().join("q"), folder.path().join("restored"));
        let mut log = Log::open_or_create(&dir, options()).unwrap();
        log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
        append(&mut log, 0);
        log.hold_removal(true);
        let snapshot = Snapshot::decode(&log.snapshot().encode().unwrap()).unwrap();
        let ack = (GroupId(1), GroupChange::Ack { range: SeqRange { first: Seq(1), last: Seq(50) } });
        log.commit(&Commit { groups: vec![ack], ..Commit::default() }).unwrap();
        append(&mut log, 50);
        while log.maintain(0).unwrap() {}
        assert_eq!(log.counters().segments_removed, 0);

        let mut restore = Restore::begin(&target).unwrap();
        for file in snapshot.files(&dir, None) {
            let mut file = file.unwrap();
            restore.take(&file.name, file.bytes, &mut file.content).unwrap();
        }
        assert_eq!(restore.finish().unwrap(), [""; 0]);
        let restored = Log::open(&target, options()).unwrap();
        let state = restored.state();
        assert_eq!(
            (state.next_seq, state.first_seq(), state.groups[&GroupId(1)].lag_lines(state.next_seq)),
            (Seq(51), Seq(1), 50)
        );
        assert!(state.run > 1_000_000 && state.epoch() > 0);

        log.hold_removal(false);
        while log.maintain(0).unwrap() {}
        assert!(log.counters().segments_removed > 0);
    }

    #[test]
    fn a_restore_takes_the_files_of_the_manifest_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("q");
        let mut log = Log::open_or_create(&dir, options()).unwrap();
        append(&mut log, 0);
        let snapshot = log.snapshot();
        let manifest = snapshot.encode().unwrap();
        let begin = || {
            let mut restore = Restore::begin(&folder.path().join("new")).unwrap();
            restore.take(Snapshot::MANIFEST, manifest.len() as u64, &mut manifest.as_slice()).unwrap();
            restore
        };
        let first = snapshot.sizes().remove(0);
        let content = vec![0; first.1 as usize];
        for (name, bytes) in
            [("../q/LOCK", 4), ("/etc/passwd", 4), (&first.0, first.1 - 1), (Snapshot::MANIFEST, 4)]
        {
            let mut content = content.get(..bytes as usize).unwrap();
            assert!(begin().take(name, bytes, &mut content).is_err(), "{name}");
        }
        let mut short = content.get(1..).unwrap();
        assert!(begin().take(&first.0, first.1, &mut short).is_err(), "it is shorter than its size says");
        assert!(begin().finish().is_err(), "files are missing");
        let mut flipped = manifest.clone();
        if let Some(byte) = flipped.last_mut() {
            *byte ^= 1;
        }
        let mut restore = Restore::begin(&folder.path().join("new")).unwrap();
        assert!(restore.take(Snapshot::MANIFEST, flipped.len() as u64, &mut flipped.as_slice()).is_err());
        drop(restore);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "a restore that failed leaves no folder"
        );
    }
}
