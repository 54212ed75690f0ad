//! The command line: one table of commands and options, from which help, manual pages and completions are made.
//!
//! Scripts depend on it. What a command does is in `cmd`. Usage errors end with status 2.
// long: the table of the whole command line
// A comment on a field or a variant is help that users read: a test wants one for each command and option, and parts that are
// flattened have none.
#![allow(missing_docs)]

pub mod pages;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use spillq_storage::{Seq, SeqRange};

use crate::config::Overrides;
use crate::messages::Format;
use crate::plain::escape;
use crate::queue::group_name;
use value::{
    LEVELS, bad, causes, count, duration, lease_time, lease_token, log_format, measured, place, seq, seqs,
    size, some_lines, usage, wait,
};

pub use value::{Bad, Beginning, InputForm, Place};

const EXAMPLES: &str = "\
Examples:
  spillq run --data-dir ./q --follow '/var/log/app*.log' -- wc -l
                                follow files, pipe each batch to a command
  spillq status --data-dir ./q  how many lines wait, for which group
  spillq doctor --data-dir ./q  what is wrong, and which command to type next
  spillq drain --data-dir ./q -- wc -l
                                deliver what waits while the service is down
  spillq config init            write a configuration file, with explanations

Exit status:
  0  success
  1  the answer is no (damage found, lines left, unhealthy), or the disk is full
  2  the command could not run: usage, configuration or permission
  3  the store failed or is damaged; restarting does not help
  4  the watchdog ended the process because its disk did not respond";

