//! The command line: one table from which help comes, and which others script against.
//!
//! Only names, forms and help are here: what a command does is in `cmd`. Usage errors end with status 2.
// long: the table of the whole command line

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use spillq_storage::{Seq, SeqRange};

use crate::config::{Overrides, parse_duration};
use crate::messages::Format;
use crate::queue::group_name;
use crate::supervise::Cause;
use crate::tail;

const EXAMPLES: &str = "\
Examples:
  spillq run --data-dir ./q --follow '/var/log/app*.log' -- ./process.sh
                                    follow files, pipe each batch to a command
  spillq status --data-dir ./q      what waits, and for whom
  spillq drain --data-dir ./q -- ./process.sh
                                    the service is down: empty the backlog
  spillq config init                write a documented configuration file

Exit status: 0 fine; 1 the answer is no, or the disk has no room; 2 could not run (usage, configuration,
permission); 3 the store failed or is damaged; 4 stuck, ended by its own watchdog.";

/// A durable queue for lines of files, that grows on disk and never in memory
///
/// spillq follows files that other programs write, appends every line to a log on disk, and hands batches of
/// lines to processors that acknowledge them. Nothing is lost or repeated at ingest when the process is killed,
/// memory runs out or the disk fills up.
#[derive(Debug, Parser)]
#[command(name = "spillq", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What is told on standard error [default: info for run and drain, warn for others]
    ///
    /// error: data is at risk. warn: unexpected, and recovered. info: a change of state. debug and trace are for
    /// finding out why.
    #[arg(long, global = true, value_name = "LEVEL", hide_possible_values = true)]
    pub log: Option<Level>,
    /// In what form that is told: text, or json, one object a line [default: text]
    ///
    /// With time, level, message and fields. A message that comes again within a minute is counted instead of told, in both
    /// forms.
    #[arg(long, global = true, value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands. What each takes is in its `...Args`, which also carry their help.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[allow(missing_docs)]
    Run(RunArgs),
    #[allow(missing_docs)]
    Drain(DrainArgs),
    #[allow(missing_docs)]
    Demo(DemoArgs),
    #[allow(missing_docs)]
    Status(StatusArgs),
    #[allow(missing_docs)]
    Doctor(DoctorArgs),
    #[allow(missing_docs)]
    Top(TopArgs),
    #[allow(missing_docs)]
    Inspect(InspectArgs),
    #[allow(missing_docs)]
    Verify(VerifyArgs),
    #[allow(missing_docs)]
    Repair(RepairArgs),
    #[allow(missing_docs)]
    Backup(BackupArgs),
    #[allow(missing_docs)]
    Restore(RestoreArgs),
    #[allow(missing_docs)]
    Source(SourceArgs),
    #[allow(missing_docs)]
    DeadLetter(DeadLetterArgs),
    #[allow(missing_docs)]
    Group(GroupArgs),
    #[allow(missing_docs)]
    Config(ConfigArgs),
    #[allow(missing_docs)]
    Bench(BenchArgs),
    #[allow(missing_docs)]
    Completions(CompletionsArgs),
    #[allow(missing_docs)]
    Man(ManArgs),
}

impl Cli {
    /// Reads the command line of this process. Help and usage errors are printed here, and say how to end.
    ///
    /// # Errors
    /// How to end: 0 after `--help`, 2 after a usage error.
    pub fn from_command_line() -> Result<Cli, ExitCode> {
        Cli::try_parse().map_err(|error| {
            match usage(&error) {
                Some(message) => eprintln!("spillq: {message}"),
                // Where help cannot be printed there is nobody to tell.
                None => drop(error.print()),
            }
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        })
    }

    /// The level of messages: as asked, or what suits the command.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self.log {
            Some(Level::Error) => "error",
            Some(Level::Info) => "info",
            None if matches!(self.command, Command::Run(_) | Command::Drain(_)) => "info",
            Some(Level::Warn) | None => "warn",
            Some(Level::Debug) => "debug",
            Some(Level::Trace) => "trace",
        }
    }
}

