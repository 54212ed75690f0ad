//! The command line: one subcommand a campaign.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::campaign::{Setup, Tally};
use crate::damage;
use crate::disk::Kind;
use crate::handoff;
use crate::inject::{self, Fault};
use crate::killer;
use crate::memory;
use crate::oom;
use crate::outage;
use crate::poison;
use crate::power::{self, Beside};
use crate::receive::{self, Receive};
use crate::service::Program;
use crate::shutdown::{self, How};
use crate::trouble::{During, Result, Trouble};

/// Kills, cuts, fills and damages spillq, and judges the result
///
/// Each campaign prints what it hit and ends with `N passed, M failed, K skipped`. A failure names the folder that is
/// kept and the command that repeats it. Exit status 0 when nothing failed.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// The program under test [default: built by cargo, or the one next to this program]
    #[arg(long, global = true, value_name = "PATH")]
    spillq: Option<PathBuf>,
    /// Where stores are made: a real file system with some GiB free [default: `torture` in the target folder]
    #[arg(long, global = true, value_name = "DIR")]
    work: Option<PathBuf>,
    /// How much memory the service may use, in MiB; 96 is the limit of a release build
    #[arg(long, global = true, value_name = "MIB", default_value_t = 96)]
    memory_mib: u64,
    #[command(subcommand)]
    campaign: Campaign,
}

#[derive(Clone, Copy, clap::Args)]
struct Cases {
    /// How many cases
    #[arg(long, value_name = "N")]
    count: u64,
    /// The first seed; it decides what is done, not how the machine schedules it
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

#[derive(Subcommand)]
enum Campaign {
    /// SIGKILL at random moments while files grow and rotate, or at each system call in turn
    Kill {
        #[command(flatten)]
        cases: Cases,
        /// At calls that write, sync or change a folder, of a run of 300 lines; `--count` of them at random
        #[arg(long)]
        syscalls: bool,
        /// Only this case of --syscalls
        #[arg(long, value_name = "CASE", requires = "syscalls")]
        only: Option<String>,
    },
    /// Power cuts: the file system under the store is shut down without flushing its journal
    Shutdown {
        #[command(flatten)]
        cases: Cases,
        /// Which file system
        #[arg(long, value_enum, default_value = "ext4")]
        fs: Kind,
        /// Another process writes to the same file system
        #[arg(long)]
        busy: bool,
        /// The followed files are on it, too
        #[arg(long, conflicts_with = "busy")]
        followed: bool,
    },
    /// Power cuts of a block device, state by state: every write is logged and replayed
    Power {
        #[command(flatten)]
        cases: Cases,
        /// Another process writes to the same file system
        #[arg(long)]
        busy: bool,
        /// The followed files are on it, too
        #[arg(long, conflicts_with = "busy")]
        followed: bool,
    },
    /// Jumps of the clock by up to a day, under a running service
    Clock(Cases),
    /// A followed file, or folder, exchanged for a symbolic link to what is not followed
    Paths(Cases),
    /// One bit flipped in a copy of a store
    Flip(Cases),
    /// A file of a copy of a store cut or zeroed at any byte
    Tear(Cases),
    /// Disks that are filled to the last byte while the service works
    Full(Cases),
    /// Rotation of every kind, step by step, with kills in between
    Rotate(Cases),
    /// Rotation by logrotate itself, in each of its modes, with the service running and stopped
    Logrotate(Cases),
    /// Load for minutes or hours, with occasional kills: memory, descriptors and disk stay flat
    Soak {
        /// How long
        #[arg(long, alias = "count", value_name = "N")]
        minutes: u64,
        /// The first seed
        #[arg(long, value_name = "SEED", default_value_t = 1)]
        seed: u64,
    },
    /// Poison lines among others
    Poison(Cases),
    /// Outages that follow one another as soon as one delivery succeeds, or later, under a trickle of lines
    Outage {
        #[command(flatten)]
        cases: Cases,
        /// Outages of a load
        #[arg(long, value_name = "N", default_value_t = 20)]
        outages: u64,
    },
    /// Lines whose delivery kills the service, or only the command, and kills at random
    Killer(Cases),
    /// Receivers that hang, ignore SIGTERM, stop themselves and fork daemons
    Hang(Cases),
    /// Malformed requests to the socket and to an address, and one slow client for every 20 of them
    Http(Cases),
    /// Kills by the out-of-memory killer, in a memory cgroup
    Oom(Cases),
    /// A backlog of COUNT GiB in a memory cgroup of 96 MiB: ingested, killed, opened, drained by three groups
    Memory(Cases),
    /// EIO and ENOSPC in place of each system call in turn, or errors of the block device
    IoError {
        #[command(flatten)]
        cases: Cases,
        /// Sectors that cannot be written or read, and flushes that fail, on a disk under load
        #[arg(long)]
        block: bool,
        /// Only this case
        #[arg(long, value_name = "CASE", conflicts_with = "block")]
        only: Option<String>,
    },
    /// Kills of the service, of a real server, or of both, while lines are handed to it; `cargo test` runs them
    Handoff {
        #[command(flatten)]
        cases: Cases,
        /// Where lines go
        #[arg(long)]
        to: handoff::To,
    },
    /// Builds spillq without one safeguard at a time: a named campaign must fail each time
    SelfCheck,
    /// What spillq runs for its batches here
    #[command(hide = true)]
    Receive(Receive),
    /// What the groups of `memory` run
    #[command(hide = true)]
    Count {
        /// The file for the sum of what it got
        #[arg(long)]
        to: PathBuf,
    },
    /// The process that uses memory in `oom`
    #[command(hide = true)]
    Hog,
}

/// Reads the command line and runs the command.
pub fn run() -> ExitCode {
    let args = Args::parse();
    let helper = match &args.campaign {
        Campaign::Receive(args) => Some(receive::run(args)),
        Campaign::Count { to } => Some(memory::count(to)),
        Campaign::Hog => Some(oom::hog()),
        _ => None,
    };
    match helper.map_or_else(|| campaign(&args), |ended| ended.during("a helper")) {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            eprintln!("torture: {trouble}");
            ExitCode::from(2)
        }
    }
}