/// A durable queue for the lines of log files, which grows on disk and not in memory
///
/// spillq follows files that other programs write, appends every line to a log on disk, and delivers the lines in
/// batches to processors, which acknowledge them. A kill, a lack of memory or a full disk neither loses nor repeats a
/// line on the way into the log. A batch that was not acknowledged is delivered again.
#[derive(Debug, Parser)]
#[command(name = "spillq", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// Log messages of this level and above: error, warn, info, debug or trace [default: info for run and drain,
    /// otherwise warn]
    ///
    /// error: data is at risk. warn: something unexpected happened, and spillq recovered. info: a change of state.
    /// debug and trace show why. Messages go to standard error.
    #[arg(long, global = true, value_name = "LEVEL", value_parser = LEVELS, hide_possible_values = true)]
    pub log: Option<String>,
    /// Format of log messages: text, or json with one object per line [default: text]
    ///
    /// An object has time, level, message and fields. In both formats, a message that is repeated within a minute is
    /// counted instead of printed.
    #[arg(long, global = true, value_name = "FORMAT", value_parser = log_format(), hide_possible_values = true)]
    pub log_format: Option<Format>,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands. The options and the help of each are in its `...Args`.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Drain(DrainArgs),
    Demo(DemoArgs),
    Status(StatusArgs),
    Doctor(DoctorArgs),
    Top(TopArgs),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
    Repair(RepairArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Source(SourceArgs),
    DeadLetter(DeadLetterArgs),
    Group(GroupArgs),
    Config(ConfigArgs),
    TestConsumer(TestConsumerArgs),
    Bench(BenchArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Cli {
    /// Reads the command line of this process. Prints help and usage errors.
    ///
    /// # Errors
    /// The exit status: 0 after `--help`, 2 after a usage error.
    pub fn from_command_line() -> Result<Cli, ExitCode> {
        Cli::try_parse().map_err(|error| {
            match usage(&error) {
                Some(message) => eprintln!("spillq: {}", escape(&message)),
                // Without a place to print to there is no other way to report it.
                None => drop(error.print()),
            }
            ExitCode::from(if error.use_stderr() { 2 } else { 0 })
        })
    }

    /// The level of messages: `--log`, or the default of the command.
    #[must_use]
    pub fn level(&self) -> &str {
        match (&self.log, &self.command) {
            (Some(level), _) => level,
            (None, Command::Run(_) | Command::Drain(_)) => "info",
            // Its services have no processor on purpose, and it waits for disks.
            (None, Command::Bench(_)) => "error",
            (None, _) => "warn",
        }
    }
}

/// `--data-dir`. `cmd::store_dir` fills in the default.
#[derive(Args, Clone, Debug)]
pub struct DataDirArgs {
    /// The folder that holds the log [default: $SPILLQ_DATA_DIR, or ./spillq-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The store that a command works on. `cmd::store_dir` finds it.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// Use the data dir that this configuration file names; --data-dir overrides it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Follow files and deliver their lines to processors, until stopped
///
/// Follows the files that match the globs, stores every line durably, and pipes each batch of lines to the standard
/// input of COMMAND. Exit status 0 acknowledges the batch. Without COMMAND, and without a processor in the
/// configuration, lines are stored and wait for their group.
///
/// SIGTERM and Ctrl-C stop the service cleanly: batches in flight are finished, or delivered again by the next run.
/// With --config, SIGHUP or a change of the file makes it read its configuration again, as `spillq config reload` does.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq run --data-dir ./q --follow '/var/log/app*.log' -- wc -l
                                pipe each batch to a command
  spillq run --follow '/var/log/app*.log'
                                only store the lines; they wait for a processor
  spillq run --follow '/var/log/app*.log' --once -- wc -l
                                read and deliver what there is, then end
  seq 1000 | spillq run --follow - --once -- wc -l
                                read a pipe
  spillq run --config /etc/spillq/spillq.toml

A batch whose command fails is delivered again after a back-off. A line can be delivered more than once: \
COMMAND has to give the same result when it gets a line again. The variables SPILLQ_FIRST_SEQ and \
SPILLQ_LAST_SEQ of COMMAND name the lines of the batch, and SPILLQ_EPOCH the store epoch, in which each \
seq is used once; it changes when a backup is restored.")]
pub struct RunArgs {
    /// The configuration file [default: none, every setting has its default]
    ///
    /// The other options override it. `spillq config init` writes one with every key explained.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// Files to follow, instead of those in the configuration; may be repeated
    ///
    /// Quote the glob. If the shell expands it, files that appear later are not followed. `*` and `?` do not match a
    /// slash, `**` does.
    ///
    /// `-` is standard input. A FIFO is followed if it is named without a wildcard. Both can be read only once: if spillq
    /// is killed, bytes that were read and are not yet in the log are lost. A file is read again instead. While the log
    /// is full, the writer of a pipe waits.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub follow: Vec<String>,
    /// Where to begin with files that exist at the first start: beginning or end [default: beginning]
    ///
    /// With `end`, lines that were written before the first start are never read. Files that are known already continue
    /// at their checkpoint.
    #[arg(long, value_name = "WHERE")]
    pub from: Option<Beginning>,
    /// The group whose lines COMMAND gets; created if it does not exist [default: default]
    ///
    /// Each group gets every line of the log. A line is stored until every group has acknowledged it.
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    pub group: Option<String>,
    /// Read the files to their end, deliver all lines, and end
    ///
    /// Ends with status 0 when no line waits, and with 1 when lines are left that cannot be delivered. A last line without
    /// a newline is left for the next run, except in standard input and in a FIFO, which end when their last writer
    /// closes them.
    #[arg(long)]
    pub once: bool,
    /// Accept a data dir on tmpfs, or on the overlay of a container without a volume
    ///
    /// The log, with lines that were never delivered, is lost with the next reboot or with the container.
    #[arg(long)]
    pub allow_volatile: bool,
    /// A program and its arguments, run without a shell for each batch, which it reads from standard input
    ///
    /// Exit status 0 acknowledges the batch. 65 rejects its lines as faulty. 126 and 127 mean that the command cannot be
    /// run. After any other status, or a signal, the batch is delivered again.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// The settings that these options override.
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

/// Deliver the lines that wait in the log, while the service is down
///
/// Reads no files. Delivers what is in the log to COMMAND, or to the processors of the configuration. Ends with status 0
/// when no line is left, and with 1 when --max-lines, --for or a line that cannot be delivered ended it before. Stopping
/// it loses nothing: the next run continues behind the last acknowledged line.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq drain --data-dir ./q -- wc -l
  spillq drain --data-dir ./q --for 10m --rate 5000 -- wc -l
  spillq drain --config /etc/spillq/spillq.toml --group default")]
pub struct DrainArgs {
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// The configuration file [default: none, every setting has its default]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The group to drain [default: with COMMAND the group named default, otherwise each group with a processor]
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    pub group: Option<String>,
    /// End after this number of lines [default: no limit]
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_lines: Option<u64>,
    /// End after this time, such as 90s, 10m or 1h30m [default: no limit]
    ///
    /// Batches in flight are finished first.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Deliver at most this number of lines per second [default: no limit]
    ///
    /// Spares a destination that has just recovered.
    #[arg(long, value_name = "N", value_parser = count)]
    pub rate: Option<u64>,
    /// A program and its arguments, run without a shell for each batch; exit status 0 acknowledges it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl DrainArgs {
    /// The settings that these options override.
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

/// Test a command against the contract of `exec-stream`, before it gets real lines
///
/// Starts the command and gives it batches: samples, one line, lines delivered again, an empty line, bytes that are not UTF-8, and a
/// line of 5 MiB. Then it ends the input of the command, and sends SIGTERM in the middle of a batch. Ends with status 1 if the
/// command breaks the contract, and says how.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq test-consumer -- ./store.py
  spillq test-consumer --input ndjson --lines samples.log -- ./store.py --database fills")]
pub struct TestConsumerArgs {
    /// A file of lines that the command accepts; at most 1,000 are used [default: lines such as {"n": 1}]
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// How lines are passed, as `input` of the processor
    #[arg(long, value_name = "FORM", default_value = "lines")]
    pub input: InputForm,
    /// How long the command may take for a batch
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Print one JSON object per case: case, passed, found
    #[arg(long)]
    pub json: bool,
    /// The command and its arguments, run without a shell
    #[arg(last = true, value_name = "COMMAND", required = true)]
    pub command: Vec<OsString>,
}

/// Kill spillq in the middle of its work, and count what is missing afterwards: nothing
///
/// A program writes 200,000 lines to a file that it rotates, spillq follows it with a slow processor, is killed with
/// SIGKILL, and starts again. Works in a temporary folder, which it removes. Takes less than a minute.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {}

/// Show how many lines are stored, how many wait for each group, and the followed files
///
/// Asks the service over the socket in the data dir. If no service runs, reads the data dir. The first line says which of
/// the two answered.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq status --data-dir ./q --watch
  spillq status --url http://127.0.0.1:9464
  spillq status --data-dir ./q --running > /dev/null
                                a health check for containers and scripts")]
pub struct StatusArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print one JSON object, among others with log, sources, groups and losses
    #[arg(long)]
    pub json: bool,
    /// Print it every 2 seconds, until stopped
    #[arg(long)]
    pub watch: bool,
    /// End with status 1 if no service answers, instead of reading the data dir
    #[arg(long)]
    pub running: bool,
    /// Ask the service at this address, which its configuration lists under [http], instead of the data dir
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub url: Option<String>,
}

/// Report what is wrong, the evidence, and the command to type next
///
/// Asks the service that runs on the data dir. If none runs, reads the store and what the last run recorded before it
/// ended. Also looks at the disk, the clock and the limits of the process. Ends with status 1 if something is wrong.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq doctor --data-dir ./q
  spillq doctor --config /etc/spillq/spillq.toml
  spillq doctor --explain held_line")]
pub struct DoctorArgs {
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// The configuration file: its data dir is used, and its limits and commands are checked
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object, with healthy, groups, findings and last_run
    #[arg(long)]
    pub json: bool,
    /// Print the runbook's section about a cause: what it means, what to type, and when it is over
    #[arg(long, value_name = "CAUSE", value_parser = causes(), hide_possible_values = true)]
    pub explain: Option<String>,
    /// Ask the service at this address, which its configuration lists under [http], instead of the data dir
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub url: Option<String>,
}

/// Show status and doctor live, with plots of the last minutes
///
/// Draws on a terminal: the groups with their states, lines in and out per second, lag, disk, memory, and what is wrong
/// with the chosen group. Keys: q quits, the arrows and Tab choose a group, p pauses it after a question, r resumes it, d
/// shows its dead letters.
///
/// Asks the service once a second, and continues to ask while it does not answer. With --url it only shows:
/// the keys p, r and d need the data dir.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq top --data-dir ./q
  spillq top --url http://127.0.0.1:9464
  NO_COLOR=1 spillq top")]
pub struct TopArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Ask the service at this address, which its configuration lists under [http], instead of the data dir
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub url: Option<String>,
}

/// Print lines of the log, acknowledged or not
///
/// Changes nothing and acknowledges nothing. Lines that every group has acknowledged are removed from disk after a while
/// and are then not printed. Lines that are recorded as lost, by a repair or by on_damage = "skip", are passed over and
/// named on standard error.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq inspect --data-dir ./q
  spillq inspect --data-dir ./q --from 182733 --limit 1
  spillq inspect --data-dir ./q --limit 1_000_000 --json")]
pub struct InspectArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// The seq to begin with [default: the oldest line that is stored]
    #[arg(long, value_name = "SEQ", value_parser = seq)]
    pub from: Option<Seq>,
    /// Print at most this number of lines
    #[arg(long, value_name = "N", default_value = "10", value_parser = count)]
    pub limit: u64,
    /// Print one JSON object per line: seq, source, offset, time, and text, or base64 if the bytes are not UTF-8; and labels,
    /// which a running service knows, and otherwise --config
    #[arg(long)]
    pub json: bool,
}

/// Read the whole log and check it; exit status 1 if it is damaged
///
/// Changes nothing. The service must be stopped. Takes about as long as reading the data dir from disk. Exit status 3 means
/// that the disk refused to read a part: whether that part is damaged is not known, and a repair would give it up.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print one JSON object: sound, findings, refused, lines, bytes
    #[arg(long)]
    pub json: bool,
}

/// Repair a damaged store: keep what can be read, and record the rest as lost
///
/// For a store that `spillq verify` finds damaged, or that does not open. The service must be stopped. Every block that can
/// be read is kept. The lines of the others are recorded as lost, and no group waits for them. Damaged files are moved to
/// quarantine/ in the data dir, and never deleted. If the repair is killed, run it again.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq repair --data-dir ./q --dry-run
                                print what is damaged and what would be lost; exit status 1 if anything is
  spillq repair --data-dir ./q  repair it; exit status 0 if the store is sound afterwards")]
pub struct RepairArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print the same report, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object: sound, findings, lines, lost_lines, losses, quarantined, read_again
    #[arg(long)]
    pub json: bool,
}

