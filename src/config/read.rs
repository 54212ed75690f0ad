//! Reads the file, the variables and the command line over the defaults. Problems stay in the reader.

use std::ffi::OsString;
use std::path::PathBuf;

use toml::de::DeTable;

use super::key::Key;
use super::origin::Origin;
use super::problem::Problem;
use super::settings::{Command, DEFAULT_GROUP, Kind, Processor, SECTIONS_MAX, Settings};
use super::sources::Sources;
use super::written::{Reader, Section};
use super::{keys, paths};
use crate::queue::{GroupSettings, group_name};
use crate::supervise::ProcessorKind;
use crate::tail::Follow;

/// Reads the file and the variables.
pub(super) fn settings<'a>(reader: &mut Reader<'a>, table: &'a DeTable<'a>) -> Settings {
    let mut settings = Settings::default_with(reader.folder);
    let mut top = reader.top(table);
    reader.keys(&mut top, &keys::settings(), &mut settings);
    if let Some(sections) = reader.sections(&mut top, "follow", SECTIONS_MAX) {
        let keys = keys::follow();
        let default = || Follow::new(Vec::new());
        settings.follow =
            sections.into_iter().map(|section| reader.whole(section, &keys, default())).collect();
    }
    if let Some(sections) = reader.sections(&mut top, "group", SECTIONS_MAX) {
        let keys = keys::group();
        let default = || GroupSettings::named("");
        settings.groups =
            sections.into_iter().map(|section| reader.whole(section, &keys, default())).collect();
    }
    if let Some(sections) = reader.sections(&mut top, "processor", SECTIONS_MAX) {
        let keys = keys::processor();
        settings.processors = sections.into_iter().map(|section| processor(reader, section, &keys)).collect();
    }
    reader.finish(top);
    settings
}

/// The kind decides which of the keys after it there are. While it is unknown, none of them is wrong.
fn processor<'a>(reader: &mut Reader<'a>, mut section: Section<'a>, keys: &[Key<Processor>]) -> Processor {
    let (first, rest) = keys.split_at(keys.iter().take_while(|key| key.kinds.is_empty()).count());
    let mut processor = Processor::default_of(ProcessorKind::Stdout);
    if reader.keys(&mut section, first, &mut processor).contains(&"kind") {
        if let Kind::Exec(Command { cwd, .. }) | Kind::ExecStream(Command { cwd, .. }) = &mut processor.kind {
            *cwd = reader.folder.to_path_buf();
        }
        reader.keys(&mut section, rest, &mut processor);
    } else {
        rest.iter().for_each(|key| section.ignore(key.name));
    }
    reader.finish(section);
    processor
}

/// Lays the command line over the settings.
pub(super) fn overrides(reader: &mut Reader<'_>, settings: &mut Settings, sources: &Sources) {
    let Sources { overrides, working_dir, .. } = sources;
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
        settings.follow = vec![Follow::new(include)];
        reader.origins.set("follow[0].include".to_owned(), Origin::CommandLine("--follow"));
    }
    if let Some(from) = overrides.from {
        for (index, follow) in settings.follow.iter_mut().enumerate() {
            follow.from = from;
            reader.origins.set(format!("follow[{index}].from"), Origin::CommandLine("--from"));
        }
    }
    let name = overrides.group.as_deref().unwrap_or(DEFAULT_GROUP);
    if let Err(expected) = group_name(name) {
        return problem("--group", name, expected);
    }
    let wanted = overrides.group.is_some() || !overrides.command.is_empty();
    if wanted && settings.group(name).is_none() {
        settings.groups.push(GroupSettings::named(name));
    }
    if overrides.command.first().is_some_and(|program| program.is_empty()) {
        problem("COMMAND", "", "names no program; write it as -- ./process.sh".to_owned());
    } else if !overrides.command.is_empty() {
        let mut command = overrides.command.clone();
        // As in the file, so that the output of `config show` means the same wherever it is stored.
        let is_path = |program: &&mut OsString| program.as_encoded_bytes().contains(&b'/');
        if let Some(program) = command.first_mut().filter(is_path) {
            *program = working_dir.join(&*program).components().collect::<PathBuf>().into();
        }
        // The command was typed there, wherever the file is.
        let kind = Kind::Exec(Command { command, cwd: working_dir.clone(), ..Command::default() });
        let processor = Processor { group: name.to_owned(), kind };
        // In the same place, so that problems of the others still name their lines.
        match settings.processors.iter_mut().find(|other| other.group == name) {
            Some(other) => *other = processor,
            None => settings.processors.push(processor),
        }
    }
}