fn campaign(args: &Args) -> Result<u8> {
    let here = std::env::current_exe().during("find this program")?;
    let folder = here.parent().ok_or_else(|| Trouble::new("this program has no folder"))?;
    let path = match &args.spillq {
        Some(path) => path.canonicalize().during(path.display())?,
        None => built(folder)?,
    };
    let program = Program { path, memory_mib: args.memory_mib };
    let work = args.work.clone().unwrap_or_else(|| folder.with_file_name("torture"));
    std::fs::create_dir_all(&work).during(work.display())?;
    let work = work.canonicalize().during(work.display())?;
    let mut tally = Tally::default();
    let setup = |cases: &Cases| Setup {
        program: program.clone(),
        work: work.clone(),
        count: cases.count,
        seed: cases.seed,
    };
    match &args.campaign {
        Campaign::Kill { cases, syscalls: false, .. } => crate::kill::run(&setup(cases), &mut tally),
        Campaign::Kill { cases, only, .. } => {
            inject::run(&setup(cases), &[Fault::Kill], "kill --syscalls", only.as_deref(), &mut tally);
        }
        Campaign::Shutdown { cases, fs: kind, followed: true, .. } => {
            crate::followed::run(&setup(cases), *kind, &mut tally);
        }
        Campaign::Shutdown { cases, fs: kind, busy, .. } => {
            shutdown::run(&setup(cases), How { kind: *kind, busy: *busy }, &mut tally);
        }
        Campaign::Flip(cases) => damage::run(&setup(cases), damage::Kind::Flip, &mut tally),
        Campaign::Tear(cases) => damage::run(&setup(cases), damage::Kind::Tear, &mut tally),
        Campaign::Full(cases) => crate::full::run(&setup(cases), &mut tally),
        Campaign::Rotate(cases) => crate::rotate::run(&setup(cases), &mut tally),
        Campaign::Logrotate(cases) => crate::logrotate::run(&setup(cases), &mut tally),
        Campaign::Soak { minutes, seed } => {
            crate::soak::run(&setup(&Cases { count: *minutes, seed: *seed }), &mut tally);
        }
        Campaign::Poison(cases) => poison::run(&setup(cases), &mut tally),
        Campaign::Outage { cases, outages } => outage::run(&setup(cases), *outages, &mut tally),
        Campaign::Killer(cases) => killer::run(&setup(cases), &mut tally),
        Campaign::Hang(cases) => poison::hang(&setup(cases), &mut tally),
        Campaign::IoError { cases, block: true, .. } => crate::block::run(&setup(cases), &mut tally),
        Campaign::IoError { cases, only, .. } => {
            let faults = [Fault::Error("EIO"), Fault::Error("ENOSPC")];
            inject::run(&setup(cases), &faults, "io-error", only.as_deref(), &mut tally);
        }
        Campaign::Handoff { cases, to } => handoff::run(&setup(cases), *to, &mut tally),
        Campaign::SelfCheck => crate::self_check::run(&work, &mut tally),
        Campaign::Power { cases, busy, followed } => {
            let beside = match (busy, followed) {
                (true, _) => Beside::Neighbour,
                (_, true) => Beside::Followed,
                _ => Beside::Nothing,
            };
            power::run(&setup(cases), beside, &mut tally);
        }
        Campaign::Clock(cases) => crate::clock::run(&setup(cases), &mut tally),
        Campaign::Paths(cases) => crate::paths::run(&setup(cases), &mut tally),
        Campaign::Http(cases) => crate::http::run(&setup(cases), &mut tally),
        Campaign::Oom(cases) => oom::run(&setup(cases), &mut tally),
        Campaign::Memory(cases) => memory::run(&setup(cases), &mut tally),
        // Not campaigns; they have run already.
        Campaign::Receive(_) | Campaign::Count { .. } | Campaign::Hog => return Ok(2),
    }
    Ok(tally.end())
}

/// The program next to this one. If cargo runs this program, it is built first, so that no old one is tested.
fn built(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("spillq");
    if let Some(cargo) = std::env::var_os("CARGO") {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let mut build = Command::new(cargo);
        build
            .args(["build", "--quiet", "--locked", "--package", "spillq", "--bin", "spillq"])
            .current_dir(root);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().during("start cargo")?;
        if !status.success() {
            return Err(Trouble::new("spillq does not build"));
        }
    }
    if !program.exists() {
        let what =
            format!("{} does not exist: run `cargo build`, or name one with --spillq", program.display());
        return Err(Trouble::new(what));
    }
    Ok(program)
}
