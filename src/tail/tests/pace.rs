//! When the tail does something: appends that wait for more lines, and pauses between scans.

use std::fs;

use super::support::{Rig, append_to};
use crate::tail::append::IN_FLIGHT_MAX;

#[test]
fn few_lines_wait_until_more_come() {
    let mut rig = Rig::new(&["*.log"]);
    rig.is_full = true;
    for number in 0..2 * IN_FLIGHT_MAX {
        append_to(&rig.path("a.log"), format!("line {number}\n").as_bytes());
        rig.settle();
        assert_eq!(rig.held(), (number + 1).min(IN_FLIGHT_MAX));
    }
    rig.is_full = false;
    rig.settle();
    assert_eq!(rig.log.lines.len(), 2 * IN_FLIGHT_MAX);
}

/// With 10,000 idle files the scans of every second took 3 % of a core.
#[test]
fn scans_are_rare_where_events_report_everything_and_nothing_is_pending() {
    let pause = |rig: &mut Rig| {
        rig.settle();
        let now = rig.now();
        let scans = &mut rig.worker.scans;
        (scans.cost_ms, scans.end_ms) = (30, now.boot_ms);
        scans.due_ms(&rig.worker.book, now) - now.boot_ms
    };
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "one\nhalf");
    rig.write("b.log", "two\n");
    rig.worker.book.scan_wanted = false;
    assert_eq!(pause(&mut rig), 1_000, "without events");
    rig.worker.scans.is_watched = true;
    rig.worker.book.scan_wanted = false;
    assert_eq!(pause(&mut rig), 12_000);
    rig.remove("a.log");
    assert_eq!(pause(&mut rig), 1_000, "it is gone, and what it ended with is not settled yet");
    let mut linked = Rig::new(&["*.log"]);
    linked.write("a.log", "one\n");
    fs::hard_link(linked.path("a.log"), linked.path("a.other")).unwrap();
    linked.worker.scans.is_watched = true;
    assert_eq!(pause(&mut linked), 1_000, "it can be written under a name that is not watched");
}
