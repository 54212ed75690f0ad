//! Real disks that fill up: small ext4 file systems in image files.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::support::need::LOOP_DEVICES;
use crate::support::{Bounded, Service, SmallDisk, needs, run, spillq, wait_for, write_config};

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
    needs!(LOOP_DEVICES, "mount", "mkfs.ext4");
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
    let paused = service.wait("ingestion pauses", |status| status.log.full.is_some());
    assert!(paused.log.next_seq < 250_000, "not all of it fits");
    service.kill();

    // Another process takes the last byte.
    let filler = disk.mount.join("filler");
    fill(&filler);

    let drain = |lines: &str| {
        let mut command_line = spillq(&["drain", "--data-dir"]);
        command_line.arg(&data_dir).args(["--max-lines", lines, "--", "sh", "-c", &command]);
        command_line.finished()
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
    service.wait("it resumes by itself when there is space", |status| {
        status.log.next_seq == 250_001 && status.groups[0].lag_lines == 0
    });
    assert_eq!(service.stop(), 0);
    run("cmp", &[input.to_str().unwrap(), output.to_str().unwrap()]);
}

/// Others took the reserve that a running service had released, and its next start failed.
#[test]
fn a_disk_that_others_fill_again_and_again_keeps_a_killed_service_from_nothing() {
    needs!(LOOP_DEVICES, "mount", "mkfs.ext4");
    const LINES: u64 = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(folder.path(), 300);
    let data_dir = disk.mount.join("q");
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    write_lines(&input, LINES);
    let text = format!(
        "data_dir = {data_dir:?}\n[disk]\nmin_free = \"8MiB\"\nreserve = \"64MiB\"\n[[follow]]\ninclude = [{input:?}]\n"
    );
    let config = write_config(folder.path(), &text);
    let config = config.to_str().unwrap();
    let mut service = Service::start(&data_dir, &["--config", config]);
    service.wait("all lines are in", |status| status.log.next_seq > LINES);

    // Until it has released all but what a start needs.
    let (filler, reserve) = (disk.mount.join("filler"), data_dir.join("RESERVE"));
    let held = || fs::metadata(&reserve).map_or(0, |reserve| reserve.len());
    let given = wait_for(|| {
        fill(&filler);
        // Next it checks the disk.
        service.status();
        OpenOptions::new().append(true).open(&input).unwrap().write_all(b"a more\n").unwrap();
        (held() <= 36 << 20).then_some(())
    });
    assert!(given.is_some(), "{} bytes are held", held());
    service.wait("it continues without ingestion", |status| status.log.full.is_some());
    fill(&filler);
    service.kill();
    fill(&filler);

    let command = format!("cat >> {}", output.display());
    let mut service = Service::start(&data_dir, &["--config", config, "--", "sh", "-c", &command]);
    service.wait("it works off the backlog on the full disk", |status| status.groups[0].lag_lines == 0);
    fs::remove_file(&filler).unwrap();
    let lines = fs::read_to_string(&input).unwrap().lines().count() as u64;
    service.wait("it resumes", |status| status.log.next_seq > lines && status.groups[0].lag_lines == 0);
    let whole = wait_for(|| (held() == 64 << 20).then_some(()));
    assert!(whole.is_some(), "the reserve is filled again: {} bytes", held());
    assert_eq!(service.stop(), 0);
    run("cmp", &[input.to_str().unwrap(), output.to_str().unwrap()]);
}

/// Takes all free space.
fn fill(filler: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(filler).unwrap();
    while file.write_all(&[1; 65_536]).is_ok() {}
    while file.write_all(&[1; 512]).is_ok() {}
}

#[test]
fn a_start_without_any_room_is_worth_another_one() {
    needs!(LOOP_DEVICES, "mount", "mkfs.ext4");
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

    // It was released, and others took it first.
    fs::remove_file(data_dir.join("RESERVE")).unwrap();
    let filler = disk.mount.join("filler");
    fill(&filler);
    let mut start = spillq(&["run", "--config", config, "--", "true"]);
    let refused = start.finished();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "a service manager tries again: {told}");
    assert!(
        told.contains("No space left on device")
            && told.contains("free space on that file system and start again"),
        "{told}"
    );

    fs::remove_file(&filler).unwrap();
    let mut service = Service::start(&data_dir, &["--config", config, "--", "true"]);
    service.wait("it is as before", |status| status.log.next_seq == 1_001 && status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);
}
