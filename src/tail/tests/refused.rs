//! Files that are there and cannot be followed.

use std::path::PathBuf;

use super::support::Rig;

use crate::tail::worker::Worker;
use crate::unreadable::WhyUnreadable;

/// A file that could not be opened was reported with every scan: each refusal forgot the others.
#[test]
fn a_file_that_cannot_be_followed_is_reported_once_while_that_lasts() {
    let mut rig = Rig::new(&["*.log"]);
    let refuse = |rig: &mut Rig| {
        rig.worker.scan(rig.now());
        for name in ["a.log", "b.log"] {
            let (path, found) = (rig.path(name), || "permission denied".to_owned());
            rig.worker.scans.unfollowed.refused.add(&path, WhyUnreadable::System, found);
        }
        let now = rig.now();
        let Worker { book, scans, .. } = &mut rig.worker;
        scans.unfollowed.report_refused(book, now);
        rig.worker.book.counters.errors
    };
    assert_eq!(refuse(&mut rig), 2);
    assert_eq!(refuse(&mut rig), 2, "the same two again");
    rig.worker.scan(rig.now());
    assert_eq!(refuse(&mut rig), 4, "a scan did not find them, so they are new");
}

/// The number that is reported is in the snapshot too, whatever is named.
#[test]
fn many_are_counted_by_path() {
    let mut rig = Rig::new(&["*.log"]);
    let mut refuse = |files: u32| {
        rig.worker.scan(rig.now());
        for nth in 0..files {
            let path: PathBuf = rig.path(&format!("{nth}.log"));
            let found = || "permission denied".to_owned();
            rig.worker.scans.unfollowed.refused.add(&path, WhyUnreadable::System, found);
        }
        let now = rig.now();
        let Worker { book, scans, .. } = &mut rig.worker;
        scans.unfollowed.report_refused(book, now);
        (
            rig.worker.snapshot().refused_files,
            rig.worker.snapshot().refused.len(),
            rig.worker.book.counters.errors,
        )
    };
    assert_eq!(refuse(3), (3, 3, 3));
    assert_eq!(refuse(50), (50, 50, 50));
    assert_eq!(refuse(200), (200, 100, 101), "100 that are named, and all of them together");
}
