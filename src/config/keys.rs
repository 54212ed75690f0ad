//! All keys of the configuration: the one place where a key is named, typed, bounded, placed and documented. Defaults are
//! in `settings`. The configuration file that `config init` writes and docs/reference/configuration.md are made from this
//! table.
// long: the table of all keys
#![allow(clippy::clone_on_copy, reason = "the macros read settings of every type in one way")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use spillq_storage::Keep;

use super::destination::{
    broker, bucket_url, header, proxy, region, secret_at, secret_header, suffix, topic, url,
};
use super::key::Key;
use super::paths;
use super::server;
use super::settings::{
    ConsumerSocket, ENV_MAX, IN_FLIGHT_MAX, Input, Kind, LISTEN_MAX, Listen, Processor, SECTIONS_MAX,
    Settings,
};
use super::sources::VARIABLE_PREFIX;
use super::types::{
    Type, UNBOUNDED, any_text, boolean, duration, list, named_texts, number, one_of, path, size, text,
};
use super::value::{GIB, KIB, MIB, duration_text, parse_duration, parse_size, size_text};
use crate::plain::needs_escape;
use crate::processor::{Coding, Content, Form, Sasl, Server, urls};
use crate::queue::{self, GroupSettings, LagPolicy, Stuck, WhenFull, group_name};
use crate::secret::Secret;
use crate::supervise::ProcessorKind;
use crate::tail::{Follow, From};

/// The longest line that a block takes.
const LINE_BYTES_MAX: u64 = spillq_storage::BlockBuilder::LINE_BYTES_MAX as u64;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As durations are written: 365.25 days.
const YEAR: Duration = Duration::from_secs(31_557_600);
const MS: Duration = Duration::from_millis(1);
/// A group has no more dead letters than this.
const REJECTS_MAX: u64 = spillq_storage::Log::DEAD_LETTERS_MAX as u64;
/// Longest `command_prefix` and `start_command`.
const TYPED_BYTES_MAX: usize = 200;
/// MAX_ARG_STRLEN of Linux: no command starts with a longer variable.
const VARIABLE_BYTES_MAX: usize = 128 * 1024;
/// The address of a unix socket, without the NUL at its end.
const SOCKET_BYTES_MAX: usize = 107;
/// Labels of one section, and bytes of a value: they are in every object.
const LABELS_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 256;
/// Longer names of streams are a mistake.
const STREAM_BYTES_MAX: usize = 512;

/// Brokers to begin with: they name the others.
const BROKERS_MAX: usize = 16;
/// Names of NATS: the server takes 255 bytes for a stream.
const NATS_NAME_BYTES_MAX: usize = 255;

/// The kinds of processors.
pub(super) const KINDS: &[(&str, ProcessorKind)] = &[
    (ProcessorKind::Exec.word(), ProcessorKind::Exec),
    (ProcessorKind::ExecStream.word(), ProcessorKind::ExecStream),
    (ProcessorKind::Http.word(), ProcessorKind::Http),
    (ProcessorKind::Redis.word(), ProcessorKind::Redis),
    (ProcessorKind::Postgres.word(), ProcessorKind::Postgres),
    (ProcessorKind::Nats.word(), ProcessorKind::Nats),
    (ProcessorKind::Kafka.word(), ProcessorKind::Kafka),
    (ProcessorKind::S3.word(), ProcessorKind::S3),
    (ProcessorKind::Stdout.word(), ProcessorKind::Stdout),
    (ProcessorKind::File.word(), ProcessorKind::File),
];

/// Signals that make some programs print where they are.
const SIGNALS: &[(&str, Signal)] = &[
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
];

/// What the sections are for.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("follow", "Which files are read. Repeat the section for files that need other settings."),
    ("window", "The newest part of the log is also kept in memory. Groups that keep up read from there."),
    ("disk", "Limits of the log on disk."),
    ("http", "Where the service listens."),
    (
        "consumers",
        "Where programs lease lines and settle them over HTTP (docs/how-to/consumers.md). Nothing here can administer anything.",
    ),
    ("service", "How people run commands on this machine: `doctor` prints its suggestions in this form."),
    (
        "group",
        "A consumer of the whole log, with its own ack state. Repeat the section for more of them. A line is kept until \
         every group has settled it.",
    ),
    (
        "processor",
        "What gets the batches of a group: at most one per group. Without one, the lines of the group wait.",
    ),
];