/// A value that its own check refused, in one line: `--for 5 parsecs: not a duration; ...`. `None` for other
/// errors, which clap words well.
fn usage(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = text(ContextKind::InvalidArg)?;
    let option = argument.split(" <").next().unwrap_or(argument);
    let why = std::error::Error::source(error)?;
    Some(format!("{option} {}: {why}", text(ContextKind::InvalidValue)?))
}

/// A level of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A form of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Format {
        match format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Beginning {
    /// With the oldest that is there
    Beginning,
    /// With what comes from now on
    End,
}

impl From<Beginning> for tail::From {
    fn from(from: Beginning) -> tail::From {
        match from {
            Beginning::Beginning => tail::From::Beginning,
            Beginning::End => tail::From::End,
        }
    }
}

/// The data dir, for commands without a configuration. `cmd::data_dir` fills in the default.
#[derive(Args, Clone, Debug)]
pub struct DataDirArgs {
    /// The folder of the log [default: $SPILLQ_DATA_DIR or ./spillq-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Which store, for commands that need nothing else of a configuration. `cmd::store_dir` finds it.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data_dir: DataDirArgs,
    /// Take the data dir from this configuration file; --data-dir wins over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Follow files and hand their lines to processors, until stopped
///
/// Follows the files that match the globs, stores their lines durably, and pipes each batch to COMMAND's standard
/// input; exit status 0 acknowledges the batch. Without COMMAND and without processors in the configuration, lines
/// are only taken in, and wait for their group. SIGTERM and Ctrl-C stop it cleanly. With --config, SIGHUP and a change
/// of the file make it read its configuration again, see `spillq config reload`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq run --data-dir ./q --follow 'app*.log' -- ./process.sh
  spillq run --follow 'app*.log'                only take lines in; they wait
  spillq run --follow 'app*.log' --once -- wc -l    read what is there, process it, end
  app | spillq run --follow - -- ./process.sh   lines of a pipe; --once ends with it
  spillq run --config /etc/spillq/spillq.toml

A batch whose command fails is delivered again after a back-off. Lines are never lost, but can be
delivered more than once: make COMMAND indifferent to repeats. SPILLQ_FIRST_SEQ and
SPILLQ_LAST_SEQ tell it which lines it has, SPILLQ_EPOCH whose (another after a restore).")]
pub struct RunArgs {
    /// The configuration file [default: none, the defaults hold]
    ///
    /// The other options win over it. `spillq config init` writes a documented one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data_dir: DataDirArgs,
    /// Files to follow, instead of those in the configuration; may be repeated
    ///
    /// Quote it, so that spillq sees the glob and not the shell: only then are files followed that appear later.
    /// `*` and `?` do not match a slash, `**` does.
    ///
    /// `-` is standard input; a FIFO is followed where it is named without a wildcard. Their bytes can be read once:
    /// what was read and is not in the log yet is lost if spillq is killed, where a file is read again. The writer
    /// waits while the log is full.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub follow: Vec<String>,
    /// Where files begin that exist at the very first start [default: beginning]
    ///
    /// With `end`, lines that were written before the first start are never read. Files that are known already go
    /// on where they were.
    #[arg(long, value_name = "WHERE")]
    pub from: Option<Beginning>,
    /// The group that COMMAND serves; made when it is new [default: default]
    ///
    /// A group gets every line of the log once, and lines are kept until every group has acknowledged them.
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    pub group: Option<String>,
    /// Read to the end of the files, process all of it, and end
    ///
    /// Ends with status 0 when nothing waits any more. A last line without its newline waits for the next run; of
    /// standard input and of a FIFO, which ends with the last of its writers, it is taken.
    #[arg(long)]
    pub once: bool,
    /// Take a data dir on a file system that keeps nothing: tmpfs, or the overlay of a container without a volume
    ///
    /// Everything in the log, acknowledged or not, is gone with the container or with the next reboot.
    #[arg(long)]
    pub allow_volatile: bool,
    /// Gets each batch on its standard input; its exit status 0 acknowledges it
    ///
    /// 65 says that the lines themselves are at fault, 126 and 127 that the command cannot be run; any other
    /// status, or a signal, is a failure, after which the batch is delivered again.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// What it says of the settings.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.data_dir.clone(),
            follow: self.follow.clone(),
            from: self.from.map(Into::into),
            group: self.group.clone(),
            command: self.command.clone(),
        }
    }
}