/// Copy the store to a folder or a tar file, while the service runs
///
/// The copy is the log as it was at one moment. The service continues, but removes nothing from disk until the copy is
/// complete. `spillq restore` makes a store from the copy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq backup --data-dir ./q --to /backup/q-monday
  spillq backup --data-dir ./q --to /backup/q-monday.tar")]
pub struct BackupArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// The copy: a tar file if the name ends in .tar, otherwise a folder; must not exist yet
    #[arg(long, value_name = "PATH")]
    pub to: PathBuf,
}

/// Make a store from a backup, and verify it
///
/// Lines that were stored after the backup are read again if their files still exist. Lines that were acknowledged after
/// the backup are delivered again. If the backup is damaged, the store is made from what can be read, and the exit status
/// is 1.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  spillq restore --from /backup/q-monday.tar --data-dir ./q2")]
pub struct RestoreArgs {
    /// The folder or the tar file that `spillq backup` wrote
    #[arg(long, value_name = "PATH")]
    pub from: PathBuf,
    /// The data dir to make; must be empty or not exist yet
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// What all lists of one store take.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// List the followed files, or continue one of them in another file
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    #[command(subcommand)]
    pub command: SourceCommand,
}

/// The subcommands of `source`.
#[derive(Clone, Debug, Subcommand)]
pub enum SourceCommand {
    /// List the followed files: number, path, how far each is read, and its state
    List(ListArgs),
    /// Continue a source in another file, which begins with what was read of it
    ///
    /// Rarely needed: spillq identifies a file that was renamed, moved or copied to another host by its content. It cannot
    /// do so for a file shorter than 256 bytes, or while a file with the same content is at the old path. The service must
    /// be stopped.
    Adopt {
        #[command(flatten)]
        store: StoreArgs,
        /// The number of the source, as `spillq source list` prints it
        #[arg(value_name = "SOURCE")]
        source: u64,
        /// The file to continue in
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// List, show, export, retry or discard the lines that a group could not process
#[derive(Args, Clone, Debug)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    pub command: DeadLetterCommand,
}

/// The group whose dead letters are meant.
#[derive(Args, Clone, Debug)]
pub struct DeadLetterGroupArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// The group [default: the only one of the store, otherwise the one named default]
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    pub group: Option<String>,
}