/// Keys of a section, and whether a reload changes them: documentation, name, place in the settings and type of each, and
/// what else is special about it.
macro_rules! keys {
    ($section:ty, $reload:ident: $(
        $(#[doc = $doc:literal])+
        $name:literal => $($field:ident).+: $type:expr $(, $mark:ident $(($($argument:expr),+))?)*;
    )+) => {
        vec![$(
            Key::new(
                $name,
                concat!($($doc, "\n"),+),
                $type,
                |section: &$section| Some(section.$($field).+.clone()),
                |section: &mut $section, value| section.$($field).+ = value,
            )
            .$reload()
            $(.$mark($($($argument),+)?))*,
        )+]
    };
}

/// Keys that only some kinds of processors have. A reload changes them.
macro_rules! keys_of_kinds {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal => [$($kind:ident),+] $field:ident: $type:expr $(, $mark:ident $(($($argument:expr),+))?)*;
    )+) => {
        vec![$(
            Key::new(
                $name,
                concat!($($doc, "\n"),+),
                $type,
                |processor: &Processor| match &processor.kind {
                    $(Kind::$kind(to) => Some(to.$field.clone()),)+
                    _ => None,
                },
                |processor: &mut Processor, value| match &mut processor.kind {
                    $(Kind::$kind(to) => to.$field = value,)+
                    _ => {}
                },
            )
            .live()
            .of_kinds(vec![$(ProcessorKind::$kind.word()),+])
            $(.$mark($($($argument),+)?))*,
        )+]
    };
}

