//! Stores of format versions 1 and 2, and backups of them, as programs of these versions wrote them
//! (tests/fixtures/make-version-1 and make-version-2).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spillq_storage::state::Failures;
use spillq_storage::{
    DeadCause, DeadLetter, DiskOptions, Error, GroupState, Log, Loss, Options, Reader, Seq, SeqRange, State,
    View,
};

use crate::support::{Bounded, Service, from_env, spillq, wait_for};

const STORE: &[u8] = include_bytes!("../fixtures/store-version-1.tar.zst");
const BACKUP: &[u8] = include_bytes!("../fixtures/backup-version-1.tar.zst");
const STORE_2: &[u8] = include_bytes!("../fixtures/store-version-2.tar.zst");
const BACKUP_2: &[u8] = include_bytes!("../fixtures/backup-version-2.tar.zst");
/// The format version that is written.
const CURRENT: u32 = 3;
/// The line that failed, and was in flight when the process was killed.
const HANGS: Seq = Seq(87);
/// How often that line had failed: as a batch of one in run 4, and alone in run 3. Version 1 counted the latter only; from
/// its changes in the journal nobody can tell which it was.
const FAILED: u32 = 2;
/// The same out of a manifest of version 1, which has the count.
const FAILED_ALONE: u32 = 1;

fn unpack(archive: &[u8], folder: &Path) {
    tar::Archive::new(zstd::Decoder::new(archive).unwrap()).unpack(folder).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn run(args: &[&str]) -> String {
    let output = spillq(args).finished();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&run(args)).unwrap()
}

fn open(data_dir: &Path) -> Log {
    let disk = DiskOptions { reserve_bytes: 0, min_free_bytes: 0, ..DiskOptions::default() };
    // A command that another test starts at this moment has the lock of the view before until it runs.
    let opened = wait_for(|| match Log::open(data_dir, Options { disk, ..Options::default() }) {
        Err(Error::InUse { .. }) => None,
        opened => Some(opened.unwrap()),
    });
    opened.unwrap()
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn group<'s>(state: &'s State, name: &str) -> &'s GroupState {
    state.group(name).unwrap().1
}

/// The lines by seq, as the script wrote them.
fn written() -> Vec<Vec<u8>> {
    let numbered = |name: &str, count, marks: &[(u64, &str)]| -> Vec<Vec<u8>> {
        let marks: BTreeMap<u64, &str> = marks.iter().copied().collect();
        let line = |n| format!("{name} {n} {}\n", marks.get(&n).unwrap_or(&"plain")).into_bytes();
        (1..=count).map(line).collect()
    };
    let mut c = numbered("c", 20, &[]);
    c[0] = b"c 1 \xff\xfe not UTF-8\n".to_vec();
    c[1] = b"\n".to_vec();
    c[2] = b"c 3 CRLF\r\n".to_vec();
    c[3] = format!("c 4 {}\n", "long ".repeat(700)).into_bytes();
    [
        numbered("a", 30, &[(7, "ledger-rejects"), (8, "ledger-rejects")]),
        numbered("b", 30, &[(3, "search-fails"), (12, "ledger-rejects")]),
        c,
        numbered("d", 6, &[]),
        numbered("e", 1, &[(1, "ledger-hangs")]),
    ]
    .concat()
}

#[track_caller]
fn check_lines(mut reader: Reader) {
    let written = written();
    assert_eq!(written.len() as u64, HANGS.0);
    for (seq, expected) in (1..).map(Seq).zip(&written) {
        let block = reader.block(seq).unwrap();
        let line = block.lines().find(|line| line.seq == seq).unwrap();
        assert_eq!(line.bytes, expected.as_slice(), "line {seq}");
    }
}

