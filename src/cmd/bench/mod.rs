//! `spillq bench`: lines to measure with, and measurements of this machine.

mod drain;
mod end_to_end;
mod generate;
mod ingest;
mod measure;
mod yardstick;

use super::{Exit, Failure};
use crate::cli::{BenchArgs, BenchCommand};

/// Runs one of them.
///
/// # Errors
/// When the folder cannot be written, or the store fails.
pub fn run(args: &BenchArgs) -> Result<Exit, Failure> {
    match &args.command {
        BenchCommand::Generate(args) => generate::run(args),
        BenchCommand::Ingest(args) => ingest::run(args),
        BenchCommand::Drain(args) => drain::run(args),
        BenchCommand::EndToEnd(args) => end_to_end::run(args),
    }
}
