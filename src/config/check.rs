//! Checks across several settings. Pure: nothing is looked up on disk.
// long: one rule after the other

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use spillq_storage::Keep;

use super::destination::{is_another_host, is_plain_url_to_another_host};
use super::paths;
use super::problem::Problem;
use super::server::is_plain_to_another_host;
use super::settings::{ConsumerSocket, Kind, LEASED_BYTES_MAX, Listen, Processor, Settings};
use super::sources::{Origin, Origins};
use super::value::{MIB, duration_text, size_text};
use crate::processor::{Content, Form, Url, urls};
use crate::queue::{LagPolicy, WhenFull};
use crate::tail::{Follow, STDIN};

/// Everything that does not fit together.
pub(super) fn problems(settings: &Settings, origins: &Origins) -> Vec<Problem> {
    let mut faults = Faults { origins, problems: Vec::new() };
    disk(settings, &mut faults);
    retention(settings, &mut faults);
    listening(settings, &mut faults);
    sockets(settings, &mut faults);
    groups(settings, &mut faults);
    processors(settings, &mut faults);
    loops(settings, &mut faults);
    input(settings, &mut faults);
    faults.problems
}

/// The problems that were found, each with the line of its setting.
struct Faults<'o> {
    origins: &'o Origins,
    problems: Vec<Problem>,
}

impl Faults<'_> {
    /// Adds a problem of the setting at `path`: `group[0].retry.max`. If it was left out, the line is that of its section.
    fn add(&mut self, path: &str, value: impl Into<Option<String>>, expected: impl Into<String>) {
        let section = path.rsplit_once('.').map_or(path, |(section, _)| section);
        let key = path.split_once('[').and_then(|(name, rest)| Some((name, rest.split_once(']')?.1)));
        self.problems.push(Problem {
            line: self.origins.line(path).or_else(|| self.origins.line(section)),
            key: key.map_or_else(|| path.to_owned(), |(name, rest)| format!("{name}{rest}")),
            value: value.into(),
            expected: expected.into(),
        });
    }

    /// Two keys of which both are set or none.
    fn go_together(
        &mut self,
        path: &dyn Fn(&str) -> String,
        (one, has_one): (&str, bool),
        (other, has_other): (&str, bool),
    ) {
        if has_one != has_other {
            let (there, missing) = if has_one { (one, other) } else { (other, one) };
            self.add(&path(there), None, format!("goes with {missing}, which is not set"));
        }
    }
}

/// Standard input can be read once.
fn input(settings: &Settings, faults: &mut Faults<'_>) {
    let is_input = |glob: &&String| *glob == STDIN;
    let mut seen = false;
    for (index, follow) in settings.follow.iter().enumerate() {
        for _ in follow.include.iter().filter(is_input) {
            if std::mem::replace(&mut seen, true) {
                faults.add(&format!("follow[{index}].include"), format!("{STDIN:?}"), "standard input is followed already, and can be read once; a file of that name is \"./-\"");
            }
        }
    }
}

/// Lowers the size of batches if all groups together could take more than [`LEASED_BYTES_MAX`], leased and read ahead.
/// Warns if somebody asked for more.
pub(super) fn fit_leases(settings: &mut Settings, origins: &Origins) -> Option<String> {
    let asked: u64 = settings
        .groups
        .iter()
        .map(|group| group.batch_bytes.saturating_mul(group.in_flight as u64 + 1))
        .fold(0, u64::saturating_add);
    if asked <= LEASED_BYTES_MAX {
        return None;
    }
    for group in &mut settings.groups {
        let share = u128::from(group.batch_bytes) * u128::from(LEASED_BYTES_MAX) / u128::from(asked);
        group.batch_bytes = (share as u64).max(1);
    }
    let keys = ["batch.bytes", "in_flight"];
    let is_asked_for =
        |at| keys.iter().any(|key| origins.of(&format!("group[{at}].{key}")) != Origin::Default);
    if !(0..settings.groups.len()).any(is_asked_for) {
        return None;
    }
    let now: Vec<String> = settings
        .groups
        .iter()
        .map(|group| format!("{} {}", group.name, size_text(group.batch_bytes)))
        .collect();
    Some(format!(
        "batches in flight and the next one of each group could take {} of memory, and {} are allowed; batch.bytes was lowered: {}",
        size_text(asked),
        size_text(LEASED_BYTES_MAX),
        now.join(", ")
    ))
}

