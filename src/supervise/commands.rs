//! The commands that verdicts suggest, in the form that works when they are pasted.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spillq_storage::Seq;

/// How the service was started, which is needed to start it again and to run commands about it. It is recorded in EVENTS, so
/// that `doctor` also knows it for a stopped store. All fields are quoted for a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Started {
    /// The absolute path of its configuration; empty without one.
    pub config: String,
    /// The working directory; empty if it does not matter.
    pub folder: String,
    /// The command line; empty if it is not known.
    pub typed: String,
    /// The processor's command, if it was given behind `--`.
    pub processor: String,
    /// `service.command_prefix`.
    pub prefix: String,
    /// `service.stopped_prefix`, while the service is stopped.
    pub stopped_prefix: String,
    /// `service.start_command`.
    pub start: String,
    /// Consumers can lease lines of groups without a `[[processor]]`.
    pub serves_consumers: bool,
    /// Groups with a `[[processor]]`.
    pub processors: Vec<String>,
}

impl Started {
    /// From the command line of this process (with the program's name), started in `folder` with these variables; `processor`
    /// is the command behind `--`.
    #[must_use]
    pub fn of(
        args: &[OsString],
        processor: &[OsString],
        folder: &Path,
        config: Option<&Path>,
        variables: &[(OsString, OsString)],
    ) -> Started {
        // A service manager starts programs in `/`, with absolute paths.
        let is_root = folder == Path::new("/");
        Started {
            config: config.map(|file| quoted(&folder.join(file).to_string_lossy())).unwrap_or_default(),
            folder: if is_root { String::new() } else { quoted(&folder.to_string_lossy()) },
            typed: format!("{}spillq {}", set(variables), words(args.get(1..).unwrap_or_default())),
            processor: words(processor),
            ..Started::default()
        }
    }

    /// As much as fits into `bytes` of JSON. A command line that does not fit is left out as a whole, as half of it would be
    /// wrong.
    pub(super) fn within(self, bytes: usize) -> Started {
        let fits = |started: &Started| serde_json::to_vec(started).is_ok_and(|json| json.len() <= bytes);
        if fits(&self) {
            return self;
        }
        let mut short = Started { typed: String::new(), processor: String::new(), ..self };
        if !fits(&short) {
            short = Started { serves_consumers: false, processors: Vec::new(), ..short };
        }
        if fits(&short) { short } else { Started::default() }
    }
}

/// The variables in front of a command.
fn set(variables: &[(OsString, OsString)]) -> String {
    let one = |(name, value): &(OsString, OsString)| {
        format!("{}={} ", name.to_string_lossy(), quoted(&value.to_string_lossy()))
    };
    let all: String = variables.iter().map(one).collect();
    if all.is_empty() { all } else { format!("env {all}") }
}

/// Makes the commands that are suggested as next steps.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    data_dir: String,
    started: Started,
    is_stopped: bool,
}

impl Commands {
    /// Commands about the store in `data_dir`. Its path is made absolute, as the commands may be pasted in another folder.
    #[must_use]
    pub fn about(data_dir: &Path, started: Started) -> Commands {
        let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Commands { data_dir: quoted(&absolute.to_string_lossy()), started, is_stopped: false }
    }

    /// The same commands for a store that no service has open.
    #[must_use]
    pub fn stopped(self) -> Commands {
        Commands { is_stopped: true, ..self }
    }

    /// A command to be run while the service is stopped.
    #[must_use]
    pub fn offline(&self, verb: &str, rest: &str) -> String {
        self.clone().stopped().spillq(verb, rest)
    }

    /// `spillq VERB --data-dir DIR REST`.
    #[must_use]
    pub fn spillq(&self, verb: &str, rest: &str) -> String {
        let space = if rest.is_empty() { "" } else { " " };
        self.prefixed(&format!("spillq {verb} --data-dir {}{space}{rest}", self.data_dir))
    }

    /// The command that shows one line.
    #[must_use]
    pub fn inspect(&self, seq: Seq) -> String {
        self.spillq("inspect", &format!("--from {seq} --limit 1"))
    }