/// What opening does not change.
#[track_caller]
fn check_state(state: &State, failed: u32) {
    assert_eq!((state.first_seq(), state.next_seq(), state.sources().len()), (Seq(1), Seq(88), 5));
    assert_eq!(*state.losses(), [Loss::dropped(range(1, 11), &["search"], "it was past its max_lag")]);
    let ledger = group(state, "ledger");
    assert_eq!(
        (ledger.acks().floor(), ledger.acks().ranges(), ledger.lag_lines(state.next_seq())),
        (Seq(86), 0, 1)
    );
    assert_eq!(*ledger.failures(), BTreeMap::from([(HANGS, Failures { times: failed, for_ms: 0 })]));
    assert_eq!((ledger.acked_lines(), ledger.dead_lines()), (83, 3));
    let search = group(state, "search");
    assert_eq!((search.acks().floor(), search.lag_lines(state.next_seq())), (Seq(31), 10));
    let above: Vec<SeqRange> = search.acks().gaps(range(32, 87)).collect();
    assert_eq!(above, [range(32, 36), range(81, 81), range(85, 87)]);
    assert_eq!(search.revived().iter().collect::<Vec<_>>(), [&Seq(83)]);
    assert!(search.failures().is_empty() && search.deaths().is_empty());
    assert_eq!((search.acked_lines(), search.dead_lines(), search.dropped_lines()), (64, 3, 11));
}

#[track_caller]
fn check_letters(name: &str, letters: &[DeadLetter]) {
    let told = |letter: &DeadLetter| (letter.seq.0, letter.attempts, letter.reason.clone());
    let told: Vec<_> = letters.iter().map(told).collect();
    let expected: Vec<_> = match name {
        "ledger" => [7, 8, 42]
            .map(|seq| {
                (seq, 3, format!("/tmp/spillq-version-1/ledger ended with exit status 65 on line {seq}"))
            })
            .to_vec(),
        _ => [82, 84].map(|seq| (seq, 0, "set aside by hand".to_owned())).to_vec(),
    };
    assert_eq!(told, expected, "{name}");
    assert!(letters.iter().all(|letter| letter.cause == DeadCause::Unknown && letter.time_ms > 0));
}

/// The format version in each slot of MARK.
fn mark_versions(data_dir: &Path) -> [u32; 2] {
    let bytes = fs::read(data_dir.join("MARK")).unwrap();
    [0, 4_096].map(|at| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()))
}

fn store(folder: &Path) -> PathBuf {
    unpack(STORE, folder);
    let data_dir = folder.join("q");
    assert_eq!(mark_versions(&data_dir), [1, 1], "the fixture is of version 1");
    data_dir
}

#[test]
fn a_version_1_store_is_looked_at_without_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = store(folder.path());
    let view = View::open(&data_dir).unwrap();
    check_state(view.state(), FAILED);
    let ledger = group(view.state(), "ledger");
    assert_eq!(ledger.leases(), [SeqRange::one(HANGS)]);
    assert!(ledger.deaths().is_empty() && ledger.suspects().is_empty());
    for name in ["ledger", "search"] {
        let id = view.state().group(name).unwrap().0;
        check_letters(name, &view.dead_letters(id, Seq(0), 9).unwrap());
    }
    check_lines(view.reader());
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    drop(view);

    let dir = text(&data_dir);
    let status = json(&["status", "--json", "--data-dir", dir]);
    let told = |group: usize, key: &str| status["groups"][group][key].as_u64().unwrap();
    assert_eq!([told(0, "ack_floor"), told(0, "lag_lines"), told(0, "dead_letters")], [86, 1, 3]);
    assert_eq!([told(1, "ack_floor"), told(1, "lag_lines"), told(1, "dead_letters")], [31, 10, 2]);
    assert_eq!(status["losses"]["dropped_lines"], 11);
    assert_eq!(status["losses"]["lost_lines"], 0);
    let verified = json(&["verify", "--json", "--data-dir", dir]);
    assert_eq!((&verified["sound"], &verified["lines"]), (&true.into(), &87.into()));
    let letters = run(&["dead-letter", "export", "--group", "search", "--data-dir", dir]);
    let texts: Vec<Value> =
        letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone()).collect();
    assert_eq!(texts, ["d 2 plain", "d 4 plain"]);
    assert_eq!(mark_versions(&data_dir), [1, 1]);
}

