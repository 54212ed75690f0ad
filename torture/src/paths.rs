//! Hostile paths: a followed file, and a folder of followed files, are repeatedly exchanged for a symbolic link to a planted
//! secret, which must never be read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::campaign::{Setup, Tally};
use crate::service::Service;
use crate::trouble::{During, Result, Trouble};
use crate::words::{counted, was_or_were};

/// In every line that must not be read.
const SECRET: &str = "SECRET-THAT-NOBODY-FOLLOWS";
/// Exchanges under one run of the service.
const SWAPS_A_STORE: u64 = 500;

/// Runs the campaign.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let seen =
        setup.stores("paths", SWAPS_A_STORE, tally, |folder, seed, swaps| one(setup, folder, seed, swaps));
    let lines: u64 = seen.into_iter().sum();
    println!(
        "{}, seed {}; {} of allowed files {} read meanwhile",
        counted(setup.count, "exchange"),
        setup.seed,
        counted(lines, "line"),
        was_or_were(lines)
    );
}

fn one(setup: &Setup, folder: &Path, seed: u64, swaps: u64) -> Result<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (logs, secrets, spare) = (folder.join("logs"), folder.join("secrets"), folder.join("spare"));
    for path in [&logs, &secrets, &spare, &logs.join("sub")] {
        fs::create_dir_all(path).during("make a folder")?;
    }
    fs::write(secrets.join("a.log"), format!("{SECRET}\n").repeat(100)).during("plant the secret")?;
    let logs_name = logs.display();
    // With an odd seed links are followed, as long as they end below the logs' folder.
    let links = if seed % 2 == 1 { format!("symlinks = \"{logs_name}\"\n") } else { String::new() };
    let text = format!(
        "[disk]\nmin_free = \"16MiB\"\nreserve = \"1MiB\"\n[[follow]]\ninclude = [\"{logs_name}/*.log\", \"{logs_name}/*/*.log\"]\n{links}"
    );
    fs::write(folder.join("spillq.toml"), text).during("write the configuration")?;
    let data_dir = folder.join("q");
    let mut command = setup.program.command(&["--log", "error", "run", "--config"]);
    command.arg(folder.join("spillq.toml")).arg("--data-dir").arg(&data_dir).current_dir(folder);
    let mut service = Service::start(command, &data_dir, &folder.join("messages"))?;
    service.wait("it is ready", |_| true)?;
    let fresh = spare.join("fresh");
    for swap in 0..swaps {
        let content = format!("allowed {swap}\n").repeat(rng.usize(1..50));
        fs::write(&fresh, &content).during("write an allowed file")?;
        let (path, target) = match rng.u8(..2) {
            0 => (logs.join("a.log"), secrets.join("a.log")),
            _ => {
                // The folder is a link for a moment; a file cannot be renamed over a folder.
                let sub = logs.join("sub");
                fs::rename(&sub, spare.join("sub")).during("take the folder away")?;
                symlink(&secrets, &sub).during("link the folder")?;
                std::thread::sleep(Duration::from_micros(rng.u64(..3_000)));
                fs::remove_file(&sub).during("remove the link")?;
                fs::rename(spare.join("sub"), &sub).during("put the folder back")?;
                (sub.join("b.log"), secrets.join("a.log"))
            }
        };
        fs::rename(&fresh, &path).during("put the file there")?;
        std::thread::sleep(Duration::from_micros(rng.u64(..3_000)));
        let link = spare.join("link");
        symlink(&target, &link).and_then(|()| fs::rename(&link, &path)).during("exchange it for a link")?;
        std::thread::sleep(Duration::from_micros(rng.u64(..3_000)));
    }
    for path in [logs.join("a.log"), logs.join("sub/b.log")] {
        fs::write(&fresh, "the last line\n")
            .and_then(|()| fs::rename(&fresh, path))
            .during("end with a file")?;
    }
    // By then everything before was looked at.
    service.wait("both last files are read", |status| {
        let read =
            |end: &str| status.sources.iter().any(|source| source.path.ends_with(end) && source.offset == 14);
        read("/a.log") && read("/b.log")
    })?;
    service.stop_cleanly()?;
    let shown = setup.program.on(&data_dir, &["inspect", "--json", "--limit", "100000000"])?;
    if shown.code != 0 {
        return Err(Trouble::new(format!("I9 inspect ended with {}: {}", shown.code, shown.err)));
    }
    match shown.out.lines().find(|line| line.contains(SECRET)) {
        Some(line) => Err(Trouble::new(format!("a file that is not followed was read: {line}"))),
        None => Ok(shown.out.lines().count() as u64),
    }
}