/// Empty the backlog while the service is down
///
/// Reads no files: hands what is in the log to COMMAND, or to the processors of the configuration, and ends with
/// status 0 when nothing waits, with 1 when --max-lines or --for ended it before. What was acknowledged stays so.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq drain --data-dir ./q -- ./process.sh
  spillq drain --data-dir ./q --for 10m --rate 5000 -- ./process.sh")]
pub struct DrainArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data_dir: DataDirArgs,
    /// The configuration file [default: none, the defaults hold]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The group to drain [default: default with COMMAND, otherwise all that have a processor]
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    pub group: Option<String>,
    /// End after so many lines [default: no limit]
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_lines: Option<u64>,
    /// End after this time, such as 90s, 10m or 1h30m [default: no limit]
    ///
    /// The batch in flight is still finished.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Hand out at most so many lines a second [default: no limit]
    ///
    /// For a destination that is only just up again.
    #[arg(long, value_name = "N", value_parser = count)]
    pub rate: Option<u64>,
    /// Gets each batch on its standard input; its exit status 0 acknowledges it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl DrainArgs {
    /// What it says of the settings.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.data_dir.clone(),
            group: self.group.clone(),
            command: self.command.clone(),
            ..Overrides::default()
        }
    }
}

/// Show a writer, a slow processor, a kill, a restart, and the account of it
///
/// Works in a temporary folder, which is removed afterwards; takes less than a minute.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {}

/// Tell what is in the log, what waits, and for whom
///
/// Asks the service over the socket in the data dir; where none runs it reads the disk. It says which.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq status --data-dir ./q --watch
  spillq status --url http://127.0.0.1:9464
  spillq status --data-dir ./q --running > /dev/null    a health check, for containers and scripts")]
pub struct StatusArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Print one JSON object, with log, sources, groups and losses
    #[arg(long)]
    pub json: bool,
    /// Print it again every 2 seconds, until stopped
    #[arg(long)]
    pub watch: bool,
    /// End with status 1 where no service answers, instead of reading the disk
    #[arg(long)]
    pub running: bool,
    /// Ask the service at this address, one that its configuration lists under [http], instead
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub url: Option<String>,
}

/// Say what each group is doing and why, the evidence, and the next step
///
/// Asks the service that runs on the data dir; where none runs, reads the store and what the last run noted before it
/// ended. Ends with status 1 when something is wrong.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data_dir: DataDirArgs,
    /// A configuration file to check too; it also names the data dir
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object, with healthy, groups, findings and last_run
    #[arg(long)]
    pub json: bool,
    /// Print what the runbook says of a cause: what it means, what to type, and when it is over
    #[arg(long, value_name = "CAUSE", value_parser = causes(), hide_possible_values = true)]
    pub explain: Option<String>,
    /// Ask the service at this address, one that its configuration lists under [http], instead
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub url: Option<String>,
}

/// Show what status and doctor say, live, with plots of the last minutes
///
/// Draws on a terminal: groups with their states, lines in and out a second, lag, disk, memory, and what is wrong with the
/// chosen group. Keys: q ends it, arrows and Tab choose a group, p asks whether to pause it, r resumes it, d shows its dead
/// letters.
/// Asks the service on the data dir, or at an address, which shows and changes nothing; once a second, and goes on
/// asking while it is away.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq top --data-dir ./q
  spillq top --url http://127.0.0.1:9464
  NO_COLOR=1 spillq top")]
pub struct TopArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Ask the service at this address, one that its configuration lists under [http], instead
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub url: Option<String>,
}

