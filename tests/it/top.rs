//! `top` on a pseudo-terminal, with a real service: the screen, the keys, and the terminal afterwards.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Bounded, Process, Service, binary, needs, program, spillq, wait_for};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const HIDE: &str = "\u{1b}[?25l";
const SHOW: &str = "\u{1b}[?25h";

/// `top` within `script`, which gives it a terminal.
struct Shown {
    script: Process,
    written: Arc<Mutex<Vec<u8>>>,
    folder: std::path::PathBuf,
}

impl Shown {
    fn start(folder: &std::path::Path) -> Shown {
        let words =
            format!("stty rows 24 cols 80; echo $$ > pid; exec {} top --data-dir q", binary().display());
        let mut command = program("script");
        command.args(["-qec", &words, "/dev/null"]).current_dir(folder).env("TERM", "xterm-256color");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = command.started_with_its_streams();
        let (written, mut out) = (Arc::new(Mutex::new(Vec::new())), script.child.stdout.take().unwrap());
        let theirs = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(size @ 1..) = out.read(&mut some) {
                theirs.lock().unwrap().extend_from_slice(&some[..size]);
            }
        });
        Shown { script, written, folder: folder.to_owned() }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait(&self, text: &str) {
        let found = wait_for(|| self.text().contains(text).then_some(()));
        assert!(found.is_some(), "never {text:?}: {:?}", self.text());
    }

    fn pid(&self) -> Pid {
        let pid = wait_for(|| fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok());
        Pid::from_raw(pid.expect("it says its pid")).unwrap()
    }

    #[track_caller]
    fn press(&mut self, key: &[u8]) {
        self.script.child.stdin.as_mut().unwrap().write_all(key).unwrap();
    }

    fn ended(mut self) {
        let status = self.script.ended();
        self.wait(LEAVE);
        let text = self.text();
        assert!(status.success(), "{status}: {text:?}");
        assert!(text.rfind(LEAVE) > text.rfind(ENTER) && text.rfind(SHOW) > text.rfind(HIDE), "{text:?}");
    }
}

#[test]
fn top_draws_follows_a_restart_and_restores_the_terminal() {
    needs!("script");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let run = |folder: &std::path::Path| {
        Service::start(&folder.join("q"), &["--follow", "a.log", "--", "sh", "-c", "cat >> out"])
    };
    let mut service = run(folder.path());
    service.wait("the line is acked", |status| status.log.next_seq == 2 && status.groups[0].lag_lines == 0);
    let mut shown = Shown::start(folder.path());
    shown.wait("healthy");
    shown.wait("acked");
    service.kill();
    shown.wait("no answer for ");
    let mut service = run(folder.path());
    service.wait("it answers again", |_| true);
    shown.written.lock().unwrap().clear();
    // Only what changed is drawn: the word appears again.
    shown.wait("healthy");
    shown.press(b"p");
    shown.wait("y/n");
    shown.press(b"n");
    shown.wait("not paused");
    assert_eq!(service.status().unwrap().groups[0].state, "idle");
    shown.press(b"p");
    shown.press(b"y");
    service.wait("it is paused", |status| status.groups[0].state == "paused");
    shown.press(b"r");
    service.wait("it resumes", |status| status.groups[0].state != "paused");
    shown.press(b"d");
    // The part of "group default has no dead letters" that was not on the screen before.
    shown.wait("letters");
    let whole = shown.text();
    assert!(!whole.contains(LEAVE), "{whole:?}");
    shown.press(b"q");
    // The beginning was cleared above.
    shown.written.lock().unwrap().splice(0..0, ENTER.bytes());
    shown.ended();

    let terminated = Shown::start(folder.path());
    terminated.wait("healthy");
    kill_process(terminated.pid(), Signal::TERM).unwrap();
    terminated.ended();
    assert_eq!(service.stop(), 0);
}

/// A `top` whose terminal window was closed read keys for ever, on a whole core, and could only be killed.
#[test]
fn top_ends_when_its_terminal_hangs_up() {
    needs!("script");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let mut service = Service::start(&folder.path().join("q"), &["--follow", "a.log", "--", "cat"]);
    service.wait("the line is acked", |status| status.log.next_seq == 2 && status.groups[0].lag_lines == 0);
    let mut shown = Shown::start(folder.path());
    shown.wait("healthy");
    let top = shown.pid();
    // The terminal is that of `script`.
    shown.script.killed();
    let gone = wait_for(|| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", top.as_raw_pid())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    // Killed in case it does not end.
    let _ = kill_process(top, Signal::KILL);
    assert!(gone.is_some(), "it still runs without a terminal");
}

#[test]
fn top_needs_a_terminal_and_a_service() {
    needs!("script");
    let folder = tempfile::tempdir().unwrap();
    let output = spillq(&["top", "--data-dir", "q"]).current_dir(folder.path()).finished();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{told}");
    assert!(told.starts_with("spillq: top needs a terminal\nhint: `spillq status --watch`"), "{told}");
    let words = format!("{} top --data-dir q", binary().display());
    let output = program("script")
        .args(["-qec", &words, "/dev/null"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .finished();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("q: no service runs on it"), "{told}");
    assert!(!told.contains(ENTER), "nothing was drawn: {told:?}");
}
