//! Commands for people to paste, in the form that works where they are pasted, and where a setting is changed.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes of [`Started`] in EVENTS: one slot has to hold it together with the rest of the event.
const STARTED_BYTES_MAX: usize = 1_400;

/// How the service was started: what it takes to start it again, and to type commands about it. Noted in EVENTS, so that
/// `doctor` knows it on a stopped store too. All of it is quoted for a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Started {
    /// The absolute path of its configuration; empty without one.
    pub config: String,
    /// The working directory; empty where it does not matter.
    pub folder: String,
    /// The command line that was typed; empty where it is not known.
    pub typed: String,
    /// The processor's command, where one was typed behind `--`.
    pub processor: String,
    /// `service.command_prefix`.
    pub prefix: String,
    /// `service.start_command`.
    pub start: String,
}

impl Started {
    /// Of the command line of this process (with the program's name), started in `folder`; `processor` is the command
    /// behind `--`.
    #[must_use]
    pub fn of(
        args: &[OsString],
        processor: &[OsString],
        folder: &Path,
        config: Option<&Path>,
        (prefix, start): (&str, &str),
    ) -> Started {
        // A service manager starts its programs in `/`, with absolute paths.
        let is_root = folder == Path::new("/");
        Started {
            config: config.map(|file| quoted(&folder.join(file).to_string_lossy())).unwrap_or_default(),
            folder: if is_root { String::new() } else { quoted(&folder.to_string_lossy()) },
            typed: format!("spillq {}", words(args.get(1..).unwrap_or_default())),
            processor: words(processor),
            prefix: prefix.to_owned(),
            start: start.to_owned(),
        }
    }

    /// As much of it as EVENTS has room for: what is typed is left out as a whole, since half a command is wrong.
    #[must_use]
    pub(super) fn bounded(self) -> Started {
        let Started { config, folder, prefix, start, .. } = &self;
        let fits =
            |parts: &[&String]| parts.iter().map(|part| part.len()).sum::<usize>() <= STARTED_BYTES_MAX;
        if fits(&[config, folder, prefix, start, &self.typed, &self.processor]) {
            return self;
        }
        let short = Started { typed: String::new(), processor: String::new(), ..self };
        let Started { config, folder, prefix, start, .. } = &short;
        if fits(&[config, folder, prefix, start]) { short } else { Started::default() }
    }
}

/// What a command needs that is suggested as the next step.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    data_dir: String,
    started: Started,
}

impl Typed {
    /// Commands about the store in `data_dir`: absolute, because whoever pastes them may be in another folder.
    #[must_use]
    pub fn about(data_dir: &Path, started: Started) -> Typed {
        let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Typed { data_dir: quoted(&absolute.to_string_lossy()), started }
    }

    /// `spillq VERB --data-dir DIR REST`.
    #[must_use]
    pub fn spillq(&self, verb: &str, rest: &str) -> String {
        let space = if rest.is_empty() { "" } else { " " };
        self.prefixed(&format!("spillq {verb} --data-dir {}{space}{rest}", self.data_dir))
    }

    /// The command that starts the service.
    #[must_use]
    pub fn start(&self) -> String {
        let Started { config, typed, start, .. } = &self.started;
        match (start.is_empty(), typed.is_empty(), config.is_empty()) {
            (false, ..) => start.clone(),
            (_, false, _) => self.prefixed_in_folder(typed),
            (_, _, false) => self.spillq("run", &format!("--config {config}")),
            _ => self.spillq("run", "--follow FILES -- COMMAND"),
        }
    }

    /// The command that empties a group while the service is down.
    #[must_use]
    pub fn drain(&self, group: &str) -> String {
        let Started { config, processor, .. } = &self.started;
        match (config.is_empty(), processor.is_empty()) {
            (false, true) => self.spillq("drain", &format!("--config {config} --group {group}")),
            (_, false) => {
                let data_dir = &self.data_dir;
                self.prefixed_in_folder(&format!(
                    "spillq drain --data-dir {data_dir} --group {group} -- {processor}"
                ))
            }
            _ => self.spillq("drain", &format!("--group {group} -- COMMAND")),
        }
    }

    /// The command that checks the configuration.
    #[must_use]
    pub fn check(&self, file: &str) -> String {
        self.prefixed(&format!("spillq config check {}", quoted(file)))
    }