/// Read lines from the log, acknowledged or not
///
/// Changes nothing and acknowledges nothing. Lines that are compacted away are not there any more. Lines that are
/// recorded as lost, by a repair or by on_damage = "skip", are passed over and named on standard error.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// The first seq to print [default: the oldest line held]
    #[arg(long, value_name = "SEQ", value_parser = seq)]
    pub from: Option<Seq>,
    /// Lines to print at most
    #[arg(long, value_name = "N", default_value = "10", value_parser = count)]
    pub limit: u64,
    /// Print one object a line: seq, source, offset, time, and text, or base64 where the bytes are not UTF-8
    #[arg(long)]
    pub json: bool,
}

/// Read all of the log and check it; exit status 1 when damage is found
///
/// Exit status 3 when the disk refuses to read some of it: whether that is sound is not known, and a repair would give it
/// up. Changes nothing. Takes about as long as reading the data dir from disk.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Print one JSON object, with sound and findings
    #[arg(long)]
    pub json: bool,
}

/// Keep what can be read of a damaged store, name what cannot, and set it aside
///
/// For a store that `verify` finds damaged, or that does not open. The service must be stopped. Every block that can be
/// read is kept; seqs of others are recorded as lost, and no group waits for them any more. Damaged files are moved
/// to quarantine/ in the data dir, never deleted. A kill at any point does no harm; run it again.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq repair --data-dir ./q --dry-run     what is damaged, and what would be lost; exit status 1 if anything
  spillq repair --data-dir ./q               do it; exit status 0 when the store is sound afterwards")]
pub struct RepairArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Change nothing, and tell the same
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object: sound, findings, lines, lost_lines, losses, quarantined, read_again
    #[arg(long)]
    pub json: bool,
}

/// Copy the store to a folder or a tar file, while the service runs
///
/// The copy is the log of one moment. The service goes on meanwhile, but removes nothing from disk until the copy is
/// done. `spillq restore` makes a store of it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq backup --data-dir ./q --to /backup/q-monday
  spillq backup --data-dir ./q --to /backup/q-monday.tar")]
pub struct BackupArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// Where to: a tar file if it ends in .tar, otherwise a folder; must not be there yet
    #[arg(long, value_name = "PATH")]
    pub to: PathBuf,
}

/// Make a store of a backup, and verify it
///
/// Lines taken in after the backup are read again where their files still are. Acks made after it are forgotten: those
/// lines are delivered again. Exit status 1 when the backup holds damage; the store is made all the same.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// The folder or tar file that `spillq backup` made
    #[arg(long, value_name = "PATH")]
    pub from: PathBuf,
    /// The data dir to make; must not be there yet, or be empty
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// List the followed files, or tell where one is now
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    #[allow(missing_docs)]
    #[command(subcommand)]
    pub command: SourceCommand,
}