/// A number without a unit is bytes. Nobody means 5 bytes.
pub(super) fn tiny_min_free(settings: &Settings) -> Option<String> {
    let min_free = settings.disk.min_free_bytes;
    (1..MIB).contains(&min_free).then(|| {
        format!(
            "disk.min_free is {}: the file system is full before ingestion pauses; a unit may be missing, such as in \"256MiB\"",
            size_text(min_free)
        )
    })
}

/// Secrets that are sent without encryption. It works, and within a host or a container it may be fine.
pub(super) fn open_secrets(settings: &Settings) -> Vec<String> {
    let warning = |processor: &Processor| match &processor.kind {
        Kind::Http(to) if !to.secret_headers.is_empty() && is_plain_url_to_another_host(&to.url) => {
            Some(format!("secret_headers go to {} without encryption; write https://", to.url))
        }
        Kind::Redis(to) if to.password.is_some() && is_plain_to_another_host(&to.server) => {
            Some(format!("the password goes to {} without encryption; write rediss://", to.server))
        }
        Kind::Nats(to) if to.servers.iter().any(is_plain_to_another_host) => {
            let what = if to.password.is_some() { "the password and lines go" } else { "lines go" };
            Some(format!("{what} to {} without encryption; write tls://", urls(&to.servers)))
        }
        Kind::Kafka(to) if !to.is_tls && to.brokers.iter().any(|broker| is_another_host(broker)) => {
            let what = if to.password.is_some() { "the password and lines go" } else { "lines go" };
            Some(format!("{what} to {} without encryption; write tls = true", to.brokers.join(",")))
        }
        Kind::S3(to) if is_plain_url_to_another_host(&Url::new(to.url.clone())) => {
            Some(format!("lines go to {} without encryption; write https://", to.url))
        }
        Kind::Postgres(to) if is_plain_to_another_host(&to.server) => {
            Some(format!("lines go to {} without encryption; write sslmode=verify-full", to.server))
        }
        _ => None,
    };
    settings.processors.iter().filter_map(warning).collect()
}

/// What a log needs in addition to its reserve before it can store a line: two journals (56 MiB), the newest segment, which is
/// never removed (16 MiB), and one commit with the longest line (20 MiB), rounded up.
const LEAST_BYTES: u64 = 96 * MIB;

fn disk(settings: &Settings, faults: &mut Faults<'_>) {
    let disk = &settings.disk;
    let smallest = disk.reserve_bytes.saturating_add(LEAST_BYTES);
    if disk.limit_bytes < smallest {
        // The problem is at the key that was written, or at the limit if both were.
        let key =
            ["disk.limit", "disk.reserve"].into_iter().find(|key| faults.origins.of(key) != Origin::Default);
        let (key, value) = match key.unwrap_or("disk.limit") {
            "disk.limit" => ("disk.limit", disk.limit_bytes),
            key => (key, disk.reserve_bytes),
        };
        let (limit, reserve) = (size_text(disk.limit_bytes), size_text(disk.reserve_bytes));
        faults.add(
            key,
            format!("{:?}", size_text(value)),
            format!(
                "leaves no space for lines: journals and one segment take {} of disk.limit = {limit:?}, in addition \
                 to disk.reserve = {reserve:?}; the smallest limit that works is {:?}",
                size_text(LEAST_BYTES),
                size_text(smallest)
            ),
        );
    }
}

