//! Real disks that fill up and lose power: small ext4 file systems in image files. Without root or loop devices
//! these tests say that they were skipped, and why.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::{
    SMALL_STORE, Service, SmallDisk, run, skipped_without_loop_devices, spillq, write_config,
};

/// Lines that do not compress.
fn write_lines(path: &Path, lines: u64) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut out = std::io::BufWriter::new(File::create(path).unwrap());
    for number in 0..lines {
        let letters: String = (0..1_000).map(|_| rng.alphanumeric()).collect();
        writeln!(out, "a {number} {letters}").unwrap();
    }
    out.flush().unwrap();
}

#[test]
fn a_full_disk_pauses_taking_in_and_nothing_else() {
    if skipped_without_loop_devices("a full disk") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(folder.path(), 300);
    let data_dir = disk.mount.join("q");
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    write_lines(&input, 250_000);
    let text = format!(
        "data_dir = {data_dir:?}\n[disk]\nmin_free = \"24MiB\"\nreserve = \"64MiB\"\n[[follow]]\ninclude = [{input:?}]\n"
    );
    let config = write_config(folder.path(), &text);
    let config = config.to_str().unwrap();
    let command = format!("cat >> {}", output.display());

    let mut service = Service::start(&data_dir, &["--config", config]);
    let paused = service.wait("taking in pauses", |status| status.log.full.is_some());
    assert!(paused.log.next_seq < 250_000, "not all of it fits");
    service.kill();

    // Somebody else takes the last byte.
    let filler = disk.mount.join("filler");
    fill(&filler);

    let drain = |lines: &str| {
        let mut command_line = spillq(&["drain", "--data-dir"]);
        command_line.arg(&data_dir).args(["--max-lines", lines, "--", "sh", "-c", &command]);
        command_line.output().unwrap()
    };
    let drained = drain("20000");
    assert_eq!(drained.status.code(), Some(1), "{}", String::from_utf8_lossy(&drained.stderr));
    assert_eq!(
        fs::read_to_string(&output).unwrap().lines().count(),
        20_000,
        "opening, acking and draining work"
    );

    let mut service = Service::start(&data_dir, &["--config", config, "--", "sh", "-c", &command]);
    service.wait("it works off the backlog and pauses with the disk full", |status| {
        status.groups[0].lag_lines == 0
    });
    fs::remove_file(&filler).unwrap();
    service.wait("it goes on by itself when there is room", |status| {
        status.log.next_seq == 250_001 && status.groups[0].lag_lines == 0
    });
    assert_eq!(service.stop(), 0);
    run("cmp", &[input.to_str().unwrap(), output.to_str().unwrap()]);
}

/// Takes all that is free.
fn fill(filler: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(filler).unwrap();
    while file.write_all(&[1; 65_536]).is_ok() {}
    while file.write_all(&[1; 512]).is_ok() {}
}

#[test]
fn a_start_without_any_room_is_worth_another_one() {
    if skipped_without_loop_devices("a start without any room") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(folder.path(), 300);
    let data_dir = disk.mount.join("q");
    let input = folder.path().join("input");
    write_lines(&input, 1_000);
    let text = format!(
        "data_dir = {data_dir:?}\n[disk]\nmin_free = \"24MiB\"\nreserve = \"64MiB\"\n[[follow]]\ninclude = [{input:?}]\n"
    );
    let config = write_config(folder.path(), &text);
    let config = config.to_str().unwrap();
    let mut service = Service::start(&data_dir, &["--config", config, "--", "true"]);
    service.wait("it is done", |status| status.log.next_seq == 1_001 && status.groups[0].lag_lines == 0);
    service.kill();

    // It was given back, and others were faster.
    fs::remove_file(data_dir.join("RESERVE")).unwrap();
    let filler = disk.mount.join("filler");
    fill(&filler);
    let mut start = spillq(&["run", "--config", config, "--", "true"]);
    let refused = start.output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "a service manager tries again: {told}");
    assert!(told.contains("No space left on device") && told.contains("make room"), "{told}");

    fs::remove_file(&filler).unwrap();
    let mut service = Service::start(&data_dir, &["--config", config, "--", "true"]);
    service.wait("it is as before", |status| status.log.next_seq == 1_001 && status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_power_cut_takes_nothing_that_was_answered() {
    if skipped_without_loop_devices("power cuts") {
        return;
    }
    let cuts = std::env::var("SPILLQ_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(200);
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(folder.path(), 1_200);
    let data_dir = disk.mount.join("q");
    let input = folder.path().join("input");
    let config = write_config(
        folder.path(),
        &format!("data_dir = {data_dir:?}\n{SMALL_STORE}[[follow]]\ninclude = [{input:?}]\n"),
    );
    let mut rng = fastrand::Rng::with_seed(3);
    let mut out = File::create(&input).unwrap();
    let (mut written, mut answered, mut acked, mut runs) = (0_u64, 0, 0, 0);
    for cut in 0..cuts {
        // The source is on another disk, which keeps its power: the log alone is on trial.
        let mut burst = Vec::new();
        for _ in 0..rng.u64(1..if cut % 10 == 0 { 12_000 } else { 600 }) {
            let letters: String = (0..rng.usize(..400)).map(|_| rng.alphanumeric()).collect();
            writeln!(burst, "a {written} {letters}").unwrap();
            written += 1;
        }
        out.write_all(&burst).unwrap();
        let service = Service::start(&data_dir, &["--config", config.to_str().unwrap(), "--", "true"]);
        let until = std::time::Instant::now() + Duration::from_millis(rng.u64(30..450));
        while std::time::Instant::now() < until {
            if let Some(status) = service.status() {
                assert!(
                    status.log.next_seq > answered,
                    "cut {cut}: line {answered} was answered and is gone"
                );
                assert!(status.groups[0].ack_floor >= acked, "cut {cut}: an ack up to {acked} is gone");
                answered = status.log.next_seq - 1;
                acked = status.groups[0].ack_floor;
                runs += 1;
            }
            thread::sleep(Duration::from_millis(10));
        }
        disk.cut_power(|| service.kill());
    }
    assert!(runs > 0, "the service never got ready");
    let mut service = Service::start(&data_dir, &["--config", config.to_str().unwrap()]);
    service.wait("all lines are in the log", |status| status.log.next_seq == written + 1);
    assert_eq!(service.stop(), 0);
    let verified = spillq(&["verify", "--data-dir", data_dir.to_str().unwrap()]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    // What no segment holds any more was acked; the rest is as it was written, in order.
    let shown =
        spillq(&["inspect", "--json", "--limit", "100000000", "--data-dir", data_dir.to_str().unwrap()]);
    let shown = { shown }.output().unwrap();
    for line in String::from_utf8(shown.stdout).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let expected = format!("a {} ", line["seq"].as_u64().unwrap() - 1);
        assert!(line["text"].as_str().unwrap().starts_with(&expected), "{line}");
    }
    println!("{cuts} power cuts, {written} lines");
}
