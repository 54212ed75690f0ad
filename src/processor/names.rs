//! The paths of the sources of a batch.

use std::collections::BTreeMap;

use spillq_storage::SourceId;

use super::Batch;
use super::input::Paths;

/// The paths of the sources of `batch`, or their numbers. May block for half a second: not for a thread of the runtime.
pub(super) fn names(batch: &Batch, paths: &Paths) -> BTreeMap<SourceId, String> {
    let mut names = BTreeMap::new();
    for line in batch.lines() {
        names
            .entry(line.source)
            .or_insert_with(|| paths(line.source).unwrap_or_else(|| line.source.0.to_string()));
    }
    names
}
