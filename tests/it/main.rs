//! One integration crate for the service.
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at the first surprise too")]

/// What the built program prints, and how it ends.
mod cli;
/// Commands that are run for each batch, with real processes.
mod exec;
/// Rules of the code base that a compiler cannot hold.
mod tidy;