/// Lines by number, or all.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct DeadLetterChoiceArgs {
    /// Line numbers (seqs), or ranges such as 100-120
    #[arg(value_name = "SEQ", value_parser = seqs)]
    pub seqs: Vec<SeqRange>,
    /// All dead letters of the group; with park, all lines that wait for it
    #[arg(long)]
    pub all: bool,
}

/// Lines of a group.
#[derive(Args, Clone, Debug)]
pub struct DeadLetterLinesArgs {
    #[command(flatten)]
    pub group: DeadLetterGroupArgs,
    #[command(flatten)]
    pub choice: DeadLetterChoiceArgs,
}

/// The subcommands of `dead-letter`.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List dead letters: line number, cause, attempts, time and reason
    ///
    /// Without --group, in a store with several groups of which none is named default, lists those of all groups, and each
    /// line begins with its group.
    List {
        #[command(flatten)]
        group: DeadLetterGroupArgs,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Print dead letters whole: the line, the reason, and the end of what the command printed
    Show {
        #[command(flatten)]
        lines: DeadLetterLinesArgs,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Write all dead letters of a group as JSON, one object per line; removes none
    ///
    /// An object has the keys of `spillq inspect --json` (seq, source, offset, time, labels, and text or base64), and cause,
    /// attempts, dead_since and reason. If a line cannot be read, its object has the key error, and the exit status is 1.
    Export {
        #[command(flatten)]
        group: DeadLetterGroupArgs,
        /// A new file, which only its owner can read; - is standard output [default: -]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Deliver dead letters again, with a full number of attempts
    Retry(DeadLetterLinesArgs),
    /// Discard dead letters for ever: the group never gets these lines
    Discard {
        #[command(flatten)]
        lines: DeadLetterLinesArgs,
        /// Confirms --all: discard every dead letter of the group
        #[arg(long)]
        discard_lines: bool,
    },
    /// Move waiting lines to the dead letters, such as a line that holds its group
    ///
    /// Lines of a range that do not wait are skipped. `spillq dead-letter retry` delivers them again.
    Park(DeadLetterLinesArgs),
}

/// List, add, remove, pause, resume or move groups, the consumers of the log
#[derive(Args, Clone, Debug)]
pub struct GroupArgs {
    #[command(subcommand)]
    pub command: GroupCommand,
}

/// One group by name.
#[derive(Args, Clone, Debug)]
pub struct GroupNameArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// The group: 1 to 64 of a-z, 0-9, _ and -
    #[arg(value_name = "NAME", value_parser = group_name)]
    pub name: String,
}

/// The subcommands of `group`.
#[derive(Clone, Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups: state, up to which line all is acknowledged, and how many lines wait
    List(ListArgs),
    /// Add a group; from then on lines are stored until it has acknowledged them too
    Add {
        #[command(flatten)]
        group: GroupNameArgs,
        /// Where the group begins: with the oldest stored line, or behind the newest
        #[arg(long, value_name = "WHERE", default_value = "beginning")]
        start: Beginning,
    },
    /// Remove a group with its acknowledgements and its dead letters
    ///
    /// A group with waiting lines or dead letters is removed only with --discard-lines. The last group of a store cannot be
    /// removed.
    Remove {
        #[command(flatten)]
        group: GroupNameArgs,
        /// Remove it even if that discards waiting lines or dead letters; the number is logged
        #[arg(long)]
        discard_lines: bool,
    },
    /// Deliver no more batches to a group, even after a restart, until `resume`
    ///
    /// Batches in flight are finished. The lines stay stored, and disk use grows with what is written meanwhile.
    Pause(GroupNameArgs),
    /// Deliver to a group again after `pause`
    Resume(GroupNameArgs),
    /// End the back-off of a group: deliver what failed at once
    ///
    /// For use after a destination or a command was repaired, instead of waiting up to `retry.max`. A line that is held
    /// because the service died while it was in flight is delivered once more. Needs a running service.
    RetryNow(GroupNameArgs),
    /// Move a group to another line: back to deliver lines again, or forward to skip lines
    ///
    /// From that line on, every line is delivered again with its old seq, dead letters included, and with a full number of
    /// attempts. Waiting lines before it are skipped, which is counted apart from acknowledged lines. Acknowledgements of
    /// batches in flight are ignored.
    ///
    /// A group can move back as far as lines are stored. `disk.keep` in the configuration retains acknowledged lines for
    /// that.
    #[command(after_help = SEEK_EXAMPLES)]
    Seek {
        #[command(flatten)]
        group: GroupNameArgs,
        /// A line number (seq); a time such as 2026-03-01T08:00:00Z, or how long ago (24h, 90m); beginning; or end
        #[arg(long, value_name = "SEQ|TIME|beginning|end", value_parser = place)]
        to: Place,
        /// Also deliver lines again that the destination (redis, postgres, nats, kafka, s3, file) has recorded as written
        #[arg(long, conflicts_with = "missing")]
        again: bool,
        /// Deliver only lines that the destination has not recorded, such as those that it lost with its records
        #[arg(long)]
        missing: bool,
        /// Move it even if that skips waiting lines
        #[arg(long)]
        discard_lines: bool,
        /// Print one JSON object: to, again, skipped
        #[arg(long)]
        json: bool,
    },
    /// Lease the next lines of a group and print them, as a consumer does
    ///
    /// The lines are delivered again if they are not settled in time. Ends with status 1 if there are none. Needs a running
    /// service, and a group without a [[processor]].
    #[command(after_help = LEASE_EXAMPLES)]
    Lease(GroupLeaseArgs),
    /// Settle a lease: acknowledge its lines, reject some, or give them back
    #[command(after_help = LEASE_EXAMPLES)]
    Settle(GroupSettleArgs),
}

