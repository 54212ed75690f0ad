//! Dead letters exported by the built program, from a running service and from a stopped store.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Service, spillq};

fn lines(output: &[u8]) -> Vec<Value> {
    output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn an_export_holds_the_lines_and_why_and_removes_none() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, log) = (folder.path().join("q"), folder.path().join("a.log"));
    fs::write(&log, b"one\ntwo\n\xff\xfe\nfour\n").unwrap();
    let mut service = Service::start(&data_dir, &["--follow", log.to_str().unwrap()]);
    service.wait("the lines are in", |status| status.log.next_seq == 5);
    let dir = data_dir.to_str().unwrap();
    assert!(spillq(&["dead-letter", "park", "--data-dir", dir, "2", "3"]).status().unwrap().success());

    let live = spillq(&["dead-letter", "export", "--data-dir", dir]).output().unwrap();
    assert!(live.status.success(), "{}", String::from_utf8_lossy(&live.stderr));
    assert_eq!(service.stop(), 0);
    let stopped = spillq(&["dead-letter", "export", "--data-dir", dir]).output().unwrap();
    assert_eq!(live.stdout, stopped.stdout, "a service says the same as the disk");
    let letters = lines(&live.stdout);
    assert_eq!(letters.len(), 2);
    let two = &letters[0];
    assert_eq!((&two["seq"], &two["text"], &two["offset"]), (&2.into(), &"two".into(), &4.into()));
    assert_eq!((&two["source"], &two["attempts"]), (&log.to_str().unwrap().into(), &0.into()));
    assert_eq!(two["reason"], "parked by an operator");
    assert!(two["time"].is_string() && two["dead_since"].is_string());
    assert_eq!((&letters[1]["base64"], letters[1].get("text")), (&"//4=".into(), None));

    let file = folder.path().join("letters.jsonl");
    let export = || {
        spillq(&["dead-letter", "export", "--data-dir", dir, "--to", file.to_str().unwrap()])
            .output()
            .unwrap()
    };
    assert!(export().status.success());
    assert_eq!(fs::read(&file).unwrap(), live.stdout);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(export().status.code(), Some(2), "a file that is there is never overwritten");
    let list = spillq(&["dead-letter", "list", "--data-dir", dir, "--json"]).output().unwrap();
    assert_eq!(lines(&list.stdout).len(), 2, "they are in the log as before");
}
