//! The section `[[processor]]`: its kind, and which keys go with which kind.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::destination::{SecretAt, destination, secret_at};
use super::paths;
use super::read::group_name;
use super::scalar::{number, text, word};
use super::server::{self, Server};
use super::settings::{ENV_MAX, Input, Kind, Processor, Stream, Surroundings, Table, Word};
use super::written::{Reader, Section, VARIABLE_PREFIX};

/// The word in `kind`, before its other keys are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KindWord {
    Exec,
    ExecStream,
    Http,
    Redis,
    Postgres,
    Stdout,
    File,
}

impl Word for KindWord {
    const ALL: &'static [(&'static str, KindWord)] = &[
        ("exec", KindWord::Exec),
        ("exec-stream", KindWord::ExecStream),
        ("http", KindWord::Http),
        ("redis", KindWord::Redis),
        ("postgres", KindWord::Postgres),
        ("stdout", KindWord::Stdout),
        ("file", KindWord::File),
    ];
}

/// Each key and the kinds that it belongs to.
const KEYS: &[(&str, &[KindWord])] = &[
    ("command", &[KindWord::Exec, KindWord::ExecStream]),
    ("input", &[KindWord::Exec, KindWord::ExecStream]),
    ("cwd", &[KindWord::Exec, KindWord::ExecStream]),
    ("env", &[KindWord::Exec, KindWord::ExecStream]),
    ("dump_signal", &[KindWord::Exec, KindWord::ExecStream]),
    ("path", &[KindWord::File]),
    ("url", &[KindWord::Http, KindWord::Redis, KindWord::Postgres]),
    ("ca_file", &[KindWord::Http, KindWord::Redis, KindWord::Postgres]),
    ("format", &[KindWord::Http]),
    ("compression", &[KindWord::Http]),
    ("headers", &[KindWord::Http]),
    ("secret_headers", &[KindWord::Http]),
    ("password", &[KindWord::Redis, KindWord::Postgres]),
    ("stream", &[KindWord::Redis]),
    ("max_len", &[KindWord::Redis]),
    ("table", &[KindWord::Postgres]),
];

/// MAX_ARG_STRLEN of Linux: no command starts with a longer variable.
const VARIABLE_BYTES_MAX: usize = 128 * 1024;
/// Longer names of keys are a mistake.
const STREAM_BYTES_MAX: usize = 512;

pub(super) fn processor<'a>(reader: &mut Reader<'a>, mut section: Section<'a>, folder: &Path) -> Processor {
    let mut group = super::DEFAULT_GROUP.to_owned();
    reader.get(&mut section, "group", &mut group, text(group_name));
    let mut kind = None;
    if !reader.get(&mut section, "kind", &mut kind, |scalar| word(scalar).and_then(built).map(Some)) {
        let expected = format!(
            "says not what to do with batches; write {}",
            quoted(KindWord::ALL.iter().map(|(word, _)| *word))
        );
        reader.missing(&section, "kind", expected);
    }
    for (key, kinds) in KEYS {
        match kind {
            Some(kind) if kinds.contains(&kind) => {}
            Some(_) => {
                let words = kinds.iter().map(|kind| kind.word());
                reader.refuse(&mut section, key, &format!("belongs to kind = {}", quoted(words)));
            }
            // Which of the other keys belong there is unknown too: none is blamed. Its group is still checked.
            None => reader.ignore(&mut section, key),
        }
    }
    let section_of = &mut section;
    let kind = match kind {
        Some(KindWord::Exec) => Kind::Exec {
            command: command(reader, section_of, folder),
            input: input(reader, section_of),
            surroundings: surroundings(reader, section_of, folder),
        },
        Some(KindWord::ExecStream) => Kind::ExecStream {
            command: command(reader, section_of, folder),
            input: input(reader, section_of),
            surroundings: surroundings(reader, section_of, folder),
        },
        Some(KindWord::Http) => Kind::Http(destination(reader, section_of, folder)),
        Some(KindWord::Redis) => Kind::Redis(stream(reader, section_of, folder)),
        Some(KindWord::Postgres) => Kind::Postgres(table(reader, section_of, folder)),
        Some(KindWord::File) => {
            let mut path = folder.to_path_buf();
            let read = text(|written| paths::path(folder, written));
            if !reader.get(section_of, "path", &mut path, read) {
                reader.missing(section_of, "path", "names no file; write it as path = \"out.log\"");
            }
            Kind::File { path }
        }
        Some(KindWord::Stdout) | None => Kind::Stdout,
    };
    reader.finish(section);
    Processor { group, kind }
}

/// Some kinds can be left out of the program when it is built.
fn built(kind: KindWord) -> Result<KindWord, String> {
    let (is_built, feature) = match kind {
        KindWord::Redis => (cfg!(feature = "redis"), "redis"),
        KindWord::Postgres => (cfg!(feature = "postgres"), "postgres"),
        _ => (true, ""),
    };
    match is_built {
        true => Ok(kind),
        false => Err(format!("this program was built without it; build it with --features {feature}")),
    }
}

/// `"a", "b" or "c"`.
fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}