/// `spillq group lease`.
#[derive(Args, Clone, Debug)]
pub struct GroupLeaseArgs {
    #[command(flatten)]
    pub group: GroupNameArgs,
    /// The name of the consumer, for `status` and `doctor`
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// Lease at most this many lines
    #[arg(long, value_name = "COUNT", value_parser = some_lines)]
    pub lines: Option<u64>,
    /// Lease at most this many bytes of lines; a longer line is leased by itself
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes: Option<u64>,
    /// Wait this long for lines, at most 25s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = wait)]
    pub wait: Duration,
    /// Lease them for this long; the group's `timeout` if not given
    #[arg(long = "for", value_name = "DURATION", value_parser = lease_time)]
    pub time: Option<Duration>,
    /// Print the lines as they are in their files, not as JSON objects
    #[arg(long)]
    pub raw: bool,
    /// Print a JSON object with the token of the lease before the lines
    #[arg(long)]
    pub json: bool,
    /// Give the lines back at once: shows what would be leased
    #[arg(long)]
    pub release: bool,
}

/// `spillq group settle`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("settlement").args(["ack", "through", "fail", "release", "bad"]).required(true).multiple(true)))]
pub struct GroupSettleArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// The token that `group lease` printed; - reads it from standard input
    #[arg(value_name = "TOKEN", value_parser = lease_token)]
    pub token: String,
    /// Acknowledge all lines of the lease, except those that are --bad
    #[arg(long, conflicts_with_all = ["through", "fail", "release"])]
    pub ack: bool,
    /// Acknowledge the lines up to this one; the rest stays leased
    #[arg(long, value_name = "SEQ", value_parser = seq, conflicts_with_all = ["fail", "release", "bad"])]
    pub through: Option<Seq>,
    /// Reject a line, and say why; in rising order if repeated
    ///
    /// With --ack it becomes a dead letter. Without --ack nothing is acknowledged, and the batch is delivered again without it.
    #[arg(long, value_name = "SEQ[=REASON]", value_parser = bad, conflicts_with_all = ["fail", "release"])]
    pub bad: Vec<Bad>,
    /// The lines failed for this reason: they are delivered again after a back-off
    #[arg(long, value_name = "REASON", conflicts_with = "release")]
    pub fail: Option<String>,
    /// With --fail: the destination asks for a pause of this length, and no attempt is counted
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "fail", conflicts_with_all = ["ack", "through", "release", "bad"])]
    pub delay: Option<Duration>,
    /// The lines were not processed: they are delivered again at once
    #[arg(long)]
    pub release: bool,
    /// Print one JSON object: acked, dead, again, left, ack_floor, durable
    #[arg(long)]
    pub json: bool,
}

