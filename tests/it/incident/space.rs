//! A disk that fills up, by the log or by other files, and files that are rotated away meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::support::need::LOOP_DEVICES;
use crate::support::{SMALL_STORE, SmallDisk, needs};

/// Some 40 MiB of this are for lines.
const LITTLE_SPACE: &str = "[disk]\nmin_free = \"64MiB\"\nreserve = \"160MiB\"\nlimit = \"256MiB\"\n";

/// A processor that waits until it is cured, with a long timeout.
fn held() -> String {
    "[[group]]\nname = \"default\"\ntimeout = \"5m\"\n".to_owned() + &processor(&held_until_cured())
}

#[test]
fn a_log_at_its_limit_and_files_that_are_rotated_away_meanwhile() {
    const DENSE: u64 = 220_000;
    let stage = staged(&(LITTLE_SPACE.to_owned() + &held()));
    stage.append("in-dense.log", dense(DENSE));
    let mut service = stage.start();
    let found = stage.finding("disk_full");
    assert!(found.evidence.join("\n").contains("of disk.limit 256.0 MiB"), "{found:#?}");
    assert!(found.summary.contains("; group default lags most, by "), "{found:#?}");
    let (doctor, _) = stage.doctor().unwrap();
    assert!(!doctor.findings.iter().any(|found| found.cause.as_deref() == Some("rotation_risk")));

    stage.append("in-late.log", "late 0 fill\n");
    service.wait("the late file is followed", |status| {
        status.sources.iter().any(|source| source.path.ends_with("in-late.log"))
    });
    fs::rename(stage.path("in-dense.log"), stage.path("away")).unwrap();
    fs::remove_file(stage.path("in-late.log")).unwrap();
    let risk = wait_for(|| {
        Some(stage.finding("rotation_risk")).filter(|risk| risk.summary.starts_with("2 files were "))
    });
    let risk = risk.unwrap_or_else(|| panic!("{:#?}", stage.doctor()));
    assert!(
        risk.summary.contains(": 2 held open") && risk.summary.contains("; 0 not held open"),
        "{risk:#?}"
    );
    let evidence = risk.evidence.join("\n");
    assert!(evidence.contains("in-late.log: 12 B unread, held open"), "{risk:#?}");
    assert!(risk.next.starts_with("stop the rotation of these files"), "{risk:#?}");

    stage.cure();
    stage.is_cured_of(&mut service, DENSE);
    service.wait("the late line too", |status| {
        status.log.next_seq > LINES + DENSE + 1 && status.groups[0].lag_lines == 0
    });
    assert_eq!(lines_by_source(&stage.path("out"))["late"], [0]);
}

#[test]
fn files_that_are_not_held_open_are_counted_apart() {
    const DENSE: u64 = 220_000;
    const FILES: u64 = 60;
    /// All files together are larger than what the tail reads ahead.
    const LINES_EACH: u64 = 600;
    let stage = staged(&(LITTLE_SPACE.to_owned() + &held()));
    stage.append("in-dense.log", dense(DENSE));
    let mut service = Service::start_with(
        &stage.path("q"),
        "ulimit -n 96",
        &["--config", stage.config().to_str().unwrap()],
    );
    stage.finding("disk_full");
    let name = |number| format!("in-small{number}.log");
    for number in 0..FILES {
        let lines = dense_lines(0..LINES_EACH).replace("dense", &format!("small{number}"));
        stage.append(&name(number), &lines);
    }
    service.wait("they are followed", |status| status.sources.len() as u64 >= 2 + FILES);
    for number in 0..FILES {
        fs::rename(stage.path(&name(number)), stage.path(&format!("away{number}"))).unwrap();
    }
    let risk = wait_for(|| {
        Some(stage.finding("rotation_risk")).filter(|risk| risk.summary.starts_with("60 files were "))
    });
    let risk = risk.unwrap_or_else(|| panic!("{:#?}", stage.doctor()));
    assert!(
        !risk.summary.contains("; 0 not held open") && !risk.summary.contains("; 60 not held open"),
        "{risk:#?}"
    );
    assert_eq!(risk.evidence.last().unwrap(), "and 40 more");
    for number in 0..FILES {
        fs::rename(stage.path(&format!("away{number}")), stage.path(&name(number))).unwrap();
    }
    stage.cure();
    stage.is_cured_of(&mut service, DENSE);
    service.wait("the small files too", |status| {
        status.log.next_seq > LINES + DENSE + FILES * LINES_EACH && status.groups[0].lag_lines == 0
    });
    let arrived = lines_by_source(&stage.path("out"));
    for number in 0..FILES {
        assert_eq!(arrived[&format!("small{number}")], (0..LINES_EACH).collect::<Vec<_>>());
    }
}

#[test]
fn a_disk_that_other_files_fill() {
    needs!(LOOP_DEVICES, "mount", "mkfs.ext4");
    const DENSE: u64 = 1_000;
    let stage = staged("");
    let disk = SmallDisk::new(stage.folder(), 300);
    let with = fs::read_to_string(stage.config()).unwrap();
    let data_dir = disk.mount.join("q");
    let with = with.replace("\"q\"", &format!("{data_dir:?}"));
    fs::write(stage.config(), with).unwrap();
    stage.add_sections("[disk]\nmin_free = \"24MiB\"\nreserve = \"8MiB\"\n");
    // The store is on another file system than the command.
    stage.add_sections(&processor(&format!("cat >> {}", stage.quoted("out"))));
    let mut stage = stage;
    stage.data_dir = data_dir;
    let mut service = stage.start();
    service
        .wait("all lines are acked", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    let filler = disk.mount.join("filler");
    let space = rustix::fs::statvfs(&disk.mount).unwrap();
    let space = space.f_bavail * space.f_frsize;
    fs::write(&filler, vec![1; usize::try_from(space - (12 << 20)).unwrap()]).unwrap();
    stage.append("in-dense.log", dense(DENSE));
    let found = stage.finding("disk_filled_by_others");
    assert!(found.evidence.join("\n").contains("other files take "), "{found:#?}");
    stage.paste(&found.next);
    fs::remove_file(&filler).unwrap();
    stage.is_cured_of(&mut service, DENSE);
    // Before the disk is unmounted.
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_processor_that_is_slower_than_the_writer_falls_behind() {
    let group = "[[group]]\nname = \"default\"\nbatch = { lines = 100 }\n";
    let disk = format!("{SMALL_STORE}limit = \"1GiB\"\n");
    let script = "test -e cured || sleep 0.4; cat >> out";
    let stage = Arc::new(staged(&(disk + group + &processor(script))));
    let mut service = stage.start();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stage, stop) = (Arc::clone(&stage), Arc::clone(&stop));
        thread::spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                stage.append("in-dense.log", &dense_lines(number..number + 100));
                number += 100;
                // The pace of the writer, which is part of the test.
                thread::sleep(Duration::from_millis(50));
            }
            number
        })
    };
    let verdict = stage.verdict("default", "slow", None, "falling_behind");
    stop.store(true, Ordering::Relaxed);
    let dense = writer.join().unwrap();
    for part in [" lines/s arrive, and ", " are acked; at this rate the log is full in about "] {
        assert!(verdict.summary.contains(part), "{verdict:#?}");
    }
    assert!(
        verdict
            .next
            .starts_with("raise `batch`, or `in_flight` (with order = \"none\"), of group default in ")
    );
    stage.cure();
    stage.is_cured_of(&mut service, dense);
}
