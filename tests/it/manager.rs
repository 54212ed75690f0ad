//! Who watches the service from outside: systemd, whose socket the test plays, and a health check.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::support::{Bounded, PATIENCE, spillq, wait_for};

fn next(socket: &UnixDatagram) -> String {
    let mut told = [0; 4096];
    let size = socket.recv(&mut told).expect("the service tells its manager in time");
    String::from_utf8(told[..size].to_vec()).unwrap()
}

/// The next that is no sign of life.
fn next_said(socket: &UnixDatagram) -> String {
    std::iter::repeat_with(|| next(socket)).find(|told| told != "WATCHDOG=1").unwrap()
}

/// The exit status of `spillq status --running`, and what it printed.
fn health(data_dir: &std::path::Path) -> (Option<i32>, String) {
    let output = spillq(&["status", "--running", "--data-dir"]).arg(data_dir).finished();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_manager_is_told_of_ready_waiting_lines_and_the_stop_and_commands_are_not_given_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, log) = (folder.path().join("q"), folder.path().join("app.log"));
    fs::write(&log, "one\n").unwrap();
    let address = folder.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (code, text) = health(&data_dir);
    assert_eq!(code, Some(1), "{text}");

    let mut command: Command = spillq(&["--log", "warn", "run", "--follow", "*.log", "--data-dir"]);
    command.arg(&data_dir).current_dir(folder.path()).env("NOTIFY_SOCKET", &address);
    command.env("WATCHDOG_USEC", "30000000").args(["--", "sh", "-c", "env > env.tmp; mv env.tmp env"]);
    let mut service = command.started();

    assert_eq!(next(&socket), "READY=1");
    // Ready means that it answers, and that it reads what is there.
    let (code, text) = health(&data_dir);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("a service runs on it"), "{text}");
    let status = next_said(&socket);
    let waits = [" lines wait", " 1 line waits"].iter().any(|end| status.ends_with(end));
    assert!(status.starts_with("STATUS=default ") && waits, "{status}");

    let env = wait_for(|| fs::read_to_string(folder.path().join("env")).ok()).expect("the command ran");
    let own = |line: &&str| line.starts_with("NOTIFY_SOCKET=") || line.starts_with("WATCHDOG_");
    assert_eq!(env.lines().find(own), None, "these are for the service alone");
    assert!(env.contains("SPILLQ_LINES=1\n"), "{env}");

    let told =
        || std::iter::repeat_with(|| next_said(&socket)).find(|told| !told.starts_with("STATUS=")).unwrap();
    kill_process(service.pid(), Signal::HUP).unwrap();
    let reloading = told();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
    assert!(since.parse::<u64>().unwrap() > 0);
    assert_eq!(told(), "READY=1", "whatever came of it");

    kill_process(service.pid(), Signal::TERM).unwrap();
    let stopping = told();
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
    assert!(service.ended().success());
    let (code, text) = health(&data_dir);
    assert_eq!((code, text.ends_with("no service runs on it\n")), (Some(1), true), "{text}");
}

#[test]
fn a_manager_that_is_gone_does_not_stop_the_service() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app.log"), "one\n").unwrap();
    let output = spillq(&["run", "--once", "--follow", "*.log", "--data-dir", "q", "--", "cat"])
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", folder.path().join("gone"))
        .finished();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"one\n"[..]), "{messages}");
    assert!(messages.contains("cannot tell the manager \"READY=1\": No such file"), "{messages}");
}

#[test]
fn an_idle_service_shows_its_manager_that_its_owner_gets_on() {
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command: Command = spillq(&["--log", "warn", "run", "--follow", "*.log", "--data-dir", "q"]);
    command.current_dir(folder.path()).env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "1000000");
    let _service = command.started();
    assert_eq!(next(&socket), "READY=1");
    // Nothing happens; the supervisor's questions alone are rounds of the owner.
    let signs = std::iter::repeat_with(|| next(&socket)).filter(|told| told == "WATCHDOG=1").take(4).count();
    assert_eq!(signs, 4);
}