#[test]
fn a_version_1_store_is_converted_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = store(folder.path());
    // Opened once, and left as a kill leaves it: nothing is out, so that nothing more is counted.
    for opened in 1..=2 {
        let log = open(&data_dir);
        assert_eq!(log.findings(), [""; 0]);
        check_state(log.state(), FAILED);
        let ledger = group(log.state(), "ledger");
        assert_eq!(*ledger.deaths(), BTreeMap::from([(HANGS, 1)]), "opened {opened} times");
        assert_eq!((ledger.attempts(HANGS), ledger.suspects()), (3, &[SeqRange::one(HANGS)][..]));
        assert!(ledger.leases().is_empty());
        for name in ["ledger", "search"] {
            let id = log.state().group(name).unwrap().0;
            check_letters(name, &log.dead_letters(id, Seq(0), 9).unwrap());
            assert_eq!(log.rejected_below(id, Seq(9), 9), 0, "nothing says that a line was rejected");
        }
        check_lines(log.reader());
        assert!(mark_versions(&data_dir).contains(&CURRENT), "an older program refuses it from now on");
    }
    assert_eq!(View::open(&data_dir).unwrap().verify(&mut |_| {}), [""; 0]);
    let folders = fs::read_dir(data_dir.join("journal")).unwrap();
    assert_eq!(folders.count(), 1, "the journal of version 1 has gone");
}

#[test]
fn letters_of_version_1_end_and_new_ones_follow_them() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = store(folder.path());
    let dir = text(&data_dir);
    let config = folder.path().join("spillq.toml");
    let text =
        "[[follow]]\ninclude = [\"none\"]\n[[group]]\nname = \"ledger\"\n[[group]]\nname = \"search\"\n";
    fs::write(&config, text).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let mut service = Service::start(&data_dir, &args);
    service.wait("it is up", |status| status.log.next_seq == 88);
    run(&["dead-letter", "park", "--group", "search", "--data-dir", dir, "83", "85"]);
    run(&["dead-letter", "discard", "--group", "search", "--data-dir", dir, "82"]);
    assert_eq!(service.stop(), 0);
    let view = View::open(&data_dir).unwrap();
    let letters = view.dead_letters(view.state().group("search").unwrap().0, Seq(0), 9).unwrap();
    let told: Vec<_> = letters.iter().map(|letter| (letter.seq.0, letter.cause)).collect();
    assert_eq!(told, [(83, DeadCause::Parked), (84, DeadCause::Unknown), (85, DeadCause::Parked)]);
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
}

/// The store that a backup restores.
fn restored(archive: &[u8], folder: &Path) -> PathBuf {
    unpack(archive, folder);
    let (backup, data_dir) = (folder.join("backup"), folder.join("restored"));
    run(&["restore", "--from", text(&backup), "--data-dir", text(&data_dir)]);
    data_dir
}

#[test]
fn a_backup_of_version_1_restores() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = restored(BACKUP, folder.path());
    let view = View::open(&data_dir).unwrap();
    check_state(view.state(), FAILED_ALONE);
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    check_lines(view.reader());
    drop(view);
    let log = open(&data_dir);
    assert_eq!(*group(log.state(), "ledger").deaths(), BTreeMap::from([(HANGS, 1)]));
    let id = log.state().group("ledger").unwrap().0;
    check_letters("ledger", &log.dead_letters(id, Seq(0), 9).unwrap());
}

