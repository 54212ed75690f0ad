//! Reading the configuration again while the service runs: which changes take effect, and which need a restart.

use std::collections::BTreeMap;

use toml::Value;

use super::load::{Loaded, load_from};
use super::problem::{ConfigError, Problem};
use super::settings::Settings;
use super::show::{Part, parts};
use super::sources::Sources;
use super::{check, keys};

/// A configuration that was read again and can take effect.
#[derive(Clone, Debug)]
pub struct Again {
    /// The settings from now on. Those that need a restart are as they were.
    pub settings: Settings,
    /// What is different.
    pub changes: Vec<Change>,
    /// What is unusual but works, one sentence each.
    pub warnings: Vec<String>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which setting, its value and its value before.
    pub what: String,
    /// It takes effect at the next start.
    pub needs_restart: bool,
}

/// Checks `text`, the content of the configuration file, as [`super::load`] does, and compares it with `running`.
///
/// # Errors
/// [`ConfigError::Problems`] with everything that is wrong: then nothing of it may take effect.
pub fn load_again(sources: &Sources, text: &str, running: &Settings) -> Result<Again, ConfigError> {
    let refuse = |problems| ConfigError::Problems { file: sources.file.clone(), problems };
    // Some editors leave an empty file for a moment. It would end everything that is followed and delivered.
    if text.lines().map(str::trim_start).all(|line| line.is_empty() || line.starts_with('#')) {
        let expected = "sets nothing, which would end everything; the settings before it are kept".to_owned();
        return Err(refuse(vec![Problem { line: None, key: "the file".to_owned(), value: None, expected }]));
    }
    let Loaded { settings: written, origins, warnings, .. } = load_from(text, sources)?;
    let settings = live_part(running, &written);
    // It was checked together with settings that wait for a restart.
    let problems = check::problems(&settings, &origins);
    if !problems.is_empty() {
        return Err(refuse(problems));
    }
    let changed = |(from, to), needs_restart| {
        differences(from, to).into_iter().map(move |what| Change { what, needs_restart })
    };
    let changes = changed((running, &settings), false).chain(changed((&settings, &written), true)).collect();
    Ok(Again { settings, changes, warnings })
}

/// The written settings, but those that need a restart as they are running.
fn live_part(running: &Settings, written: &Settings) -> Settings {
    let mut settings = written.clone();
    for key in keys::settings().iter().filter(|key| !key.is_live) {
        (key.copy)(running, &mut settings);
    }
    settings
}

type Rows = BTreeMap<&'static str, Value>;

/// Sections by the name that people know them by.
type Sections = BTreeMap<String, (Part, Rows)>;

/// What is different, a sentence each.
fn differences(from: &Settings, to: &Settings) -> Vec<String> {
    let (before, now) = (named(from), named(to));
    let mut found = Vec::new();
    for (name, (part, rows)) in &before {
        match now.get(name) {
            None => found.push(format!("{name}: {}", gone(part, rows))),
            Some((_, new)) => found.extend(changed(part, name, rows, new)),
        }
    }
    found.extend(now.keys().filter(|name| !before.contains_key(*name)).map(|name| format!("{name}: new")));
    // Of some values not everything is shown.
    for processor in &to.processors {
        let Some(was) = from.processor(&processor.group) else { continue };
        for key in keys::processor() {
            if !(key.is_same)(was, processor) && (key.show)(was) == (key.show)(processor) {
                let (group, key) = (&processor.group, key.name);
                found.push(format!("processor of {group}: {key} changed where it is not shown"));
            }
        }
    }
    // Each file belongs to the first section that matches it.
    if found.is_empty() && from != to {
        found.push("the order of sections: changed".to_owned());
    }
    found
}

fn named(settings: &Settings) -> Sections {
    let mut sections = BTreeMap::new();
    for mut part in parts(settings) {
        let rows: Rows = std::mem::take(&mut part.rows).into_iter().collect();
        let mut name = match part.name {
            "follow" => format!("follow {}", of(&rows, "include")),
            "group" => format!("group {}", of(&rows, "name")),
            "processor" => format!("processor of {}", of(&rows, "group")),
            name => name.to_owned(),
        };
        while sections.contains_key(&name) {
            name.push_str(", again");
        }
        sections.insert(name, (part, rows));
    }
    sections
}

/// The value of a key; empty if it is not set.
fn of(rows: &Rows, key: &str) -> String {
    let shown = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    rows.get(key).map(shown).unwrap_or_default()
}

fn gone(part: &Part, rows: &Rows) -> String {
    match part.name {
        "follow" => "gone; the checkpoints of its files are kept".to_owned(),
        "group" => {
            let group = of(rows, "name");
            format!("gone; its lines are kept until it is back or `spillq group remove {group}`")
        }
        _ => "gone".to_owned(),
    }
}