/// What to do with sources.
#[derive(Clone, Debug, Subcommand)]
pub enum SourceCommand {
    /// List them: number, path, and how far each is read
    List {
        #[command(flatten)]
        #[allow(missing_docs)]
        store: StoreArgs,
        /// Print one object a line
        #[arg(long)]
        json: bool,
    },
    /// Go on with a source in another file of the same content; the service must be stopped
    ///
    /// Seldom needed: a file is known again by its content when it was renamed, moved or copied to another host. It is
    /// needed for files shorter than 256 bytes, and where a file of the same content is still at the old path. The file
    /// must hold what was read of the source.
    Adopt {
        #[command(flatten)]
        #[allow(missing_docs)]
        store: StoreArgs,
        /// Its number, as `spillq source list` prints it
        #[arg(value_name = "SOURCE")]
        source: u64,
        /// The file
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// Look after lines that were set aside because they failed alone
#[derive(Args, Clone, Debug)]
pub struct DeadLetterArgs {
    #[allow(missing_docs)]
    #[command(subcommand)]
    pub command: DeadLetterCommand,
}

/// Whose dead letters.
#[derive(Args, Clone, Debug)]
pub struct DeadLetterGroupArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// The group [default: the only one there is, otherwise the one named default]
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    pub group: Option<String>,
}

/// Which lines.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct DeadLetterChoiceArgs {
    /// Seqs, or ranges such as 100-120
    #[arg(value_name = "SEQ", value_parser = seqs)]
    pub seqs: Vec<SeqRange>,
    /// All there are: dead letters of the group, or, with park, lines that wait for it
    #[arg(long)]
    pub all: bool,
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List them: seq, attempts, and why
    ///
    /// Without --group, in a store with several groups of which none is named default, those of all groups, each line with
    /// its group in front.
    List {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: DeadLetterGroupArgs,
        /// Print one object a line
        #[arg(long)]
        json: bool,
    },
    /// Print the lines themselves, with all that the last attempt left: the reason and the end of standard error
    Show {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: DeadLetterGroupArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        choice: DeadLetterChoiceArgs,
        /// Print one object a line
        #[arg(long)]
        json: bool,
    },
    /// Write them all as JSON, one object a line, and keep them
    ///
    /// Each has seq, source, offset, time, and text or base64, as `inspect --json` prints a line, and attempts, dead_since
    /// and reason. Exit status 1 when the line of one cannot be read; it then has error.
    Export {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: DeadLetterGroupArgs,
        /// A new file, readable by its owner only; - is standard output, and so is the default
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Put them back: they are delivered again, with all their attempts before them
    Retry {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: DeadLetterGroupArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        choice: DeadLetterChoiceArgs,
    },
    /// Drop them for good
    Discard {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: DeadLetterGroupArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        choice: DeadLetterChoiceArgs,
        /// With --all: yes, drop all of them
        #[arg(long)]
        discard_lines: bool,
    },
    /// Make dead letters of lines that wait, by hand: of one that holds its group, say
    ///
    /// Lines of a range that do not wait are passed over. `retry` puts them back.
    Park {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: DeadLetterGroupArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        choice: DeadLetterChoiceArgs,
    },
}

/// List, add, remove, pause and resume the consumers of the log
#[derive(Args, Clone, Debug)]
pub struct GroupArgs {
    #[allow(missing_docs)]
    #[command(subcommand)]
    pub command: GroupCommand,
}

/// One group by name.
#[derive(Args, Clone, Debug)]
pub struct GroupNameArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
    /// The group: 1 to 64 of a-z, 0-9, _ and -
    #[arg(value_name = "NAME", value_parser = group_name)]
    pub name: String,
}

/// What to do with groups.
#[derive(Clone, Debug, Subcommand)]
pub enum GroupCommand {
    /// List them, with ack floor and lag
    List {
        #[command(flatten)]
        #[allow(missing_docs)]
        store: StoreArgs,
        /// Print one object a line
        #[arg(long)]
        json: bool,
    },
    /// Add one: from then on lines are kept until it has acknowledged them too
    Add {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: GroupNameArgs,
        /// Where it begins
        #[arg(long, value_name = "WHERE", default_value = "beginning")]
        start: Beginning,
    },
    /// Remove one with its ack state and its dead letters; the last cannot be removed
    ///
    /// One for which lines wait, or that has dead letters, is removed only with --discard-lines.
    Remove {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: GroupNameArgs,
        /// Also if lines wait for it: they are gone for this group
        #[arg(long)]
        discard_lines: bool,
    },
    /// Hand out nothing more to it, also after a restart; batches in flight are finished
    Pause {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: GroupNameArgs,
    },
    /// Go on after a pause
    Resume {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: GroupNameArgs,
    },
    /// Deliver at once what waits in back-off, instead of when its time has come
    ///
    /// For when the destination or the command was repaired and nobody wants to wait for `retry.max`. A line that is held
    /// because the service died while it was in flight is delivered once more. Asks the running service.
    RetryNow {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: GroupNameArgs,
    },
    /// Move it: from there on everything is delivered again, what waits before it is skipped
    ///
    /// Back as far as lines are still stored: `disk.keep` in the configuration lets acknowledged ones stay. What was
    /// delivered before comes again with the same seqs, dead letters too, and no attempts are held against it. Lines
    /// that are passed over are counted as skipped, not as acknowledged. What is out with a processor is taken back:
    /// its end counts for nothing.
    #[command(after_help = SEEK_EXAMPLES)]
    Seek {
        #[command(flatten)]
        #[allow(missing_docs)]
        group: GroupNameArgs,
        /// A seq; a time, as 2026-03-01T08:00:00Z or as so long ago (24h, 90m); beginning; or end
        #[arg(long, value_name = "SEQ|TIME|beginning|end", value_parser = place)]
        to: Place,
        /// Give lines again that the destination (redis, postgres, file) has noted as given
        #[arg(long, conflicts_with = "missing")]
        again: bool,
        /// Give only those that the destination has not noted: what it has lost with its note
        #[arg(long)]
        missing: bool,
        /// Also if lines wait before that place: they are skipped
        #[arg(long)]
        discard_lines: bool,
        /// Print where the group is as a JSON object: to, again, skipped
        #[arg(long)]
        json: bool,
    },
}

