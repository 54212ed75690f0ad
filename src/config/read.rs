//! Which keys there are, and what each may be. The checks of one value are here, those across values in `check`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::processor::processor;
use super::scalar::{Scalar, any_text, boolean, duration, number, size, text, word};
use super::settings::{
    Follow, GIB, Group, IN_FLIGHT_MAX, Input, KIB, Keep, Kind, Listen, MIB, Processor, SECTIONS_MAX,
    Settings, Surroundings,
};
use super::value::{parse_duration, parse_size};
use super::written::{Reader, Section};
use super::{Origin, Overrides, Problem, paths};
use crate::plain::needs_escape;

/// The longest line that a block takes.
const LINE_BYTES_MAX: u64 = spillq_storage::LINE_BYTES_MAX as u64;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MS: Duration = Duration::from_millis(1);
/// Longest `command_prefix` and `start_command`.
const TYPED_BYTES_MAX: usize = 200;
/// A group has no more dead letters than this.
const REJECTS_MAX: u64 = spillq_storage::DEAD_LETTERS_MAX as u64;

/// What relative paths are relative to.
#[derive(Clone, Copy)]
pub(super) struct Bases<'p> {
    /// In the file: its folder.
    pub(super) folder: &'p Path,
    /// In variables.
    pub(super) working_dir: &'p Path,
}

/// Reads the whole file over the defaults. Problems stay in `reader`.
pub(super) fn settings<'a>(reader: &mut Reader<'a>, table: &'a DeTable<'a>, bases: Bases<'_>) -> Settings {
    let mut settings = Settings::default_with(bases.folder);
    let mut top = reader.top(table);
    reader.get(&mut top, "data_dir", &mut settings.data_dir, |scalar| {
        let base = match scalar {
            Scalar::Variable(_) => bases.working_dir,
            _ => bases.folder,
        };
        text(|written| paths::path(base, written))(scalar)
    });
    let stall = duration(Duration::from_secs(1)..=DAY);
    reader.get(&mut top, "stall_after", &mut settings.stall_after, stall);
    let stuck = duration(Duration::from_secs(1)..=DAY);
    reader.get(&mut top, "stuck_after", &mut settings.stuck_after, stuck);

    if let Some(sections) = reader.sections(&mut top, "follow", SECTIONS_MAX) {
        settings.follow = sections.into_iter().map(|section| follow(reader, section, bases.folder)).collect();
    }

    let mut window = reader.section(&mut top, "window");
    reader.get(&mut window, "bytes", &mut settings.window.bytes, size(MIB..=GIB));
    reader.finish(window);

    let mut section = reader.section(&mut top, "disk");
    let disk = &mut settings.disk;
    reader.get(&mut section, "limit", &mut disk.limit, size(256 * MIB..=u64::MAX / 2));
    reader.get(&mut section, "min_free", &mut disk.min_free, size(0..=u64::MAX / 2));
    reader.get(&mut section, "reserve", &mut disk.reserve, size(0..=4 * GIB));
    reader.get(&mut section, "when_full", &mut disk.when_full, word);
    reader.get(&mut section, "on_damage", &mut disk.on_damage, word);
    reader.get(&mut section, "keep", &mut disk.keep, keep);
    reader.finish(section);

    let mut http = reader.section(&mut top, "http");
    reader.list(&mut http, "listen", &mut settings.http.listen, listen);
    reader.get(&mut http, "remote", &mut settings.http.remote, boolean);
    reader.list(&mut http, "hosts", &mut settings.http.hosts, host);
    reader.finish(http);

    let mut service = reader.section(&mut top, "service");
    reader.get(&mut service, "command_prefix", &mut settings.service.command_prefix, any_text(typed_command));
    reader.get(&mut service, "stopped_prefix", &mut settings.service.stopped_prefix, any_text(typed_command));
    reader.get(&mut service, "start_command", &mut settings.service.start_command, any_text(typed_command));
    reader.finish(service);

    if let Some(sections) = reader.sections(&mut top, "group", SECTIONS_MAX) {
        settings.groups = sections.into_iter().map(|section| group(reader, section)).collect();
    }
    if let Some(sections) = reader.sections(&mut top, "processor", SECTIONS_MAX) {
        settings.processors =
            sections.into_iter().map(|section| processor(reader, section, bases.folder)).collect();
    }
    reader.finish(top);
    settings
}