fn changed(part: &Part, name: &str, before: &Rows, now: &Rows) -> Vec<String> {
    let shown = |rows: &Rows, key| rows.get(key).map_or("not set".to_owned(), Value::to_string);
    let keys = now.keys().chain(before.keys().filter(|key| !now.contains_key(*key)));
    let different = keys.filter(|key| before.get(*key) != now.get(*key));
    different
        .map(|key| {
            let change = format!("{key} = {}, was {}", shown(now, key), shown(before, key));
            match (name, part.is_repeated()) {
                ("", _) => change,
                (_, false) => format!("{name}.{change}"),
                (_, true) => format!("{name}: {change}"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const RUNNING: &str = r#"
data_dir = "/q"
[[follow]]
include = ["/logs/*.log"]
[[group]]
name = "a"
batch = { lines = 100 }
[[processor]]
group = "a"
kind = "exec"
command = ["cat"]
"#;

    fn sources() -> Sources {
        Sources { file: Some("/etc/spillq.toml".into()), working_dir: "/".into(), ..Sources::default() }
    }

    fn again(text: &str) -> Result<Again, ConfigError> {
        let running = load_from(RUNNING, &sources()).unwrap().settings;
        load_again(&sources(), text, &running)
    }

    #[track_caller]
    fn check(text: &str, live: &[&str], needs_restart: &[&str]) {
        let again = again(text).unwrap();
        let of = |wanted: bool| {
            let changes = again.changes.iter().filter(|change| change.needs_restart == wanted);
            changes.map(|change| change.what.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            (of(false), of(true)),
            (
                live.iter().map(|s| (*s).to_owned()).collect(),
                needs_restart.iter().map(|s| (*s).to_owned()).collect()
            )
        );
    }

    #[test]
    fn the_same_settings_are_no_change() {
        check(RUNNING, &[], &[]);
        check(&format!("# a remark\n{RUNNING}"), &[], &[]);
    }

    #[test]
    fn added_removed_and_changed_sections_are_named() {
        let text = RUNNING.replace("/logs/*.log", "/other/*.log").replace("lines = 100", "lines = 50");
        check(
            &format!("{text}[[group]]\nname = \"b\"\n"),
            &[
                "follow [\"/logs/*.log\"]: gone; the checkpoints of its files are kept",
                // Two groups share what leased lines may take.
                "group a: batch.bytes = \"3MiB\", was \"4MiB\"",
                "group a: batch.lines = 50, was 100",
                "follow [\"/other/*.log\"]: new",
                "group b: new",
            ],
            &[],
        );
        check(
            &RUNNING.replace("[\"cat\"]", "[\"wc\", \"-l\"]"),
            &["processor of a: command = [\"wc\", \"-l\"], was [\"cat\"]"],
            &[],
        );
        check(
            "data_dir = \"/q\"\n[[group]]\nname = \"b\"\n[[follow]]\ninclude = [\"/logs/*.log\"]\n",
            &[
                "group a: gone; its lines are kept until it is back or `spillq group remove a`",
                "processor of a: gone",
                "group b: new",
            ],
            &[],
        );
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_as_it_is() {
        let text = RUNNING.replace("\"/q\"", "\"/elsewhere\"");
        let text = format!(
            "stuck_after = \"5m\"\n{text}[window]\nbytes = \"4MiB\"\n[disk]\nreserve = \"1MiB\"\nlimit = \"1GiB\"\n"
        );
        check(
            &text,
            &["disk.limit = \"1GiB\", was \"50GiB\""],
            &[
                "data_dir = \"/elsewhere\", was \"/q\"",
                "stuck_after = \"5m\", was \"2m\"",
                "disk.reserve = \"1MiB\", was \"64MiB\"",
                "window.bytes = \"4MiB\", was \"8MiB\"",
            ],
        );
        let settings = again(&text).unwrap().settings;
        assert_eq!((settings.data_dir, settings.disk.limit_bytes), (PathBuf::from("/q"), 1 << 30));
    }

    #[test]
    fn new_settings_are_checked_together_with_those_that_need_a_restart() {
        // Fine with the data dir that it names; but that needs a restart, and the one that stays is followed then.
        let text = RUNNING.replace("\"/q\"", "\"/elsewhere\"").replace("/logs/*.log", "/q/**");
        let refused = again(&text).unwrap_err();
        let ConfigError::Problems { problems, .. } = refused else { panic!("{refused}") };
        assert!(problems[0].to_string().contains("matches the data dir /q;"), "{problems:?}");
    }

    #[test]
    fn a_file_that_sets_nothing_is_refused() {
        for text in ["", "\n\n", "# spillq\n#[[follow]]\n"] {
            let refused = again(text).unwrap_err();
            let ConfigError::Problems { problems, .. } = refused else { panic!("{refused}") };
            assert!(problems[0].to_string().starts_with("the file: sets nothing"), "{problems:?}");
        }
    }

    #[test]
    fn cwd_and_env_of_a_command_change_live() {
        let with = |more: &str| format!("{RUNNING}{more}\n");
        check(
            &with("cwd = \"/work\"\nenv = { A = \"1\" }"),
            &["processor of a: cwd = \"/work\", was \"/etc\"", "processor of a: env = [\"A\"], was not set"],
            &[],
        );
        let running = load_from(&with("env = { A = \"1\" }"), &sources()).unwrap().settings;
        let changes = load_again(&sources(), &with("env = { A = \"2\" }"), &running).unwrap().changes;
        let what: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(what, ["processor of a: env changed where it is not shown"], "a value is never shown");
    }

    #[test]
    fn a_change_of_a_hidden_value_is_reported() {
        let post = |query: &str| {
            let kind = format!("kind = \"http\"\nurl = \"https://host/path?{query}\"");
            RUNNING.replace("kind = \"exec\"\ncommand = [\"cat\"]", &kind)
        };
        let running = load_from(&post("key=1"), &sources()).unwrap().settings;
        let changes = load_again(&sources(), &post("key=2"), &running).unwrap().changes;
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].what, "processor of a: url changed where it is not shown");
    }
}
