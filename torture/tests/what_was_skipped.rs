//! The last test program that `cargo test --workspace` runs: it has no tests, and prints what the others skipped for lack
//! of something, and how to get that. (Cargo runs packages by name, and of each the test programs by name.)

#![allow(unreachable_pub, reason = "nothing else uses this crate")]

#[path = "../../tests/it/support/skipped.rs"]
mod skipped;

use std::collections::{BTreeMap, BTreeSet};

use skipped::Skipped;

fn main() {
    // Asked for the names of its tests, it has none.
    if !std::env::args().any(|arg| arg == "--list") {
        print!("{}", told(&skipped::taken()));
    }
}

fn told(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return "nothing was skipped\n".to_owned();
    }
    let mut by_lack: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in skipped {
        by_lack.entry(&one.lacks).or_default().push(&one.what);
    }
    let all: BTreeSet<&str> = skipped.iter().map(|one| one.what.as_str()).collect();
    let mut text = format!("\n{} skipped, for lack of:\n", all.len());
    for (lack, whats) in by_lack {
        text += &format!("  {lack}\n    {}\n", whats.join("\n    "));
    }
    let packages: BTreeSet<&str> = skipped.iter().filter_map(|one| one.package.as_deref()).collect();
    if !packages.is_empty() {
        let packages: Vec<&str> = packages.into_iter().collect();
        text += &format!(
            "on Debian, this installs the programs: apt-get install --no-install-recommends {}\n",
            packages.join(" ")
        );
    }
    text
}