    /// The command that moves one line to the dead letters.
    #[must_use]
    pub fn park(&self, seq: Seq, group: &str) -> String {
        self.spillq("dead-letter park", &format!("{seq} --group {group}    # if the line is at fault"))
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

    /// The same with a processor command, if it was started without one.
    #[must_use]
    pub fn start_with_command(&self) -> String {
        let Started { typed, start, .. } = &self.started;
        if start.is_empty() && !typed.is_empty() {
            return self.prefixed_in_folder(&format!("{typed} -- COMMAND"));
        }
        self.spillq("run", "--follow FILES -- COMMAND")
    }

    /// Whether consumers lease the lines of a group by themselves.
    #[must_use]
    pub fn has_consumers(&self, group: &str) -> bool {
        let Started { processor, serves_consumers, processors, .. } = &self.started;
        *serves_consumers && processor.is_empty() && !processors.iter().any(|with| with == group)
    }

    /// The command that drains a group while the service is stopped; `None` if consumers lease its lines, as they need the
    /// service.
    #[must_use]
    pub fn drain(&self, group: &str) -> Option<String> {
        if self.has_consumers(group) {
            return None;
        }
        let Started { config, processor, .. } = &self.started;
        Some(match (config.is_empty(), processor.is_empty()) {
            (false, true) => self.spillq("drain", &format!("--config {config} --group {group}")),
            (_, false) => {
                let data_dir = &self.data_dir;
                self.prefixed_in_folder(&format!(
                    "spillq drain --data-dir {data_dir} --group {group} -- {processor}"
                ))
            }
            _ => self.spillq("drain", &format!("--group {group} -- COMMAND")),
        })
    }

    /// The command that checks the configuration.
    #[must_use]
    pub fn check(&self, file: &str) -> String {
        self.prefixed(&format!("spillq config check {}", quoted(file)))
    }

    /// The step that changes the configuration.
    #[must_use]
    pub fn change(&self, what: &str) -> String {
        let Started { config, .. } = &self.started;
        if config.is_empty() {
            return format!(
                "write a configuration (spillq config init), {what}, and start the service with --config"
            );
        }
        let applied = if self.is_stopped { "" } else { "; the service applies it when the file changes" };
        format!("{what} in {config}{applied}")
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

    fn prefix(&self) -> &str {
        let Started { prefix, stopped_prefix, .. } = &self.started;
        if self.is_stopped && !stopped_prefix.is_empty() { stopped_prefix } else { prefix }
    }

    fn prefixed(&self, command: &str) -> String {
        let prefix = self.prefix();
        if prefix.is_empty() { command.to_owned() } else { format!("{prefix} {command}") }
    }

    /// A command to be run in the folder in which the service was started.
    fn prefixed_in_folder(&self, command: &str) -> String {
        let (folder, prefix) = (&self.started.folder, self.prefix());
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

/// Quotes a word for a POSIX shell.
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

    fn started(args: &[&str], config: Option<&str>, variables: &[(&str, &str)]) -> Started {
        let os = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let behind = args.iter().position(|word| *word == "--").map_or(args.len(), |at| at + 1);
        let all = os(&[&["spillq"], args].concat());
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Started::of(&all, &os(&args[behind..]), Path::new("/w d"), config.map(Path::new), &variables)
    }

    fn commands(started: Started) -> Commands {
        Commands::about(Path::new("/a b"), started)
    }

    #[test]
    fn a_shell_reads_a_quoted_word_as_one() {
        for word in ["/var/lib/q", "a b", "it's", "$HOME", "", "*", "a\\b", "ä\"`x`"] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf '%s' {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
        }
        let commands = Commands::about(Path::new("/a b"), Started::default());
        assert_eq!(
            commands.spillq("inspect", "--from 3 --limit 1"),
            "spillq inspect --data-dir '/a b' --from 3 --limit 1"
        );
    }

    #[test]
    fn the_command_line_is_repeated_in_its_folder_with_its_variables() {
        let run = commands(started(&["run", "--follow", "*.log", "--", "./p.sh", "a b"], None, &[]));
        assert_eq!(run.start(), "cd '/w d' && spillq run --follow '*.log' -- ./p.sh 'a b'");
        let drain = "cd '/w d' && spillq drain --data-dir '/a b' --group g -- ./p.sh 'a b'";
        assert_eq!(run.drain("g").as_deref(), Some(drain));
        let run = commands(started(&["run", "--config", "q.toml"], Some("q.toml"), &[]));
        let drain = "spillq drain --data-dir '/a b' --config '/w d/q.toml' --group g";
        assert_eq!(run.drain("g").as_deref(), Some(drain));
        assert!(run.change("raise it").starts_with("raise it in '/w d/q.toml';"));
        assert_eq!(run.stopped().change("raise it"), "raise it in '/w d/q.toml'");
        assert!(Commands::default().change("raise it").contains("spillq config init"));
        assert_eq!(Commands::default().start(), "spillq run --data-dir  --follow FILES -- COMMAND");
        let run = commands(started(&["run"], None, &[("SPILLQ_DATA_DIR", "q e")]));
        assert_eq!(run.start(), "cd '/w d' && env SPILLQ_DATA_DIR='q e' spillq run");
        assert_eq!(run.start_with_command(), "cd '/w d' && env SPILLQ_DATA_DIR='q e' spillq run -- COMMAND");
    }

    #[test]
    fn a_configured_prefix_precedes_each_command_and_a_start_command_replaces_the_command_line() {
        let run = Started {
            prefix: "docker compose exec spillq".to_owned(),
            ..started(&["run", "--config", "/q.toml"], Some("/q.toml"), &[])
        };
        let running = commands(run.clone());
        assert_eq!(running.check("/q.toml"), "docker compose exec spillq spillq config check /q.toml");
        let in_shell = r"docker compose exec spillq sh -c 'cd '\''/w d'\'' && spillq run --config /q.toml'";
        assert_eq!(running.start(), in_shell);
        let (stopped_prefix, start) = ("docker compose run --rm".to_owned(), "docker compose up".to_owned());
        let run = Started { stopped_prefix, start, ..run };
        assert_eq!(commands(run.clone()).start(), "docker compose up");
        let verify = "docker compose run --rm spillq verify --data-dir '/a b'";
        assert_eq!(commands(run.clone()).offline("verify", ""), verify);
        assert_eq!(commands(run).stopped().spillq("verify", ""), verify);
    }

    #[test]
    fn a_group_whose_lines_consumers_lease_is_not_drained() {
        let run = started(&["run", "--config", "/q.toml"], Some("/q.toml"), &[]);
        let run = commands(Started { serves_consumers: true, processors: vec!["with".to_owned()], ..run });
        assert!(run.has_consumers("g") && run.drain("g").is_none());
        assert!(!run.has_consumers("with") && run.drain("with").is_some());
        let run = commands(Started::default());
        assert!(!run.has_consumers("g") && run.drain("g").is_some());
    }

    #[test]
    fn a_command_line_whose_json_does_not_fit_is_left_out_as_a_whole() {
        let started = |config: &str, typed: &str| Started {
            config: config.to_owned(),
            typed: typed.to_owned(),
            ..Started::default()
        };
        assert_eq!(started("/q.toml", "run").within(400), started("/q.toml", "run"));
        assert_eq!(started("/q.toml", &"x".repeat(400)).within(400), started("/q.toml", ""));
        // Each takes two bytes or six.
        for c in ["\"", "\\", "\u{1b}"] {
            assert_eq!(started("/q.toml", &c.repeat(200)).within(400), started("/q.toml", ""), "{c:?}");
        }
        assert_eq!(started(&"x".repeat(400), "run").within(400), Started::default());
        let names = Started { processors: vec!["x".repeat(400)], ..started("/q.toml", "run") };
        assert_eq!(names.within(400), started("/q.toml", ""));
    }
}