/// The keys that are there once. A reload changes those that are `live`; the others need a restart.
pub(super) fn settings() -> Vec<Key<Settings>> {
    keys! { Settings, restart:
        /// The folder where the log is stored. It must be on a local file system: not NFS, not tmpfs.
        "data_dir" => data_dir: path();

        /// How long lines may wait while no batch is in flight. After that, `spillq doctor` reports that the processor
        /// is never called.
        "stall_after" => stall_after: duration(SECOND..=DAY), live;

        /// How long a commit may take. After that, the disk counts as hung: the process exits with status 4, and
        /// records the reason in EVENTS.
        "stuck_after" => stuck_after: duration(SECOND..=DAY);

        /// How many bytes of the log are kept in memory.
        "window.bytes" => window_bytes: size(MIB..=GIB).map(usize_of, u64_of);

        /// How many bytes the log may take. At this limit reading pauses until there is space again; meanwhile the
        /// lines wait in their files. The limit must exceed `reserve` by 96MiB, which the journals and one segment
        /// take.
        "disk.limit" => disk.limit_bytes: size(256 * MIB..=UNBOUNDED), live;

        /// How much free space to leave on the file system. Below that, reading pauses.
        "disk.min_free" => disk.min_free_bytes: size(0..=UNBOUNDED), live;

        /// How many bytes are preallocated, so that opening, acking and draining still work when the disk is full.
        "disk.reserve" => disk.reserve_bytes: size(0..=4 * GIB);

        /// What happens at `limit`. "pause" pauses reading. "drop_oldest" drops the oldest lines, even if some groups
        /// have not received them; `spillq status` counts and names them. At `min_free` reading always pauses.
        "disk.when_full" => when_full:
            one_of(&[("pause", WhenFull::Pause), ("drop_oldest", WhenFull::DropOldest)]), live;

        /// How long lines are retained after every group has settled them, so that `spillq group seek` can deliver
        /// them again: for a time ("24h"), or up to a size ("10GiB", less than `limit`). Retained lines are removed
        /// before reading pauses for `limit` or `min_free`. "0s" retains nothing.
        "disk.keep" => disk.keep: keep(), live;

        /// What a group does at a damaged block. "hold" stops there. "skip" continues after the block and counts its
        /// lines as lost. `spillq repair` recovers the files in both cases.
        "disk.on_damage" => skip_damage: one_of(&[("hold", false), ("skip", true)]), live;

        /// Where the service answers. "unix" is a socket in the data dir that all commands use; it is required.
        /// Addresses such as "127.0.0.1:9464" can be added. They answer GET /metrics (for Prometheus), /healthz,
        /// /v1/status and /v1/doctor, and change nothing. They have no password and no encryption.
        "http.listen" => http.listen: list("sockets", LISTEN_MAX, listen, ToString::to_string);

        /// Whether `listen` may contain other addresses than 127.0.0.1 and ::1. Anyone who reaches them can read file
        /// names, states and messages. Put them behind a firewall, or behind a proxy with TLS.
        "http.remote" => http.remote: boolean();

        /// Host names that requests to the addresses may use, in addition to the addresses themselves and localhost.
        /// Requests with another name are refused, so that a page in a browser cannot read the answers.
        "http.hosts" => http.hosts: list("host names", LISTEN_MAX, host, String::clone);

        /// Sockets for consumers: "unix:/run/spillq/consumers.sock", or an address such as "127.0.0.1:9465", which needs a
        /// `token`.
        "consumers.listen" => consumers.listen: list("sockets", LISTEN_MAX, socket, ToString::to_string);

        /// Whether `listen` may contain other addresses than 127.0.0.1 and ::1. Lines and tokens then travel without
        /// encryption: put a proxy with TLS before it.
        "consumers.remote" => consumers.remote: boolean();

        /// The mode of the unix sockets. Whoever may write to one may lease and settle lines.
        "consumers.socket_mode" => consumers.socket_mode: mode();

        /// The group of the system, by name or number, that owns the unix sockets. Without this key it is that of the
        /// service.
        "consumers.socket_group" => consumers.socket_group:
            text("group", |text, _| Ok(text.to_owned()), String::clone).optional(), example(r#""app""#);

        /// The bearer token that consumers must send, as "file:PATH" or "env:VARIABLE". A `[[group]]` can have another
        /// one. Read again at each reload.
        "consumers.token" => consumers.token: secret().optional(),
            secretive, example(r#""file:/etc/spillq/consumers.token""#), live;

        /// The prefix of commands, if they cannot be run directly: "runuser -u spillq --" with the Debian package,
        /// "docker compose exec spillq" in a container.
        "service.command_prefix" => service.command_prefix: typed_command();

        /// The prefix of commands while the service is stopped, if it is another one: "docker compose run --rm" in a
        /// container.
        "service.stopped_prefix" => service.stopped_prefix: typed_command();

        /// The command that starts the service, such as "systemctl start spillq". Without it, `doctor` repeats the
        /// command line that started the last run.
        "service.start_command" => service.start_command: typed_command();
    }
}

/// The keys of `[[follow]]`. A reload changes all keys of repeated sections.
pub(super) fn follow() -> Vec<Key<Follow>> {
    keys! { Follow, live:
        /// Globs of the files to read. Files that appear later are included. `*` and `?` do not match a slash, `**`
        /// does; `[a-z]` and `{this,that}` work too.
        ///
        /// "-" is standard input. A FIFO is followed if it is named without a wildcard. The bytes of both can be read
        /// only once: if spillq is killed, what it has read and not yet stored is lost; and while the log is full, the
        /// program that writes to them waits.
        ///
        /// A file that is compressed with gzip or zstd is read as its content, once it is complete. Lines that were
        /// read before the file was compressed are not read again if the globs match both names: "app.log*".
        "include" => include: list("globs", SECTIONS_MAX, |glob, base| paths::include(base, glob), String::clone),
            required("names no file to follow", r#"["/var/log/app/*.log"]"#);

        /// Globs of files to leave out. A glob without a slash matches file names in any folder.
        "exclude" => exclude: list("globs", SECTIONS_MAX, |glob, base| paths::exclude(base, glob), String::clone);

        /// Where to start in files that exist at the very first start: "beginning", or "end" to skip what they
        /// contain. Files that appear later are always read from the beginning.
        "from" => from: one_of(&[("beginning", From::Beginning), ("end", From::End)]);

        /// Longer lines are cut into parts, and marked as such.
        "max_line_bytes" => max_line_bytes: size(KIB..=LINE_BYTES_MAX).map(usize_of, u64_of);

        /// How long a file that was deleted or renamed must stay unchanged until it is finished. What follows its last
        /// newline then becomes a line.
        "rotate_wait" => rotate_wait: duration(Duration::ZERO..=DAY);

        /// Names and values that are added to every line of these files as `labels`, in every ndjson form: to tell
        /// services apart. At most 16.
        "labels" => labels: labels(), example(r#"{ service = "node", env = "prod" }"#);

        /// Symbolic links to files or folders are followed if they end below this folder. What is outside is never
        /// read, even if links change in the meantime. Without this key no link is followed.
        "symlinks" => symlinks: path().optional(), example(r#""/var/log""#);
    }
}

/// The keys of `[[group]]`.
pub(super) fn group() -> Vec<Key<GroupSettings>> {
    keys! { GroupSettings, live:
        /// The name of the group.
        "name" => name: name(), required("names no group", r#""default""#);

        /// Globs of the files whose lines the group gets, by the path at which a file was first followed: a rotated file
        /// counts by the name that it had before. Without this key it gets the lines of all files.
        "include" => sources.include:
            list("globs", SECTIONS_MAX, |glob, base| paths::include(base, glob), String::clone);

        /// Globs of files whose lines the group does not get. A glob without a slash matches file names in any folder.
        "exclude" => sources.exclude:
            list("globs", SECTIONS_MAX, |glob, base| paths::exclude(base, glob), String::clone);

        /// Where a new group starts: at the oldest line in the log, or at the end, with lines that arrive from now on.
        "start" => from_beginning: one_of(&[("beginning", true), ("end", false)]);

        /// "strict": a batch waits until the one before it is settled. "none": up to `in_flight` batches are delivered
        /// at once.
        "order" => strict: one_of(&[("strict", true), ("none", false)]);

        /// How many batches are in flight at most. In strict order it is 1.
        "in_flight" => in_flight: number(1..=IN_FLIGHT_MAX);

        /// How long the processor may take for a batch. After that, the batch is ended with all processes that it
        /// started, and delivered again.
        "timeout" => timeout_ms: millis(MS..=7 * DAY);

        /// How many lines a batch has at most.
        "batch.lines" => batch_lines: number(1..=1_000_000);

        /// How many bytes a batch has at most; a longer line is a single-line batch. All batches in flight, and the one
        /// that each group reads ahead, take at most 12MiB together. If the settings allow more, this is lowered.
        "batch.bytes" => batch_bytes: size(1..=16 * MIB);

        /// How long a smaller batch waits for more lines.
        "batch.linger" => linger_ms: millis(Duration::ZERO..=60 * SECOND);

        /// How long to wait after a failure before the batch is delivered again. The time doubles with each further
        /// failure.
        "retry.initial" => retry.initial_ms: millis(MS..=DAY);

        /// The longest wait before the batch is delivered again.
        "retry.max" => retry.max_ms: millis(MS..=DAY);

        /// How often a line must fail in a single-line batch before it counts as stuck.
        "retry.attempts" => retry.attempts: number(1..=1_000);

        /// A line that the processor rejects (exit 65, NAK N, 400 or 422) becomes a dead letter. When this many lines
        /// in a row were rejected, the fault is taken to be in the processor, not in the lines, and the group is
        /// `refused`. Until the first ack of a run, one rejected line is enough.
        "retry.rejects" => retry.rejects: number(1..=REJECTS_MAX);

        /// How long a line must have failed before stuck = "dead_letter" applies.
        "retry.give_up_after" => retry.give_up_after_ms: millis(Duration::ZERO..=7 * DAY);

        /// What becomes of a line that fails again and again although the processor does not reject it.
        ///
        /// "hold" retries it for ever. In strict order nothing overtakes it, and `spillq doctor` names it.
        /// "dead_letter" makes it a dead letter after `retry.attempts` failures in a single-line batch, over at least
        /// `retry.give_up_after`. An outage looks the same: one that lasts longer makes dead letters.
        ///
        /// With order = "none" other lines continue. There, with either setting, a line becomes a dead letter when it
        /// has failed `retry.attempts` times in a single-line batch and another line was acked since the first failure.
        ///
        /// A line during whose delivery the service itself died `retry.attempts` times is held, or made a dead letter,
        /// in the same way. docs/explanation/delivery.md explains failures and retries.
        "stuck" => retry.stuck: one_of(&[("hold", Stuck::Hold), ("dead_letter", Stuck::DeadLetter)]);

        /// How many lines the group may lag behind, so that one dead consumer does not stop the others. 0 is no bound.
        "max_lag.lines" => max_lag.lines: bound(number(0..=UNBOUNDED));

        /// How old the oldest line that waits for the group may be. "0s" is no bound.
        "max_lag.age" => max_lag.age_ms: bound(millis(Duration::ZERO..=10 * YEAR));

        /// How many bytes the group may lag behind. "0B" is no bound.
        "max_lag.bytes" => max_lag.bytes: bound(size(0..=UNBOUNDED));

        /// What happens at a bound of `max_lag`. "block" pauses reading until the group has caught up. "drop" drops the
        /// group's oldest lines, for this group only; `spillq status` counts and names them.
        "max_lag.policy" => max_lag.policy: one_of(&[("block", LagPolicy::Block), ("drop", LagPolicy::Drop)]);

        /// How many lines per second are delivered to the group at most. 0 is no bound. A batch then has at most the
        /// lines of one second.
        "rate" => rate: bound(number(0..=1_000_000_000));

        /// The bearer token of this group's consumers, in place of `token` under [consumers].
        "token" => token: secret().optional(),
            secretive, example(r#""file:/etc/spillq/fills.token""#);
    }
}

/// The keys of `[[processor]]`. Those that every kind has come first: the kind decides which of the others there are.
pub(super) fn processor() -> Vec<Key<Processor>> {
    let mut keys = keys! { Processor, live:
        /// The group whose batches it gets.
        "group" => group: name();
    };
    // Setting it replaces all that belongs to another kind.
    let kind = Key::new(
        "kind",
        "What it does with a batch. \"exec\" pipes it to a command that is started for it, \"exec-stream\" to one that \
         keeps running and answers, \"http\" posts it to a URL, \"stdout\" writes it to standard output.\n\n\
         For groups in strict order, and each line exactly once: \"file\" appends it to a file, \"redis\" adds it to a \
         stream, \"postgres\" copies it into a table, \"nats\" publishes it to a subject of JetStream, \"kafka\" sends it to a topic, \"s3\" puts it into an object in a bucket. \
         docs/how-to/destinations.md describes them.",
        kind(),
        |processor: &Processor| Some(processor.kind.of()),
        |processor, word| processor.kind = Kind::default_of(word),
    );
    keys.push(kind.live().required_choice("\"exec\""));
    keys.extend(keys_of_kinds! {
        /// The program and its arguments. No shell is involved. A program with a slash is a path; one without a slash
        /// is searched for in PATH.
        ///
        /// exec: exit status 0 acks the batch, 65 rejects its lines, all others retry.
        ///
        /// exec-stream: the program reads a JSON header line (lines, bytes, first_seq, last_seq, epoch, group, attempt)
        /// and the lines, and answers OK LAST_SEQ; OK LAST_SEQ BAD [{"n":N,"reason":"..."}]; NAK REASON; NAK N REASON;
        /// or LATER MILLISECONDS REASON. N is the number of a bad line in the batch, from 1. OK alone is allowed for a
        /// program that cannot answer twice.
        "command" => [Exec, ExecStream] command: command(),
            required("names no program", r#"["./process.sh"]"#);

        /// How lines are passed to the command. "lines": as they are in their files. "ndjson": one JSON object per
        /// line, with its seq, source, offset and attempt.
        "input" => [Exec, ExecStream] input: one_of(&[("lines", Input::Lines), ("ndjson", Input::Ndjson)]);

        /// The working directory of the command. "." is the folder of the configuration file, as in all paths here, so
        /// that the program, its arguments and the files that it opens agree. A command that is given as `-- COMMAND`
        /// runs in the working directory of spillq, also with --config.
        ///
        /// Files that a command creates follow the umask that spillq was started with. The files of spillq itself are
        /// always private.
        "cwd" => [Exec, ExecStream] cwd: path().checked(without_nul);

        /// Variables for the command, in addition to those that spillq sets. Names that begin with SPILLQ_ are
        /// reserved. spillq never shows the values, but anyone who can read this file can read them.
        "env" => [Exec, ExecStream] env: named_texts("variables", ENV_MAX, variable), secretive,
            example(r#"{ LANG = "C.UTF-8" }"#);

        /// A signal that makes a program print where it hangs, so that the evidence of a time-out shows it. It is sent
        /// one second before `timeout` (half of it, if that is less) to the processes of the command that catch it:
        /// "USR1" for Python's faulthandler.register(SIGUSR1, all_threads=True), "QUIT" for Go. Node.js opens its
        /// debugger on USR1. Without this key no signal is sent.
        "dump_signal" => [Exec, ExecStream] dump_signal: one_of(SIGNALS).optional(), example(r#""USR1""#);

        /// The file to append to.
        "path" => [File] path: path(), required("names no file", r#""out.log""#);

        /// The URL to post batches to. 2xx acks the batch, 400 and 422 reject lines, 413 bisects it. 401, 403, 404,
        /// 405, 407, 410, 421 and redirects stop the group until a delivery succeeds. All others retry.
        ///
        /// In the query, {first_seq}, {last_seq} and {key} become those of the batch; {key} is the Idempotency-Key.
        "url" => [Http] url: text("URL", |text, _| url(text), ToString::to_string), secretive,
            required("names no destination", r#""https://host/path""#);

        /// The body of a request. "ndjson": one JSON object per line. "json": an array of the same objects. "lines":
        /// the lines as they are in their files. "elasticsearch": for the _bulk API of Elasticsearch and OpenSearch, with
        /// an id for each line. "otlp": logs of OpenTelemetry in protobuf. "loki": the push API of Grafana Loki.
        /// The replies of these three are read line by line, as far as they say so much.
        "format" => [Http] form: one_of(&[
            ("ndjson", Form::Ndjson), ("json", Form::Json), ("lines", Form::Lines),
            ("elasticsearch", Form::Elasticsearch), ("otlp", Form::Otlp), ("loki", Form::Loki),
        ]);

        /// What a line is. "message": a text, with its time, source and offset beside it. "json": a JSON object, which is
        /// sent as it is; a line that is none becomes a dead letter, and is not sent. For the formats "lines",
        /// "elasticsearch", "otlp" and "loki".
        "body" => [Http] content: one_of(&[("message", Content::Message), ("json", Content::Json)]);

        /// How the body is compressed.
        "compression" => [Http] coding:
            one_of(&[("none", Coding::Identity), ("gzip", Coding::Gzip), ("zstd", Coding::Zstd)]);

        /// Further headers, such as "X-Database: fills". Those that hold secrets belong in `secret_headers`. {first_seq},
        /// {last_seq} and {key} become those of the batch.
        "headers" => [Http] headers: list("headers", usize::MAX, |text, _| header(text), shown_header), secretive;

        /// Further headers whose values are secrets, each with the file or the variable that holds its value:
        /// "Authorization: file:/etc/spillq/token" or "X-Key: env:KEY". The values are never shown.
        "secret_headers" => [Http] secret_headers:
            list("headers", usize::MAX, |text, base| secret_header(base, text), shown_header), secretive;

        /// The URL of the server: redis://USER@HOST:PORT/DATABASE, rediss:// for TLS, or
        /// redis+unix://USER@/SOCKET?db=DATABASE for a unix socket.
        "url" => [Redis] server: server(server::redis), secretive,
            required("names no server", r#""redis://localhost:6379""#);

        /// The stream to add lines to. Nothing else may add to it.
        "stream" => [Redis] stream: text("text", |text, _| stream(text), String::clone),
            required("names no stream", r#""lines""#);

        /// About how many entries the stream keeps. 0 keeps all.
        "max_len" => [Redis] max_len: number(0..=UNBOUNDED);

        /// The URL of the server: postgres://USER@HOST:PORT/DATABASE, or
        /// postgres://USER@/DATABASE?host=/run/postgresql for a unix socket. Over TCP the server must prove by TLS that
        /// it is HOST, unless the URL ends with ?sslmode=disable.
        "url" => [Postgres] server: server(server::postgres), secretive,
            required("names no server", r#""postgres://spillq@localhost/app""#);

        /// The table to copy lines into.
        "table" => [Postgres] table: text("`table` or `schema.table`", |text, _| table(text), String::clone),
            required("names no table", r#""lines""#);

        /// The URLs of the server, or of several nodes of a cluster, separated by commas: nats://USER@HOST:PORT, or tls:// for
        /// TLS.
        "url" => [Nats] servers: servers(), secretive,
            required("names no server", r#""nats://localhost:4222""#);

        /// The stream of JetStream that stores the subject, and no other subject. spillq does not make it:
        /// docs/how-to/destinations/nats.md has the command.
        "stream" => [Nats] stream: text("name", |text, _| nats_name(text, "*>."), String::clone),
            required("names no stream", r#""LINES""#);

        /// The subject to publish lines to. Nothing else may publish to it.
        "subject" => [Nats] subject: text("subject", |text, _| nats_name(text, "*>"), String::clone),
            required("names no subject", r#""lines.fills""#);

        /// Brokers, as HOST:PORT. One that answers is enough.
        "brokers" => [Kafka] brokers: list("texts", BROKERS_MAX, |text, _| broker(text), String::clone),
            required("names no broker", r#"["localhost:9092"]"#);

        /// The topic to send lines to.
        "topic" => [Kafka] topic: text("name", |text, _| topic(text), String::clone),
            required("names no topic", r#""lines""#);

        /// The compacted topic that notes what was sent. Several groups and hosts may share it.
        "checkpoint_topic" => [Kafka] checkpoint_topic: text("name", |text, _| topic(text), String::clone),
            required("names no topic for checkpoints", r#""spillq-checkpoints""#);

        /// Whether brokers are reached over TLS.
        "tls" => [Kafka] is_tls: boolean();

        /// How the password is proved.
        "sasl" => [Kafka] sasl: one_of(&[
            ("scram-sha-512", Sasl::ScramSha512), ("scram-sha-256", Sasl::ScramSha256), ("plain", Sasl::Plain),
        ]);

        /// The user.
        "user" => [Kafka] user: text("text", |text, _| Ok(text.to_owned()), String::clone).optional(), example(r#""spillq""#);

        /// The bucket and what the keys of objects begin with: https://HOST/BUCKET/PREFIX. Nothing else may be under the
        /// prefix.
        "url" => [S3] url: text("URL", |text, _| bucket_url(text), String::clone), secretive,
            required("names no bucket", r#""https://s3.eu-central-1.amazonaws.com/bucket/prefix""#);

        /// Where the name of the bucket is in the URL: "path" as above, or "host" for https://BUCKET.HOST/PREFIX.
        "bucket_in" => [S3] is_in_host: one_of(&[("path", false), ("host", true)]);

        /// The region, which is part of the signature. Servers of your own take any.
        "region" => [S3] region: text("name", |text, _| region(text), String::clone);

        /// What the keys of objects end with. An object is one frame of zstd.
        "suffix" => [S3] suffix: text("text", |text, _| suffix(text), String::clone);

        /// Which file or variable holds the id of the access key. Without it and `secret_access_key`, the container or the
        /// machine is asked, as on AWS.
        "access_key_id" => [S3] access_key_id: secret().optional(), secretive, example(r#""env:AWS_ACCESS_KEY_ID""#);

        /// Which file or variable holds the secret of the access key.
        "secret_access_key" => [S3] secret_access_key: secret().optional(), secretive, example(r#""file:/etc/spillq/s3-secret""#);

        /// Which file or variable holds the token of temporary credentials.
        "session_token" => [S3] session_token: secret().optional(), secretive, example(r#""env:AWS_SESSION_TOKEN""#);

        /// Which file or variable holds the credentials: a JWT and the seed of an nkey, as nsc writes them (.creds).
        "credentials" => [Nats] credentials: secret().optional(), secretive, example(r#""file:/etc/spillq/nats.creds""#);

        /// Which file or variable holds the password. For NATS without a user it is a token.
        "password" => [Redis, Postgres, Nats, Kafka] password: secret().optional(), secretive, example(r#""file:/etc/spillq/password""#);

        /// A file of certificates (PEM) to trust in place of those of the system.
        "ca_file" => [Http, Redis, Postgres, Nats, Kafka, S3] ca_file: path().optional(), example(r#""ca.pem""#);

        /// A certificate of our own (PEM) for servers that ask for one, followed by those that lead to its authority.
        "cert_file" => [Http, Kafka] cert_file: path().optional(), example(r#""client.pem""#);

        /// The key of `cert_file` (PEM).
        "key_file" => [Http, Kafka] key_file: path().optional(), example(r#""client.key""#);

        /// The proxy to connect through, by CONNECT. HTTP_PROXY and other variables are not read.
        "proxy" => [Http, S3] proxy: text("URL", |text, _| proxy(text), String::clone).optional(), secretive, example(r#""http://proxy.example:3128""#);
    });
    keys
}

/// Where a secret is.
fn secret() -> Type<Secret> {
    text("`file:PATH` or `env:VARIABLE`", |text, base| secret_at(base, text), ToString::to_string)
}

fn name() -> Type<String> {
    text("name of 1 to 64 of a-z, 0-9, _ and -", |text, _| group_name(text), String::clone)
}

/// The kind of a processor. Some can be left out of the program when it is built.
fn kind() -> Type<ProcessorKind> {
    one_of(KINDS).checked(|kind, _| {
        let (is_built, feature) = match kind {
            ProcessorKind::Redis => (cfg!(feature = "redis"), "redis"),
            ProcessorKind::Postgres => (cfg!(feature = "postgres"), "postgres"),
            ProcessorKind::Nats => (cfg!(feature = "nats"), "nats"),
            ProcessorKind::Kafka => (cfg!(feature = "kafka"), "kafka"),
            ProcessorKind::S3 => (cfg!(feature = "s3"), "s3"),
            ProcessorKind::Exec
            | ProcessorKind::ExecStream
            | ProcessorKind::Http
            | ProcessorKind::File
            | ProcessorKind::Stdout
            | ProcessorKind::Own => (true, ""),
        };
        match is_built {
            true => Ok(kind),
            false => Err(format!("this program was built without it; build it with --features {feature}")),
        }
    })
}

/// A duration or a size: each has its own units.
fn keep() -> Type<Keep> {
    let read = |text: &str, _: &Path| {
        let age = parse_duration(text).map(|age| Keep::Age(queue::millis(age)));
        let keep = age.or_else(|| parse_size(text).map(Keep::Bytes));
        match keep.ok_or("neither a duration nor a size; write it as \"24h\" or \"10GiB\"")? {
            Keep::Age(0) | Keep::Bytes(0) => Ok(Keep::Nothing),
            keep => Ok(keep),
        }
    };
    text("duration or size", read, |keep| match keep {
        Keep::Nothing => duration_text(Duration::ZERO),
        Keep::Age(ms) => duration_text(Duration::from_millis(*ms)),
        Keep::Bytes(bytes) => size_text(*bytes),
    })
}

/// A duration that is stored in milliseconds.
fn millis(bounds: RangeInclusive<Duration>) -> Type<u64> {
    duration(bounds).map(queue::millis, |ms| Duration::from_millis(*ms))
}

/// A bound, which is written as 0 if there is none.
fn bound(kind: Type<u64>) -> Type<Option<u64>> {
    kind.map(|bound| Some(bound).filter(|bound| *bound > 0), |bound| bound.unwrap_or(0))
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn u64_of(bytes: &usize) -> u64 {
    *bytes as u64
}

fn listen(text: &str, _: &Path) -> Result<Listen, String> {
    if text == "unix" {
        return Ok(Listen::Unix);
    }
    let expected = "expected \"unix\", or an address such as \"127.0.0.1:9464\" or \"[::1]:9464\"";
    text.parse().map(Listen::Tcp).map_err(|_| expected.to_owned())
}

fn socket(text: &str, base: &Path) -> Result<ConsumerSocket, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = paths::path(base, path)?;
        let bytes = path.as_os_str().len();
        return match bytes <= SOCKET_BYTES_MAX {
            true => Ok(ConsumerSocket::Unix(path)),
            false => {
                Err(format!("the path has {bytes} bytes; that of a socket has at most {SOCKET_BYTES_MAX}"))
            }
        };
    }
    let expected = "expected a socket such as \"unix:/run/spillq/consumers.sock\", or an address such as \"127.0.0.1:9465\"";
    text.parse().map(ConsumerSocket::Tcp).map_err(|_| expected.to_owned())
}

/// A mode of files as chmod(1) takes it.
fn mode() -> Type<u32> {
    let read = |text: &str, _: &Path| {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
        mode.ok_or("not a mode; write it as \"0660\"".to_owned())
    };
    text("mode", read, |mode| format!("{mode:04o}"))
}

fn host(text: &str, _: &Path) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if (1..=253).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("not a host name; write it without a port, such as \"logs.example.net\"".to_owned())
}

/// Part of a command for people to paste: one line, and short enough to be recorded in EVENTS.
fn typed_command() -> Type<String> {
    let read = |text: &str, _: &Path| match text.len() {
        ..=TYPED_BYTES_MAX if !text.contains(needs_escape) => Ok(text.to_owned()),
        _ => Err(format!(
            "not part of a command to paste; it takes one line of at most {TYPED_BYTES_MAX} bytes"
        )),
    };
    any_text("text", read, String::clone)
}

/// A program and its arguments. A program with a slash is a path; without one it is searched for in PATH at its start.
fn command() -> Type<Vec<OsString>> {
    let read = |text: &str, _: &Path| Ok(OsString::from(text));
    let print = |word: &OsString| word.to_string_lossy().into_owned();
    list("texts", usize::MAX, read, print).checked(|mut words, base| {
        let Some(program) = words.first_mut() else { return Ok(words) };
        match program.to_str() {
            Some("") => {
                return Err("the program is empty; write it as command = [\"./process.sh\"]".to_owned());
            }
            Some(text) if text.contains('/') => *program = paths::path(base, text)?.into(),
            _ => {}
        }
        Ok(words)
    })
}

/// A table of labels, which is printed whole.
fn labels() -> Type<BTreeMap<String, String>> {
    let kind = named_texts("labels", LABELS_MAX, label);
    let print = |labels: &BTreeMap<String, String>| {
        let table = labels.iter().map(|(name, value)| (name.clone(), toml::Value::from(value.as_str())));
        (!labels.is_empty()).then(|| toml::Value::Table(table.collect()))
    };
    Type { print: Box::new(print), ..kind }
}

/// What is wrong with a label.
fn label(name: &str, value: &str) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(is_word);
    if !is_name || name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(format!("{name:?} is not a name of a label: 1 to 64 of A-Z a-z 0-9 _, no digit first"));
    }
    match value.len() {
        ..=LABEL_BYTES_MAX => Ok(()),
        bytes => Err(format!("the value of {name:?} has {bytes} bytes, at most {LABEL_BYTES_MAX}")),
    }
}

/// What is wrong with a variable. Its value is never part of the message.
fn variable(name: &str, value: &str) -> Result<(), String> {
    let shown = format!("{name:?}");
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{shown} is not a name of a variable: it is empty, or contains = or NUL"));
    }
    if name.starts_with(VARIABLE_PREFIX) {
        return Err(format!("{shown} begins with {VARIABLE_PREFIX}: those are set by spillq"));
    }
    if value.contains('\0') {
        return Err(format!("the value of {shown} contains a NUL, which no variable can"));
    }
    // With = and the NUL at the end.
    if name.len() + value.len() + 2 > VARIABLE_BYTES_MAX {
        return Err(format!("{shown} with its value is longer than 128 KiB, the longest variable of Linux"));
    }
    Ok(())
}

fn without_nul(path: PathBuf, _: &Path) -> Result<PathBuf, String> {
    match path.as_os_str().as_encoded_bytes().contains(&0) {
        true => Err("contains a NUL, which no path can".to_owned()),
        false => Ok(path),
    }
}

fn shown_header<V: Display>((name, value): &(String, V)) -> String {
    format!("{name}: {value}")
}

fn stream(text: &str) -> Result<String, String> {
    match text.len() {
        ..=STREAM_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("longer than {STREAM_BYTES_MAX} bytes")),
    }
}

fn servers() -> Type<Vec<Server>> {
    text("URL", |text, _| server::nats(text), |servers: &Vec<Server>| urls(servers))
}

/// A name of NATS: no white space, and none of some characters that mean something there.
fn nats_name(text: &str, special: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !special.contains(c) && !"/\\".contains(c);
    let has_tokens = text.split('.').all(|token| !token.is_empty());
    match text.len() <= NATS_NAME_BYTES_MAX
        && text.chars().all(is_plain)
        && has_tokens
        && !text.starts_with('$')
    {
        true => Ok(text.to_owned()),
        false => {
            Err("not a name that NATS has: plain characters, without white space and wildcards".to_owned())
        }
    }
}

fn server(read: fn(&str) -> Result<Server, String>) -> Type<Server> {
    text("URL", move |text, _| read(text), ToString::to_string)
}

/// A name that PostgreSQL can store, perhaps with a schema before it.
fn table(text: &str) -> Result<String, String> {
    let is_name = |name: &str| (1..64).contains(&name.len()) && !name.contains('\0');
    match text.split('.').all(is_name) && text.matches('.').count() < 2 {
        true => Ok(text.to_owned()),
        false => {
            Err("not the name of a table; write \"table\" or \"schema.table\", as it is stored".to_owned())
        }
    }
}
