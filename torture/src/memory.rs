//! A backlog that is a hundred times larger than memory: ingested, killed, opened, and drained by three groups at once,
//! in a memory cgroup that holds the service, the commands that it runs, and their page cache.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::campaign::{Setup, Tally};
use crate::cgroup::MemoryGroup;
use crate::need;
use crate::service::{PATIENCE, Service, Status};
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;

/// The limit that the README states, for everything together.
const LIMIT_BYTES: u64 = 96 << 20;
const GROUPS: [&str; 3] = ["one", "two", "three"];
/// Between two checks of the progress.
const LOOK: Duration = Duration::from_millis(500);
/// How much of a batch a receiver holds.
const PIECE_BYTES: usize = 64 * 1024;

/// Lines, bytes and a CRC of them, in order: the same for what was written and for what was delivered to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    lines: u64,
    bytes: u64,
    crc: u32,
}

impl Sum {
    fn add(&mut self, lines: u64, bytes: &[u8]) {
        self.lines += lines;
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, bytes) = (counted(self.lines, "line"), counted(self.bytes, "byte"));
        write!(f, "{lines}, {bytes}, CRC {:08x}", self.crc)
    }
}

/// Runs the campaign: one case, of `count` GiB.
pub fn run(setup: &Setup, tally: &mut Tally) {
    if let Some(why) = need::root().or_else(MemoryGroup::lacks) {
        return tally.skip(1, &why);
    }
    let name = format!("memory-{}", setup.seed);
    match setup.folder(&name).and_then(|folder| Ok((one(setup, &folder)?, folder))) {
        Ok(((), folder)) => {
            tally.pass(1);
            // Nothing is left to inspect.
            let _ = fs::remove_dir_all(folder);
        }
        Err(trouble) => {
            let repeat = format!("memory --count {} --seed {}", setup.count, setup.seed);
            tally.fail(&trouble, &setup.work.join(name), &repeat);
        }
    }
}

fn one(setup: &Setup, folder: &Path) -> Result<()> {
    let group = MemoryGroup::new(&format!("torture-{}-{}", std::process::id(), setup.seed), LIMIT_BYTES)?;
    let (q, log, config) = (folder.join("q"), folder.join("a.log"), folder.join("spillq.toml"));
    let messages = folder.join("messages");
    let written = write(&log, setup.count << 30, setup.seed).during("write the lines")?;
    println!("{} GiB written: {written}", setup.count);
    let start = |with_receivers: bool| -> Result<Service> {
        let receiver = std::env::current_exe().during("find this program")?;
        let mut text = format!("data_dir = {q:?}\n[[follow]]\ninclude = [{log:?}]\n");
        for name in GROUPS {
            text += &format!("[[group]]\nname = {name:?}\n");
            if with_receivers {
                let to = folder.join(name);
                text += &format!(
                    "[[processor]]\ngroup = {name:?}\nkind = \"exec-stream\"\n\
                     command = [{receiver:?}, \"count\", \"--to\", {to:?}]\n"
                );
            }
        }
        fs::write(&config, text).during("write the configuration")?;
        let mut command = setup.program.command(&["run", "--config"]);
        command.arg(&config);
        Service::start(group.wrap(&command, 0), &q, &messages)
    };
    let report = |what: &str, service: &Service, since: Instant, status: &Status| {
        println!(
            "{what}: {:.1} s, {} in, {} MiB resident at most",
            since.elapsed().as_secs_f64(),
            counted(status.log.next_seq - 1, "line"),
            service.proc_kib("VmHWM").unwrap_or_default() / 1024
        );
    };

    let since = Instant::now();
    let mut service = start(false)?;
    let status = until(&mut service, |status| status.log.next_seq, written.lines + 1)?;
    report("ingested", &service, since, &status);
    service.kill()?;

    let since = Instant::now();
    let mut service = start(false)?;
    let status = service.wait("it is open", |_| true)?;
    report("open after kill -9", &service, since, &status);
    if status.groups.iter().any(|group| group.lag_lines != written.lines) {
        return Err(Trouble::new(format!(
            "I1 after the kill not all lines wait for every group: {status:?}"
        )));
    }
    service.kill()?;

    let since = Instant::now();
    let mut service = start(true)?;
    let floors = |status: &Status| status.groups.iter().map(|group| group.ack_floor).sum();
    let status = until(&mut service, floors, GROUPS.len() as u64 * written.lines)?;
    report("drained by three groups", &service, since, &status);
    let code = service.stop()?;
    if code != 0 || status.groups.iter().any(|group| group.dead_letters > 0) {
        return Err(Trouble::new(format!("I1 it ended with {code}, and {:?}", status.groups)));
    }
    for name in GROUPS {
        let given = fs::read_to_string(folder.join(name)).during("read what a group was given")?;
        if given.trim_end() != written.to_string() {
            return Err(Trouble::new(format!("I1 I4 group {name} got {given}; written {written}")));
        }
    }
    match group.kills()? {
        0 => Ok(()),
        kills => Err(Trouble::new(format!("I8 the kernel killed {kills} processes for want of memory"))),
    }
}

