//! Metrics: one table of names, kinds, units, help texts and values, printed as Prometheus text.
//!
//! A name is `spillq_<name>_<unit>`, for a counter with `_total` behind it. Counters never fall while the process runs; a value
//! that can fall is a gauge. The number of series is bounded: [`SOURCES_MAX`] sources and [`GROUPS_MAX`] groups have a series
//! each, the others are summed under the label [`OTHERS`].

mod budget;
mod process;
mod series;
mod table;
#[cfg(test)]
mod tests;
mod text;

pub use budget::{PARTS, Part, Unit};
pub use process::{Process, written_bytes};
pub use series::{Facts, GROUPS_MAX, Labels, OTHERS, SOURCES_MAX};
pub use table::{Kind, METRICS, Metric, Of};
pub use text::{CONTENT_TYPE, render};
