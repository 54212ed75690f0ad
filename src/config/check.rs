//! Checks across several settings. Pure: nothing is looked up on disk.

use std::path::Path;
use std::time::Duration;

use spillq_storage::Keep;

use super::origin::{Origin, Origins};
use super::paths::{self, STDIN};
use super::problem::Problem;
use super::settings::{Follow, Kind, LEASED_BYTES_MAX, Listen, OutFile, Processor, Settings};
use super::value::{MIB, duration_text, size_text};
use crate::queue::{LagPolicy, WhenFull};

/// All that does not fit together.
pub(super) fn problems(settings: &Settings, origins: &Origins) -> Vec<Problem> {
    let mut problems = Vec::new();
    disk(settings, origins, &mut problems);
    retention(settings, origins, &mut problems);
    listening(settings, origins, &mut problems);
    groups(settings, origins, &mut problems);
    processors(settings, origins, &mut problems);
    loops(settings, origins, &mut problems);
    input(settings, origins, &mut problems);
    problems
}

/// Standard input can be read once.
fn input(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    let is_input = |glob: &&String| *glob == STDIN;
    let mut seen = false;
    for (index, follow) in settings.follow.iter().enumerate() {
        for _ in follow.include.iter().filter(is_input) {
            if std::mem::replace(&mut seen, true) {
                problems.push(problem(
                    origins,
                    &format!("follow[{index}].include"),
                    "follow.include",
                    format!("{STDIN:?}"),
                    "standard input is followed already, and can be read once; a file of that name is \"./-\"",
                ));
            }
        }
    }
}

/// Makes batches smaller where all groups together could hold more than [`LEASED_BYTES_MAX`], leased and read ahead;
/// says so where somebody had asked for more.
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
        "batches in flight and the next one of each group could hold {} of memory where {} are allowed; batch.bytes was made smaller: {}",
        size_text(asked),
        size_text(LEASED_BYTES_MAX),
        now.join(", ")
    ))
}

/// A number without a unit is bytes, which nobody means by 5.
pub(super) fn tiny_min_free(settings: &Settings) -> Option<String> {
    let min_free = settings.disk.min_free_bytes;
    (1..MIB).contains(&min_free).then(|| {
        format!(
            "disk.min_free is {}: the file system is full before ingestion pauses; a unit may be missing, such as in \"256MiB\"",
            size_text(min_free)
        )
    })
}

/// Secrets that go over a network for everybody to read: it works, and inside of a host or a container it may do.
pub(super) fn open_secrets(settings: &Settings) -> Vec<String> {
    let tell = |processor: &Processor| match &processor.kind {
        Kind::Http(to) if !to.secret_headers.is_empty() && to.url.is_plain_to_another_host() => {
            Some(format!("secret_headers go to {} without encryption; write https://", to.url))
        }
        Kind::Redis(to) if to.password.is_some() && to.server.is_plain_to_another_host() => {
            Some(format!("the password goes to {} without encryption; write rediss://", to.server))
        }
        Kind::Postgres(to) if to.server.is_plain_to_another_host() => {
            Some(format!("lines go to {} without encryption; write sslmode=verify-full", to.server))
        }
        _ => None,
    };
    settings.processors.iter().filter_map(tell).collect()
}

fn problem(
    origins: &Origins,
    path: &str,
    key: &str,
    value: impl Into<Option<String>>,
    expected: impl Into<String>,
) -> Problem {
    // A key that was left out is told at its section.
    let section = path.rsplit_once('.').map_or(path, |(section, _)| section);
    Problem {
        line: origins.line(path).or_else(|| origins.line(section)),
        key: key.to_owned(),
        value: value.into(),
        expected: expected.into(),
    }
}

/// What a log takes beside its reserve before it can take a line: two journals (56 MiB), the newest segment, which is
/// never removed (16 MiB), and one commit with the longest line (20 MiB), rounded up.
const LEAST_ROOM: u64 = 96 * MIB;

