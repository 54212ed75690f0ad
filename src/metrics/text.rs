//! The text format of Prometheus, version 0.0.4.
//!
//! A writer of our own: figures are looked up when they are asked for, from values that other threads keep anyway. A
//! client library would want them a second time, in registries of its own.

use std::fmt::Write as _;

use super::{Facts, Kind, METRICS, series};

/// What the answer is, for its header.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels of a series: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// A label's value has at most so many bytes: of a longer one the end, which tells paths apart.
const VALUE_BYTES_MAX: usize = 256;

/// All metrics of one moment.
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
