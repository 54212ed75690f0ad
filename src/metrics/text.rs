//! The text format of Prometheus, version 0.0.4.
//!
//! The values are read on request from what other threads keep anyway. A client library would keep them a second time, in its
//! registries.

use std::fmt::Write as _;

use super::series::{Facts, Labels, OTHERS, groups, sources};
use super::table::{Kind, METRICS, Metric, Of};
use crate::plain::escape_path;
use crate::tail::SourceStatus;

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The maximum length of a label's value. Of a longer one the end is shown, which distinguishes paths.
const VALUE_BYTES_MAX: usize = 256;

/// All metrics at a point in time.
#[must_use]
pub fn render(facts: &Facts<'_>) -> String {
    let mut out = String::new();
    for metric in METRICS {
        let series = series(metric, facts);
        if series.is_empty() {
            continue;
        }
        let name = metric.full_name();
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        for (labels, value) in series {
            let _ = writeln!(out, "{name}{} {value}", Shown(&labels));
        }
    }
    out
}

/// The series of one metric: labels and values.
fn series(metric: &Metric, facts: &Facts<'_>) -> Vec<(Labels, f64)> {
    match metric.of {
        Of::All(value) => value(facts).map(|value| (Vec::new(), value)).into_iter().collect(),
        Of::Labelled(_, values) => values(facts),
        Of::Source(value) => {
            let (own, others) = sources(facts);
            let labels = |source: &SourceStatus| {
                vec![("source", source.source.0.to_string()), ("path", escape_path(&source.path))]
            };
            let of_others = vec![("source", OTHERS.to_owned()), ("path", String::new())];
            let sum = others.iter().map(|source| value(source)).sum();
            let sum = (!others.is_empty()).then_some((of_others, sum));
            own.iter().map(|source| (labels(source), value(source))).chain(sum).collect()
        }
        Of::Group(value) => {
            let (own, others) = groups(facts);
            let labels = |name: &str| vec![("group", name.to_owned())];
            let own = own.iter().filter_map(|group| Some((labels(&group.name), value(facts, group)?)));
            // No sum of counters: it would fall when a group gets a series by itself.
            let sum = (!others.is_empty() && metric.kind == Kind::Gauge)
                .then(|| (labels(OTHERS), others.iter().filter_map(|group| value(facts, group)).sum()));
            own.chain(sum).collect()
        }
    }
}

struct Shown<'l>(&'l Labels);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}=\"", if at == 0 { '{' } else { ',' })?;
            for c in end_of(value).chars() {
                match c {
                    '\\' => f.write_str(r"\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str(r"\n")?,
                    _ => f.write_char(c)?,
                }
            }
            f.write_char('"')?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}

fn end_of(value: &str) -> &str {
    let from = value.len().saturating_sub(VALUE_BYTES_MAX);
    &value[value.ceil_char_boundary(from)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_cut() {
        let labels = vec![("path", "a\"b\\c\nd".to_owned()), ("group", String::new())];
        assert_eq!(Shown(&labels).to_string(), r#"{path="a\"b\\c\nd",group=""}"#);
        assert_eq!(Shown(&Vec::new()).to_string(), "");
        let long = format!("{}é{}", "x".repeat(300), "y".repeat(VALUE_BYTES_MAX - 1));
        assert_eq!(end_of(&long), "y".repeat(VALUE_BYTES_MAX - 1), "no character is cut in two");
    }
}