fn disk(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    let disk = &settings.disk;
    let smallest = disk.reserve_bytes.saturating_add(LEAST_ROOM);
    if disk.limit_bytes < smallest {
        // Blamed is the one that was written, the limit where both were.
        let key = ["disk.limit", "disk.reserve"].into_iter().find(|key| origins.of(key) != Origin::Default);
        let (key, value) = match key.unwrap_or("disk.limit") {
            "disk.limit" => ("disk.limit", disk.limit_bytes),
            key => (key, disk.reserve_bytes),
        };
        let (limit, reserve) = (size_text(disk.limit_bytes), size_text(disk.reserve_bytes));
        problems.push(problem(
            origins,
            key,
            key,
            format!("{:?}", size_text(value)),
            format!(
                "leaves no room for lines: journals and one segment take {} of disk.limit = {limit:?} beside \
                 disk.reserve = {reserve:?}; the smallest limit that works is {:?}",
                size_text(LEAST_ROOM),
                size_text(smallest)
            ),
        ));
    }
}

/// A journal and the next one, twice what a segment takes, and some: below that there is nothing to drop.
const DROP_ROOM: u64 = 128 * MIB;

fn retention(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    let disk = &settings.disk;
    if let Keep::Bytes(bytes) = disk.keep
        && bytes >= disk.limit_bytes
    {
        problems.push(problem(
            origins,
            "disk.keep",
            "disk.keep",
            format!("{:?}", size_text(bytes)),
            format!(
                "does not fit into disk.limit = {:?}, where kept lines go first",
                size_text(disk.limit_bytes)
            ),
        ));
    }
    let has_least = disk.limit_bytes >= disk.reserve_bytes.saturating_add(LEAST_ROOM);
    if settings.when_full == WhenFull::DropOldest
        && has_least
        && disk.limit_bytes < disk.reserve_bytes.saturating_add(DROP_ROOM)
    {
        problems.push(problem(
            origins,
            "disk.when_full",
            "disk.when_full",
            "\"drop_oldest\"".to_owned(),
            format!(
                "leaves no segment to drop: disk.limit = {:?} is less than disk.reserve = {:?} and {}",
                size_text(disk.limit_bytes),
                size_text(disk.reserve_bytes),
                size_text(DROP_ROOM)
            ),
        ));
    }
}

fn listening(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    let http = &settings.http;
    let mut tell = |key: &str, value: Option<String>, expected: String| {
        problems.push(problem(origins, key, key, value.map(|value| format!("{value:?}")), expected));
    };
    if !http.listen.contains(&Listen::Unix) {
        let expected =
            "has to hold \"unix\": the commands ask the service there, and nothing else controls it";
        tell("http.listen", None, expected.to_owned());
    }
    let addresses = http.addresses();
    for (index, address) in addresses.iter().enumerate() {
        // 0 is any port that is free, each time another.
        if address.port() != 0 && addresses.iter().take(index).any(|earlier| earlier == address) {
            tell("http.listen", Some(address.to_string()), "is there twice".to_owned());
        }
        if !address.ip().is_loopback() && !http.remote {
            let expected = "is not an address of this host alone: everybody who reaches it reads file names, states and \
                            messages, without a password or encryption. Better 127.0.0.1, behind a proxy that asks who \
                            comes; if it is meant, write remote = true below it";
            tell("http.listen", Some(address.to_string()), expected.to_owned());
        }
    }
}

fn groups(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    for (index, group) in settings.groups.iter().enumerate() {
        let path = |key: &str| format!("group[{index}].{key}");
        let name = format!("{:?}", group.name);
        let earlier = settings.groups.iter().take(index);
        if !group.name.is_empty() && earlier.into_iter().any(|earlier| earlier.name == group.name) {
            problems.push(problem(origins, &path("name"), "group.name", name, "names a second group so"));
        }
        if group.strict && group.in_flight > 1 {
            problems.push(problem(
                origins,
                &path("in_flight"),
                "group.in_flight",
                group.in_flight.to_string(),
                "strict order takes 1; write order = \"none\" to have more",
            ));
        }
        let lag = group.max_lag;
        if lag.policy == LagPolicy::Drop && (lag.lines, lag.age_ms, lag.bytes) == (None, None, None) {
            problems.push(problem(
                origins,
                &path("max_lag.policy"),
                "group.max_lag.policy",
                "\"drop\"".to_owned(),
                "drops at no bound; write max_lag = { lines = 10000000, policy = \"drop\" }, or age or bytes",
            ));
        }
        if group.retry.max_ms < group.retry.initial_ms {
            problems.push(problem(
                origins,
                &path("retry.max"),
                "group.retry.max",
                format!("{:?}", duration_text(Duration::from_millis(group.retry.max_ms))),
                format!(
                    "shorter than retry.initial = {:?}",
                    duration_text(Duration::from_millis(group.retry.initial_ms))
                ),
            ));
        }
    }
}

