//! Followed files on another host: other folders, other inodes.

use std::fs;

use serde_json::Value;

use crate::support::{Bounded, Service, spillq};

#[test]
fn a_short_file_is_adopted_where_its_content_is_too_short_to_know_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, log) = (folder.path().join("q"), folder.path().join("a.log"));
    fs::write(&log, "one\ntwo\n").unwrap();
    let (dir, path) = (data_dir.to_str().unwrap(), log.to_str().unwrap());
    let mut service = Service::start(&data_dir, &["--follow", path]);
    service.wait("the lines are in", |status| status.log.next_seq == 3);
    assert_eq!(service.stop(), 0);
    let list = spillq(&["source", "list", "--data-dir", dir, "--json"]).finished();
    let listed: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!((&listed["source"], &listed["path"], &listed["offset"]), (&1.into(), &path.into(), &8.into()));

    // The same path and content in another inode, as a copy of the whole host has it.
    fs::rename(&log, folder.path().join("old")).unwrap();
    fs::write(&log, "one\ntwo\nthree\n").unwrap();
    let adopt = |source: &str, path: &str| {
        let output = spillq(&["source", "adopt", "--data-dir", dir, source, path]).finished();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let other = folder.path().join("other");
    fs::write(&other, "one\nTWO\n").unwrap();
    let (status, said) = adopt("1", other.to_str().unwrap());
    assert!(status == Some(2) && said.contains("does not begin as the source does"), "{said}");
    assert_eq!(adopt("7", path).0, Some(2));
    assert_eq!(adopt("1", path), (Some(0), String::new()));
    let mut service = Service::start(&data_dir, &["--follow", path]);
    service.wait("the new line is in, the old ones are not read again", |status| {
        status.log.next_seq == 4 && status.sources.iter().all(|source| source.state == "caught_up")
    });
    assert_eq!(adopt("1", path).0, Some(2), "a running service knows its files by itself");
    assert_eq!(service.stop(), 0);
}

#[test]
fn files_under_another_folder_are_known_by_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fs::create_dir(&old).unwrap();
    let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
    fs::write(old.join("a.log"), &lines).unwrap();
    let data_dir = folder.path().join("q");
    let glob = |folder: &std::path::Path| folder.join("*.log").to_str().unwrap().to_owned();
    let mut service = Service::start(&data_dir, &["--follow", &glob(&old)]);
    service.wait("the lines are in", |status| status.log.next_seq == 101);
    assert_eq!(service.stop(), 0);
    // Copied to another host: other inodes, another folder, and the old one is not there.
    fs::create_dir(&new).unwrap();
    fs::write(new.join("a.log"), lines.clone() + "one more\n").unwrap();
    fs::remove_dir_all(&old).unwrap();
    let mut service = Service::start(&data_dir, &["--follow", &glob(&new)]);
    let status = service.wait("it is read on", |status| {
        status.log.next_seq > 101 && status.sources.iter().any(|source| source.state == "caught_up")
    });
    assert_eq!((status.log.next_seq, status.sources.len()), (102, 1));
    assert_eq!(service.stop(), 0);
}