const SEEK_EXAMPLES: &str = "\
Examples:
  spillq group seek --data-dir ./q default --to 24h
  spillq group seek --data-dir ./q default --to 2026-03-01T08:00:00Z
  spillq group seek --data-dir ./q default --to 182733 --again
  spillq group seek --data-dir ./q audit --to end --discard-lines";

/// Where a group is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line.
    Seq(Seq),
    /// The first line appended since.
    Time(SystemTime),
    /// The first line appended within so long.
    Ago(Duration),
    /// The oldest line that is stored.
    Beginning,
    /// Behind the newest line.
    End,
}

/// Check, show, write or reload a configuration file
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    #[allow(missing_docs)]
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// A configuration file, by position or as `--config`, as the other commands take it.
#[derive(Args, Clone, Debug)]
pub struct ConfigFileArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "FILE", conflicts_with = "file", hide = true)]
    pub config: Option<PathBuf>,
}

impl ConfigFileArgs {
    /// The file that was named.
    #[must_use]
    pub fn named(&self) -> Option<&Path> {
        self.file.as_deref().or(self.config.as_deref())
    }
}

/// What to do with configuration files.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell all that is wrong with it at once, or that it is fine; exit status 2 when it is not
    ///
    /// FILE defaults to ./spillq.toml. Variables that override settings are checked too.
    Check(ConfigFileArgs),
    /// Print the settings in force, and where each came from: default, file or environment
    ///
    /// Without FILE it prints what holds when no configuration is named. A setting such as disk.limit is overridden
    /// by the variable SPILLQ_DISK_LIMIT; those in repeated sections and lists have none.
    Show {
        #[command(flatten)]
        #[allow(missing_docs)]
        file: ConfigFileArgs,
        /// Print one JSON object, with settings and origins
        #[arg(long)]
        json: bool,
    },
    /// Have a running service read its configuration again, and print what changed
    ///
    /// As SIGHUP and every change of the file do, but with an answer. All of it is taken, except for what needs a
    /// restart, which is named; where something is wrong nothing is changed, and the exit status is 2.
    Reload {
        #[command(flatten)]
        #[allow(missing_docs)]
        store: StoreArgs,
        /// Print one JSON object, with taken, changes, notes and problems
        #[arg(long)]
        json: bool,
    },
    /// Write a file with every key, documented, with its default; never overwrites
    Init {
        /// Where to [default: ./spillq.toml]
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
}

/// Print a script that completes commands and options in a shell
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq completions bash > /usr/share/bash-completion/completions/spillq
  spillq completions zsh > ~/.zfunc/_spillq
  spillq completions fish > ~/.config/fish/completions/spillq.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Print the manual page, or write those of all commands to a folder
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq man | man -l -
  spillq man --dir /usr/share/man/man1")]
