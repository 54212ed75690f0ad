//! The table: its names, its page, its bounds, and its output for known values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use spillq_storage::repair::Quarantined;
use spillq_storage::{Counters, GroupId, Seq, SourceId};

use super::*;
use crate::queue::GroupStatus;
use crate::queue::{Activity, Phase, Status, Usage};
use crate::supervise::{Cause, Report, State, Verdict};
use crate::tail::{Snapshot, SourceState, SourceStatus};

fn group(id: u32, name: &str, lag_lines: u64) -> GroupStatus {
    GroupStatus {
        id: GroupId(id),
        name: name.to_owned(),
        phase: Phase::Running,
        ack_floor: Seq(4),
        lag_lines,
        is_counting: false,
        oldest: Some(Seq(5)),
        lag_bytes: 350 * lag_lines,
        leased: 2,
        leases: Vec::new(),
        dead_letters: 1,
        acked_lines: 4,
        activity: Activity { leases: 3, acks: 2, failures: 1, failing: None, lost: None },
        oldest_lease_ms: None,
        lease_tokens: Vec::new(),
        next_token: 1,
        in_flight_max: 1,
        timeout_ms: 30_000,
        has_worker: true,
        backs_off: None,
        oldest_waits: false,
        skipped_lines: 0,
        dropped_lines: 0,
        last_failure: Some("exit status 3".to_owned()),
        held: None,
        waits: None,
        attempts_max: 8,
        is_exhausted: false,
    }
}

fn status(groups: Vec<GroupStatus>) -> Status {
    Status {
        first_seq: Seq(1),
        next_seq: Seq(11),
        oldest_segment_last: None,
        is_copied: false,
        segments: 1,
        disk_bytes: 1 << 20,
        appended_bytes: 3_500,
        full: None,
        window_bytes: 3_500,
        commit_time: Duration::from_millis(1_500),
        usage: Usage::default(),
        run: 7,
        counters: Counters { commits: 9, ..Counters::default() },
        findings: Vec::new(),
        quarantined: Quarantined::default(),
        losses: Vec::new(),
        sources: vec![(SourceId(1), Bytes::new())],
        groups,
        discarded: Vec::new(),
    }
}

fn tail(sources: u64) -> Snapshot {
    let source = |number: u64| SourceStatus {
        followed_as: std::path::PathBuf::new(),
        source: SourceId(number),
        path: format!("/log/\x1b[31m\"{number}\"\n").into(),
        offset: 100,
        size: 100 + number,
        state: SourceState::Reading,
        rotated: false,
        held_open: true,
        last_error: None,
    };
    Snapshot {
        taken_at: SystemTime::now(),
        counters: crate::tail::Counters::default(),
        sources: (1..=sources).map(source).collect(),
        waiting_files: 0,
        matched_files: sources as usize,
        refused: Vec::new(),
        refused_files: 0,
        left_out: crate::tail::LeftOutFiles::default(),
        waits_for_log_since: None,
        buffered_bytes: 0,
        done: false,
        closed: false,
    }
}

fn report() -> Report {
    let unhealthy = |group: &str| Verdict {
        group: group.to_owned(),
        state: State::Crashing,
        cause: Some(Cause::Crashing),
        ..Verdict::default()
    };
    Report::of(vec![unhealthy("fills")], vec![unhealthy(""), unhealthy("")], Vec::new(), None)
}

fn text(status: &Status, tail: Option<&Snapshot>) -> String {
    render(&Facts {
        status,
        tail,
        tail_busy_ms: None,
        ages: &BTreeMap::from([("fills".to_owned(), 2.5)]),
        report: &report(),
        limit_bytes: 50 << 30,
        min_free_bytes: 256 << 20,
        free_bytes: None,
        process: &Process::default(),
        consumers: &BTreeMap::new(),
        bodies_bytes: (0, 16 << 20),
    })
}

/// The value of a series, which must be printed once.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let found: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).collect();
    assert_eq!(found.len(), 1, "{series} in {text}");
    found[0].parse().unwrap()
}

