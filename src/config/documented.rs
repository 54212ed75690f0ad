//! The documented configuration file: every key with its default, made from the table of keys.

use std::path::Path;

use super::key::Key;
use super::keys;
use super::settings::{DEFAULT_GROUP, Processor, Settings};
use crate::queue::GroupSettings;
use crate::supervise::ProcessorKind;
use crate::tail::Follow;

const HEAD: &str = "\
# spillq: every key with its default. docs/reference/configuration.md has the same as a page.
#
# A key without a default is an example. Unknown keys are refused; `spillq config check` reports all problems at once.
# Paths and globs are relative to the folder of this file. Sizes: KiB, MiB and GiB are powers of 1,024; kB, MB and GB
# of 1,000. Durations: 200ms, 30s, 10m, 1h 30m.
#
# A key that is not a list and not in a [[repeated]] section can be overridden by a variable: SPILLQ_ and the key in
# capitals, with _ for the dot, such as SPILLQ_DATA_DIR or SPILLQ_DISK_LIMIT.
#
# A running service reads this file again when it changes, on SIGHUP, and on `spillq config reload`. If anything in it is
# wrong, nothing changes. Keys that need a restart say so below; a reload names those that were changed.
#
# Lines that start with # and no space are settings: remove the # to use them.
";

/// Columns of a comment.
const WIDTH: usize = 118;

/// The configuration file that `spillq config init` writes.
#[must_use]
pub fn documented() -> String {
    let settings = Settings::default_with(Path::new(""));
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in keys::settings() {
        let (name, own) = key.name.split_once('.').unwrap_or(("", key.name));
        if name != section {
            if section.is_empty() {
                text += &follow();
            }
            section = name;
            text += &header(name, &format!("[{name}]"));
        }
        text += &entry(&key, own, &settings, "");
    }
    text + &group() + &processor()
}

fn follow() -> String {
    let default = Follow::new(Vec::new());
    let entries = keys::follow().into_iter().map(|key| entry(&key, key.name, &default, "#"));
    header("follow", "#[[follow]]") + &entries.collect::<String>()
}

fn group() -> String {
    let default = GroupSettings::named(DEFAULT_GROUP);
    let entries = keys::group().into_iter().map(|key| entry(&key, key.name, &default, ""));
    header("group", "[[group]]") + &entries.collect::<String>()
}

/// The example is of the first kind; the keys that it does not have are only comments.
fn processor() -> String {
    let mut text = header("processor", "#[[processor]]");
    for key in keys::processor() {
        let kind = |(word, _): &&(&str, ProcessorKind)| key.kinds.is_empty() || key.kinds.contains(word);
        let Some((_, kind)) = keys::KINDS.iter().find(kind) else { continue };
        let mark = if *kind == ProcessorKind::Exec { "#" } else { "# " };
        text += &entry(&key, key.name, &Processor::default_of(*kind), mark);
    }
    text
}

fn header(name: &str, written: &str) -> String {
    let doc = keys::SECTIONS.iter().find(|(section, _)| *section == name).map_or("", |(_, doc)| *doc);
    format!("\n{}{written}\n", comment(doc))
}

fn entry<S: 'static>(key: &Key<S>, name: &str, default: &S, mark: &str) -> String {
    let default = (key.show)(default).map(|value| value.to_string());
    // In a section that is in force, only an example is not.
    let mark = if default.is_none() && mark.is_empty() { "#" } else { mark };
    let value = key.example.map(str::to_owned).or(default);
    let kinds = if key.kinds.is_empty() { String::new() } else { format!("{}: ", key.kinds.join(", ")) };
    let restart = if !key.is_live { "; a change needs a restart" } else { "" };
    let doc = format!("{kinds}{}\n\nType: {}{restart}.", key.paragraphs().join("\n\n"), key.about);
    format!("\n{}{mark}{name} = {}\n", comment(&doc), value.unwrap_or_default())
}

