//! The configuration as people write it, and the messages that they get.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use spillq_storage::Keep;

use super::load::load_text;
use super::*;
use crate::queue::{LagPolicy, WhenFull};
use crate::secret::Secret;
use crate::tail::{Follow, From};

fn sources(environment: &[(&str, &str)], overrides: Overrides) -> Sources {
    Sources {
        file: None,
        working_dir: PathBuf::from("/srv"),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        overrides,
    }
}

fn load_with(text: &str, sources: &Sources) -> Result<Loaded, Vec<String>> {
    load_text(text, Path::new("/etc/spillq"), sources)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn read(text: &str) -> Settings {
    let loaded = load_with(text, &Sources::default()).unwrap();
    assert_eq!(loaded.warnings, [""; 0], "{text}");
    loaded.settings
}

/// Checks the messages, problem by problem.
#[track_caller]
fn check_problems(text: &str, expected: &[&str]) {
    let mut problems = load_with(text, &sources(&[], Overrides::default())).unwrap_err();
    problems.sort();
    let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    assert_eq!(problems, expected);
}

/// The documented file with its examples uncommented.
fn with_examples() -> String {
    let example = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    documented()
        .lines()
        .map(|line| if example(line) { &line[1..] } else { line })
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[test]
fn the_documented_file_holds_exactly_the_defaults() {
    let defaults = Settings::default_with(Path::new("/etc/spillq"));
    assert_eq!(read(""), defaults);
    assert_eq!(read(&documented()), defaults);
    let mut with_examples = read(&with_examples());
    let include = vec!["/var/log/app/*.log".to_owned()];
    let labels =
        [("service", "node"), ("env", "prod")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let follow = Follow { labels: labels.into(), symlinks: Some("/var/log".into()), ..Follow::new(include) };
    assert_eq!(with_examples.follow, [follow]);
    assert_eq!(
        with_examples.processors,
        [Processor {
            group: DEFAULT_GROUP.to_owned(),
            kind: Kind::Exec(Command {
                command: vec!["/etc/spillq/process.sh".into()],
                input: Input::Lines,
                cwd: "/etc/spillq".into(),
                env: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
                dump_signal: Some(Signal::USR1),
            }),
        }]
    );
    let tokens = [&with_examples.consumers.token, &with_examples.groups[0].token];
    let files = ["/etc/spillq/consumers.token", "/etc/spillq/fills.token"];
    assert_eq!(tokens, files.map(|file| Some(Secret::File(file.into()))).each_ref());
    assert_eq!(with_examples.consumers.socket_group.as_deref(), Some("app"));
    with_examples.follow.clear();
    with_examples.processors.clear();
    with_examples.consumers = defaults.consumers.clone();
    with_examples.groups.clone_from(&defaults.groups);
    assert_eq!(with_examples, defaults);
}

#[test]
fn the_documented_file_names_every_setting() {
    let loaded = load_with(&with_examples(), &Sources::default()).unwrap();
    let shown = as_toml(&loaded);
    let unnamed: Vec<_> = shown.lines().filter(|line| line.ends_with("# default")).collect();
    assert_eq!(unnamed, [""; 0]);
}

#[test]
fn addresses_must_be_listed_and_remote_ones_allowed_too() {
    let http = |lines: &str| format!("[[follow]]\ninclude = [\"x\"]\n[http]\n{lines}\n");
    let listen = |listen: &str, more: &str| http(&format!("listen = [{listen}]\n{more}"));
    check_problems(
        &http("listen = [\"127.0.0.1:1\"]"),
        &[
            "line 4: http.listen: must contain \"unix\": commands use this socket, and nothing else controls the service",
        ],
    );
    check_problems(
        &listen(r#""unix", "127.0.0.1:1", "[::1]:1", "127.0.0.1:1""#, ""),
        &["line 4: http.listen = \"127.0.0.1:1\": is listed twice"],
    );
    check_problems(
        &listen(r#""unix", "0.0.0.0:9464""#, ""),
        &[
            "line 4: http.listen = \"0.0.0.0:9464\": can be reached from other hosts: anyone who does can read file names, \
           states and messages, without a password or encryption. Use 127.0.0.1 behind a proxy that authenticates, or \
           write remote = true if this is intended",
        ],
    );
    let text = listen(r#""unix", "0.0.0.0:9464", "[::1]:0""#, "remote = true\nhosts = [\"q.example\"]");
    let settings = read(&text);
    let shown: Vec<String> = settings.http.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["0.0.0.0:9464", "[::1]:0"]);
    assert_eq!(settings.http.hosts, ["q.example"]);
}

#[test]
fn all_problems_are_reported_at_once() {
    check_problems(
        r#"
stal_after = "60s"
data_dir = 5
[disk]
limit = "12 parsecs"
min_free = "-1"
when_full = "drop"
on_damage = "panic"
[http]
listen = ["unix", "localhost:8080", "tcp"]
remote = "yes"
hosts = ["x:1"]
[nonsense]
x = 1
[[group]]
name = "Not OK"
in_flight = 100
timeout = "soon"
batch = { lines = 0, bites = "4MiB", bytes = "17MiB" }
[[follow]]
includes = ["x"]
symlinks = true
"#,
        &[
            "line 2: stal_after = \"60s\": unknown key; did you mean \"stall_after\"?",
            "line 3: data_dir = 5: not a text; write it in quotes",
            "line 5: disk.limit = \"12 parsecs\": not a size; write it as \"50GiB\"",
            "line 6: disk.min_free = \"-1\": not a size; write it as \"50GiB\"",
            "line 7: disk.when_full = \"drop\": expected \"pause\" or \"drop_oldest\"",
            "line 8: disk.on_damage = \"panic\": expected \"hold\" or \"skip\"",
            "line 10: http.listen = \"localhost:8080\": expected \"unix\", or an address such as \"127.0.0.1:9464\" \
             or \"[::1]:9464\"",
            "line 10: http.listen = \"tcp\": expected \"unix\", or an address such as \"127.0.0.1:9464\" or \
             \"[::1]:9464\"",
            "line 11: http.remote = \"yes\": expected true or false, without quotes",
            "line 12: http.hosts = \"x:1\": not a host name; write it without a port, such as \
             \"logs.example.net\"",
            "line 13: nonsense: unknown key; known here: consumers, data_dir, disk, follow, group, http, processor, service, stall_after, \
             stuck_after, window",
            "line 16: group.name = \"Not OK\": not a group's name; it takes 1 to 64 of a-z, 0-9, _ and -",
            "line 17: group.in_flight = 100: too large; at most 64",
            "line 18: group.timeout = \"soon\": not a duration; write it as \"30s\", \"200ms\" or \"1h 30m\"",
            "line 19: group.batch.bites = \"4MiB\": unknown key; did you mean \"bytes\"?",
            "line 19: group.batch.bytes = \"17MiB\": too large; at most \"16MiB\"",
            "line 19: group.batch.lines = 0: too small; at least 1",
            "line 20: follow.include: names no file to follow; write it as include = [\"/var/log/app/*.log\"]",
            "line 21: follow.includes: unknown key; did you mean \"include\"?",
            "line 22: follow.symlinks = true: not a text; write it in quotes",
        ],
    );
}

#[test]
fn broken_toml_is_reported_with_line_and_column() {
    let problems = load_with("data_dir = \"q\"\n[disk\nlimit = 1\n", &Sources::default()).unwrap_err();
    assert!(problems[0].starts_with("line 2: column 6: not TOML: "), "{problems:?}");
}

#[test]
fn settings_of_the_wrong_shape_are_reported() {
    check_problems(
        "disk = 5\nfollow = \"x\"\n[group]\nname = \"default\"\n",
        &[
            "line 1: disk = 5: expected a section; write it as [disk]",
            "line 2: follow = \"x\": expected repeated sections; write it as [[follow]]",
            "line 3: group: expected repeated sections; write it as [[group]]",
        ],
    );
    check_problems(
        "[[follow]]\ninclude = \"a.log\"\n",
        &["line 2: follow.include = \"a.log\": not a list; write it as include = [\"...\"]"],
    );
    check_problems(
        "[[follow]]\ninclude = [\"a[\", 7]\n",
        &[
            "line 2: follow.include = \"a[\": not a glob: unclosed character class; missing ']'",
            "line 2: follow.include = 7: not a text",
        ],
    );
    check_problems(
        "'' = 1\n\"a b\" = 2\n",
        &[
            "line 1: '' = 1: unknown key; known here: consumers, data_dir, disk, follow, group, http, processor, service, stall_after, \
             stuck_after, window",
            "line 2: \"a b\" = 2: unknown key; known here: consumers, data_dir, disk, follow, group, http, processor, service, \
             stall_after, stuck_after, window",
        ],
    );
    check_problems(
        "[[follow]]\ninclude = [\"[\\u0014-\\u0000]\"]\n",
        &[r#"line 2: follow.include = "[\u0014-\u0000]": not a glob: invalid range; '\x14' > '\x00'"#],
    );
    check_problems(
        "'a\tb' = '\u{8d}'\n",
        &[
            "line 1: 'a\\tb' = '\\u{8d}': unknown key; known here: consumers, data_dir, disk, follow, group, http, processor, \
             service, stall_after, stuck_after, window",
        ],
    );
}

#[test]
fn groups_and_processors_must_fit_together() {
    check_problems(
        r#"
[[group]]
name = "a"
in_flight = 4
[[group]]
name = "a"
order = "none"
in_flight = 2
retry = { initial = "10s", max = "1s" }
[[group]]
name = "loose"
order = "none"
[[processor]]
group = "a"
kind = "stdout"
[[processor]]
group = "a"
kind = "exec"
command = []
[[processor]]
group = "elsewhere"
kind = "http"
[[processor]]
group = "nobody"
kind = "stdout"
path = "x"
input = "ndjson"
[[processor]]
group = "loose"
kind = "file"
path = "spillq-data/out"
[[processor]]
"#,
        &[
            "line 4: group.in_flight = 4: strict order takes 1; write order = \"none\" to have more",
            "line 6: group.name = \"a\": another group has this name",
            "line 9: group.retry.max = \"1s\": shorter than retry.initial = \"10s\"",
            "line 17: processor.group = \"a\": the group has a processor already; a second consumer needs another [[group]]",
            "line 19: processor.command: names no program; write it as command = [\"./process.sh\"]",
            "line 21: processor.group = \"elsewhere\": no [[group]] has this name; there are \"a\", \"a\", \"loose\"",
            "line 20: processor.url: names no destination; write it as url = \"https://host/path\"",
            "line 24: processor.group = \"nobody\": no [[group]] has this name; there are \"a\", \"a\", \"loose\"",
            "line 26: processor.path = \"x\": belongs to kind = \"file\"",
            "line 27: processor.input = \"ndjson\": belongs to kind = \"exec\" or \"exec-stream\"",
            "line 30: processor.kind = \"file\": the group \"loose\" has order = \"none\"; a file takes strict order",
            "line 31: processor.path = \"/etc/spillq/spillq-data/out\": is in the data dir /etc/spillq/spillq-data",
            "line 32: processor.group = \"default\": no [[group]] has this name; there are \"a\", \"a\", \"loose\"",
            "line 32: processor.kind: is missing; write \"exec\", \"exec-stream\", \"http\", \"redis\", \
             \"postgres\", \"nats\", \"kafka\", \"s3\", \"stdout\" or \"file\"",
        ],
    );
}

#[cfg(all(feature = "redis", feature = "postgres"))]
#[test]
fn servers_are_read_shown_and_read_back_without_a_secret() {
    let text = r#"
[[group]]
name = "a"
[[group]]
name = "b"
[[processor]]
group = "a"
kind = "redis"
url = "rediss://me@r.example/3"
password = "file:secret"
stream = "lines"
max_len = 5000
ca_file = "ca.pem"
[[processor]]
group = "b"
kind = "postgres"
url = "postgres://me@p.example/app"
password = "env:PASSWORD"
table = "app.lines"
"#;
    let loaded = load_with(text, &Sources::default()).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(read(&as_toml(&loaded)), loaded.settings);
    let Kind::Redis(to) = &loaded.settings.processors[0].kind else { panic!("{:?}", loaded.settings) };
    assert_eq!((to.max_len, to.password.clone()), (5_000, Some(Secret::File("/etc/spillq/secret".into()))));
    let Kind::Postgres(to) = &loaded.settings.processors[1].kind else { panic!("{:?}", loaded.settings) };
    assert_eq!((to.table.as_str(), to.server.is_tls), ("app.lines", true));

    let open = text.replace("rediss://", "redis://").replace("/app\"", "/app?sslmode=disable\"");
    let loaded = load_with(&open, &Sources::default()).unwrap();
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);

    check_problems(
        r#"
[[group]]
name = "a"
order = "none"
[[group]]
name = "b"
[[processor]]
group = "a"
kind = "redis"
url = "redis://me@r.example"
table = "x"
[[processor]]
group = "b"
kind = "postgres"
url = "postgres://me:hunter2@p/app"
password = "hunter2"
table = "a.b.c"
"#,
        &[
            "line 9: processor.kind = \"redis\": the group \"a\" has order = \"none\"; a stream takes strict order",
            "line 7: processor.password: the url names a user; write password = \"file:PATH\" or \"env:VARIABLE\"",
            "line 7: processor.stream: names no stream; write it as stream = \"lines\"",
            "line 11: processor.table = \"x\": belongs to kind = \"postgres\"",
            "line 15: processor.url: contains a password, which would be shown; write password = \"file:PATH\"",
            "line 16: processor.password: does not say where the secret is; write \"file:PATH\" or \"env:VARIABLE\"",
            "line 17: processor.table = \"a.b.c\": not the name of a table; write \"table\" or \"schema.table\", as it is \
             stored",
        ],
    );
}

#[cfg(feature = "nats")]
#[test]
fn nodes_of_nats_are_read_shown_and_read_back() {
    let text = |url: &str, more: &str| {
        format!(
            "[[processor]]\nkind = \"nats\"\nurl = {url:?}\nstream = \"LINES\"\nsubject = \"lines.a\"\n{more}\n"
        )
    };
    let urls = "tls://a.example,tls://b.example:4223";
    let loaded = load_with(&text(urls, "credentials = \"file:nats.creds\""), &Sources::default()).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(read(&as_toml(&loaded)), loaded.settings);
    let Kind::Nats(to) = &loaded.settings.processors[0].kind else { panic!("{:?}", loaded.settings) };
    assert_eq!((to.servers.len(), to.subject.as_str()), (2, "lines.a"));
    assert_eq!(to.credentials, Some(Secret::File("/etc/spillq/nats.creds".into())));
    let open = load_with(&text("nats://a.example", ""), &Sources::default()).unwrap();
    assert_eq!(open.warnings.len(), 1, "{:?}", open.warnings);
    let wrong = [
        (text("nats://me@a", ""), "the url names a user"),
        (
            text("nats://me@a", "password = \"env:P\"\ncredentials = \"env:C\""),
            "the user is in the credentials",
        ),
        (text("nats://a", "").replace("lines.a", "lines.*"), "not a name that NATS has"),
        (text("nats://a", "").replace("LINES", "L INES"), "not a name that NATS has"),
        (text("nats://a,http://b", ""), "expected nats://"),
    ];
    for (text, why) in wrong {
        let problems = load_with(&text, &Sources::default()).unwrap_err();
        let told: String = problems.iter().map(ToString::to_string).collect();
        assert!(told.contains(why), "{why}: {told}");
    }
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_kind_that_was_left_out_of_the_program_is_refused() {
    check_problems(
        "[[processor]]\nkind = \"redis\"\nurl = \"redis://r\"\nstream = \"s\"\n",
        &[
            "line 2: processor.kind = \"redis\": this program was built without it; build it with --features redis",
        ],
    );
}

#[test]
fn files_that_spillq_writes_are_not_followed() {
    check_problems(
        r#"
data_dir = "/var/log/spillq"
[[follow]]
include = ["/var/log/**"]
[[processor]]
kind = "file"
path = "/var/log/out"
"#,
        &[
            "line 4: follow.include = \"/var/log/**\": matches the data dir /var/log/spillq; move it, or \
             write exclude = [\"/var/log/spillq/**\"]",
            "line 4: follow.include = \"/var/log/**\": matches /var/log/out, which a processor writes: spillq \
             would read its own output for ever",
        ],
    );
    let excluded = "[[follow]]\ninclude = [\"/**\"]\nexclude = [\"spillq-data/**\"]\n";
    assert_eq!(read(excluded).follow[0].exclude, ["/etc/spillq/spillq-data/**"]);
}

#[test]
fn variables_win_over_the_file_and_are_checked() {
    let variables = [
        ("SPILLQ_DISK_LIMIT", "3GiB"),
        ("SPILLQ_DATA_DIR", "here"),
        ("SPILLQ_DISK_LIMITS", "4GiB"),
        ("SPILLQ_PORT", "tcp://10.0.0.1:80"),
        ("SPILLQ_STALL_AFTER", ""),
    ];
    let loaded = load_with(
        "data_dir = \"there\"\n[disk]\nlimit = \"2GiB\"\n",
        &sources(&variables, Overrides::default()),
    )
    .unwrap();
    assert_eq!(loaded.settings.disk.limit_bytes, 3 * GIB);
    assert_eq!(loaded.settings.data_dir, Path::new("/srv/here"));
    assert_eq!(loaded.origins.of("disk.limit").to_string(), "environment, SPILLQ_DISK_LIMIT");
    assert_eq!(
        loaded.warnings,
        ["the variable SPILLQ_DISK_LIMITS is not a setting and was ignored; did you mean SPILLQ_DISK_LIMIT?"]
    );
    let wrong = [("SPILLQ_STALL_AFTER", "soon")];
    let problems = load_with("stall_after = 1\n", &sources(&wrong, Overrides::default())).unwrap_err();
    assert_eq!(
        problems,
        [
            "line 1: stall_after = 1: not a duration; write it as \"30s\", \"200ms\" or \"1h 30m\"",
            "SPILLQ_STALL_AFTER = \"soon\": not a duration; write it as \"30s\", \"200ms\" or \"1h 30m\"",
        ]
    );
}

#[test]
fn the_command_line_wins_over_all() {
    let overrides = Overrides {
        data_dir: Some("q".into()),
        follow: vec!["app*.log".to_owned()],
        from: Some(From::End),
        group: Some("fills".to_owned()),
        command: vec!["./process.sh".into(), "-x".into()],
    };
    let file = "data_dir = \"/x\"\n[[follow]]\ninclude = [\"/y\"]\n";
    let loaded = load_with(file, &sources(&[("SPILLQ_DATA_DIR", "/z")], overrides)).unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.data_dir, Path::new("/srv/q"));
    assert_eq!(settings.follow.len(), 1);
    assert_eq!(settings.follow[0].include, ["/srv/app*.log"]);
    assert_eq!(settings.follow[0].from, From::End);
    let names: Vec<_> = settings.groups.iter().map(|group| &group.name).collect();
    assert_eq!(names, ["default", "fills"]);
    assert!(matches!(
        &settings.processor("fills").unwrap().kind,
        Kind::Exec(to) if to.command.len() == 2
    ));

    let wrong = Overrides {
        group: Some("No Name".to_owned()),
        follow: vec!["a[".to_owned()],
        ..Overrides::default()
    };
    let problems = load_with("", &sources(&[], wrong)).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn batches_that_would_not_fit_in_memory_are_lowered() {
    let file = "[[group]]\nname = \"a\"\norder = \"none\"\nin_flight = 8\n[[group]]\nname = \"b\"\n";
    let loaded = load_with(file, &Sources::default()).unwrap();
    let leased: u64 =
        loaded.settings.groups.iter().map(|group| group.batch_bytes * (group.in_flight as u64 + 1)).sum();
    assert!(leased <= LEASED_BYTES_MAX && leased > LEASED_BYTES_MAX - 16, "{leased}");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);

    let file = ["a", "b", "c"].map(|name| format!("[[group]]\nname = \"{name}\"\n")).concat();
    let loaded = load_with(&file, &Sources::default()).unwrap();
    assert!(loaded.settings.groups.iter().all(|group| group.batch_bytes < 3 << 20));
    assert!(loaded.warnings.is_empty(), "nobody had asked for more: {:?}", loaded.warnings);
}

#[test]
fn shown_settings_read_back_the_same() {
    let file = r#"
stall_after = "90s"
[[follow]]
include = ["/a/*.log", "b \" quote"]
exclude = ["*.tmp"]
max_line_bytes = 2000
[[group]]
name = "a"
timeout = "1h 30m"
[[processor]]
group = "a"
kind = "exec"
command = ["sh", "-c", "cat > /dev/null; echo 'x'"]
input = "ndjson"
"#;
    let loaded = load_with(file, &Sources::default()).unwrap();
    assert_eq!(read(&as_toml(&loaded)), loaded.settings);
    assert_eq!(loaded.settings.follow[0].max_line_bytes, 2000);
    assert_eq!(loaded.settings.groups[0].timeout_ms, 5_400_000);
    let json = as_json(&loaded);
    assert_eq!(json["settings"]["group"][0]["batch"]["lines"], 10_000);
    assert_eq!(json["settings"]["disk"]["limit"], "50GiB");
    assert_eq!(json["origins"]["follow[0].exclude"], "file, line 5");
}

#[test]
fn paths_in_a_file_are_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(folder.path().join("c.toml"), "[[follow]]\ninclude = [\"*.log\"]\n").unwrap();
    let sources = Sources { file: Some("./../c.toml".into()), working_dir: below, ..Sources::default() };
    let settings = load(&sources).unwrap().settings;
    assert_eq!(settings.data_dir, folder.path().join(DEFAULT_DATA_DIR));
    let expected = folder.path().join("*.log").display().to_string();
    assert_eq!(settings.follow[0].include, [expected]);
}

#[test]
fn a_command_takes_the_place_of_the_groups_processor() {
    let file = "[[processor]]\nkind = \"stdout\"\n[[processor]]\ngroup = \"x\"\nkind = \"stdout\"\n";
    let overrides = Overrides { command: vec!["cat".into()], ..Overrides::default() };
    let problems = load_with(file, &sources(&[], overrides)).unwrap_err();
    assert_eq!(
        problems,
        ["line 4: processor.group = \"x\": no [[group]] has this name; there are \"default\""]
    );
}

/// `run -- ""` was accepted, and each batch failed; in the file it is refused (fuzzing: what `config show` printed was
/// not accepted).
#[test]
fn a_command_without_a_program_is_refused_on_the_command_line_as_in_the_file() {
    let overrides = Overrides { command: vec!["".into(), "x".into()], ..Overrides::default() };
    let problems = load_with("", &sources(&[], overrides)).unwrap_err();
    assert_eq!(problems, ["COMMAND = \"\": names no program; write it as -- ./process.sh"]);
}

#[test]
fn a_program_on_the_command_line_is_where_the_command_line_is() {
    let shown = |command: &[&str]| {
        let command = command.iter().map(Into::into).collect();
        let overrides = Overrides { command, ..Overrides::default() };
        let loaded = load_with("", &sources(&[], overrides)).unwrap();
        let Kind::Exec(to) = &loaded.settings.processors[0].kind else { panic!("{loaded:?}") };
        to.command.join(" ".as_ref()).into_string().unwrap()
    };
    assert_eq!(shown(&["./process.sh", "./x"]), "/srv/process.sh ./x");
    assert_eq!(shown(&["/bin/cat"]), "/bin/cat");
    assert_eq!(shown(&["cat", "a/b"]), "cat a/b");
}

fn command(settings: &Settings) -> &Command {
    match &settings.processors[0].kind {
        Kind::Exec(to) | Kind::ExecStream(to) => to,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_runs_in_the_folder_of_its_configuration_or_where_it_was_typed() {
    for kind in ["exec", "exec-stream"] {
        let cwd = |more: &str| {
            let text = format!("[[processor]]\nkind = \"{kind}\"\ncommand = [\"cat\"]\n{more}");
            command(&read(&text)).cwd.clone()
        };
        assert_eq!(cwd(""), Path::new("/etc/spillq"));
        assert_eq!(cwd("cwd = \"work\""), Path::new("/etc/spillq/work"));
        assert_eq!(cwd("cwd = \"/work\""), Path::new("/work"));
    }
    let overrides = Overrides { command: vec!["cat".into()], ..Overrides::default() };
    let text = "[[processor]]\nkind = \"exec\"\ncommand = [\"cat\"]\ncwd = \"/work\"\n";
    let typed = load_with(text, &sources(&[], overrides)).unwrap().settings;
    assert_eq!(command(&typed).cwd, Path::new("/srv"), "the working directory, not the file's folder");
}

#[test]
fn variables_of_a_command_are_checked_and_their_values_are_never_shown() {
    let exec = |more: &str| format!("[[processor]]\nkind = \"exec\"\ncommand = [\"cat\"]\n{more}\n");
    let text = exec("env = { TOKEN = \"s3cret\", EMPTY = \"\" }\ndump_signal = \"USR1\"");
    let loaded = load_with(&text, &Sources::default()).unwrap();
    let to = command(&loaded.settings);
    assert_eq!((to.env["TOKEN"].as_str(), to.env["EMPTY"].as_str()), ("s3cret", ""));
    assert_eq!(to.dump_signal, Some(Signal::USR1));
    let shown = as_toml(&loaded);
    assert!(shown.contains("env = [\"EMPTY\", \"TOKEN\"]"), "{shown}");
    assert!(!shown.contains("s3cret") && !as_json(&loaded).to_string().contains("s3cret"), "{shown}");
    let again = load_with(&shown, &Sources::default()).unwrap_err();
    assert!(again[0].contains("processor.env: not a table; write it as env = { NAME = "), "{again:?}");

    check_problems(
        &exec(
            "env = { SPILLQ_GROUP = \"s3cret\", \"A=B\" = \"s3cret\", \"\" = \"s3cret\", N = 7, Z = \"s3cret\\u0000\" }\n\
             cwd = \"a\\u0000\"\ndump_signal = \"SIGUSR1\"",
        ),
        &[
            "line 4: processor.env: \"\" is not a name of a variable: it is empty, or contains = or NUL",
            "line 4: processor.env: \"A=B\" is not a name of a variable: it is empty, or contains = or NUL",
            "line 4: processor.env: \"N\" is not a text; write it in quotes",
            "line 4: processor.env: \"SPILLQ_GROUP\" begins with SPILLQ_: those are set by spillq",
            "line 4: processor.env: the value of \"Z\" contains a NUL, which no variable can",
            "line 5: processor.cwd = \"a\\u0000\": contains a NUL, which no path can",
            "line 6: processor.dump_signal = \"SIGUSR1\": expected \"USR1\", \"USR2\", \"QUIT\", \"ABRT\", \"HUP\" or \"INT\"",
        ],
    );
    let many = (0..65).map(|n| format!("V{n} = \"x\"")).collect::<Vec<_>>().join(", ");
    let long = "x".repeat(128 * 1024);
    check_problems(
        &exec(&format!("env = {{ {many} }}")),
        &["line 4: processor.env: 65 variables, at most 64"],
    );
    check_problems(
        &exec(&format!("env = {{ LONG = \"{long}\" }}")),
        &[
            "line 4: processor.env: \"LONG\" with its value is longer than 128 KiB, the longest variable of Linux",
        ],
    );
    check_problems(
        "[[processor]]\nkind = \"stdout\"\nenv = { TOKEN = \"s3cret\" }\n",
        &["line 3: processor.env: belongs to kind = \"exec\" or \"exec-stream\""],
    );
}

#[test]
fn a_missing_file_is_reported() {
    let sources = Sources { file: Some("/nonexistent/spillq.toml".into()), ..Sources::default() };
    let error = load(&sources).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /nonexistent/spillq.toml");
}

#[test]
fn limits_are_read_and_those_that_cannot_work_are_refused() {
    let text = r#"
[disk]
when_full = "drop_oldest"
keep = "24h"
[[group]]
name = "a"
max_lag = { lines = 5, policy = "drop" }
rate = 100
"#;
    let settings = read(text);
    assert_eq!(settings.disk.keep, Keep::Age(24 * 60 * 60 * 1_000));
    assert_eq!(settings.when_full, WhenFull::DropOldest);
    let group = settings.group("a").unwrap();
    assert_eq!(
        (group.max_lag.lines, group.max_lag.policy, group.rate),
        (Some(5), LagPolicy::Drop, Some(100))
    );
    assert_eq!(read("[disk]\nkeep = \"10GiB\"").disk.keep, Keep::Bytes(10 * GIB));
    check_problems(
        r#"
[disk]
limit = "256MiB"
reserve = "150MiB"
when_full = "drop_oldest"
keep = "256MiB"
[[group]]
name = "a"
max_lag = { policy = "drop" }
"#,
        &[
            "line 5: disk.when_full = \"drop_oldest\": leaves no segment to drop: disk.limit = \"256MiB\" is less than \
             disk.reserve = \"150MiB\" and 128MiB",
            "line 6: disk.keep = \"256MiB\": does not fit into disk.limit = \"256MiB\", below which retained lines are removed",
            "line 9: group.max_lag.policy = \"drop\": has no bound; write max_lag = { lines = 10000000, policy = \
             \"drop\" }, or age or bytes",
        ],
    );
    let least =
        |limit: &str, reserve: &str| format!("[disk]\nlimit = \"{limit}\"\nreserve = \"{reserve}\"\n");
    assert_eq!(read(&least("296MiB", "200MiB")).disk.limit_bytes, 296 * MIB);
    check_problems(
        &least("256MiB", "200MiB"),
        &[
            "line 2: disk.limit = \"256MiB\": leaves no space for lines: journals and one segment take 96MiB of \
           disk.limit = \"256MiB\", in addition to disk.reserve = \"200MiB\"; the smallest limit that works is \"296MiB\"",
        ],
    );
    check_problems(
        "[disk]\nkeep = \"a while\"\n",
        &["line 2: disk.keep = \"a while\": neither a duration nor a size; write it as \"24h\" or \"10GiB\""],
    );
}

#[test]
fn standard_input_is_followed_once() {
    let settings = read("[[follow]]\ninclude = [\"*.log\", \"-\"]\nmax_line_bytes = \"1MiB\"\n");
    assert_eq!(settings.follow[0].include, ["/etc/spillq/*.log", "-"]);
    let overrides = Overrides { follow: vec!["-".to_owned(), "./-".to_owned()], ..Overrides::default() };
    let loaded = load_with("", &sources(&[], overrides)).unwrap();
    assert_eq!(loaded.settings.follow[0].include, ["-", "/srv/-"]);
    let shown = as_toml(&loaded);
    assert_eq!(read(&shown), loaded.settings, "{shown}");
    let twice = "standard input is followed already, and can be read once; a file of that name is \"./-\"";
    check_problems(
        "[[follow]]\ninclude = [\"-\", \"-\"]\n[[follow]]\ninclude = [\"a\", \"-\"]\n",
        &[
            &format!("line 2: follow.include = \"-\": {twice}"),
            &format!("line 4: follow.include = \"-\": {twice}"),
        ],
    );
}