#[test]
fn values_are_those_of_the_parts() {
    let text = text(&status(vec![group(1, "fills", 6)]), Some(&tail(2)));
    for (series, expected) in [
        ("spillq_log_appended_lines_total", 10.0),
        ("spillq_log_appended_bytes_total", 3_500.0),
        ("spillq_log_commits_total", 9.0),
        ("spillq_log_commit_seconds_total", 1.5),
        ("spillq_log_openings_total", 7.0),
        ("spillq_group_lag_lines{group=\"fills\"}", 6.0),
        ("spillq_group_lag_seconds{group=\"fills\"}", 2.5),
        ("spillq_group_acked_lines_total{group=\"fills\"}", 4.0),
        ("spillq_group_failed_batches_total{group=\"fills\"}", 1.0),
        ("spillq_group_info{group=\"fills\",state=\"crashing\"}", 1.0),
        ("spillq_active_causes{cause=\"crashing\",group=\"fills\"}", 1.0),
        ("spillq_active_causes{cause=\"crashing\",group=\"\"}", 1.0),
        ("spillq_doctor_causes", 2.0),
        ("spillq_tail_sources{state=\"reading\"}", 2.0),
        ("spillq_memory_held_bytes{part=\"evidence\"}", 13.0),
        ("spillq_memory_held_entries{part=\"known_sources\"}", 1.0),
    ] {
        assert!((value(&text, series) - expected).abs() < 1e-9, "{series}");
    }
    assert!(!text.contains("spillq_disk_free_bytes"), "an unknown value is missing");
}

#[test]
fn a_file_name_adds_no_line_and_no_control_character() {
    let text = text(&status(Vec::new()), Some(&tail(1)));
    let line = text.lines().find(|line| line.starts_with("spillq_source_unread_bytes{")).unwrap();
    assert!(line.ends_with(" 1") && line.contains(r#"\"1\""#), "{line}");
    assert!(text.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{text}");
}

#[test]
fn the_number_of_series_is_bounded_with_ten_thousand_files_and_a_thousand_groups() {
    let groups: Vec<_> =
        (0..1_000).map(|number| group(number, &format!("g{number}"), u64::from(number))).collect();
    let text = text(&status(groups), Some(&tail(10_000)));
    let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series("spillq_source_unread_bytes"), SOURCES_MAX + 1);
    // Those with most unread bytes are named; the others are summed.
    let path = r#"path="/log/\\x1b[31m\"10000\"\\x0a""#;
    assert!(
        (value(&text, &format!("spillq_source_unread_bytes{{source=\"10000\",{path}}}")) - 1e4).abs() < 1e-9
    );
    let rest: u64 = (1..=9_000).sum();
    let others = value(&text, "spillq_source_unread_bytes{source=\"others\",path=\"\"}");
    assert!((others - rest as f64).abs() < 1e-9, "{others}");
    assert_eq!(series("spillq_group_lag_lines"), GROUPS_MAX + 1);
    assert_eq!(
        series("spillq_group_acked_lines_total"),
        GROUPS_MAX,
        "a sum of changing groups is not a counter"
    );
    assert!(text.lines().count() < 10_000, "{}", text.lines().count());
    assert!(text.len() < 1 << 20, "{}", text.len());
}

#[test]
fn names_follow_the_rule_and_are_unique() {
    let mut names = BTreeSet::new();
    for metric in METRICS {
        let name = metric.full_name();
        let plain =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
        assert!(plain && !metric.unit.ends_with("total"), "{name}");
        assert!(metric.help.ends_with('.') && metric.help.len() > 4 && !metric.help.contains('\n'), "{name}");
        assert!(names.insert(name.clone()), "{name} twice");
    }
}

/// The table as docs/how-to/metrics.md has it.
fn page() -> String {
    let mut page = String::from("| name | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in METRICS {
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        let row = format!(
            "| `{}` | {kind} | {} | {} |\n",
            metric.full_name(),
            metric.labels().join(", "),
            metric.help
        );
        page.push_str(&row);
    }
    page
}

#[test]
fn the_page_has_the_table() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/metrics.md");
    let text = std::fs::read_to_string(&docs).unwrap();
    let (begin, end) = ("<!-- begin: made from src/metrics/table.rs -->\n", "<!-- end -->\n");
    let table = text.split_once(begin).and_then(|(_, rest)| Some(rest.split_once(end)?.0)).unwrap();
    assert!(
        table.trim() == page().trim(),
        "docs/how-to/metrics.md, between its two marks, must be:\n{}",
        page()
    );
}

#[test]
fn each_row_of_the_memory_budget_names_its_part() {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/explanation/design.md");
    let text = std::fs::read_to_string(design).unwrap();
    let section = text.split_once("\n## Memory\n").unwrap().1.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut named = BTreeSet::new();
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let parts: Vec<&str> = last.split(", ").map(|part| part.trim_matches('`')).collect();
        for part in parts {
            assert!(part == "peak" || PARTS.iter().any(|known| known.name == part), "no such part: {row}");
            named.insert(part.to_owned());
        }
    }
    let all: BTreeSet<String> =
        PARTS.iter().map(|part| part.name.to_owned()).chain(["peak".to_owned()]).collect();
    assert_eq!(named, all, "rows of docs/explanation/design.md (left) and parts (right)");
}