fn processors(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    for (index, processor) in settings.processors.iter().enumerate() {
        let path = |key: &str| format!("processor[{index}].{key}");
        let name = || format!("{:?}", processor.group);
        let earlier = || settings.processors.iter().take(index);
        if earlier().any(|earlier| earlier.group == processor.group) {
            problems.push(problem(
                origins,
                &path("group"),
                "processor.group",
                name(),
                "has a processor already; a second consumer is a [[group]] of its own",
            ));
        }
        let group = settings.group(&processor.group);
        if group.is_none() {
            let known: Vec<String> = settings
                .groups
                .iter()
                .filter(|group| !group.name.is_empty())
                .map(|group| format!("{:?}", group.name))
                .collect();
            problems.push(problem(
                origins,
                &path("group"),
                "processor.group",
                name(),
                match known.is_empty() {
                    true => "no [[group]] is named so".to_owned(),
                    false => format!("no [[group]] is named so; there are {}", known.join(", ")),
                },
            ));
        }
        if let Kind::Redis(to) = &processor.kind
            && to.server.user.is_some()
            && to.password.is_none()
        {
            problems.push(problem(
                origins,
                &path("password"),
                "processor.password",
                None,
                "the url names a user; write password = \"file:PATH\" or \"env:VARIABLE\"",
            ));
        }
        let once = match &processor.kind {
            Kind::File(_) => Some(("file", "a file")),
            Kind::Redis(_) => Some(("redis", "a stream")),
            Kind::Postgres(_) => Some(("postgres", "a table")),
            _ => None,
        };
        if let Some((kind, what)) = once
            && group.is_some_and(|group| !group.strict)
        {
            problems.push(problem(
                origins,
                &path("kind"),
                "processor.kind",
                format!("{kind:?}"),
                format!("the group {} has order = \"none\"; {what} takes strict order", name()),
            ));
        }
        if let Kind::File(OutFile { path: file }) = &processor.kind {
            let same = |kind: &Kind| matches!(kind, Kind::File(other) if other.path == *file);
            if earlier().any(|earlier| same(&earlier.kind)) {
                problems.push(problem(
                    origins,
                    &path("path"),
                    "processor.path",
                    format!("{:?}", file.display().to_string()),
                    "another processor writes it already",
                ));
            }
            if paths::normal(file).starts_with(paths::normal(&settings.data_dir)) {
                problems.push(problem(
                    origins,
                    &path("path"),
                    "processor.path",
                    format!("{:?}", file.display().to_string()),
                    format!("lies in the data dir {}", settings.data_dir.display()),
                ));
            }
        }
    }
}

/// Nothing that spillq writes may be followed: it would feed itself for ever.
fn loops(settings: &Settings, origins: &Origins, problems: &mut Vec<Problem>) {
    let inside = paths::normal(&settings.data_dir);
    // A file of each kind that a data dir holds, in each of its folders.
    let data_dir = ["MARK", "journal/00000017/db", "segments/00000000000000182733", "kept/x"]
        .map(|name| inside.join(name));
    for (index, follow) in settings.follow.iter().enumerate() {
        let path = format!("follow[{index}].include");
        for include in &follow.include {
            if data_dir.iter().any(|file| takes(include, follow, file)) {
                problems.push(problem(
                    origins,
                    &path,
                    "follow.include",
                    format!("{include:?}"),
                    format!(
                        "takes in the data dir {} itself; move it, or write exclude = [\"{}/**\"]",
                        settings.data_dir.display(),
                        settings.data_dir.display()
                    ),
                ));
            }
            for processor in &settings.processors {
                if let Kind::File(OutFile { path: file }) = &processor.kind
                    && takes(include, follow, &paths::normal(file))
                {
                    problems.push(problem(
                        origins,
                        &path,
                        "follow.include",
                        format!("{include:?}"),
                        format!(
                            "takes in {}, which a processor writes: it would feed itself for ever",
                            file.display()
                        ),
                    ));
                }
            }
        }
    }
}

/// Whether `follow` reads `file` for the sake of `include`. A glob that is none has been reported before.
fn takes(include: &str, follow: &Follow, file: &Path) -> bool {
    let matches = |glob: &str| paths::glob(glob).is_ok_and(|glob| glob.compile_matcher().is_match(file));
    matches(include) && !follow.exclude.iter().any(|exclude| matches(exclude))
}
