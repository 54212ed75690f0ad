//! What a killed service leaves to its children. The kills themselves are campaigns of `torture`.

use std::fs;
use std::process::Stdio;

use spillq::http::StatusJson;

use crate::support::{Bounded, SMALL_STORE, needs, program, spillq, write_config};

#[test]
fn a_socket_that_a_killed_service_left_to_its_child_is_no_service() {
    needs!("python3");
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, input) = (folder.path().join("q"), folder.path().join("input"));
    fs::write(&input, "one\n").unwrap();
    let config = write_config(folder.path(), SMALL_STORE);
    let mut once = spillq(&["run", "--once", "--config", config.to_str().unwrap(), "--data-dir"]);
    once.arg(&data_dir).arg("--follow").arg(&input);
    assert!(once.finished().status.success());
    // Who listens dies; its child holds the socket until the test has ended.
    let script = "import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
os.chdir(sys.argv[1])
listener.bind('spillq.sock')
listener.listen()
if os.fork() == 0:
    sys.stdin.read()";
    let mut parent = program("python3");
    parent.args(["-c", script]).arg(&data_dir).stdin(Stdio::piped());
    let mut parent = parent.started();
    let held = parent.child.stdin.take();
    assert!(parent.ended().success());
    let mut status = spillq(&["status", "--json", "--data-dir"]);
    let output = status.arg(&data_dir).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: StatusJson = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status.log.next_seq, 2, "it is read from disk");
    drop(held);
}
