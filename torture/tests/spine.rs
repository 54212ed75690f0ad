//! The campaign that every test run makes: kills of the real program while files grow and rotate, lines are delivered
//! and acked, journals are rotated, and during recovery. It needs nothing special of the machine.

#![allow(unreachable_pub, reason = "nothing else uses this crate")]

#[path = "../../tests/it/support/bounded.rs"]
#[allow(dead_code, reason = "one program, run to its end, needs little of it")]
mod bounded;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bounded::{Bounded, end_of};

/// It takes one to two minutes on two cores.
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[test]
fn nothing_is_lost_or_repeated_whatever_kills_the_process() {
    let torture = Path::new(env!("CARGO_BIN_EXE_torture"));
    // Built with the workspace; `cargo test -p torture` alone uses the one that is there.
    let spillq = torture.with_file_name("spillq");
    assert!(spillq.exists(), "{} is not there: cargo build", spillq.display());
    let mut command = Command::new(torture);
    command.arg("--spillq").arg(spillq).arg("--work").arg(env!("CARGO_TARGET_TMPDIR"));
    // A build for tests has more text than a release, see docs/contributing/torture.md.
    command.args(["--memory-mib", "120"]);
    command.args(["kill", "--count", "50", "--seed", "1"]).stdin(Stdio::null());
    let ended = command.finished_within(LONGEST);
    let (out, err) = (end_of(&ended.stdout), end_of(&ended.stderr));
    let last = out.lines().last().unwrap_or_default();
    assert!(ended.status.success() && last.starts_with("50 passed, 0 failed, 0 skipped"), "{out}{err}");
}
