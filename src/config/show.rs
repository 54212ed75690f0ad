//! The effective settings as text: TOML that can be read back, and JSON of the same shape.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use toml::Value;

use super::destination::SecretAt;
use super::settings::{Follow, Group, Keep, Kind, Listen, Processor, Settings, Surroundings, Word};
use super::value::{duration_text, size_text};
use super::{Loaded, Origins};

/// Which section of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// The keys above all sections.
    Top,
    /// One that is there once: `[disk]`.
    Table(&'static str),
    /// A `[[follow]]`.
    Follow,
    /// A `[[group]]`.
    Group,
    /// A `[[processor]]`.
    Processor,
}

impl Section {
    /// Its name, without brackets; empty at the top.
    pub(super) fn name(self) -> &'static str {
        match self {
            Section::Top => "",
            Section::Table(name) => name,
            Section::Follow => "follow",
            Section::Group => "group",
            Section::Processor => "processor",
        }
    }
}

/// A section with its keys, in the order of the documented file.
pub(super) struct Part {
    pub(super) section: Section,
    /// The path of its keys in [`Origins`].
    path: String,
    /// A key can hold a dot: `batch.lines`.
    pub(super) rows: Vec<(&'static str, Value)>,
}

/// TOML, each line with where its value came from. Read back in the same environment it gives the same settings; but
/// the query of a URL and the values of `env`, which may hold a secret, are left out, and then the text is refused.
#[must_use]
pub fn as_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    for part in parts(&loaded.settings) {
        let name = part.section.name();
        // Writing to a string cannot fail.
        let _ = match part.section {
            Section::Top => Ok(()),
            Section::Table(_) => writeln!(text, "\n[{name}]"),
            Section::Follow | Section::Group | Section::Processor => writeln!(text, "\n[[{name}]]"),
        };
        for (key, value) in &part.rows {
            let origin = loaded.origins.of(&path_of(&part, key));
            let _ = writeln!(text, "{:<52} # {origin}", format!("{key} = {value}"));
        }
    }
    text
}

/// `{"settings": {...}, "origins": {"disk.limit": "file, line 3"}}`; what is not in `origins` is a default.
#[must_use]
pub fn as_json(loaded: &Loaded) -> serde_json::Value {
    let mut settings = json!({ "follow": [], "group": [], "processor": [] });
    for part in parts(&loaded.settings) {
        let name = part.section.name();
        let mut section = json!({});
        for (key, value) in &part.rows {
            let slot = match key.split_once('.') {
                Some((outer, inner)) => &mut section[outer][inner],
                None => &mut section[*key],
            };
            *slot = json!(value);
        }
        match part.section {
            Section::Top => {
                for (key, value) in section.as_object().into_iter().flatten() {
                    settings[key] = value.clone();
                }
            }
            Section::Table(_) => settings[name] = section,
            Section::Follow | Section::Group | Section::Processor => {
                if let Some(sections) = settings[name].as_array_mut() {
                    sections.push(section);
                }
            }
        }
    }
    json!({ "settings": settings, "origins": origins(&loaded.settings, &loaded.origins) })
}

fn origins(settings: &Settings, origins: &Origins) -> serde_json::Value {
    let mut set = json!({});
    for part in parts(settings) {
        for (key, _) in &part.rows {
            let path = path_of(&part, key);
            let origin = origins.of(&path);
            if origin != super::Origin::Default {
                set[path] = json!(origin.to_string());
            }
        }
    }
    set
}

fn path_of(part: &Part, key: &str) -> String {
    if part.path.is_empty() { key.to_owned() } else { format!("{}.{key}", part.path) }
}

pub(super) fn parts(settings: &Settings) -> Vec<Part> {
    let mut parts = vec![part(
        Section::Top,
        vec![
            ("data_dir", path(&settings.data_dir)),
            ("stall_after", Value::from(duration_text(settings.stall_after))),
            ("stuck_after", Value::from(duration_text(settings.stuck_after))),
        ],
    )];
    parts.extend(repeated(Section::Follow, &settings.follow, follow));
    let disk = &settings.disk;
    parts.push(part(Section::Table("window"), vec![("bytes", size(settings.window.bytes))]));
    parts.push(part(
        Section::Table("disk"),
        vec![
            ("limit", size(disk.limit)),
            ("min_free", size(disk.min_free)),
            ("reserve", size(disk.reserve)),
            ("when_full", Value::from(disk.when_full.word())),
            ("on_damage", Value::from(disk.on_damage.word())),
            (
                "keep",
                match disk.keep {
                    Keep::Age(age) => Value::from(duration_text(age)),
                    Keep::Bytes(bytes) => size(bytes),
                },
            ),
        ],
    ));
    let listen = settings.http.listen.iter().map(|listen| match listen {
        Listen::Unix => Value::from("unix"),
        Listen::Tcp(address) => Value::from(address.to_string()),
    });
    parts.push(part(
        Section::Table("http"),
        vec![
            ("listen", Value::Array(listen.collect())),
            ("remote", Value::from(settings.http.remote)),
            ("hosts", Value::from(settings.http.hosts.clone())),
        ],
    ));
    parts.push(part(
        Section::Table("service"),
        vec![
            ("command_prefix", Value::from(settings.service.command_prefix.clone())),
            ("stopped_prefix", Value::from(settings.service.stopped_prefix.clone())),
            ("start_command", Value::from(settings.service.start_command.clone())),
        ],
    ));
    parts.extend(repeated(Section::Group, &settings.groups, group));
    parts.extend(repeated(Section::Processor, &settings.processors, processor));
    parts
}

