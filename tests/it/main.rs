//! One integration crate for the service.
#![allow(unreachable_pub, reason = "nothing else uses this crate")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at the first surprise too")]

/// Copies of a store, restored.
mod backup;
/// What the built program prints, and how it ends.
mod cli;
/// The process killed at any moment.
mod crash;
/// Dead letters, exported.
mod dead_letter;
/// Disks that fill up and lose power.
mod disk;
/// Commands that are run for each batch, with real processes.
mod exec;
/// The four things that can be happening, and that doctor tells them apart.
mod incident;
/// Real files taken in, rotated and drained.
mod ingest;
/// Groups that are moved, bounded, or left behind, and a log that may drop.
mod limits;
/// Damage, and what a repair keeps.
mod repair;
/// Followed files that are somewhere else.
mod source;
/// What they share.
mod support;
/// Rules of the code base that a compiler cannot hold.
mod tidy;