/// A journal and the next one, two segments, and a margin: with less there is nothing to drop.
const DROP_BYTES: u64 = 128 * MIB;

fn retention(settings: &Settings, faults: &mut Faults<'_>) {
    let disk = &settings.disk;
    if let Keep::Bytes(bytes) = disk.keep
        && bytes >= disk.limit_bytes
    {
        faults.add(
            "disk.keep",
            format!("{:?}", size_text(bytes)),
            format!(
                "does not fit into disk.limit = {:?}, below which retained lines are removed",
                size_text(disk.limit_bytes)
            ),
        );
    }
    let has_least = disk.limit_bytes >= disk.reserve_bytes.saturating_add(LEAST_BYTES);
    if settings.when_full == WhenFull::DropOldest
        && has_least
        && disk.limit_bytes < disk.reserve_bytes.saturating_add(DROP_BYTES)
    {
        faults.add(
            "disk.when_full",
            "\"drop_oldest\"".to_owned(),
            format!(
                "leaves no segment to drop: disk.limit = {:?} is less than disk.reserve = {:?} and {}",
                size_text(disk.limit_bytes),
                size_text(disk.reserve_bytes),
                size_text(DROP_BYTES)
            ),
        );
    }
}

fn listening(settings: &Settings, faults: &mut Faults<'_>) {
    let http = &settings.http;
    let quoted = |address: &SocketAddr| format!("{:?}", address.to_string());
    if !http.listen.contains(&Listen::Unix) {
        let expected =
            "must contain \"unix\": commands use this socket, and nothing else controls the service";
        faults.add("http.listen", None, expected);
    }
    let addresses = http.addresses();
    for (index, address) in addresses.iter().enumerate() {
        // 0 is any free port, another one each time.
        if address.port() != 0 && addresses.iter().take(index).any(|earlier| earlier == address) {
            faults.add("http.listen", quoted(address), "is listed twice");
        }
        if !address.ip().is_loopback() && !http.remote {
            let expected = "can be reached from other hosts: anyone who does can read file names, states and messages, \
                            without a password or encryption. Use 127.0.0.1 behind a proxy that authenticates, or write \
                            remote = true if this is intended";
            faults.add("http.listen", quoted(address), expected);
        }
    }
}

/// The sockets of consumers.
fn sockets(settings: &Settings, faults: &mut Faults<'_>) {
    let consumers = &settings.consumers;
    for (index, socket) in consumers.listen.iter().enumerate() {
        let quoted = || format!("{:?}", socket.to_string());
        let is_any_port = matches!(socket, ConsumerSocket::Tcp(address) if address.port() == 0);
        if !is_any_port && consumers.listen.iter().take(index).any(|earlier| earlier == socket) {
            faults.add("consumers.listen", quoted(), "is listed twice");
        }
        match socket {
            ConsumerSocket::Unix(path)
                if paths::normal(path).starts_with(paths::normal(&settings.data_dir)) =>
            {
                let expected = format!(
                    "is in the data dir {}, which only its owner may enter",
                    settings.data_dir.display()
                );
                faults.add("consumers.listen", quoted(), expected);
            }
            ConsumerSocket::Unix(_) => {}
            ConsumerSocket::Tcp(address) if !address.ip().is_loopback() && !consumers.remote => {
                let expected = "can be reached from other hosts, and lines and tokens travel without encryption. Use \
                                127.0.0.1 behind a proxy with TLS, or write remote = true if this is intended";
                faults.add("consumers.listen", quoted(), expected);
            }
            ConsumerSocket::Tcp(_) if consumers.token.is_none() => {
                let expected = "is open to everyone who reaches it; write token = \"file:PATH\" under [consumers], or \
                                use a unix socket";
                faults.add("consumers.listen", quoted(), expected);
            }
            ConsumerSocket::Tcp(_) => {}
        }
    }
}

