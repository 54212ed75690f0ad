//! Small whole stores, and damage that a checksum cannot miss: up to three flipped bits in a file, a cut, a stretch of zeros,
//! files that are removed or exchanged. The fuzzer could give bytes of its choice a correct checksum.

use std::sync::OnceLock;

use bytes::Bytes;
use spillq_storage::fuzzing::Store;
use spillq_storage::repair::SourceEnd;
use spillq_storage::{
    BlockBuilder, Commit, DeadCause, DeadLetter, DiskOptions, GroupChange, GroupId, Keep, LineFlags, Options,
    Reader, Seq, SeqRange, SourceId, State, View,
};

use crate::Choices;

/// Lines of a sample.
const LINES: u64 = 96;
const FLIPS_MAX: usize = 3;
const MARK: &str = "MARK";

/// A store, and what is in it.
pub struct Sample {
    pub store: Store,
    pub state: State,
    /// By seq, from 1; `None` where it is compacted.
    pub lines: Vec<Option<Vec<u8>>>,
    pub letters: Vec<DeadLetter>,
}

/// What was done to a store.
#[derive(Debug, Default)]
pub struct Damage {
    pub mark: bool,
    pub journal: bool,
    pub spare: bool,
    pub said: Vec<String>,
}

pub fn options() -> Options {
    Options {
        segment_bytes: 1_100,
        journal_bytes: 3_000,
        journal_commits: 9,
        inline_bytes: 200,
        disk: DiskOptions { limit_bytes: 1 << 40, min_free_bytes: 0, reserve_bytes: 0, keep: Keep::Nothing },
    }
}

/// A commit with the next lines of source 1, its checkpoint being the offset alone.
pub fn append(offset: &mut u64, lines: &[Vec<u8>]) -> Commit {
    let mut builder = BlockBuilder::new();
    for line in lines {
        match line.last() {
            Some(b'\n') => builder.push_whole(SourceId(1), *offset, line, 1),
            _ => builder.push_marked(SourceId(1), *offset, line, LineFlags::FIRST),
        }
        *offset += line.len() as u64;
    }
    let checkpoints = vec![(SourceId(1), Bytes::copy_from_slice(&offset.to_le_bytes()))];
    Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }
}

/// What a checkpoint of a sample is made again of.
pub fn remake(end: &SourceEnd, there: Option<&[u8]>) -> Result<Option<Vec<u8>>, String> {
    let offset = there.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok((offset < end.end).then(|| end.end.to_le_bytes().to_vec()))
}

fn line(seq: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seq);
    let letters: String = (0..rng.usize(1..40)).map(|_| rng.alphanumeric()).collect();
    format!("{seq} {letters}\n").into_bytes()
}

/// Two groups, a dead letter, relocated lines, removed segments, and a journal that has the newest ones.
fn make() -> Store {
    let store = Store::default();
    let mut log = store.open(options()).unwrap();
    let add_groups = vec![("a".to_owned(), Seq(0)), ("b".to_owned(), Seq(0))];
    log.commit(&Commit { add_groups, ..Commit::default() }).unwrap();
    let mut offset = 0;
    let act = |changes: &[(u32, GroupChange)]| Commit {
        groups: changes.iter().map(|(group, change)| (GroupId(*group), change.clone())).collect(),
        ..Commit::default()
    };
    for first in (1..=LINES).step_by(4) {
        let lines: Vec<_> = (first..first + 4).map(line).collect();
        log.commit(&append(&mut offset, &lines)).unwrap();
        if first == 49 {
            let group = GroupId(1);
            let letter = DeadLetter {
                group,
                seq: Seq(7),
                attempts: 8,
                time_ms: 1,
                cause: DeadCause::Failed,
                reason: "poison".to_owned(),
            };
            let block = log.reader().block(Seq(7)).unwrap();
            log.bury(&letter, &block).unwrap();
            let acked =
                |first, last| GroupChange::Ack { range: SeqRange { first: Seq(first), last: Seq(last) } };
            let changes = [
                (1, GroupChange::Dead { seq: Seq(7) }),
                (1, acked(1, 6)),
                (1, acked(8, 44)),
                (2, acked(1, 4)),
                (2, acked(6, 44)),
            ];
            log.commit(&act(&changes)).unwrap();
        }
        while log.maintain(0).unwrap() {}
    }
    drop(log);
    store
}

fn sample_of(store: Store) -> Sample {
    let store = store.copy();
    let view = store.view().unwrap();
    assert_eq!(view.verify(&mut |_| {}), [""; 0], "a sample is sound");
    let state = view.state().clone();
    let mut reader = view.reader();
    let lines = (1..state.next_seq().0).map(|seq| text(&mut reader, Seq(seq)).ok()).collect();
    let letters = view.dead_letters(GroupId(1), Seq(0), 10).unwrap();
    Sample { store, state, lines, letters }
}