/// Comment lines of at most [`WIDTH`] columns. Paragraphs follow each other without a gap.
fn comment(doc: &str) -> String {
    let mut text = String::new();
    for paragraph in doc.split("\n\n") {
        let mut line = String::from("#");
        for word in paragraph.split(' ') {
            if line.len() + 1 + word.len() > WIDTH {
                text += &line;
                text.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line += word;
        }
        text += &line;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PAGE_HEAD: &str = "\
# Configuration

Every key of the configuration file, with its type, bounds and default. This page and
[config/spillq.toml](../../config/spillq.toml) are made from the table in `src/config/keys.rs`; `spillq config init`
writes that file, `spillq config check` reports all problems of a file at once, and `spillq config show` prints the
settings in force and where each came from.

- **Paths** and globs are relative to the folder of the file.
- **Sizes** are written `\"8MiB\"`: KiB, MiB and GiB are powers of 1,024; kB, MB and GB of 1,000.
- **Durations** are written `\"200ms\"`, `\"30s\"`, `\"10m\"` or `\"1h 30m\"`.
- **Variables.** A key that is not a list and not in a repeated section can be overridden by a variable: `SPILLQ_` and
  the key in capitals, with `_` for the dot, such as `SPILLQ_DISK_LIMIT`. Relative paths in variables are relative to
  the working directory. An empty variable counts as not set.
- **Precedence:** command line, variable, file, default.
- **Reload.** A running service reads the file again when it changes, on SIGHUP, and on `spillq config reload`. If
  anything in it is wrong, nothing changes. Keys that need a restart are marked; a reload names those that were changed.
- **Unknown keys** are refused.
";

    fn page() -> String {
        let settings = Settings::default_with(Path::new(""));
        let mut text = PAGE_HEAD.to_owned();
        let mut rows = Vec::new();
        for key in keys::settings() {
            let name = key.name.split_once('.').map_or("", |(name, _)| name);
            rows.push((name, item(&key, &settings, key.name)));
        }
        let of = |section: &str| -> String {
            rows.iter().filter(|(name, _)| *name == section).map(|(_, row)| row.as_str()).collect()
        };
        text += "\n## Above all sections\n";
        text += &of("");
        text += &section("follow", "[[follow]]");
        let default = Follow::new(Vec::new());
        text.extend(keys::follow().iter().map(|key| item(key, &default, &format!("follow.{}", key.name))));
        for name in ["window", "disk", "http", "consumers", "service"] {
            text += &section(name, &format!("[{name}]"));
            text += &of(name);
        }
        text += &section("group", "[[group]]");
        let default = GroupSettings::named(DEFAULT_GROUP);
        text.extend(keys::group().iter().map(|key| item(key, &default, &format!("group.{}", key.name))));
        text += &section("processor", "[[processor]]");
        for key in keys::processor() {
            let kind = |(word, _): &&(&str, ProcessorKind)| key.kinds.is_empty() || key.kinds.contains(word);
            let (_, kind) = keys::KINDS.iter().find(kind).unwrap();
            text += &item(&key, &Processor::default_of(*kind), &format!("processor.{}", key.name));
        }
        text
    }

    fn section(name: &str, written: &str) -> String {
        let (_, doc) = keys::SECTIONS.iter().find(|(section, _)| *section == name).unwrap();
        format!("\n## `{written}`\n\n{}\n", wrapped(doc))
    }

    fn item<S: 'static>(key: &Key<S>, default: &S, name: &str) -> String {
        let kinds = key.kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
        let kinds = if kinds.is_empty() { kinds } else { format!(" ({kinds})") };
        let default = match (&key.required, (key.show)(default), key.example) {
            (Some(_), _, Some(example)) => format!("Required, such as `{example}`."),
            (_, Some(value), _) => format!("Default: `{value}`."),
            (_, None, Some(example)) => format!("Not set by default. Example: `{example}`."),
            (_, None, None) => panic!("{name} has neither a default nor an example"),
        };
        let restart = if !key.is_live { " **A change needs a restart.**" } else { "" };
        let doc =
            key.paragraphs().iter().map(|paragraph| wrapped(paragraph)).collect::<Vec<_>>().join("\n\n");
        format!("\n### `{name}`{kinds}\n\nType: {}. {default}{restart}\n\n{doc}\n", key.about)
    }

    fn wrapped(paragraph: &str) -> String {
        let lines = comment(paragraph);
        lines.lines().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n")
    }

    /// Compares a file of the repository with what the table makes. When it differs, the right one is written below
    /// target/, to be copied.
    #[track_caller]
    fn check_file(name: &str, made: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        if fs::read_to_string(root.join(name)).ok().as_deref() == Some(made) {
            return;
        }
        let right = root.join("target").join(Path::new(name).file_name().unwrap());
        fs::create_dir_all(right.parent().unwrap()).unwrap();
        fs::write(&right, made).unwrap();
        panic!("{name} is not what src/config/keys.rs says; copy {} there", right.display());
    }

    #[test]
    fn the_documented_file_is_made_from_the_table_of_keys() {
        check_file("config/spillq.toml", &documented());
    }

    #[test]
    fn the_reference_page_is_made_from_the_table_of_keys() {
        check_file("docs/reference/configuration.md", &page());
    }
}