const LEASE_EXAMPLES: &str = "\
Examples:
  spillq group lease --data-dir ./q fills --lines 1 --release
  spillq group lease --data-dir ./q fills --json >batch
  head -n 1 batch | jq -r .lease | spillq group settle --data-dir ./q - --ack
  spillq group settle --data-dir ./q TOKEN --ack --bad 17='no such coin'";

const SEEK_EXAMPLES: &str = "\
Examples:
  spillq group seek --data-dir ./q default --to 24h
  spillq group seek --data-dir ./q default --to 2026-03-01T08:00:00Z
  spillq group seek --data-dir ./q default --to 182733 --again
  spillq group seek --data-dir ./q audit --to end --discard-lines";

/// Check, show or write a configuration, or have a service read it again
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// A configuration file, by position or with `--config`, as for other commands.
#[derive(Args, Clone, Debug)]
pub struct ConfigFileArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The configuration file, as for other commands
    #[arg(long, value_name = "FILE", conflicts_with = "file", hide = true)]
    pub config: Option<PathBuf>,
}

impl ConfigFileArgs {
    /// The file, whichever way it was named.
    #[must_use]
    pub fn named(&self) -> Option<&Path> {
        self.file.as_deref().or(self.config.as_deref())
    }
}

/// The subcommands of `config`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file, and print every problem with its line; exit status 2 if there are any
    ///
    /// FILE defaults to ./spillq.toml. Environment variables that override settings are checked too. Warns about globs that
    /// match nothing and about missing programs.
    Check(ConfigFileArgs),
    /// Print the effective settings, and the origin of each: default, file or environment
    ///
    /// Without FILE, prints the settings without a configuration file. A variable overrides a setting: SPILLQ_DISK_LIMIT
    /// overrides disk.limit. Settings in repeated sections ([[...]]) and in lists have no variable.
    Show {
        #[command(flatten)]
        file: ConfigFileArgs,
        /// Print one JSON object: settings, origins
        #[arg(long)]
        json: bool,
    },
    /// Have a running service read its configuration again, and print what changed
    ///
    /// The service does the same on SIGHUP and after every change of the file. Changes that need a restart are named and not
    /// applied. If the configuration has a problem, nothing is changed, and the exit status is 2.
    Reload {
        #[command(flatten)]
        store: StoreArgs,
        /// Print one JSON object: taken, changes, notes, problems
        #[arg(long)]
        json: bool,
    },
    /// Write a configuration file with every key, its default and its explanation
    Init {
        /// The file to write; must not exist yet [default: ./spillq.toml]
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
}

