//! The file processor: every line exactly once, at whatever step it crashes and however batches are cut.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use spillq_storage::{GroupId, StoreId};

use super::super::{Piece, sample};
use super::*;

const LINES: u64 = 12;
const STEPS: [Step; 5] = [Step::Intended, Step::HalfWritten, Step::Written, Step::Synced, Step::Committed];

struct Case {
    dir: tempfile::TempDir,
    epoch: Epoch,
}

impl Case {
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap(), epoch: Epoch::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn moved(&self) -> String {
        fs::read_to_string(self.dir.path().join("out.spillq-aside")).unwrap_or_default()
    }

    fn appender(&self) -> Appender {
        Appender { path: self.path(), epoch: self.epoch, open: None, stop_at: None }
    }

    /// Whether it reached that step: a batch that is in the file already has no steps.
    fn crash_at(&self, step: Step, batch: &Batch) -> bool {
        let mut appender = self.appender();
        appender.stop_at = Some(step);
        appender.append(batch).is_err()
    }

    #[track_caller]
    fn check(&self, expected: &str) {
        assert_eq!(fs::read_to_string(self.path()).unwrap(), expected);
    }
}

/// The lines `first..=last` of a log whose line 7 is `line 7`.
fn text(first: u64, last: u64) -> String {
    (first..=last).map(|seq| format!("line {seq}\n")).collect()
}

fn batch_of(ranges: &[(u64, u64)]) -> Batch {
    let texts: Vec<String> = (1..=LINES).map(|seq| format!("line {seq}")).collect();
    let block = sample::block(1, &texts.iter().map(String::as_bytes).collect::<Vec<_>>());
    Batch::new(Arc::from("g"), 1, sample::pieces(&block, ranges, Piece::new)).unwrap()
}

fn batch(first: u64, last: u64) -> Batch {
    batch_of(&[(first, last)])
}

#[test]
fn every_line_is_there_once_over_all_crash_points_and_cuts() {
    // Lines 1 to 3 are acked. The batch 4..=8 crashes; then the lines are delivered again, cut at any two places.
    for step in STEPS {
        for again in 0..2 {
            for (a, b) in (4..=10).flat_map(|a| (a..=10).map(move |b| (a, b))) {
                let case = Case::new();
                case.appender().append(&batch(1, 3)).unwrap();
                assert!(case.crash_at(step, &batch(4, 8)));
                if again == 1 {
                    assert_eq!(case.crash_at(step, &batch(4, 5)), step != Step::Committed);
                }
                let mut appender = case.appender();
                for (first, last) in [(4, a), (a + 1, b), (b + 1, LINES)] {
                    if first <= last {
                        appender.append(&batch(first, last)).unwrap();
                    }
                }
                case.check(&text(1, LINES));
                assert_eq!(case.moved(), "", "{step:?}");
            }
        }
    }
}

#[test]
fn after_an_error_the_same_processor_continues() {
    for step in STEPS {
        let case = Case::new();
        let mut appender = case.appender();
        appender.append(&batch(1, 3)).unwrap();
        appender.stop_at = Some(step);
        appender.append(&batch(4, 8)).unwrap_err();
        let again = appender.append(&batch(4, 8));
        assert_eq!(again.is_ok(), step == Step::Committed, "what was committed is not written again");
        appender.stop_at = None;
        appender.append(&batch(4, 6)).unwrap();
        appender.append(&batch(7, LINES)).unwrap();
        case.check(&text(1, LINES));
    }
}

#[test]
fn a_power_cut_that_loses_the_intent_moves_the_bytes_to_another_file() {
    for step in [Step::HalfWritten, Step::Written, Step::Synced] {
        let case = Case::new();
        case.appender().append(&batch(1, 3)).unwrap();
        let sidecar = fs::read(path_of(&case.path())).unwrap();
        assert!(case.crash_at(step, &batch(4, 8)));
        fs::write(path_of(&case.path()), sidecar).unwrap();
        let mut appender = case.appender();
        appender.append(&batch(4, LINES)).unwrap();
        case.check(&text(1, LINES));
        assert!(text(4, 8).starts_with(&case.moved()) && !case.moved().is_empty());
    }
}

#[test]
fn a_power_cut_that_loses_a_record_or_tears_it_leaves_the_other() {
    let case = Case::new();
    case.appender().append(&batch(1, 3)).unwrap();
    let before = fs::read(path_of(&case.path())).unwrap();
    assert!(case.crash_at(Step::Committed, &batch(4, 8)));
    let after = fs::read(path_of(&case.path())).unwrap();
    // The two records, and the intent.
    let places = [0..100, 4096..4196, 8192..8240];
    for torn in places.into_iter().flatten().step_by(3) {
        let state = [&after[..torn], &before[torn..]].concat();
        fs::write(case.path(), text(1, 8)).unwrap();
        fs::write(path_of(&case.path()), state).unwrap();
        case.appender().append(&batch(4, LINES)).unwrap();
        case.check(&text(1, LINES));
    }
}

