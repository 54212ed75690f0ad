//! Standard input and FIFOs as sources, with real programs at their other end: ends, kills, full logs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use spillq::http::StatusJson;

use crate::support::{Bounded, Service, Stage, program, spillq, wait_for, write_config};

impl Stage {
    fn run_command(&self, args: &[&str]) -> Command {
        let mut command = spillq(&["run", "--data-dir"]);
        command.arg(self.path("q")).args(args).current_dir(self.folder());
        command
    }

    /// `run --follow -` with more arguments.
    fn piped(&self, args: &[&str]) -> Service {
        let mut command = self.run_command(&["--follow", "-"]);
        let stderr = File::create(self.path("stderr")).unwrap();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        Service::of(&self.data_dir, command.started_with_its_streams())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap()
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    /// All lines of the log, with the sources they are from.
    fn inspect(&self) -> Vec<serde_json::Value> {
        let mut command = spillq(&["inspect", "--json", "--limit", "100000000", "--data-dir"]);
        let output = command.arg(self.path("q")).finished();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.inspect().iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }
}

fn has_lines(lines: u64) -> impl Fn(&StatusJson) -> bool {
    move |status| status.log.next_seq == lines + 1
}

/// A writer, as soon as the service reads.
fn writer(path: &Path) -> File {
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let open = || OpenOptions::new().write(true).custom_flags(nonblock).open(path).ok();
    let file = wait_for(open).expect("the service opens the FIFO");
    rustix::fs::fcntl_setfl(&file, OFlags::empty()).unwrap();
    file
}

#[test]
fn once_reads_standard_input_to_its_end_and_delivers_every_byte() {
    let stage = Stage::new();
    let mut bytes: Vec<u8> = (0..200_000_u32).flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
    bytes.extend((0..=255).collect::<Vec<u8>>());
    bytes.extend([vec![b'x'; 3 << 20], b"\n\n\0\n".to_vec(), b"no newline".to_vec()].concat());
    let command = format!("cat >> {}", stage.path("out").display());
    let mut service = stage.piped(&["--once", "--", "sh", "-c", &command]);
    let mut stdin = service.stdin();
    // In pieces that are not lines.
    for piece in bytes.chunks(77_777) {
        stdin.write_all(piece).unwrap();
    }
    drop(stdin);
    assert_eq!(service.ended(), 0, "{}", stage.said());
    let out = fs::read(stage.path("out")).unwrap();
    assert!(out == bytes, "{} of {} bytes", out.len(), bytes.len());
    let last = stage.inspect().pop().unwrap();
    assert_eq!((last["text"].as_str(), last["unterminated"].as_bool()), (Some("no newline"), Some(true)));
    assert!(last["source"].as_str().unwrap().starts_with("stdin@20"), "{last}");
    assert_eq!(last["offset"].as_u64().unwrap() as usize, bytes.len() - "no newline".len());
    assert!(stage.said().contains("cannot be read again after a crash"), "{}", stage.said());
}

#[test]
fn a_service_goes_on_after_the_end_of_standard_input() {
    let stage = Stage::new();
    let gate = stage.path("gate");
    let script = format!("while ! test -e {}; do sleep 0.02; done; cat >> out", gate.display());
    let mut service = stage.piped(&["--", "sh", "-c", &script]);
    service.stdin().write_all(b"one\ntwo\n").unwrap();
    let is_source =
        |status: &StatusJson, state: &str| status.sources.iter().any(|source| source.state == state);
    service.wait("the end is seen", |status| is_source(status, "ended") && has_lines(2)(status));
    assert!(stage.said().contains("standard input has ended"), "{}", stage.said());
    fs::write(&gate, "").unwrap();
    service.wait("the backlog is delivered", |status| status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);
    assert_eq!(fs::read_to_string(stage.path("out")).unwrap(), "one\ntwo\n");
}

#[test]
fn a_stop_does_not_wait_for_an_idle_pipe_and_stores_what_is_there() {
    let stage = Stage::new();
    let fifo = stage.fifo("app.fifo");
    let mut service = stage.piped(&[fifo.to_str().unwrap()]);
    let mut stdin = service.stdin();
    let mut app = writer(&fifo);
    stdin.write_all(b"one\nhal").unwrap();
    app.write_all(b"two\n").unwrap();
    let status = service.wait("both lines", has_lines(2));
    assert!(status.sources.iter().all(|source| source.state == "stream"), "{status:#?}");
    assert!(status.sources.iter().any(|source| source.offset == 4 && source.size == Some(7)), "{status:#?}");
    // Both ends stay open, and nobody writes.
    assert_eq!(service.stop(), 0);
    drop((stdin, app));
    assert_eq!(stage.texts()[2], "hal");
}

#[test]
fn what_no_lines_come_from_is_told() {
    let stage = Stage::new();
    let run = |stdin: Stdio| {
        let output = stage.run_command(&["--once", "--follow", "-"]).stdin(stdin).finished();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = run(Stdio::null());
    assert!(status == Some(0) && said.contains("standard input is /dev/null"), "{status:?} {said}");
    let (status, said) = run(File::open(stage.folder()).unwrap().into());
    assert!(status == Some(2) && said.contains("follow standard input: it is a folder"), "{status:?} {said}");
    let output = stage.run_command(&["--follow", "-", "-"]).finished();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("is followed already"), "{said}");
    // With the settings of the service that is down, the backlog is drained and nothing is read.
    let config = write_config(
        stage.folder(),
        "data_dir = \"q\"\n[[follow]]\ninclude = [\"-\"]\n[[processor]]\nkind = \"stdout\"\n",
    );
    let drain = spillq(&["drain", "--config"]).arg(config).stdin(Stdio::piped()).finished();
    assert!(drain.status.success(), "{}", String::from_utf8_lossy(&drain.stderr));
}

#[test]
fn a_command_does_not_get_the_pipe_that_is_followed() {
    let stage = Stage::new();
    let script =
        "for fd in /proc/[0-9]*/fd/*; do :; done; ls -l /proc/self/fd /proc/$PPID/fd > fds; cat > in";
    let mut service = stage.piped(&["--", "sh", "-c", script]);
    let mut stdin = service.stdin();
    let pipe = fs::read_link(format!("/proc/{}/fd/0", service.process.child.id())).unwrap();
    stdin.write_all(b"line\n").unwrap();
    service.wait("it is delivered", |status| status.groups[0].acked_lines == 1);
    let fds = fs::read_to_string(stage.path("fds")).unwrap();
    assert!(fds.contains(" 0 -> ") && !fds.contains(pipe.to_str().unwrap()), "{pipe:?} in {fds}");
    assert_eq!(fs::read_to_string(stage.path("in")).unwrap(), "line\n");
    stdin.write_all(b"more\n").unwrap();
    service.wait("more is delivered", |status| status.groups[0].acked_lines == 2);
    assert_eq!(service.stop(), 0);
}

/// Writes numbered lines that do not compress until it fails or has written `lines`; returns how many whole ones.
fn write_lines(mut to: impl Write, lines: u64, wrote: &AtomicU64) {
    let mut rng = fastrand::Rng::with_seed(5);
    for number in 0..lines {
        let letters: String = (0..1_000).map(|_| rng.alphanumeric()).collect();
        if to.write_all(format!("{number} {letters}\n").as_bytes()).is_err() {
            return;
        }
        wrote.store(number + 1, Ordering::Release);
    }
}

/// That `texts` are lines from the first on, each once, up to the last, of which a part may be there.
#[track_caller]
fn check_numbers<'t>(texts: impl Iterator<Item = &'t str>) -> u64 {
    let mut count = 0;
    for (text, expected) in texts.zip(0..) {
        let number = text.split(' ').next().unwrap();
        assert_eq!(number, expected.to_string(), "after {count} lines");
        assert_eq!(text.len(), number.len() + 1_001);
        count = expected + 1;
    }
    count
}

