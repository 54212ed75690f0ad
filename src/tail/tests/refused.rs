//! Files that are there and cannot be followed.

use super::support::Rig;

/// A file that could not be opened was told with every sweep: each refusal forgot the others.
#[test]
fn what_cannot_be_followed_is_told_once_while_it_lasts() {
    let mut rig = Rig::new(&["*.log"]);
    let refuse = |rig: &mut Rig| {
        rig.worker.sweep(rig.now());
        for name in ["a.log", "b.log"] {
            rig.worker.refuse(&rig.path(name), "permission denied".to_owned());
        }
        rig.worker.report_refused(rig.now());
        rig.worker.counters.errors
    };
    assert_eq!(refuse(&mut rig), 2);
    assert_eq!(refuse(&mut rig), 2, "the same two again");
    rig.worker.sweep(rig.now());
    assert_eq!(refuse(&mut rig), 4, "a sweep did not meet them, so they are news");
}
