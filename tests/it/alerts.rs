//! The files for Prometheus and Grafana in deploy/: an alert for each cause, which promtool accepts and fires, and only names
//! of existing metrics.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use spillq::metrics::METRICS;
use spillq::supervise::{Cause, Seen};

use crate::support::{Bounded, needs, program};

/// Causes of alerts that are not causes of doctor: see the comments in the rules.
const OTHERS: [&str; 7] = ["down", "clock", "destroyed", "dropped", "dead_letters", "memory", "oldest_line"];

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

/// An alert of the rules: its name and its cause.
fn alerts() -> Vec<(String, String)> {
    let text = fs::read_to_string(deployed("prometheus/spillq.rules.yml")).unwrap();
    let mut alerts: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push((name.to_owned(), String::new()));
        }
        if let (true, Some((_, rest))) = (line.starts_with("labels: "), line.split_once("cause: ")) {
            alerts.last_mut().unwrap().1 = rest.trim_end_matches(" }").to_owned();
        }
    }
    alerts
}

#[track_caller]
fn promtool(args: &[&str], file: &Path) {
    let output = program("promtool").args(args).arg(file).finished();
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&printed));
}

/// The series that a cause has.
fn series_of(cause: &str) -> String {
    let at = "job=\"spillq\",instance=\"q1\"";
    match Cause::ALL.iter().find(|known| known.word() == cause).map(|known| known.seen()) {
        Some(Seen::Running) => {
            format!("spillq_active_causes{{cause=\"{cause}\",group=\"g\",{at}}}|1x60")
        }
        Some(Seen::Afterwards) => format!("spillq_last_run_info{{ended=\"{cause}\",{at}}}|1x60"),
        _ => match cause {
            "down" => format!("up{{{at}}}|0x60"),
            "clock" => format!("spillq_process_clock_seconds{{{at}}}|100000+60x60"),
            "destroyed" => format!("spillq_tail_destroyed_bytes_total{{{at}}}|0x15 7x45"),
            "dropped" => format!("spillq_group_dropped_lines_total{{group=\"g\",{at}}}|0x15 7x45"),
            "dead_letters" => format!("spillq_group_dead_lines{{group=\"g\",{at}}}|0x15 7x45"),
            // Within its bounds for ten minutes, then older with each minute.
            "oldest_line" => {
                format!("spillq_group_lag_seconds{{group=\"g\",{at}}}|600x10 1000+60x49")
            }
            "memory" => format!("spillq_memory_held_bytes{{part=\"window\",{at}}}|20x60"),
            other => panic!("no series for {other}"),
        },
    }
}

#[test]
fn every_cause_has_an_alert_and_every_alert_a_cause() {
    let alerts = alerts();
    let named: Vec<&str> = alerts.iter().map(|(_, cause)| cause.as_str()).collect();
    for cause in Cause::ALL {
        let times = named.iter().filter(|named| **named == cause.word()).count();
        assert!(times == 1 || (cause.seen() == Seen::OnDemand && times <= 1), "{cause} has {times} alerts");
    }
    for (alert, cause) in &alerts {
        let is_known =
            Cause::ALL.iter().any(|known| known.word() == cause) || OTHERS.contains(&cause.as_str());
        assert!(is_known && alert.starts_with("Spillq"), "{alert}: no such cause: {cause}");
    }
}

