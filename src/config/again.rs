//! Reading the configuration again while the service runs: what of it can change live, and what has changed. Pure but
//! for reading the file.

use std::collections::BTreeMap;

use toml::Value;

use super::settings::{Disk, Settings};
use super::show::{Part, Section, parts};
use super::{ConfigError, Loaded, Problem, Sources, check, load_from};

/// A configuration that was read again and is fit to be taken.
#[derive(Clone, Debug)]
pub struct Again {
    /// What holds from now on: what cannot change live is as it was.
    pub settings: Settings,
    /// What is different, and whether that holds.
    pub changes: Vec<Change>,
    /// What is odd but works, one sentence each.
    pub warnings: Vec<String>,
}

/// One thing that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which setting, what it is now and what it was.
    pub what: String,
    /// It holds from the next start on only.
    pub needs_restart: bool,
}

/// Checks `text`, the content of the configuration file, as [`super::load`] does, and compares it with what runs.
///
/// # Errors
/// [`ConfigError::Problems`] with all that is wrong: nothing of it may be taken then.
pub fn load_again(sources: &Sources, text: &str, running: &Settings) -> Result<Again, ConfigError> {
    let refuse = |problems| ConfigError::Problems { file: sources.file.clone(), problems };
    // What an editor leaves for a moment. Taken as it stands, it would end all that is followed and delivered.
    if text.lines().map(str::trim_start).all(|line| line.is_empty() || line.starts_with('#')) {
        let expected = "sets nothing, which would end everything; the settings before it are kept".to_owned();
        return Err(refuse(vec![Problem { line: None, key: "the file".to_owned(), value: None, expected }]));
    }
    let Loaded { settings: written, origins, warnings, .. } = load_from(text, sources)?;
    let settings = live_part(running, &written);
    // It was checked beside others than those that go on.
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

/// What is listed here changes live; a key that is added later needs a restart until somebody makes it live.
fn live_part(running: &Settings, written: &Settings) -> Settings {
    Settings {
        stall_after: written.stall_after,
        follow: written.follow.clone(),
        groups: written.groups.clone(),
        processors: written.processors.clone(),
        // The reserve is a file that is set aside at the start.
        disk: Disk { reserve: running.disk.reserve, ..written.disk },
        ..running.clone()
    }
}

type Rows = BTreeMap<&'static str, Value>;

/// Sections by a name that people know them by, each with its keys.
type Sections = BTreeMap<String, (Section, Rows)>;

/// What is different, a sentence each.
fn differences(from: &Settings, to: &Settings) -> Vec<String> {
    let (before, now) = (named(from), named(to));
    let mut found = Vec::new();
    for (name, (section, rows)) in &before {
        match now.get(name) {
            None => found.push(format!("{name}: {}", gone(*section, rows))),
            Some((_, new)) => found.extend(changed(*section, name, rows, new)),
        }
    }
    found.extend(now.keys().filter(|name| !before.contains_key(*name)).map(|name| format!("{name}: new")));
    // What is shown nowhere, and the order in which files look for their section.
    for processor in &to.processors {
        let name = format!("processor of {}", processor.group);
        let was = from.processor(&processor.group).is_some_and(|was| was != processor);
        if was && before.get(&name) == now.get(&name) {
            found.push(format!("{name}: changed where it is not shown"));
        }
    }
    if found.is_empty() && from != to {
        found.push("the order of sections: changed".to_owned());
    }
    found
}

fn named(settings: &Settings) -> Sections {
    let mut sections = BTreeMap::new();
    for Part { section, rows, .. } in parts(settings) {
        let rows: Rows = rows.into_iter().collect();
        let name = match section {
            Section::Follow => format!("follow {}", of(&rows, "include")),
            Section::Group => format!("group {}", of(&rows, "name")),
            Section::Processor => format!("processor of {}", of(&rows, "group")),
            Section::Top | Section::Table(_) => section.name().to_owned(),
        };
        let mut free = name.clone();
        while sections.contains_key(&free) {
            free.push_str(", again");
        }
        sections.insert(free, (section, rows));
    }
    sections
}

/// What a key says; nothing where it is not set.
fn of(rows: &Rows, key: &str) -> String {
    let said = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    rows.get(key).map(said).unwrap_or_default()
}

fn gone(section: Section, rows: &Rows) -> String {
    match section {
        Section::Follow => "gone; where its files were read to is kept".to_owned(),
        Section::Group => {
            let group = of(rows, "name");
            format!("gone; its lines are kept until it is back or `spillq group remove {group}`")
        }
        Section::Top | Section::Table(_) | Section::Processor => "gone".to_owned(),
    }
}

fn changed(section: Section, name: &str, before: &Rows, now: &Rows) -> Vec<String> {
    let said = |rows: &Rows, key| rows.get(key).map_or("not set".to_owned(), Value::to_string);
    let keys = now.keys().chain(before.keys().filter(|key| !now.contains_key(*key)));
    let different = keys.filter(|key| before.get(*key) != now.get(*key));
    different
        .map(|key| {
            let (is, was) = (said(now, key), said(before, key));
            match section {
                Section::Top => format!("{key} = {is}, was {was}"),
                Section::Table(_) => format!("{name}.{key} = {is}, was {was}"),
                Section::Follow | Section::Group | Section::Processor => {
                    format!("{name}: {key} = {is}, was {was}")
                }
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
    fn what_came_went_and_changed_is_named() {
        let text = RUNNING.replace("/logs/*.log", "/other/*.log").replace("lines = 100", "lines = 50");
        check(
            &format!("{text}[[group]]\nname = \"b\"\n"),
            &[
                "follow [\"/logs/*.log\"]: gone; where its files were read to is kept",
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
        assert_eq!((settings.data_dir, settings.disk.limit), (PathBuf::from("/q"), 1 << 30));
    }

    #[test]
    fn what_is_taken_is_checked_beside_what_stays() {
        // Fine with the data dir that it names; but that needs a restart, and the one that stays is followed then.
        let text = RUNNING.replace("\"/q\"", "\"/elsewhere\"").replace("/logs/*.log", "/q/**");
        let refused = again(&text).unwrap_err();
        let ConfigError::Problems { problems, .. } = refused else { panic!("{refused}") };
        assert!(problems[0].to_string().contains("takes in the data dir /q itself"), "{problems:?}");
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
    fn surroundings_of_a_command_change_live() {
        let with = |more: &str| format!("{RUNNING}{more}\n");
        check(
            &with("cwd = \"/work\"\nenv = { A = \"1\" }"),
            &["processor of a: cwd = \"/work\", was \"/etc\"", "processor of a: env = [\"A\"], was not set"],
            &[],
        );
        let running = load_from(&with("env = { A = \"1\" }"), &sources()).unwrap().settings;
        let changes = load_again(&sources(), &with("env = { A = \"2\" }"), &running).unwrap().changes;
        let what: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(what, ["processor of a: changed where it is not shown"], "a value is never shown");
    }

    #[test]
    fn a_change_that_is_not_shown_is_told_all_the_same() {
        let post = |query: &str| {
            let kind = format!("kind = \"http\"\nurl = \"https://host/path?{query}\"");
            RUNNING.replace("kind = \"exec\"\ncommand = [\"cat\"]", &kind)
        };
        let running = load_from(&post("key=1"), &sources()).unwrap().settings;
        let changes = load_again(&sources(), &post("key=2"), &running).unwrap().changes;
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].what, "processor of a: changed where it is not shown");
    }
}