fn follow<'a>(reader: &mut Reader<'a>, mut section: Section<'a>, folder: &Path) -> Follow {
    let mut follow = Follow::default_with(Vec::new());
    let before = reader.problems.len();
    let written =
        reader.list(&mut section, "include", &mut follow.include, |glob| paths::include(folder, glob));
    if !written || (follow.include.is_empty() && reader.problems.len() == before) {
        let expected = "names no file to follow; write it as include = [\"logs/*.log\"]";
        reader.missing(&section, "include", expected);
    }
    reader.list(&mut section, "exclude", &mut follow.exclude, |glob| paths::exclude(folder, glob));
    for (key, globs) in [("include", &follow.include), ("exclude", &follow.exclude)] {
        if globs.len() > SECTIONS_MAX {
            let expected = format!("{} globs, at most {SECTIONS_MAX}", globs.len());
            reader.missing(&section, key, expected);
        }
    }
    reader.get(&mut section, "from", &mut follow.from, word);
    let line = size(KIB..=LINE_BYTES_MAX);
    reader.get(&mut section, "max_line_bytes", &mut follow.max_line_bytes, line);
    let wait = duration(Duration::ZERO..=DAY);
    reader.get(&mut section, "rotate_wait", &mut follow.rotate_wait, wait);
    let root = text(|written| paths::path(folder, written).map(Some));
    reader.get(&mut section, "symlinks", &mut follow.symlinks, root);
    reader.finish(section);
    follow
}

/// A duration or a size: each has units of its own.
fn keep(scalar: &Scalar<'_>) -> Result<Keep, String> {
    let expected = "neither a duration nor a size; write it as \"24h\" or \"10GiB\"";
    text(|written| {
        let age = parse_duration(written).map(Keep::Age);
        age.or_else(|| parse_size(written).map(Keep::Bytes)).ok_or_else(|| expected.to_owned())
    })(scalar)
}

fn listen(written: &str) -> Result<Listen, String> {
    if written == "unix" {
        return Ok(Listen::Unix);
    }
    let expected = "expected \"unix\", or an address such as \"127.0.0.1:9464\" or \"[::1]:9464\"";
    written.parse().map(Listen::Tcp).map_err(|_| expected.to_owned())
}

fn host(written: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if (1..=253).contains(&written.len()) && written.bytes().all(is_plain) {
        return Ok(written.to_owned());
    }
    Err("not a host's name; write it without a port, such as \"logs.example.net\"".to_owned())
}

/// Part of a command for people to paste: one line, and short enough to be noted in EVENTS.
fn typed_command(written: &str) -> Result<String, String> {
    if written.len() <= TYPED_BYTES_MAX && !written.contains(needs_escape) {
        return Ok(written.to_owned());
    }
    Err(format!("not part of a command to paste; it takes one line of at most {TYPED_BYTES_MAX} bytes"))
}

pub(super) fn group_name(written: &str) -> Result<String, String> {
    if Group::is_name(written) {
        Ok(written.to_owned())
    } else {
        Err("not a group's name; it takes 1 to 64 of a-z, 0-9, _ and -".to_owned())
    }
}