/// A bit of the manifest is damaged: repair has the copy in SPARE, of version 1 as well.
#[test]
fn a_damaged_version_1_store_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = store(folder.path());
    let journal = fs::read_dir(data_dir.join("journal")).unwrap().next().unwrap().unwrap().path().join("db");
    let mut bytes = fs::read(&journal).unwrap();
    let magic = memchr::memmem::find(&bytes, b"\xf1SPQJRN\x01").unwrap();
    bytes[magic + 100] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    let dir = text(&data_dir);
    assert_eq!(spillq(&["verify", "--data-dir", dir]).finished().status.code(), Some(1));
    assert_eq!(mark_versions(&data_dir), [1, 1]);
    run(&["repair", "--data-dir", dir]);
    assert!(mark_versions(&data_dir).contains(&CURRENT));
    let log = open(&data_dir);
    check_state(log.state(), FAILED);
    assert_eq!(*group(log.state(), "ledger").deaths(), BTreeMap::from([(HANGS, 1)]));
    check_lines(log.reader());
}

/// Lines 1 to 3 are of a.log, the 8,000 after them of b.log, and only the journal has those. Line 5 is a dead letter.
#[track_caller]
fn check_2(state: &State, mut reader: Reader) {
    assert_eq!((state.first_seq(), state.next_seq(), state.sources().len()), (Seq(1), Seq(8_004), 2));
    let default = group(state, "default");
    assert_eq!((default.lag_lines(state.next_seq()), default.dead_lines()), (8_002, 1));
    let mut seq = 1;
    while seq < 8_004 {
        for line in reader.block(Seq(seq)).unwrap().lines() {
            let text = std::str::from_utf8(line.bytes).unwrap();
            let begin = if seq <= 3 { format!("a {seq}\n") } else { format!("b {} ", seq - 3) };
            assert!(
                line.seq == Seq(seq) && text.starts_with(&begin) && text.ends_with('\n'),
                "{seq}: {text}"
            );
            seq += 1;
        }
    }
}

#[test]
fn a_version_2_store_is_looked_at_without_a_change_and_converted_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    unpack(STORE_2, folder.path());
    let data_dir = folder.path().join("q");
    assert_eq!(mark_versions(&data_dir), [2, 2], "the fixture is of version 2");
    let view = View::open(&data_dir).unwrap();
    check_2(view.state(), view.reader());
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
    drop(view);
    let dir = text(&data_dir);
    assert_eq!(json(&["status", "--json", "--data-dir", dir])["groups"][0]["dead_letters"], 1);
    assert_eq!(json(&["verify", "--json", "--data-dir", dir])["lines"], 8_003);
    assert_eq!(mark_versions(&data_dir), [2, 2]);
    for _ in 0..2 {
        let log = open(&data_dir);
        assert_eq!(log.findings(), [""; 0]);
        check_2(log.state(), log.reader());
        assert!(mark_versions(&data_dir).contains(&CURRENT), "an older program refuses it from now on");
    }
}

#[test]
fn a_backup_of_version_2_restores() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = restored(BACKUP_2, folder.path());
    let view = View::open(&data_dir).unwrap();
    check_2(view.state(), view.reader());
    assert_eq!(view.verify(&mut |_| {}), [""; 0]);
}

/// SPILLQ_TEST_KILLS is the number of kills.
#[test]
fn a_conversion_that_is_killed_loses_nothing() {
    let mut rng = fastrand::Rng::with_seed(from_env("SPILLQ_TEST_SEED", 1));
    let mut converted = 0;
    for kill in 0..from_env("SPILLQ_TEST_KILLS", 8) {
        let folder = tempfile::tempdir().unwrap();
        unpack(if kill % 4 == 0 { STORE } else { STORE_2 }, folder.path());
        let data_dir = folder.path().join("q");
        let service = Service::start(&data_dir, &["--follow", "/nosuch"]);
        std::thread::sleep(std::time::Duration::from_micros(rng.u64(..60_000)));
        service.kill();
        converted += u64::from(mark_versions(&data_dir).contains(&CURRENT));
        let view = View::open(&data_dir).unwrap();
        assert_eq!(view.verify(&mut |_| {}), [""; 0], "kill {kill}");
        drop(view);
        let log = open(&data_dir);
        assert_eq!(log.findings(), [""; 0], "kill {kill}");
        if kill % 4 == 0 { check_lines(log.reader()) } else { check_2(log.state(), log.reader()) }
    }
    println!("{converted} kills after the conversion");
}