#[test]
fn a_full_log_blocks_the_writer_which_goes_on_by_itself() {
    let stage = Stage::new();
    let gate = stage.path("gate");
    let config = format!(
        "[disk]\nlimit = \"256MiB\"\nreserve = \"160MiB\"\nmin_free = \"1MiB\"\n[[processor]]\nkind = \"exec\"\n\
         command = [\"sh\", \"-c\", \"while ! test -e {}; do sleep 0.02; done; cut -d' ' -f1 >> out\"]\n\
         [[group]]\nname = \"default\"\ntimeout = \"10m\"\n",
        gate.display()
    );
    let config = write_config(stage.folder(), &config);
    let mut service = stage.piped(&["--config", config.to_str().unwrap()]);
    let lines = 90_000;
    let wrote = Arc::new(AtomicU64::new(0));
    let (stdin, theirs) = (service.stdin(), Arc::clone(&wrote));
    let app = thread::spawn(move || write_lines(stdin, lines, &theirs));
    service.wait("the log is full", |status| status.log.full.is_some());
    assert!(stage.said().contains("and may use 256.0 MiB (disk.limit)"), "{}", stage.said());
    // What was read beyond the log is bounded: at most 2 MiB at risk, and what the pipe holds.
    let stored = service.wait("the writer waits", |status| status.log.full.is_some()).log.next_seq - 1;
    let ahead = wrote.load(Ordering::Acquire).saturating_sub(stored) * 1_007;
    assert!(ahead < 3 << 20, "{ahead} bytes ahead of the log");
    assert!(!app.is_finished());
    let memory = fs::read_to_string(format!("/proc/{}/status", service.process.child.id())).unwrap();
    let peak =
        memory.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(peak.trim().parse::<u64>().unwrap() < 160 << 10, "{peak} kB at most");
    fs::write(&gate, "").unwrap();
    app.join().unwrap();
    service.wait("everything is delivered", |status| {
        has_lines(lines)(status) && status.groups[0].lag_lines == 0
    });
    assert_eq!(service.stop(), 0);
    let out = fs::read_to_string(stage.path("out")).unwrap();
    assert!(out.lines().eq((0..lines).map(|number| number.to_string())), "{} lines", out.lines().count());
}