/// The anchor of a heading, as GitHub and others make it.
fn anchor(heading: &str) -> String {
    let anchor = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    anchor.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_a_section_in_the_runbook_that_names_it_and_its_address() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/operate.md");
    let page = fs::read_to_string(page).unwrap();
    let sections: Vec<(String, &str)> = page
        .split("\n## ")
        .flat_map(|part| part.split("\n### "))
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .map(|(heading, text)| (anchor(heading), text))
        .collect();
    let rules = fs::read_to_string(deployed("prometheus/spillq.rules.yml")).unwrap();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 30, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        let url = alert.lines().find_map(|line| line.trim().strip_prefix("runbook_url: "));
        let url = url.unwrap_or_else(|| panic!("{name} has no runbook_url")).trim_matches('"');
        let (file, at) = url.split_once('#').unwrap();
        assert!(file.starts_with("https://") && file.ends_with("/operate.md"), "{name}: {url}");
        let named: Vec<&str> =
            sections.iter().filter(|(anchor, _)| anchor == at).map(|(_, text)| *text).collect();
        assert_eq!(named.len(), 1, "{name}: sections with the anchor {at}");
        assert!(named[0].contains(&format!("`{name}`")), "{name}: its section does not name it");
        for part in ["**You see** ", "**It means** ", "**Type** ", "**It is over** "] {
            assert!(named[0].contains(part), "{name}: its section has no {part}");
        }
    }
    assert_eq!(anchor("When doctor names a cause"), "when-doctor-names-a-cause");
    assert_eq!(anchor("held_line"), "held_line");
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_fires_for_its_cause_only() {
    needs!("promtool");
    let rules = deployed("prometheus/spillq.rules.yml");
    promtool(&["check", "rules"], &rules);
    let folder = tempfile::tempdir().unwrap();
    let mut text =
        format!("rule_files: [{:?}]\nevaluation_interval: 1m\ntests:\n", rules.display().to_string());
    for (alert, cause) in alerts() {
        let (series, values) =
            series_of(&cause).split_once('|').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        // In addition, the series of a healthy service: started at 0, up, within its bounds, with no value that rises.
        let mut input = vec![
            (series, values),
            ("spillq_process_start_seconds{job=\"spillq\",instance=\"q1\"}".to_owned(), "0x60".to_owned()),
            (
                "spillq_memory_bound_bytes{part=\"window\",job=\"spillq\",instance=\"q1\"}".to_owned(),
                "10x60".to_owned(),
            ),
            (
                "spillq_group_dead_lines{group=\"other\",job=\"spillq\",instance=\"q1\"}".to_owned(),
                "3x60".to_owned(),
            ),
        ];
        if cause != "down" {
            input.push(("up{job=\"spillq\",instance=\"q1\"}".to_owned(), "1x60".to_owned()));
        }
        let _ = writeln!(text, "  - interval: 1m\n    input_series:");
        for (series, values) in input {
            let _ = writeln!(text, "      - {{ series: '{series}', values: '{values}' }}");
        }
        let _ = writeln!(
            text,
            "    promql_expr_test:\n      - expr: count by (alertname) (ALERTS{{alertstate=\"firing\"}})\n        eval_time: 20m\n        \
             exp_samples: [{{ labels: '{{alertname=\"{alert}\"}}', value: 1 }}]"
        );
    }
    // And no alert fires for a healthy service.
    let _ = writeln!(
        text,
        "  - interval: 1m\n    input_series:\n      - {{ series: 'up{{job=\"spillq\"}}', values: '1x60' }}\n      \
         - {{ series: 'spillq_doctor_causes{{job=\"spillq\"}}', values: '0x60' }}\n      \
         - {{ series: 'spillq_last_run_info{{job=\"spillq\",ended=\"cleanly\"}}', values: '1x60' }}\n    \
         promql_expr_test:\n      - {{ expr: 'count(ALERTS)', eval_time: 20m, exp_samples: [] }}"
    );
    let tests = folder.path().join("tests.yml");
    fs::write(&tests, text).unwrap();
    promtool(&["test", "rules"], &tests);
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("spillq_")
        .filter(|(at, _)| !text[..*at].ends_with(is_part))
        .map(|(at, _)| &text[at..])
        .map(|rest| &rest[..rest.find(|c: char| !is_part(c)).unwrap_or(rest.len())])
        .collect()
}

#[test]
fn the_dashboard_and_the_rules_name_only_existing_metrics() {
    let known: BTreeSet<String> = METRICS.iter().map(spillq::metrics::Metric::full_name).collect();
    for (file, least) in [("grafana/spillq.json", 20), ("prometheus/spillq.rules.yml", 6)] {
        let text = fs::read_to_string(deployed(file)).unwrap();
        let names = names(&text);
        let unknown: Vec<_> = names.iter().filter(|name| !known.contains(**name)).collect();
        assert!(unknown.is_empty() && names.len() >= least, "{file}: {unknown:?} of {}", names.len());
    }
    let dashboard = fs::read_to_string(deployed("grafana/spillq.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        let target = &panel["targets"][0]["expr"];
        assert!(target.as_str().is_some_and(|expr| expr.contains("instance=~\"$instance\"")), "{panel}");
    }
    assert_eq!(
        names("x spillq_a_total{b} nospillq_c spillq_d"),
        BTreeSet::from(["spillq_a_total", "spillq_d"])
    );
}