/// The line of that seq, or why it cannot be read.
pub fn text(reader: &mut Reader, seq: Seq) -> Result<Vec<u8>, String> {
    let block = reader.block(seq).map_err(|error| error.to_string())?;
    let line = block.lines().find(|line| line.seq == seq);
    Ok(line.expect("a block has each of its lines").bytes.to_vec())
}

/// One of four: as a kill leaves it, stopped and opened again, repaired with a loss, and with no line in it.
pub fn sample(nth: usize) -> &'static Sample {
    static SAMPLES: OnceLock<[Sample; 4]> = OnceLock::new();
    let samples = SAMPLES.get_or_init(|| {
        let killed = make();
        let again = killed.copy();
        drop(again.open(options()).unwrap());
        let lossy = again.copy();
        let segment = lossy.files().into_iter().rfind(|name| name.starts_with("segments/")).unwrap();
        let mut bytes = lossy.read(&segment).unwrap();
        bytes[100] ^= 1;
        lossy.write(&segment, &bytes).unwrap();
        assert!(!lossy.repair(false, &mut remake).unwrap().losses.is_empty());
        let empty = Store::default();
        drop(empty.open(options()).unwrap());
        let samples = [killed, again, lossy, empty].map(sample_of);
        let killed = &samples[0];
        assert!(killed.lines[..6].iter().filter(|line| line.is_none()).count() == 5, "one is relocated");
        assert!(killed.lines[6].is_some() && killed.state.segment_count() > 2, "and one is dead");
        samples
    });
    &samples[nth % samples.len()]
}

impl Sample {
    /// Whether everything that was there is there.
    pub fn is_whole(&self, view: &View) -> bool {
        let mut reader = view.reader();
        *view.state() == self.state
            && (1..).zip(&self.lines).all(|(seq, line)| text(&mut reader, Seq(seq)).ok() == *line)
            && view.dead_letters(GroupId(1), Seq(0), 10).is_ok_and(|letters| letters == self.letters)
    }

    /// Panics if a line is not what it was; returns those that can no longer be read.
    pub fn missing(&self, reader: &mut Reader, said: &Damage) -> Vec<Seq> {
        let mut missing = Vec::new();
        for (seq, was) in (1..).zip(&self.lines).map(|(seq, line)| (Seq(seq), line)) {
            match (text(reader, seq), was) {
                (Ok(found), Some(was)) => assert_eq!(found, *was, "line {seq} is another; {said:?}"),
                (Ok(found), None) => {
                    // A removed segment that is back in a damaged folder has the line as it was.
                    assert_eq!(found, line(seq.0), "line {seq} is another; {said:?}");
                }
                (Err(_), Some(_)) => missing.push(seq),
                (Err(_), None) => {}
            }
        }
        missing
    }
}

impl Damage {
    /// Damages a store as the input says, in up to four places.
    pub fn apply(store: &Store, choices: &mut Choices<'_>) -> Damage {
        let mut damage = Damage::default();
        let mut flips = 0;
        for _ in 0..4 {
            if choices.is_empty() {
                break;
            }
            let journals = store.journals();
            if choices.few(3) == 0 && !journals.is_empty() {
                let folder = &journals[choices.few(journals.len())];
                let (nth, place, how) = (choices.few(256), 1 + choices.few(3), choices.few(4));
                let at = choices.below(1 << 17);
                flips += usize::from(how == 0);
                if flips > FLIPS_MAX {
                    continue;
                }
                store.damage_journal(folder, nth, place & 1 > 0, place & 2 > 0, &|value| {
                    change(value, how, at)
                });
                damage.journal = true;
                damage.said.push(format!("{folder}: value {nth}, in {place}, {how} at {at}"));
                continue;
            }
            let files = store.files();
            let Some(name) = files.get(choices.few(files.len())).cloned() else { continue };
            let (how, at) = (choices.few(6), choices.below(1 << 17));
            flips += usize::from(how == 0);
            if flips > FLIPS_MAX {
                continue;
            }
            damage.note(&name);
            damage.said.push(format!("{name}: {how} at {at}"));
            let mut bytes = store.read(&name).unwrap();
            match how {
                4 => store.remove(&name).unwrap(),
                5 => {
                    let other = &files[at % files.len()];
                    damage.note(other);
                    store.write(&name, &store.read(other).unwrap()).unwrap();
                    store.write(other, &bytes).unwrap();
                }
                _ => {
                    change(&mut bytes, how, at);
                    store.write(&name, &bytes).unwrap();
                }
            }
        }
        damage
    }

    fn note(&mut self, name: &str) {
        self.mark |= name == MARK;
        self.spare |= name == "SPARE";
    }
}

/// A flipped bit, a cut, a stretch of zeros, or nothing left.
fn change(bytes: &mut Vec<u8>, how: usize, at: usize) {
    if bytes.is_empty() {
        return;
    }
    let byte = at % bytes.len();
    match how {
        0 => {
            let bit = at % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        1 => bytes.truncate(byte),
        2 => {
            let len = (1 + at / bytes.len() * 64).min(bytes.len() - byte);
            bytes[byte..byte + len].fill(0);
        }
        _ => bytes.clear(),
    }
}