#[test]
fn a_stop_while_the_log_is_full_says_what_may_be_lost() {
    let stage = Stage::new();
    let text = "[[group]]\nname = \"default\"\nmax_lag = { lines = 1 }\n";
    let config = write_config(stage.folder(), text);
    let mut service = stage.piped(&["--config", config.to_str().unwrap()]);
    let mut stdin = service.stdin();
    stdin.write_all(b"one\n").unwrap();
    service.wait("the first line", has_lines(1));
    stdin.write_all(b"two\nhalf").unwrap();
    service.wait("the log is full", |status| status.log.full.is_some());
    assert_eq!(service.stop(), 0);
    assert!(stage.said().contains("8 B read from streams may be lost"), "{}", stage.said());
    assert_eq!(stage.texts(), ["one"]);
}

#[test]
fn after_a_kill_what_was_durable_is_there_once_and_nothing_twice() {
    let stage = Stage::new();
    let mut all = Vec::new();
    for round in 0..3_u64 {
        let mut service = stage.piped(&[]);
        let (stdin, wrote) = (service.stdin(), Arc::new(AtomicU64::new(0)));
        let theirs = Arc::clone(&wrote);
        let app = thread::spawn(move || write_lines(stdin, u64::MAX, &theirs));
        let before: u64 = all.iter().sum();
        let seen = service.wait("some lines", |status| status.log.next_seq > before + 500 * (round + 1));
        service.kill();
        app.join().unwrap();
        let lines = stage.inspect();
        let of_round = lines.get(before as usize..).unwrap();
        let count = check_numbers(of_round.iter().map(|line| line["text"].as_str().unwrap()));
        // Told as durable, so it is there; and no more than the application wrote, of which the last may be half.
        assert!(before + count >= seen.log.next_seq - 1, "{count} lines");
        assert!(count <= wrote.load(Ordering::Acquire) + 1);
        let source = of_round[0]["source"].as_str().unwrap();
        assert!(of_round.iter().all(|line| line["source"] == source));
        assert!(before == 0 || lines[before as usize - 1]["source"] != source, "a separate source");
        all.push(count);
    }
    // The next one says that something may be lost, forgets them, and repeats nothing.
    let mut service = stage.piped(&["--once", "--", "sh", "-c", "cat >> out"]);
    drop(service.stdin());
    assert_eq!(service.ended(), 0);
    assert!(stage.said().contains("bytes that were read and not stored are lost"), "{}", stage.said());
    let delivered = fs::read_to_string(stage.path("out")).unwrap();
    assert_eq!(delivered.lines().count() as u64, all.iter().sum::<u64>());
    let mut service = stage.piped(&["--once"]);
    drop(service.stdin());
    assert_eq!(service.ended(), 0);
    assert!(!stage.said().contains("is lost"), "said once: {}", stage.said());
}

#[test]
fn writers_of_a_fifo_come_and_go_over_restarts() {
    let stage = Stage::new();
    let fifo = stage.fifo("app.fifo");
    let mut expected = Vec::new();
    for start in 0..3 {
        let mut service = Service::start(&stage.path("q"), &["--follow", fifo.to_str().unwrap()]);
        let mut first = writer(&fifo);
        write!(first, "{start} first line\n{start} cut over ").unwrap();
        expected.push(format!("{start} first line"));
        service.wait("a line", has_lines(expected.len() as u64));
        write!(first, "two writes\n{start} unfinished").unwrap();
        expected.push(format!("{start} cut over two writes"));
        drop(first);
        expected.push(format!("{start} unfinished"));
        service.wait("the end of a writer", has_lines(expected.len() as u64));
        // A shell that opens and closes it for each line.
        for line in 0..3 {
            let mut shell = program("sh");
            let script = format!("echo {start} echo {line} > {}", fifo.display());
            assert!(shell.args(["-c", &script]).finished().status.success());
            expected.push(format!("{start} echo {line}"));
        }
        service.wait("all lines", has_lines(expected.len() as u64));
        match start {
            0 => service.kill(),
            _ => assert_eq!(service.stop(), 0),
        }
    }
    assert_eq!(stage.texts(), expected);
    let sources: std::collections::BTreeSet<String> =
        stage.inspect().iter().map(|line| line["source"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sources.len(), 3, "{sources:?}");
    assert!(
        sources.iter().all(|source| source.starts_with(&format!("{}@20", fifo.display()))),
        "{sources:?}"
    );
}

#[test]
fn a_fifo_that_only_a_wildcard_names_is_left_alone() {
    let stage = Stage::new();
    let fifo = stage.fifo("app.log");
    let glob = format!("{}/*.log", stage.folder().display());
    let output = stage.run_command(&["--once", "--follow", &glob]).finished();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "what matched was not read: {said}");
    assert!(said.contains("`include` must name its whole path"), "{said}");
    // With its whole path it is read: to its end, by the last of its writers.
    let mut service = stage.run_command(&["--once", "--follow", fifo.to_str().unwrap()]).started();
    writer(&fifo).write_all(b"line\n").unwrap();
    assert!(service.ended().success());
    assert_eq!(stage.texts(), ["line"]);
}