fn groups(settings: &Settings, faults: &mut Faults<'_>) {
    for (index, group) in settings.groups.iter().enumerate() {
        let path = |key: &str| format!("group[{index}].{key}");
        let name = format!("{:?}", group.name);
        let earlier = settings.groups.iter().take(index);
        if !group.name.is_empty() && earlier.into_iter().any(|earlier| earlier.name == group.name) {
            faults.add(&path("name"), name, "another group has this name");
        }
        if group.strict && group.in_flight > 1 {
            faults.add(
                &path("in_flight"),
                group.in_flight.to_string(),
                "strict order takes 1; write order = \"none\" to have more",
            );
        }
        let lag = group.max_lag;
        if lag.policy == LagPolicy::Drop && (lag.lines, lag.age_ms, lag.bytes) == (None, None, None) {
            faults.add(
                &path("max_lag.policy"),
                "\"drop\"".to_owned(),
                "has no bound; write max_lag = { lines = 10000000, policy = \"drop\" }, or age or bytes",
            );
        }
        if group.retry.max_ms < group.retry.initial_ms {
            faults.add(
                &path("retry.max"),
                format!("{:?}", duration_text(Duration::from_millis(group.retry.max_ms))),
                format!(
                    "shorter than retry.initial = {:?}",
                    duration_text(Duration::from_millis(group.retry.initial_ms))
                ),
            );
        }
    }
}

fn processors(settings: &Settings, faults: &mut Faults<'_>) {
    for (index, processor) in settings.processors.iter().enumerate() {
        let path = |key: &str| format!("processor[{index}].{key}");
        let name = || format!("{:?}", processor.group);
        let earlier = || settings.processors.iter().take(index);
        if earlier().any(|earlier| earlier.group == processor.group) {
            faults.add(
                &path("group"),
                name(),
                "the group has a processor already; a second consumer needs another [[group]]",
            );
        }
        let group = settings.group(&processor.group);
        if group.is_none() {
            let known: Vec<String> = settings
                .groups
                .iter()
                .filter(|group| !group.name.is_empty())
                .map(|group| format!("{:?}", group.name))
                .collect();
            faults.add(
                &path("group"),
                name(),
                match known.is_empty() {
                    true => "no [[group]] has this name".to_owned(),
                    false => format!("no [[group]] has this name; there are {}", known.join(", ")),
                },
            );
        }
        let (has_user, has_password) = match &processor.kind {
            Kind::Redis(to) => (to.server.user.is_some(), to.password.is_some()),
            Kind::Nats(to) => (to.servers.iter().any(|server| server.user.is_some()), to.password.is_some()),
            _ => (false, false),
        };
        if has_user && !has_password {
            faults.add(
                &path("password"),
                None,
                "the url names a user; write password = \"file:PATH\" or \"env:VARIABLE\"",
            );
        }
        if let Kind::Nats(to) = &processor.kind
            && to.credentials.is_some()
            && (has_user || has_password)
        {
            let what = "the user is in the credentials: leave out user and password";
            faults.add(&path("credentials"), None, what);
        }
        if let Kind::Kafka(to) = &processor.kind {
            faults.go_together(&path, ("user", to.user.is_some()), ("password", to.password.is_some()));
            faults.go_together(
                &path,
                ("cert_file", to.cert_file.is_some()),
                ("key_file", to.key_file.is_some()),
            );
            if !to.is_tls && (to.cert_file.is_some() || to.ca_file.is_some()) {
                faults.add(&path("tls"), None, "certificates are for TLS; write tls = true");
            }
            if to.topic == to.checkpoint_topic && !to.topic.is_empty() {
                faults.add(
                    &path("checkpoint_topic"),
                    None,
                    "is the topic of the lines; it takes one of its own",
                );
            }
        }
        if let Kind::S3(to) = &processor.kind {
            if let Err(expected) = to.place().map_err(|error| error + " (bucket_in says which)") {
                faults.add(&path("url"), None, expected);
            }
            let key = ("access_key_id", to.access_key_id.is_some());
            faults.go_together(&path, key, ("secret_access_key", to.secret_access_key.is_some()));
            if to.session_token.is_some() && to.access_key_id.is_none() {
                faults.add(&path("session_token"), None, "goes with access_key_id, which is not set");
            }
        }
        if let Kind::Http(to) = &processor.kind {
            if to.content == Content::Json && matches!(to.form, Form::Ndjson | Form::Json) {
                faults.add(
                    &path("body"),
                    None,
                    "this format has an object around each line; for lines as they are write format = \"lines\", \"elasticsearch\", \"otlp\" or \"loki\"",
                );
            }
            faults.go_together(
                &path,
                ("cert_file", to.cert_file.is_some()),
                ("key_file", to.key_file.is_some()),
            );
            let is_tls = to.url.whole().starts_with("https://");
            if !is_tls && to.cert_file.is_some() {
                faults.add(&path("cert_file"), None, "only TLS shows a certificate; write https://");
            }
        }
        let once = match &processor.kind {
            Kind::File(_) => Some("a file"),
            Kind::Redis(_) => Some("a stream"),
            Kind::Postgres(_) => Some("a table"),
            Kind::Nats(_) => Some("a subject"),
            Kind::Kafka(_) => Some("a topic"),
            Kind::S3(_) => Some("a bucket"),
            Kind::Exec(_) | Kind::ExecStream(_) | Kind::Http(_) | Kind::Stdout => None,
        };
        if let Some(what) = once
            && group.is_some_and(|group| !group.strict)
        {
            faults.add(
                &path("kind"),
                format!("{:?}", processor.kind.of().word()),
                format!("the group {} has order = \"none\"; {what} takes strict order", name()),
            );
        }
        if let Some(file) = processor.kind.file() {
            if earlier().any(|earlier| earlier.kind.file() == Some(file)) {
                faults.add(
                    &path("path"),
                    format!("{:?}", file.display().to_string()),
                    "another processor writes it already",
                );
            }
            if paths::normal(file).starts_with(paths::normal(&settings.data_dir)) {
                faults.add(
                    &path("path"),
                    format!("{:?}", file.display().to_string()),
                    format!("is in the data dir {}", settings.data_dir.display()),
                );
            }
        }
    }
}