    /// The step that changes the configuration of a running service: it reads the file again by itself.
    #[must_use]
    pub fn change(&self, what: &str) -> String {
        let Started { config, .. } = &self.started;
        if config.is_empty() {
            return format!(
                "write a configuration (spillq config init), {what}, and start the service with --config"
            );
        }
        format!("{what} in {config}; the service applies it when the file changes")
    }

    /// The data dir, quoted if a shell would split it.
    #[must_use]
    pub fn data_dir(&self) -> &str {
        &self.data_dir
    }

    /// Whether the service has a configuration file.
    #[must_use]
    pub fn has_config(&self) -> bool {
        !self.started.config.is_empty()
    }

    fn prefixed(&self, command: &str) -> String {
        let prefix = &self.started.prefix;
        if prefix.is_empty() { command.to_owned() } else { format!("{prefix} {command}") }
    }

    /// A command that was typed in the folder of the start.
    fn prefixed_in_folder(&self, command: &str) -> String {
        let Started { folder, prefix, .. } = &self.started;
        if folder.is_empty() {
            return self.prefixed(command);
        }
        let command = format!("cd {folder} && {command}");
        // `cd` needs a shell, which a prefix such as `runuser -u NAME --` does not start.
        if prefix.is_empty() { command } else { format!("{prefix} sh -c {}", quoted(&command)) }
    }
}

fn words(args: &[OsString]) -> String {
    let words: Vec<String> = args.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

/// As one word of a POSIX shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(args: &[&str], config: Option<&str>, prefix: &str, start: &str) -> Typed {
        let os = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let behind = args.iter().position(|word| *word == "--").map_or(args.len(), |at| at + 1);
        let all = os(&[&["spillq"], args].concat());
        let processor = os(&args[behind..]);
        let folder = Path::new("/w d");
        let started = Started::of(&all, &processor, folder, config.map(Path::new), (prefix, start));
        Typed::about(Path::new("/a b"), started)
    }

    #[test]
    fn a_shell_takes_it_as_one_word() {
        for word in ["/var/lib/q", "a b", "it's", "$HOME", "", "*", "a\\b", "ä\"`x`"] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf '%s' {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
        }
        let typed = Typed::about(Path::new("/a b"), Started::default());
        assert_eq!(
            typed.spillq("inspect", "--from 3 --limit 1"),
            "spillq inspect --data-dir '/a b' --from 3 --limit 1"
        );
    }

    #[test]
    fn what_was_typed_is_repeated_whole_in_its_folder() {
        let typed = started(&["run", "--follow", "*.log", "--", "./p.sh", "a b"], None, "", "");
        assert_eq!(typed.start(), "cd '/w d' && spillq run --follow '*.log' -- ./p.sh 'a b'");
        let drain = "cd '/w d' && spillq drain --data-dir '/a b' --group g -- ./p.sh 'a b'";
        assert_eq!(typed.drain("g"), drain);
        let typed = started(&["run", "--config", "q.toml"], Some("q.toml"), "", "");
        assert_eq!(typed.drain("g"), "spillq drain --data-dir '/a b' --config '/w d/q.toml' --group g");
        assert!(typed.change("raise it").starts_with("raise it in '/w d/q.toml';"));
        assert!(Typed::default().change("raise it").contains("spillq config init"));
        assert_eq!(Typed::default().start(), "spillq run --data-dir  --follow FILES -- COMMAND");
    }

    #[test]
    fn the_prefix_of_the_place_stands_before_each_command_and_its_start_command_replaces_what_was_typed() {
        let typed = started(&["run", "--config", "/q.toml"], Some("/q.toml"), "runuser -u spillq --", "");
        assert_eq!(typed.check("/q.toml"), "runuser -u spillq -- spillq config check /q.toml");
        assert_eq!(
            typed.start(),
            r"runuser -u spillq -- sh -c 'cd '\''/w d'\'' && spillq run --config /q.toml'"
        );
        let typed = started(&["run"], None, "runuser -u spillq --", "systemctl start spillq");
        assert_eq!(typed.start(), "systemctl start spillq");
    }

    #[test]
    fn what_does_not_fit_into_events_is_left_out_as_a_whole() {
        let long = "x".repeat(STARTED_BYTES_MAX);
        let started = |config: &str, typed: &str| Started {
            config: config.to_owned(),
            typed: typed.to_owned(),
            ..Started::default()
        };
        assert_eq!(started("/q.toml", "run").bounded(), started("/q.toml", "run"));
        assert_eq!(started("/q.toml", &long).bounded(), started("/q.toml", ""));
        assert_eq!(started(&(long + "x"), "run").bounded(), Started::default());
    }
}
