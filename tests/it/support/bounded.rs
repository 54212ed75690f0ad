//! Programs that tests run. None runs longer than it may: then it is killed with all that it started, and the test fails
//! with what was awaited and the end of what was printed. None prints through to the terminal.
#![allow(clippy::unwrap_used, reason = "tests may stop at the first surprise")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// No program that ends by itself takes longer. The slowest takes some 20 seconds alone; a machine that runs other things
/// too may need several times that.
pub const LONGEST: Duration = Duration::from_secs(180);

/// How much of what a program printed a failing test shows.
const SHOWN_BYTES: usize = 8 << 10;

/// How a test runs a program; what `std` has for it waits forever (clippy.toml).
pub trait Bounded {
    /// Runs it to its end, and gives its status and all that it printed.
    fn finished(&mut self) -> Output {
        self.finished_within(LONGEST)
    }

    /// The same with another bound.
    fn finished_within(&mut self, longest: Duration) -> Output;

    /// Starts it. What it prints is kept for [`Process::printed`] and for a test that fails.
    fn started(&mut self) -> Process;

    /// Starts it with the streams that the caller has set.
    fn started_with_its_streams(&mut self) -> Process;
}

#[allow(clippy::disallowed_methods, reason = "the one place that starts programs, and bounds them")]
impl Bounded for Command {
    #[track_caller]
    fn finished_within(&mut self, longest: Duration) -> Output {
        let what = format!("{self:?}");
        let until = Instant::now() + longest;
        let child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
        let stdout = Gathered::from(child.stdout.take().unwrap());
        let stderr = Gathered::from(child.stderr.take().unwrap());
        // A stream ends with the last process that has it, which may be another one.
        let status = [&stdout, &stderr].iter().all(|stream| stream.ends_by(until));
        let status = status.then(|| exit_by(&mut child, until)).flatten();
        let Some(status) = status else {
            kill_with_descendants(&child);
            let (stdout, stderr) = (end_of(&stdout.taken()), end_of(&stderr.taken()));
            panic!("{what} had not ended after {longest:?}\nits output:\n{stdout}\nits messages:\n{stderr}");
        };
        Output { status, stdout: stdout.taken(), stderr: stderr.taken() }
    }

    #[track_caller]
    fn started(&mut self) -> Process {
        let printed = tempfile::tempfile().unwrap();
        self.stdout(printed.try_clone().unwrap()).stderr(printed.try_clone().unwrap());
        let mut process = self.started_with_its_streams();
        process.printed = Some(printed);
        process
    }

    #[track_caller]
    fn started_with_its_streams(&mut self) -> Process {
        let what = format!("{self:?}");
        let child = self.spawn().unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
        Process { child, what, printed: None }
    }
}

/// What comes from a stream, read on a separate thread, as two streams fill up independently.
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<io::Error>,
}

impl Gathered {
    fn from(mut stream: impl Read + Send + 'static) -> Gathered {
        let (bytes, (failed, end)) = (Arc::new(Mutex::new(Vec::new())), channel());
        let theirs = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut some = vec![0; 64 << 10];
            loop {
                match stream.read(&mut some) {
                    Ok(0) => break,
                    Ok(size) => theirs.lock().unwrap().extend_from_slice(&some[..size]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        // The receiver is gone if the test has failed meanwhile.
                        let _ = failed.send(error);
                        break;
                    }
                }
            }
        });
        Gathered { bytes, end }
    }

    /// Whether it has ended by then.
    #[track_caller]
    fn ends_by(&self, until: Instant) -> bool {
        match self.end.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(error) => panic!("cannot read what a program printed: {error}"),
            Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        }
    }

    fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

/// How it ended, if it does by then.
fn exit_by(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The end of what was printed.
pub fn end_of(printed: &[u8]) -> String {
    let mut cut = printed.len().saturating_sub(SHOWN_BYTES);
    if cut > 0 {
        // From the begin of a line on, where there is one.
        cut += printed[cut..].iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    }
    let end = String::from_utf8_lossy(&printed[cut..]);
    if cut == 0 { end.into_owned() } else { format!("({cut} bytes before)\n{end}") }
}

/// Kills a process and all that it started, as far as they have not left it.
fn kill_with_descendants(child: &Child) {
    // The parents first: one that continues could start more.
    for pid in std::iter::once(child.id()).chain(descendants(child.id())) {
        kill(pid);
    }
}

/// SIGKILL, where it still runs.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// All processes that `pid` started, and those that they did.
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        at += 1;
    }
    found.split_off(1)
}

/// A program that runs; killed when the test ends.
pub struct Process {
    pub child: Child,
    what: String,
    printed: Option<File>,
}

impl Process {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it has ended, if it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        exit_by(&mut self.child, Instant::now() + LONGEST)
            .unwrap_or_else(|| panic!("{} had not ended after {LONGEST:?}", self.what))
    }

    /// SIGTERM; gives how it ended.
    #[track_caller]
    pub fn terminated(&mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.ended()
    }

    /// SIGKILL, and it is gone.
    #[track_caller]
    pub fn killed(&mut self) {
        // One that has ended is as dead.
        let _ = self.child.kill();
        self.ended();
    }

    /// All that it has printed, on both streams.
    pub fn printed(&self) -> Vec<u8> {
        let Some(file) = &self.printed else { return Vec::new() };
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        // Not by the position of the file, which is where the program writes.
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The test may have ended it.
        let _ = self.child.kill();
        let is_gone = exit_by(&mut self.child, Instant::now() + LONGEST).is_some();
        if thread::panicking() {
            eprintln!("{} printed:\n{}", self.what, end_of(&self.printed()));
        } else {
            assert!(is_gone, "{} lives on after SIGKILL", self.what);
        }
    }
}

/// Ends this process and all that it started, and says why; past what the harness captures.
pub fn abort(why: &str) -> ! {
    // Whether anybody reads it or not, this ends here.
    let _ = io::stderr().write_all(why.as_bytes());
    descendants(std::process::id()).into_iter().for_each(kill);
    std::process::exit(101)
}