pub struct ManArgs {
    /// Write a page for each command into this folder, which must be there [default: the main page, printed]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Measure this machine
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[allow(missing_docs)]
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    #[allow(missing_docs)]
    Generate(BenchGenerateArgs),
    #[allow(missing_docs)]
    Ingest(BenchIngestArgs),
    #[allow(missing_docs)]
    Drain(BenchDrainArgs),
    #[allow(missing_docs)]
    EndToEnd(BenchEndToEndArgs),
}

/// Measure a lone line on an idle service, from its write to its durable ack, beside one sync of the disk
#[derive(Args, Clone, Debug)]
pub struct BenchEndToEndArgs {
    /// A folder on the disk to measure; a data dir is made in it and removed [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many lines, one after the other
    #[arg(long, value_name = "N", default_value = "500", value_parser = count)]
    pub lines: u64,
    /// Print one JSON object: lines, p50_ms, p99_ms, fdatasync_p99_ms, allowed_ms
    #[arg(long)]
    pub json: bool,
}

/// Write lines to measure with to standard output
///
/// JSON records of 350 bytes with random hexadecimal fields of 40 and 64 digits. `zstd -1` makes about 3.7 times
/// less of them (3.3 to 4.2); figures on more repetitive lines flatter.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  spillq bench generate 1000000 > lines.jsonl    350 MB")]
pub struct BenchGenerateArgs {
    /// How many lines, of 350 bytes each
    #[arg(value_name = "LINES", value_parser = count)]
    pub lines: u64,
    /// The same seed gives the same lines
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Measure taking lines in, beside a plain synced copy of the same bytes
#[derive(Args, Clone, Debug)]
pub struct BenchIngestArgs {
    /// A folder on the disk to measure; a data dir is made in it and removed [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many lines, of 350 bytes each
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
    pub lines: u64,
    /// Print one JSON object: mb_per_s, lines_per_s, peak_rss_mb, copy_mb_per_s, ratio_to_copy
    #[arg(long)]
    pub json: bool,
}

/// Measure handing lines out, beside plain decompression of the same bytes
#[derive(Args, Clone, Debug)]
pub struct BenchDrainArgs {
    /// A folder on the disk to measure; a data dir is made in it and removed [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many lines, of 350 bytes each
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = count)]
    pub lines: u64,
    /// Print one JSON object: mb_per_s, lines_per_s, peak_rss_mb, zstd_mb_per_s, ratio_to_zstd
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration; write it as 90s, 10m or 1h30m".to_owned())
}

/// A number of lines; `1_000_000` is easier to read.
fn count(text: &str) -> Result<u64, String> {
    text.replace('_', "")
        .parse()
        .map_err(|_| "not a number of lines; write it as 1000000 or 1_000_000".to_owned())
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "beginning" => return Ok(Place::Beginning),
        "end" => return Ok(Place::End),
        _ => {}
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return seq(text).map(Place::Seq);
    }
    let time = humantime::parse_rfc3339_weak(text).ok().map(Place::Time);
    time.or_else(|| parse_duration(text).map(Place::Ago)).ok_or_else(|| {
        "no place; write a seq, a time in UTC (2026-03-01T08:00:00Z), how long ago (24h), beginning or end".to_owned()
    })
}

/// The words of all causes.
fn causes() -> clap::builder::PossibleValuesParser {
    Cause::ALL.iter().map(|cause| cause.word()).collect::<Vec<_>>().into()
}

fn seq(text: &str) -> Result<Seq, String> {
    match text.parse() {
        Ok(number) if number >= Seq::FIRST.0 => Ok(Seq(number)),
        _ => Err("not a seq; they are numbers from 1".to_owned()),
    }
}

fn seqs(text: &str) -> Result<SeqRange, String> {
    let range = match text.split_once('-') {
        Some((first, last)) => seq(first).and_then(|first| Ok((first, seq(last)?))),
        None => seq(text).map(|only| (only, only)),
    };
    range
        .ok()
        .and_then(|(first, last)| SeqRange::new(first, last))
        .ok_or_else(|| "neither a seq nor a range of them; write it as 100 or 100-120".to_owned())
}

mod pages;

pub use pages::{completions, man_pages};

#[cfg(test)]
mod tests;