/// Print a script with which a shell completes commands and options
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

/// Print the manual page, or write the pages of all commands to a folder
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  spillq man | man -l -
  spillq man --dir /usr/share/man/man1")]
pub struct ManArgs {
    /// Write a page for each command to this folder, which must exist [default: print the main page]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Measure spillq on this machine
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The subcommands of `bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    Generate(BenchGenerateArgs),
    Ingest(BenchIngestArgs),
    Drain(BenchDrainArgs),
    EndToEnd(BenchEndToEndArgs),
}

/// Measure the time from the write of a line to its durable acknowledgement, and the speed from file to file
///
/// The time is that of one line after the other on an idle service, each compared with one sync of the disk. The speed is that
/// of many lines through the log to a file, compared with a plain copy that is synced.
#[derive(Args, Clone, Debug)]
pub struct BenchEndToEndArgs {
    /// A folder on the disk to measure; a data dir is made in it, and removed [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The number of lines from file to file, of 350 bytes each
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = measured)]
    pub lines: u64,
    /// The number of single lines, some 70 in a second
    #[arg(long, value_name = "N", default_value = "500", value_parser = measured)]
    pub single_lines: u64,
    /// Print one JSON object: single_lines, p50_ms, p99_ms, fdatasync_p99_ms, allowed_ms, and of the many lines `through` with
    /// mb_per_s, lines_per_s, copy_mb_per_s, ratio_to_copy, written_per_byte
    #[arg(long)]
    pub json: bool,
}

/// Print lines to measure with
///
/// JSON records of 350 bytes with random hexadecimal fields of 40 and 64 digits. `zstd -1` compresses them by a factor of
/// about 3.7 (3.3 to 4.2). More repetitive lines would make the figures look better.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  spillq bench generate 1000000 > lines.jsonl    350 MB")]
pub struct BenchGenerateArgs {
    /// The number of lines, of 350 bytes each
    #[arg(value_name = "LINES", value_parser = count)]
    pub lines: u64,
    /// Seed of the random fields; the same seed gives the same lines
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Measure ingestion, compared with a plain copy of the same bytes that is synced
#[derive(Args, Clone, Debug)]
pub struct BenchIngestArgs {
    /// A folder on the disk to measure; a data dir is made in it, and removed [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The number of lines, of 350 bytes each
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = measured)]
    pub lines: u64,
    /// Print one JSON object: mb_per_s, lines_per_s, peak_rss_mb, copy_mb_per_s, ratio_to_copy, zstd_mb_per_s, ratio_to_zstd,
    /// written_per_byte
    #[arg(long)]
    pub json: bool,
}

/// Measure delivery: to this process, to a file, and to a command
///
/// Compared with plain decompression of the same bytes, with a plain copy that is synced, and with the file.
#[derive(Args, Clone, Debug)]
pub struct BenchDrainArgs {
    /// A folder on the disk to measure; a data dir is made in it, and removed [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The number of lines, of 350 bytes each
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = measured)]
    pub lines: u64,
    /// Print one JSON object: mb_per_s, lines_per_s, peak_rss_mb, zstd_mb_per_s, ratio_to_zstd; file with copy_mb_per_s and
    /// ratio_to_copy; exec with file_mb_per_s and ratio_to_file
    #[arg(long)]
    pub json: bool,
}
