//! The log against a small model, crashed at any sync: whatever is lost of what was not synced, every commit that returned
//! is there, in order, once.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::commit::Commit;
use crate::disk::memory::MemoryDisk;
use crate::group_state::GroupChange;
use crate::ids::{GroupId, Seq, SeqRange, SourceId};
use crate::log::{Log, Options};
use crate::retained::{DeadCause, DeadLetter};
use crate::space::{DiskOptions, Keep};
use crate::view::View;
use crate::{BlockBuilder, Error};

pub(crate) const CAPACITY: u64 = 1 << 40;

/// Small enough that a few dozen commits rotate journals and remove segments.
fn options_with(keep: Keep) -> Options {
    Options {
        segment_bytes: 2_000,
        journal_bytes: 3_000,
        journal_commits: 12,
        inline_bytes: 250,
        disk: DiskOptions { limit_bytes: CAPACITY, min_free_bytes: 0, reserve_bytes: 0, keep },
    }
}

fn open(disk: &MemoryDisk) -> crate::error::Result<Log> {
    open_with(disk, Keep::Nothing)
}

pub(crate) fn open_with(disk: &MemoryDisk, keep: Keep) -> crate::error::Result<Log> {
    Log::on_disk(Arc::new(disk.clone()), options_with(keep), None)
}

/// The expected content of the log.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// All lines ever, by seq from 1; the text is source, number and filling.
    lines: Vec<Vec<u8>>,
    /// The end of each of two sources.
    offsets: [u64; 2],
    groups: Vec<ModelGroup>,
}