/// spillq must not follow what it writes: it would read its own output for ever.
fn loops(settings: &Settings, faults: &mut Faults<'_>) {
    let inside = paths::normal(&settings.data_dir);
    // A file of each kind that a data dir holds, in each of its folders.
    let data_dir = ["MARK", "journal/00000017/db", "segments/00000000000000182733", "kept/x"]
        .map(|name| inside.join(name));
    for (index, follow) in settings.follow.iter().enumerate() {
        let path = format!("follow[{index}].include");
        for include in &follow.include {
            if data_dir.iter().any(|file| takes(include, follow, file)) {
                faults.add(
                    &path,
                    format!("{include:?}"),
                    format!(
                        "matches the data dir {}; move it, or write exclude = [\"{}/**\"]",
                        settings.data_dir.display(),
                        settings.data_dir.display()
                    ),
                );
            }
            for processor in &settings.processors {
                if let Some(file) = processor.kind.file()
                    && takes(include, follow, &paths::normal(file))
                {
                    faults.add(
                        &path,
                        format!("{include:?}"),
                        format!(
                            "matches {}, which a processor writes: spillq would read its own output for ever",
                            file.display()
                        ),
                    );
                }
            }
        }
    }
}

/// Whether `follow` reads `file` because of `include`. Invalid globs were reported before.
fn takes(include: &str, follow: &Follow, file: &Path) -> bool {
    let matches = |glob: &str| paths::glob(glob).is_ok_and(|glob| glob.compile_matcher().is_match(file));
    matches(include) && !follow.exclude.iter().any(|exclude| matches(exclude))
}
