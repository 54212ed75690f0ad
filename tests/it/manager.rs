//! What watches the service from outside: systemd, whose socket the test provides, and a health check.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::support::{Bounded, PATIENCE, spillq, wait_for};

fn next(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let size = socket.recv(&mut message).expect("the service sends a message in time");
    String::from_utf8(message[..size].to_vec()).unwrap()
}

/// The next message that is not for the watchdog.
fn next_other(socket: &UnixDatagram) -> String {
    std::iter::repeat_with(|| next(socket)).find(|message| message != "WATCHDOG=1").unwrap()
}

/// The exit status of `spillq status --running`, and what it printed.
fn health(data_dir: &std::path::Path) -> (Option<i32>, String) {
    let output = spillq(&["status", "--running", "--data-dir"]).arg(data_dir).finished();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_manager_is_notified_and_commands_do_not_inherit_its_socket() {
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
    // Ready means that the service answers, and follows its files.
    let (code, text) = health(&data_dir);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("a service runs on it"), "{text}");
    let status = next_other(&socket);
    let waits = [" lines wait", " 1 line waits"].iter().any(|end| status.ends_with(end));
    assert!(status.starts_with("STATUS=default ") && waits, "{status}");

    let env = wait_for(|| fs::read_to_string(folder.path().join("env")).ok()).expect("the command ran");
    let own = |line: &&str| line.starts_with("NOTIFY_SOCKET=") || line.starts_with("WATCHDOG_");
    assert_eq!(env.lines().find(own), None, "these are for the service only");
    assert!(env.contains("SPILLQ_LINES=1\n"), "{env}");

    let next_state = || {
        std::iter::repeat_with(|| next_other(&socket))
            .find(|message| !message.starts_with("STATUS="))
            .unwrap()
    };
    kill_process(service.pid(), Signal::HUP).unwrap();
    let reloading = next_state();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
    assert!(since.parse::<u64>().unwrap() > 0);
    assert_eq!(next_state(), "READY=1", "whatever the result");

    kill_process(service.pid(), Signal::TERM).unwrap();
    let stopping = next_state();
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
    assert!(
        messages.contains("cannot notify the service manager of \"READY=1\": No such file"),
        "{messages}"
    );
}

#[test]
fn an_idle_service_sends_watchdog_messages() {
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command: Command = spillq(&["--log", "warn", "run", "--follow", "*.log", "--data-dir", "q"]);
    command.current_dir(folder.path()).env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "1000000");
    let _service = command.started();
    assert_eq!(next(&socket), "READY=1");
    // The owner is idle, except that the supervisor asks for the status.
    let messages = std::iter::repeat_with(|| next(&socket));
    assert_eq!(messages.filter(|message| message == "WATCHDOG=1").take(4).count(), 4);
}