#[test]
fn the_file_and_its_sidecar_are_private() {
    let case = Case::new();
    case.appender().append(&batch(1, 3)).unwrap();
    for path in [case.path(), path_of(&case.path())] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_file_that_existed_is_continued() {
    let case = Case::new();
    fs::write(case.path(), "theirs\n").unwrap();
    case.appender().append(&batch(1, 3)).unwrap();
    assert!(case.crash_at(Step::HalfWritten, &batch(4, 5)));
    case.appender().append(&batch(1, 5)).unwrap();
    case.check(&format!("theirs\n{}", text(1, 5)));
}

#[test]
fn renaming_the_file_starts_a_new_one_with_the_next_line() {
    for restart in [false, true] {
        let case = Case::new();
        let mut appender = case.appender();
        appender.append(&batch(1, 3)).unwrap();
        let old = case.dir.path().join("out.1");
        fs::rename(case.path(), &old).unwrap();
        if restart {
            drop(appender);
            appender = case.appender();
        }
        appender.append(&batch(2, 5)).unwrap();
        case.check(&text(4, 5));
        assert_eq!(fs::read_to_string(old).unwrap(), text(1, 3));
        appender.append(&batch(6, 6)).unwrap();
        case.check(&text(4, 6));
    }
}

#[test]
fn emptying_the_file_loses_no_line_after_it() {
    for restart in [false, true] {
        let case = Case::new();
        let mut appender = case.appender();
        appender.append(&batch(1, 3)).unwrap();
        fs::write(case.path(), "").unwrap();
        if restart {
            drop(appender);
            appender = case.appender();
        }
        appender.append(&batch(1, 5)).unwrap();
        case.check(&text(4, 5));
    }
}

#[test]
fn another_file_in_its_place_is_not_cut() {
    let case = Case::new();
    case.appender().append(&batch(1, 3)).unwrap();
    let other = "something else that is longer than what was there\n";
    fs::write(case.path(), other).unwrap();
    case.appender().append(&batch(1, 5)).unwrap();
    case.check(&format!("{other}{}", text(4, 5)));
}

#[test]
fn what_another_program_appends_meanwhile_stays() {
    let case = Case::new();
    let mut appender = case.appender();
    appender.append(&batch(1, 3)).unwrap();
    fs::write(case.path(), format!("{}theirs\n", text(1, 3))).unwrap();
    appender.append(&batch(4, 5)).unwrap();
    drop(appender);
    case.appender().append(&batch(4, 6)).unwrap();
    case.check(&format!("{}theirs\n{}", text(1, 3), text(4, 6)));
}

#[test]
fn a_line_that_was_dead_lettered_and_retried_is_added() {
    let case = Case::new();
    let mut appender = case.appender();
    appender.append(&batch_of(&[(1, 3), (5, 6)])).unwrap();
    drop(appender);
    case.appender().append(&batch(3, 7)).unwrap();
    case.check(&format!("{}{}{}{}", text(1, 3), text(5, 6), text(4, 4), text(7, 7)));
}

#[test]
fn lines_of_another_store_or_group_do_not_count_as_ours() {
    let mut case = Case::new();
    case.appender().append(&batch(1, 3)).unwrap();
    case.epoch.group = GroupId(2);
    case.appender().append(&batch(1, 2)).unwrap();
    case.epoch.store = StoreId(2);
    case.appender().append(&batch(1, 1)).unwrap();
    case.appender().append(&batch(1, 2)).unwrap();
    // Restored from a backup, it gives the same seqs to other lines.
    case.epoch.number = 1;
    case.appender().append(&batch(2, 3)).unwrap();
    case.check(&format!("{}{}{}{}{}", text(1, 3), text(1, 2), text(1, 1), text(2, 2), text(2, 3)));
}

#[tokio::test]
async fn what_cannot_work_is_refused_and_what_may_is_a_failure() {
    let case = Case::new();
    let refused = |path: PathBuf| async move {
        let mut file = AppendFile::new(path, Epoch::default()).unwrap();
        match file.process(&batch(1, 1)).await {
            Outcome::Refused(evidence) => evidence.summary,
            other => panic!("{other:?}"),
        }
    };
    let missing = refused(case.dir.path().join("no/such/folder")).await;
    assert!(missing.contains("no/such/folder could not be appended to: No such file"), "{missing}");
    assert!(refused(case.dir.path().to_owned()).await.contains("could not be appended to"));
    assert!(refused("/dev/null".into()).await.ends_with("it is not a regular file"));

    let _held = {
        let mut appender = case.appender();
        appender.append(&batch(1, 1)).unwrap();
        appender
    };
    let mut second = AppendFile::new(case.path(), Epoch::default()).unwrap();
    let outcome = second.process(&batch(1, 1)).await;
    let Outcome::Failed(evidence) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(evidence.summary.contains("another process writes to it"), "{}", evidence.summary);
}

#[tokio::test]
async fn a_full_disk_is_a_failure_and_the_batch_is_delivered_again() {
    let case = Case::new();
    case.appender().append(&batch(1, 3)).unwrap();
    let mut appender = case.appender();
    appender.stop_at = Some(Step::HalfWritten);
    let mut file = AppendFile::of(appender).unwrap();
    for _ in 0..2 {
        let Outcome::Failed(evidence) = file.process(&batch(4, 8)).await else {
            panic!("a full disk does not refuse");
        };
        assert!(
            evidence.summary.ends_with("out could not be appended to: no storage space"),
            "{}",
            evidence.summary
        );
    }
    file.thread.call(|appender| appender.stop_at = None).await.unwrap();
    assert_eq!(file.process(&batch(4, 8)).await, Outcome::Done);
    case.check(&text(1, 8));
}