impl ModelGroup {
    fn is_settled(&self, seq: u64) -> bool {
        self.acked.contains(&seq) || self.dead.contains(&seq)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelGroup {
    /// Acked, skipped or dropped.
    acked: std::collections::BTreeSet<u64>,
    dead: std::collections::BTreeSet<u64>,
}

struct Run {
    rng: fastrand::Rng,
    disk: MemoryDisk,
    /// After the last commit that returned.
    model: Model,
    /// After the step that the crash interrupted: allowed, too.
    attempted: Option<Model>,
    rotations: u64,
    removed: u64,
    relocated: u64,
    sought: u64,
    dropped: u64,
    references: u64,
    staged: u64,
    /// How long settled lines stay, and the time.
    keep: Keep,
    now_ms: u64,
}

impl Run {
    fn step(&mut self, log: &mut Log) -> Result<(), Error> {
        let mut next = self.model.clone();
        self.now_ms += self.rng.u64(..3);
        match self.rng.u8(..24) {
            0..6 => {
                let commit = self.append(&mut next);
                self.commit(log, &commit, &next)?;
            }
            6..9 => {
                let commit = self.append(&mut next);
                let mut after = next.clone();
                let later = self.append(&mut after);
                // Staged together with those before it, or not at all: the places follow one another.
                if log.stage(&commit.blocks)? && log.stage(&later.blocks)? {
                    self.staged += 1;
                }
                self.commit(log, &commit, &next)?;
                self.model = next;
                self.attempted = None;
                if self.rng.bool() {
                    while log.maintain(self.now_ms)? {}
                }
                self.commit(log, &later, &after)?;
                next = after;
            }
            9..17 => {
                let Some((group, range)) = self.pick(&next) else {
                    return Ok(());
                };
                next.groups[group].acked.extend(range.first.0..=range.last.0);
                self.attempted = Some(next.clone());
                log.commit(&change(group, GroupChange::Lease { range }))?;
                log.commit(&change(group, GroupChange::Ack { range }))?;
            }
            17..19 => {
                let Some((group, range)) = self.pick(&next) else {
                    return Ok(());
                };
                let seq = range.first;
                next.groups[group].dead.insert(seq.0);
                self.attempted = Some(next.clone());
                let id = GroupId(group as u32 + 1);
                let letter = DeadLetter {
                    group: id,
                    seq,
                    attempts: 8,
                    time_ms: 1,
                    cause: DeadCause::Failed,
                    reason: "it failed".to_owned(),
                };
                let block = log.reader().block(seq).expect("a line that is not acked can be read");
                log.bury(&letter, &block)?;
                log.commit(&change(group, GroupChange::Dead { seq }))?;
            }
            19..21 => {
                let group = self.rng.usize(..2);
                let Some(&seq) = self.model.groups[group].dead.first() else {
                    return Ok(());
                };
                next.groups[group].dead.remove(&seq);
                self.attempted = Some(next.clone());
                log.commit(&change(group, GroupChange::Revive { seq: Seq(seq) }))?;
                log.settle_dead(GroupId(group as u32 + 1), &[Seq(seq)])?;
            }
            21 => {
                let (group, first) = (self.rng.usize(..2), log.state().first_seq());
                let to = Seq(self.rng.u64(first.0..=log.state().next_seq.0));
                let settled = &mut next.groups[group];
                settled.acked.extend((1..to.0).filter(|seq| !self.model.groups[group].dead.contains(seq)));
                settled.acked.retain(|seq| *seq < to.0);
                settled.dead.retain(|seq| *seq < to.0);
                self.attempted = Some(next.clone());
                let mut commit = change(group, GroupChange::Again { from: to });
                if let Some(range) = SeqRange::new(Seq::FIRST, to.prev()) {
                    commit.groups.extend(change(group, GroupChange::Skip { range, dropped: false }).groups);
                }
                log.commit(&commit)?;
                let id = GroupId(group as u32 + 1);
                log.settle_dead(id, &log.dead_seqs(id, SeqRange { first: to, last: Seq(u64::MAX) }))?;
                self.sought += 1;
            }
            22 if self.rng.u8(..4) == 0 => {
                let ends = |at: usize| log.state().segments.get(at).map(|segment| segment.first.0);
                let (Some(first), Some(end)) = (ends(0), ends(1)) else { return Ok(()) };
                for group in &mut next.groups {
                    let waits: Vec<u64> = (first..end).filter(|seq| !group.is_settled(*seq)).collect();
                    group.acked.extend(waits);
                }
                self.attempted = Some(next.clone());
                let range = log.drop_oldest("a test", |_| None)?;
                assert_eq!(range, SeqRange::new(Seq(first), Seq(end - 1)));
                self.dropped += 1;
            }
            _ => {}
        }
        self.model = next;
        self.attempted = None;
        while log.maintain(self.now_ms)? {}
        Ok(())
    }

    fn commit(&mut self, log: &mut Log, commit: &Commit, next: &Model) -> Result<(), Error> {
        self.attempted = Some(next.clone());
        let first = log.commit(commit)?.first.0 as usize;
        assert_eq!(first, self.model.lines.len() + 1, "seqs rise by one and are never used twice");
        Ok(())
    }

    fn append(&mut self, next: &mut Model) -> Commit {
        let mut commit = Commit::default();
        for _ in 0..self.rng.usize(1..4) {
            let mut builder = BlockBuilder::new();
            for _ in 0..self.rng.usize(1..8) {
                let source = self.rng.usize(..2);
                let filling: String = (0..self.rng.usize(..60)).map(|_| self.rng.alphanumeric()).collect();
                let line = format!("{source} {} {filling}\n", next.lines.len()).into_bytes();
                builder.push_whole(SourceId(source as u64 + 1), next.offsets[source], &line, 1);
                next.offsets[source] += line.len() as u64;
                next.lines.push(line);
            }
            commit.blocks.push(builder.build(self.now_ms));
        }
        for (source, offset) in next.offsets.iter().enumerate() {
            let checkpoint = Bytes::from(offset.to_le_bytes().to_vec());
            commit.checkpoints.push((SourceId(source as u64 + 1), checkpoint));
        }
        commit
    }

    /// Lines that wait for a group, mostly its oldest.
    fn pick(&mut self, model: &Model) -> Option<(usize, SeqRange)> {
        let group = self.rng.usize(..2);
        let open = |seq: &u64| !model.groups[group].is_settled(*seq);
        let skip = if self.rng.u8(..5) == 0 { self.rng.u64(..6) } else { 0 };
        let first = (1..=model.lines.len() as u64).filter(open).nth(skip as usize)?;
        let last = (first..=model.lines.len() as u64).take_while(open).take(self.rng.usize(1..30)).last()?;
        Some((group, SeqRange::new(Seq(first), Seq(last))?))
    }

    /// The log as a model. Every line is checked.
    fn observe(&self, log: &Log, lines: &[Vec<u8>]) -> Model {
        let state = log.state();
        let count = state.next_seq.prev().0;
        let mut observed = Model { lines: lines[..count as usize].to_vec(), ..Model::default() };
        for (source, offset) in observed.offsets.iter_mut().enumerate() {
            if let Some(source) = state.sources.get(&SourceId(source as u64 + 1)) {
                *offset = u64::from_le_bytes(source.checkpoint.as_slice().try_into().unwrap());
            }
        }
        let mut reader = log.reader();
        for (id, group) in &state.groups {
            let dead: std::collections::BTreeSet<u64> =
                log.dead_letters(*id, Seq(0), 1_000_000).unwrap().iter().map(|letter| letter.seq.0).collect();
            let settled = |seq: &u64| group.acks.contains(Seq(*seq)) && !group.revived.contains(&Seq(*seq));
            for seq in (1..=count).filter(|seq| !settled(seq) || dead.contains(seq)) {
                let block = reader.block(Seq(seq)).unwrap_or_else(|error| panic!("line {seq}: {error}"));
                let line = block.lines().find(|line| line.seq == Seq(seq)).unwrap();
                assert_eq!(line.bytes, lines[seq as usize - 1], "line {seq}");
            }
            let acked = (1..=count).filter(|seq| settled(seq) && !dead.contains(seq)).collect();
            observed.groups.push(ModelGroup { acked, dead });
        }
        observed
    }
}

pub(crate) fn change(group: usize, change: GroupChange) -> Commit {
    Commit { groups: vec![(GroupId(group as u32 + 1), change)], ..Commit::default() }
}

fn check(seed: u64, crashes: u32) -> [u64; 7] {
    let disk = MemoryDisk::new(CAPACITY);
    let mut run = Run {
        rng: fastrand::Rng::with_seed(seed),
        disk,
        model: Model { groups: vec![ModelGroup::default(), ModelGroup::default()], ..Model::default() },
        attempted: None,
        rotations: 0,
        removed: 0,
        relocated: 0,
        sought: 0,
        dropped: 0,
        references: 0,
        staged: 0,
        keep: [Keep::Nothing, Keep::Bytes(5_000), Keep::Age(20)][seed as usize % 3],
        now_ms: 1,
    };
    let mut log = open_with(&run.disk, run.keep).unwrap();
    let add_groups = vec![("a".to_owned(), Seq(0)), ("b".to_owned(), Seq(0))];
    log.commit(&Commit { add_groups, ..Commit::default() }).unwrap();
    for crash in 0..crashes {
        run.disk.crash_after(run.rng.u64(1..60));
        let failed = loop {
            // An error in the background shows in the next step.
            match run.step(&mut log) {
                Err(error) => break error,
                Ok(()) if run.disk.has_crashed() => {
                    break Error::Poisoned("crashed in the background".to_owned());
                }
                Ok(()) => {}
            }
        };
        assert!(run.disk.has_crashed(), "seed {seed}: {failed}");
        let counters = log.counters();
        run.rotations += counters.rotations;
        run.references += counters.large_commits;
        run.removed += counters.segments_removed;
        run.relocated += counters.lines_relocated;
        drop(log);
        // Opening crashes as well, sometimes several times.
        log = loop {
            run.disk = run.disk.after_crash(&mut run.rng);
            let view = View::on_disk(Arc::new(run.disk.clone()), Path::new(""), None).unwrap();
            let findings = view.verify(&mut |_| {});
            // What sled shows of a copy may be less.
            let finding = findings.iter().find(|finding| !finding.contains("sled's copy"));
            assert_eq!(finding, None, "seed {seed}, crash {crash}");
            if run.rng.bool() {
                run.disk.crash_after(run.rng.u64(1..14));
            }
            match open_with(&run.disk, run.keep) {
                Ok(log) if !run.disk.has_crashed() => break log,
                Ok(_) => {}
                Err(error) => assert!(run.disk.has_crashed(), "seed {seed}, crash {crash}: {error}"),
            }
        };
        let candidates = run.attempted.as_ref().unwrap_or(&run.model);
        let lines = candidates.lines.clone();
        let observed = run.observe(&log, &lines);
        let allowed = [Some(&run.model), run.attempted.as_ref()];
        assert!(
            allowed.into_iter().flatten().any(|model| *model == observed),
            "seed {seed}, crash {crash}: {:?}\nneither {:?}\nnor {:?}",
            observed.groups,
            run.model.groups,
            run.attempted.as_ref().map(|model| &model.groups),
        );
        run.model = observed;
        run.attempted = None;
    }
    [run.rotations, run.removed, run.relocated, run.sought, run.dropped, run.references, run.staged]
}

/// Seeds that have found a bug: always tried first. Add those that you find.
const FOUND: &[u64] = &[2];

/// `SPILLQ_MODEL_CASES` is the number of histories, `SPILLQ_MODEL_SEED` the seed of the first.
#[test]
fn what_was_acknowledged_survives_a_crash_at_any_sync() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let first: u64 = number("SPILLQ_MODEL_SEED").unwrap_or(0);
    let cases: u64 = number("SPILLQ_MODEL_CASES").unwrap_or(150);
    let mut counted = [0; 7];
    for seed in FOUND.iter().copied().chain(first..first + cases) {
        for (sum, count) in counted.iter_mut().zip(check(seed, 12)) {
            *sum += count;
        }
    }
    // Every phase must have been hit.
    let [rotations, removed, relocated, sought, dropped, references, staged] = counted;
    assert!(
        rotations > 100 && removed > 100 && relocated > 10 && sought > 100 && dropped > 50,
        "{rotations} rotations, {removed} removed, {relocated} relocated, {sought} sought, {dropped} dropped"
    );
    assert!(references > 100 && staged > 100, "{references} reference their blocks, {staged} staged ahead");
}

#[test]
fn a_full_disk_refuses_lines_and_nothing_else() {
    let disk = MemoryDisk::new(CAPACITY);
    let mut log = open(&disk).unwrap();
    log.commit(&Commit { add_groups: vec![("a".to_owned(), Seq(0))], ..Commit::default() }).unwrap();
    let append = || {
        let mut builder = BlockBuilder::new();
        builder.push_whole(SourceId(1), 0, b"line\n", 1);
        let checkpoints = vec![(SourceId(1), Bytes::from_static(b"5"))];
        Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }
    };
    log.commit(&append()).unwrap();
    disk.set_capacity(0);
    assert!(matches!(log.commit(&append()), Err(Error::Full(_))));
    log.commit(&change(0, GroupChange::Ack { range: SeqRange::one(Seq(1)) })).unwrap();
    disk.set_capacity(CAPACITY);
    assert_eq!(log.commit(&append()).unwrap().first, Seq(2), "the seqs continue");
    drop(log);
    assert_eq!(open(&disk).unwrap().state().next_seq, Seq(3));
}