fn input<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>) -> Input {
    let mut input = Input::Lines;
    reader.get(section, "input", &mut input, word);
    input
}

fn command<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>, folder: &Path) -> Vec<OsString> {
    let mut words: Vec<String> = Vec::new();
    let before = reader.problems.len();
    let written = reader.list(section, "command", &mut words, |word| Ok(word.to_owned()));
    let program = words.first_mut().filter(|program| !program.is_empty());
    match program {
        // Without a slash it is looked up in PATH when it is started.
        Some(program) if program.contains('/') => match paths::path(folder, program) {
            Ok(path) => *program = path.to_string_lossy().into_owned(),
            Err(expected) => reader.missing(section, "command", expected),
        },
        Some(_) => {}
        None if written && reader.problems.len() > before => {}
        None => {
            reader.missing(section, "command", "names no program; write it as command = [\"./process.sh\"]")
        }
    }
    words.into_iter().map(Into::into).collect()
}

fn surroundings<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>, folder: &Path) -> Surroundings {
    let mut around = Surroundings::default_in(folder);
    let path = text(|written| match written.contains('\0') {
        true => Err("holds a NUL, which no path can".to_owned()),
        false => paths::path(folder, written),
    });
    reader.get(section, "cwd", &mut around.cwd, path);
    reader.texts(section, "env", &mut around.env, variable);
    if around.env.len() > ENV_MAX {
        let expected = format!("{} variables, at most {ENV_MAX}", around.env.len());
        reader.missing(section, "env", expected);
    }
    reader.get(section, "dump_signal", &mut around.dump_signal, |scalar| word(scalar).map(Some));
    around
}

/// What is wrong with a variable. Its value is never part of it.
fn variable(name: &str, value: &str) -> Result<(), String> {
    let shown = format!("{name:?}");
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("{shown} is not a name of a variable: it is empty, or holds = or NUL"));
    }
    if name.starts_with(VARIABLE_PREFIX) {
        return Err(format!("{shown} begins with {VARIABLE_PREFIX}: those are set by spillq"));
    }
    if value.contains('\0') {
        return Err(format!("the value of {shown} holds a NUL, which no variable can"));
    }
    // With = and the NUL at the end.
    if name.len() + value.len() + 2 > VARIABLE_BYTES_MAX {
        return Err(format!("{shown} with its value is longer than 128 KiB, the longest variable of Linux"));
    }
    Ok(())
}

fn stream<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>, folder: &Path) -> Stream {
    let server = server(reader, section, server::redis, "url = \"redis://localhost:6379\"");
    let mut stream = String::new();
    let name = text(|written| match written.len() {
        ..=STREAM_BYTES_MAX => Ok(written.to_owned()),
        _ => Err(format!("longer than {STREAM_BYTES_MAX} bytes")),
    });
    if !reader.get(section, "stream", &mut stream, name) {
        reader.missing(section, "stream", "names no stream; write it as stream = \"lines\"");
    }
    let mut max_len = 0;
    reader.get(section, "max_len", &mut max_len, number(0..=u64::MAX / 2));
    let password = password(reader, section, folder);
    if server.user.is_some() && password.is_none() {
        reader.missing(
            section,
            "password",
            "the url names a user; write password = \"file:PATH\" or \"env:VARIABLE\"",
        );
    }
    Stream { server, password, ca_file: ca_file(reader, section, folder), stream, max_len }
}

fn table<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>, folder: &Path) -> Table {
    let server = server(reader, section, server::postgres, "url = \"postgres://user@localhost/database\"");
    let mut table = String::new();
    let name =
        text(|written| match written.split('.').all(is_table_name) && written.matches('.').count() < 2 {
            true => Ok(written.to_owned()),
            false => {
                Err("not the name of a table; write \"table\" or \"schema.table\", as it is stored"
                    .to_owned())
            }
        });
    if !reader.get(section, "table", &mut table, name) {
        reader.missing(section, "table", "names no table; write it as table = \"lines\"");
    }
    let password = password(reader, section, folder);
    Table { server, password, ca_file: ca_file(reader, section, folder), table }
}

/// What PostgreSQL can store as a name.
fn is_table_name(name: &str) -> bool {
    (1..64).contains(&name.len()) && !name.contains('\0')
}

fn server<'a>(
    reader: &mut Reader<'a>,
    section: &mut Section<'a>,
    read: fn(&str) -> Result<Server, String>,
    example: &str,
) -> Server {
    let mut found = None;
    if !reader.get(section, "url", &mut found, text(|written| read(written).map(Some))) {
        reader.missing(section, "url", format!("names no server; write it as {example}"));
    }
    found.unwrap_or_else(Server::unread)
}

fn password<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>, folder: &Path) -> Option<SecretAt> {
    let mut password = None;
    let read = text(|written| secret_at(folder, written).map(Some));
    reader.get(section, "password", &mut password, read);
    password
}

fn ca_file<'a>(reader: &mut Reader<'a>, section: &mut Section<'a>, folder: &Path) -> Option<PathBuf> {
    let mut file = None;
    reader.get(section, "ca_file", &mut file, text(|written| paths::path(folder, written).map(Some)));
    file
}