fn part(section: Section, rows: Vec<(&'static str, Value)>) -> Part {
    Part { section, path: section.name().to_owned(), rows }
}

fn repeated<T>(
    section: Section,
    sections: &[T],
    rows: impl Fn(&T) -> Vec<(&'static str, Value)>,
) -> Vec<Part> {
    sections
        .iter()
        .enumerate()
        .map(|(index, one)| Part { section, path: format!("{}[{index}]", section.name()), rows: rows(one) })
        .collect()
}

fn follow(follow: &Follow) -> Vec<(&'static str, Value)> {
    let mut lines = vec![
        ("include", Value::from(follow.include.clone())),
        ("exclude", Value::from(follow.exclude.clone())),
        ("from", Value::from(follow.from.word())),
        ("max_line_bytes", size(follow.max_line_bytes)),
        ("rotate_wait", Value::from(duration_text(follow.rotate_wait))),
    ];
    lines.extend(follow.symlinks.iter().map(|root| ("symlinks", path(root))));
    lines
}

fn group(group: &Group) -> Vec<(&'static str, Value)> {
    vec![
        ("name", Value::from(group.name.as_str())),
        ("start", Value::from(group.start.word())),
        ("order", Value::from(group.order.word())),
        ("in_flight", Value::from(i64::from(group.in_flight))),
        ("timeout", Value::from(duration_text(group.timeout))),
        ("batch.lines", Value::from(group.batch.lines as i64)),
        ("batch.bytes", size(group.batch.bytes)),
        ("batch.linger", Value::from(duration_text(group.batch.linger))),
        ("retry.initial", Value::from(duration_text(group.retry.initial))),
        ("retry.max", Value::from(duration_text(group.retry.max))),
        ("retry.attempts", Value::from(i64::from(group.retry.attempts))),
        ("retry.rejects", Value::from(i64::from(group.retry.rejects))),
        ("retry.give_up_after", Value::from(duration_text(group.retry.give_up_after))),
        ("stuck", Value::from(group.stuck.word())),
        ("max_lag.lines", Value::from(group.max_lag.lines as i64)),
        ("max_lag.age", Value::from(duration_text(group.max_lag.age))),
        ("max_lag.bytes", size(group.max_lag.bytes)),
        ("max_lag.policy", Value::from(group.max_lag.policy.word())),
        ("rate", Value::from(group.rate as i64)),
    ]
}

fn processor(processor: &Processor) -> Vec<(&'static str, Value)> {
    let mut rows = vec![("group", Value::from(processor.group.as_str()))];
    match &processor.kind {
        Kind::Exec { command, input, surroundings } | Kind::ExecStream { command, input, surroundings } => {
            let is_stream = matches!(processor.kind, Kind::ExecStream { .. });
            let words = command.iter().map(|word| Value::from(&*word.to_string_lossy()));
            rows.push(("kind", Value::from(if is_stream { "exec-stream" } else { "exec" })));
            rows.push(("command", Value::Array(words.collect())));
            rows.push(("input", Value::from(input.word())));
            rows.extend(surrounding(surroundings));
        }
        Kind::Http(to) => {
            let list = |items: Vec<String>| Value::Array(items.into_iter().map(Value::from).collect());
            let header = |(name, value): &(String, String)| format!("{name}: {value}");
            let secret = |(name, at): &(String, SecretAt)| format!("{name}: {at}");
            rows.push(("kind", Value::from("http")));
            rows.push(("url", Value::from(to.url.to_string())));
            rows.push(("format", Value::from(to.format.word())));
            rows.push(("compression", Value::from(to.compression.word())));
            rows.push(("headers", list(to.headers.iter().map(header).collect())));
            rows.push(("secret_headers", list(to.secret_headers.iter().map(secret).collect())));
            rows.extend(to.ca_file.iter().map(|file| ("ca_file", path(file))));
        }
        Kind::Redis(to) => {
            rows.push(("kind", Value::from("redis")));
            rows.push(("url", Value::from(to.server.to_string())));
            rows.push(("stream", Value::from(to.stream.as_str())));
            rows.push(("max_len", Value::from(to.max_len as i64)));
            rows.extend(to.password.iter().map(|at| ("password", Value::from(at.to_string()))));
            rows.extend(to.ca_file.iter().map(|file| ("ca_file", path(file))));
        }
        Kind::Postgres(to) => {
            rows.push(("kind", Value::from("postgres")));
            rows.push(("url", Value::from(to.server.to_string())));
            rows.push(("table", Value::from(to.table.as_str())));
            rows.extend(to.password.iter().map(|at| ("password", Value::from(at.to_string()))));
            rows.extend(to.ca_file.iter().map(|file| ("ca_file", path(file))));
        }
        Kind::Stdout => rows.push(("kind", Value::from("stdout"))),
        Kind::File { path: file } => {
            rows.push(("kind", Value::from("file")));
            rows.push(("path", path(file)));
        }
    }
    rows
}

fn surrounding(around: &Surroundings) -> Vec<(&'static str, Value)> {
    let mut rows = vec![("cwd", path(&around.cwd))];
    if !around.env.is_empty() {
        // A list of names where a table is expected: read back it is refused, instead of running without the values.
        let names = around.env.keys().map(|name| Value::from(name.as_str()));
        rows.push(("env", Value::Array(names.collect())));
    }
    rows.extend(around.dump_signal.map(|signal| ("dump_signal", Value::from(signal.word()))));
    rows
}

fn size(bytes: u64) -> Value {
    Value::from(size_text(bytes))
}

fn path(path: &Path) -> Value {
    Value::from(&*path.to_string_lossy())
}
