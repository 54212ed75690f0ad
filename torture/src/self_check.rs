//! Whether the campaigns can fail: spillq is built without one safeguard at a time, and a named campaign must fail each time,
//! with the broken invariant.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::campaign::Tally;
use crate::trouble::{During, Result, Trouble};

/// A safeguard that is removed, the campaign that must notice, and what it prints.
const FAULTS: &[(&str, &[&str], &str)] = &[
    ("fault-no-sync", &["shutdown", "--count", "10"], "I1"),
    // A start finds it, or `inspect` before that.
    ("fault-no-segment-sync", &["shutdown", "--count", "10"], "segments/00000000000000000001"),
    ("fault-no-mark", &["tear", "--count", "60"], "I9 silent"),
    ("fault-no-crc", &["flip", "--count", "60"], "I9 silent"),
    ("fault-removal-first", &["kill", "--syscalls", "--count", "1000"], "exit status: 3"),
    ("fault-overtake", &["outage", "--outages", "3", "--count", "1"], "I3"),
];
/// No process acks with a stale token: a test of the queue must notice.
const TOKEN: (&str, &str) = ("fault-no-token", "a_stale_token_changes_nothing");

/// Runs all of it.
pub fn run(work: &Path, tally: &mut Tally) {
    for (feature, campaign, says) in FAULTS {
        match found(work, feature, campaign, says) {
            Ok(breach) => {
                println!("{feature}: found by {}: {breach}", campaign.join(" "));
                tally.pass(1);
            }
            Err(trouble) => tally.fail(&trouble, work, "self-check"),
        }
    }
    match token() {
        Ok(()) => {
            println!("{}: found by the test {}", TOKEN.0, TOKEN.1);
            tally.pass(1);
        }
        Err(trouble) => tally.fail(&trouble, work, "self-check"),
    }
}

/// Cargo on this workspace, in a separate target folder.
fn cargo(args: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).args(["--quiet", "--locked", "--target-dir"]).arg(root.join("target/faults"));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// Returns the breach that was found.
fn found(work: &Path, feature: &str, campaign: &[&str], says: &str) -> Result<String> {
    let built = cargo(&["build", "--package", "spillq", "--bin", "spillq", "--features", feature]).status();
    if !built.during("start cargo")?.success() {
        return Err(Trouble::new(format!("spillq does not build with {feature}")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = Command::new(std::env::current_exe().during("find this program")?);
    command.arg("--spillq").arg(root.join("target/faults/debug/spillq"));
    // This build uses more memory than the limit, which is not what must be found.
    command.args(["--memory-mib", "200", "--work"]).arg(work.join("self-check")).args(campaign);
    let output = command.stdin(Stdio::null()).output().during("run a campaign")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut of_failures = text.lines().skip_while(|line| !line.starts_with("FAILED"));
    let breach = of_failures.find(|line| line.contains(says));
    if let (Some(1), Some(breach)) = (output.status.code(), breach) {
        return Ok(breach.trim().to_owned());
    }
    let last = text.lines().last().unwrap_or_default();
    Err(Trouble::new(format!("{feature}: {} did not notice: {last}", campaign.join(" "))))
}

fn token() -> Result<()> {
    let (feature, test) = TOKEN;
    let run = |features: &[&str]| -> Result<bool> {
        let mut command = cargo(&["test", "--package", "spillq", "--lib"]);
        command.args(features).args(["--", test]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status().during("start cargo")?.success())
    };
    if !run(&[])? {
        return Err(Trouble::new(format!("{test} fails without {feature}")));
    }
    if run(&["--features", feature])? {
        return Err(Trouble::new(format!("{feature}: {test} did not notice")));
    }
    Ok(())
}