fn group<'a>(reader: &mut Reader<'a>, mut section: Section<'a>) -> Group {
    let mut group = Group::default_with("");
    if !reader.get(&mut section, "name", &mut group.name, text(group_name)) {
        reader.missing(&section, "name", "names no group; write it as name = \"default\"");
    }
    reader.get(&mut section, "start", &mut group.start, word);
    reader.get(&mut section, "order", &mut group.order, word);
    let in_flight = number(1..=u64::from(IN_FLIGHT_MAX));
    reader.get(&mut section, "in_flight", &mut group.in_flight, |scalar| {
        in_flight(scalar).map(|number| number as u32)
    });
    let timeout = duration(MS..=7 * DAY);
    reader.get(&mut section, "timeout", &mut group.timeout, timeout);

    let mut batch = reader.section(&mut section, "batch");
    reader.get(&mut batch, "lines", &mut group.batch.lines, number(1..=1_000_000));
    reader.get(&mut batch, "bytes", &mut group.batch.bytes, size(1..=16 * MIB));
    let linger = duration(Duration::ZERO..=Duration::from_secs(60));
    reader.get(&mut batch, "linger", &mut group.batch.linger, linger);
    reader.finish(batch);

    let mut retry = reader.section(&mut section, "retry");
    reader.get(&mut retry, "initial", &mut group.retry.initial, duration(MS..=DAY));
    reader.get(&mut retry, "max", &mut group.retry.max, duration(MS..=DAY));
    reader.get(&mut retry, "attempts", &mut group.retry.attempts, |scalar| {
        number(1..=1_000)(scalar).map(|number| number as u32)
    });
    reader.get(&mut retry, "rejects", &mut group.retry.rejects, |scalar| {
        number(1..=REJECTS_MAX)(scalar).map(|number| number as u32)
    });
    reader.get(
        &mut retry,
        "give_up_after",
        &mut group.retry.give_up_after,
        duration(Duration::ZERO..=7 * DAY),
    );
    reader.finish(retry);
    reader.get(&mut section, "stuck", &mut group.stuck, word);

    let mut lag = reader.section(&mut section, "max_lag");
    reader.get(&mut lag, "lines", &mut group.max_lag.lines, number(0..=u64::MAX / 2));
    reader.get(&mut lag, "age", &mut group.max_lag.age, duration(Duration::ZERO..=3650 * DAY));
    reader.get(&mut lag, "bytes", &mut group.max_lag.bytes, size(0..=u64::MAX / 2));
    reader.get(&mut lag, "policy", &mut group.max_lag.policy, word);
    reader.finish(lag);
    reader.get(&mut section, "rate", &mut group.rate, number(0..=1_000_000_000));
    reader.finish(section);
    group
}

/// Lays the command line over the settings.
pub(super) fn overrides(
    reader: &mut Reader<'_>,
    settings: &mut Settings,
    overrides: &Overrides,
    working_dir: &Path,
) {
    let mut problem = |key: &str, value: &str, expected: String| {
        reader.problems.push(Problem {
            line: None,
            key: key.to_owned(),
            value: Some(format!("{value:?}")),
            expected,
        });
    };
    if let Some(data_dir) = &overrides.data_dir {
        settings.data_dir = working_dir.join(data_dir).components().collect();
        reader.origins.set("data_dir".to_owned(), Origin::CommandLine("--data-dir"));
    }
    if !overrides.follow.is_empty() {
        let mut include = Vec::new();
        for written in &overrides.follow {
            match paths::include(working_dir, written) {
                Ok(glob) => include.push(glob),
                Err(expected) => problem("--follow", written, expected),
            }
        }
        settings.follow = vec![Follow::default_with(include)];
        reader.origins.set("follow[0].include".to_owned(), Origin::CommandLine("--follow"));
    }
    if let Some(from) = overrides.from {
        for (index, follow) in settings.follow.iter_mut().enumerate() {
            follow.from = from;
            reader.origins.set(format!("follow[{index}].from"), Origin::CommandLine("--from"));
        }
    }
    let name = overrides.group.as_deref().unwrap_or(super::DEFAULT_GROUP);
    if !Group::is_name(name) {
        problem("--group", name, group_name(name).err().unwrap_or_default());
        return;
    }
    let wanted = overrides.group.is_some() || !overrides.command.is_empty();
    if wanted && settings.group(name).is_none() {
        settings.groups.push(Group::default_with(name));
    }
    if overrides.command.first().is_some_and(|program| program.is_empty()) {
        problem("COMMAND", "", "names no program; write it as -- ./process.sh".to_owned());
    } else if !overrides.command.is_empty() {
        let mut command = overrides.command.clone();
        // As in the file: `config show` is to mean the same wherever it is kept.
        let is_path = |program: &&mut OsString| program.as_encoded_bytes().contains(&b'/');
        if let Some(program) = command.first_mut().filter(is_path) {
            *program = working_dir.join(&*program).components().collect::<PathBuf>().into();
        }
        // The command was typed there, whatever file is named beside it.
        let surroundings = Surroundings::default_in(working_dir);
        let kind = Kind::Exec { command, input: Input::Lines, surroundings };
        let processor = Processor { group: name.to_owned(), kind };
        // In its place, so that what is told of the others still names their lines.
        match settings.processors.iter_mut().find(|other| other.group == name) {
            Some(other) => *other = processor,
            None => settings.processors.push(processor),
        }
    }
}