/// Writes lines like those of a node until there are this many bytes; they compress to about a third.
fn write(path: &Path, bytes: u64, seed: u64) -> io::Result<Sum> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut sum, mut line) = (Sum::default(), Vec::new());
    while sum.bytes < bytes {
        line.clear();
        let (coin, side) = (["BTC", "ETH", "SOL", "HYPE"][rng.usize(..4)], ["A", "B"][rng.usize(..2)]);
        let (price, size, hash) = (rng.u32(1_000_000..9_999_999), rng.u32(1..99_999), rng.u64(..));
        writeln!(
            line,
            "{{\"n\":{},\"coin\":\"{coin}\",\"side\":\"{side}\",\"px\":\"{price}\",\"sz\":\"{size}\",\"hash\":\"0x{hash:016x}\"}}",
            sum.lines
        )?;
        out.write_all(&line)?;
        sum.add(1, &line);
    }
    out.flush()?;
    Ok(sum)
}

/// Waits until `progress` reaches `end`, however long it takes while there is progress.
fn until(service: &mut Service, progress: impl Fn(&Status) -> u64, end: u64) -> Result<Status> {
    let (mut reached, mut since) = (0, Instant::now());
    loop {
        if let Some(ended) = service.ended()? {
            return Err(Trouble::new(format!("I8 the service ended with {ended} at {reached} of {end}")));
        }
        if let Some(status) = service.status() {
            let now = progress(&status);
            if now >= end {
                return Ok(status);
            }
            if now > reached {
                (reached, since) = (now, Instant::now());
            }
        }
        if since.elapsed() > PATIENCE {
            return Err(Trouble::new(format!("I8 nothing moved for {PATIENCE:?} at {reached} of {end}")));
        }
        std::thread::sleep(LOOK);
    }
}

#[derive(Deserialize)]
struct Header {
    lines: u64,
    bytes: u64,
    last_seq: u64,
}

/// The receiver: sums up what it gets, writes the sum to the file `to` before each answer, and holds no batch in memory.
pub fn count(to: &Path) -> io::Result<u8> {
    let mut input = io::BufReader::with_capacity(PIECE_BYTES, io::stdin().lock());
    let (mut sum, mut header, mut piece) = (Sum::default(), String::new(), vec![0; PIECE_BYTES]);
    while input.read_line(&mut header)? > 0 {
        let Header { lines, bytes, last_seq } = serde_json::from_str(&header).map_err(io::Error::other)?;
        let mut left = bytes;
        while left > 0 {
            let part = piece.get_mut(..left.min(PIECE_BYTES as u64) as usize).unwrap_or_default();
            input.read_exact(part)?;
            sum.add(0, part);
            left -= part.len() as u64;
        }
        sum.lines += lines;
        fs::write(to, format!("{sum}\n"))?;
        let mut out = io::stdout().lock();
        writeln!(out, "OK {last_seq}")?;
        out.flush()?;
        header.clear();
    }
    Ok(0)
}
