//! Rules of the code base that a compiler cannot hold: who may use whom, that every module says what it is for,
//! that no file is long without a reason, and that every dependency is argued for.
//!
//! Each rule is a function of text, and is shown to fail on a text that breaks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A logic file wants a reason to pass this. Tests are not counted.
const LINES_MAX: usize = 400;

/// Which modules of the service a module may use, itself aside. Who is not listed may use anybody.
const MAY_USE: &[(&str, &[&str])] = &[
    ("config", &["plain"]),
    ("queue", &["plain"]),
    ("plain", &[]),
    ("tail", &["plain", "queue", "unreadable"]),
    ("cgroup", &[]),
    ("unreadable", &[]),
    ("file_limit", &[]),
    ("processor", &["cgroup", "file_limit", "plain", "queue"]),
    ("supervise", &["cgroup", "plain", "queue", "unreadable"]),
    ("metrics", &["plain", "queue", "supervise", "tail"]),
    ("http", &["metrics", "plain", "queue", "supervise", "tail"]),
];

/// Crates that storage knows nothing of: followed files, async, wire and config.
const NOT_IN_STORAGE: &[&str] =
    &["axum", "clap", "globset", "hyper", "notify", "serde", "serde_json", "spillq", "tokio", "toml"];

/// Crates that only some modules of the service may use.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("toml", &["config"]),
    ("tracing_subscriber", &["messages"]),
    ("ratatui", &["cmd"]),
    ("axum", &["http"]),
    ("hyper", &["http", "processor"]),
    ("hyper_util", &["http", "processor"]),
    ("tokio_postgres", &["processor"]),
    ("tokio_rustls", &["processor"]),
];

/// Where decisions are made: by values, never by the text of a message.
const DECIDES_BY_VALUES: &[&str] = &["src/queue", "src/supervise"];

/// How code looks into a text.
const LOOKS_INTO_TEXT: &[&str] =
    &["starts_with(", "ends_with(", "contains(\"", "split_once(", "strip_prefix(", "== \"", "!= \"", "\" =>"];

/// Lines that may, with the reason.
const MAY_LOOK_INTO_TEXT: &[(&str, &str, &str)] = &[(
    "src/supervise/supervisor.rs",
    "failure.split_once('\\n')",
    "shows the summary apart from the output",
)];

/// Long files whose reason is not in them.
const LONG: &[(&str, &str)] = &[(
    "storage/src/block.rs",
    "one format on disk: what encodes it and what checks it are read side by side",
)];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Every file of `folders` with its path from the root and its text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let files: Vec<_> = folders
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(!files.is_empty(), "no files in {folders:?}");
    files
}

/// The part before the tests.
fn logic(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |tests| &text[..tests])
}

/// `src/queue/command.rs` belongs to `queue`, `src/main.rs` to `main`.
fn module_of(file: &str) -> Option<&str> {
    let below = file.strip_prefix("src/")?;
    Some(below.split(['/', '.']).next().unwrap_or(below))
}

/// The first names after each `root::` in code: `crate::queue::Handle` and `crate::{queue, tail}` alike.
fn used<'t>(text: &'t str, root: &str) -> BTreeSet<&'t str> {
    let mut used = BTreeSet::new();
    let start = format!("{root}::");
    for (at, _) in text.match_indices(&start) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(name(rest));
            continue;
        };
        let (mut depth, mut from) = (1, 0);
        for (end, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || depth == 0 {
                used.insert(name(group[from..end].trim()));
                from = end + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    used.remove("");
    used
}

fn name(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Whether code names the crate, in a path or an attribute.
fn names_crate(text: &str, name: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| !used(line, name).is_empty())
}

fn wrong_uses(file: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(file) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    if let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) {
        // Types of the own module's parents, such as `crate::Something`, begin with a capital.
        let modules = used(logic(text), "crate").into_iter();
        let modules = modules.filter(|name| name.starts_with(|c: char| c.is_lowercase()));
        for other in modules.filter(|name| *name != module && !allowed.contains(name)) {
            wrong.push(format!("{file}: {module} may not use {other}"));
        }
    }
    for (name, allowed) in ONLY_IN {
        if !allowed.contains(&module) && names_crate(logic(text), name) {
            wrong.push(format!("{file}: {name} belongs to {}", allowed.join(", ")));
        }
    }
    wrong
}

fn is_without_purpose(text: &str) -> bool {
    !text.starts_with("//! ")
}

fn is_long_without_reason(text: &str) -> bool {
    logic(text).lines().count() > LINES_MAX && !text.lines().any(|line| line.starts_with("// long: "))
}

/// Lines of logic that look into a text.
fn looks_into_text(file: &str, text: &str) -> Vec<String> {
    let may = |line: &str| {
        MAY_LOOK_INTO_TEXT.iter().any(|(other, allowed, _)| *other == file && line.contains(allowed))
    };
    let lines = logic(text).lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .filter(|line| LOOKS_INTO_TEXT.iter().any(|look| line.contains(look)) && !may(line))
        .map(|line| format!("{file}: {}", line.trim()))
        .collect()
}

/// Examples in documentation, which nothing would run: `doctest = false` (they would be built after the list of what was
/// skipped, which has to come last). One that is a picture or an output says `text`.
fn examples_that_nobody_runs(text: &str) -> usize {
    let lines = text.lines().map(str::trim_start);
    let comments = lines.filter_map(|line| line.strip_prefix("///").or_else(|| line.strip_prefix("//!")));
    let fences = comments.map(str::trim).filter(|line| line.starts_with("```"));
    fences.step_by(2).filter(|fence| *fence != "```text").count()
}

/// The names in the dependency sections of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = matches!(line, "[dependencies]" | "[dev-dependencies]" | "[build-dependencies]");
        } else if inside && line.contains('=') {
            names.insert(line.split([' ', '.', '=']).next().unwrap_or_default());
        }
    }
    names
}

#[test]
fn modules_use_only_whom_they_may() {
    let wrong: Vec<_> = sources(&["src"]).iter().flat_map(|(file, text)| wrong_uses(file, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn storage_knows_no_files_async_wire_or_config() {
    let manifest = fs::read_to_string(root().join("storage/Cargo.toml")).unwrap();
    let known = dependencies(&manifest);
    let wrong: Vec<_> = NOT_IN_STORAGE.iter().filter(|name| known.contains(*name)).collect();
    assert!(wrong.is_empty(), "storage/Cargo.toml names {wrong:?}");
}

#[test]
fn the_queue_and_the_supervisor_decide_by_values() {
    let wrong: Vec<_> = sources(DECIDES_BY_VALUES)
        .iter()
        .filter(|(file, _)| !file.ends_with("tests.rs"))
        .flat_map(|(file, text)| looks_into_text(file, text))
        .collect();
    assert!(wrong.is_empty(), "these look into a text; decide by an enum instead:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let wrong: Vec<_> = sources(&[
        "src",
        "storage/src",
        "torture/src",
        "fuzz/src",
        "fuzz/fuzz_targets",
        "tests",
        "storage/tests",
        "torture/tests",
    ])
    .into_iter()
    .filter(|(_, text)| is_without_purpose(text))
    .map(|(file, _)| file)
    .collect();
    assert!(wrong.is_empty(), "these do not begin with //!: {wrong:?}");
}

#[test]
fn no_documentation_has_an_example_that_nobody_runs() {
    let wrong: Vec<_> = sources(&["src", "storage/src", "torture/src"])
        .into_iter()
        .filter(|(_, text)| examples_that_nobody_runs(text) > 0)
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "examples in documentation are not run: make tests of those in {wrong:?}");
}

#[test]
fn no_file_is_long_without_a_reason() {
    let wrong: Vec<_> = sources(&["src", "storage/src", "torture/src", "fuzz/src", "fuzz/fuzz_targets"])
        .into_iter()
        .filter(|(file, _)| !file.ends_with("tests.rs") && !LONG.iter().any(|(long, _)| long == file))
        .filter(|(_, text)| is_long_without_reason(text))
        .map(|(file, text)| format!("{file}: {} lines", logic(&text).lines().count()))
        .collect();
    assert!(
        wrong.is_empty(),
        "over {LINES_MAX} lines, tests aside, and without a line `// long: REASON`: {wrong:?}"
    );
}

#[test]
fn every_dependency_is_argued_for() {
    let manifests = ["Cargo.toml", "storage/Cargo.toml", "torture/Cargo.toml", "fuzz/Cargo.toml"]
        .map(|file| fs::read_to_string(root().join(file)).unwrap());
    let used: BTreeSet<_> = manifests.iter().flat_map(|text| dependencies(text)).collect();
    let page = fs::read_to_string(root().join("docs/contributing/dependencies.md")).unwrap();
    let argued: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|name| *name != "crate")
        .collect();
    assert_eq!(argued, used, "docs/contributing/dependencies.md (left) and the manifests (right)");
}

#[test]
fn the_rules_fail_on_what_breaks_them() {
    let queue =
        "//! x\nuse crate::{processor::{Batch, Outcome}, queue::Handle};\nfn f() { crate::tail::g() }\n";
    assert_eq!(
        wrong_uses("src/queue/x.rs", queue),
        ["src/queue/x.rs: queue may not use processor", "src/queue/x.rs: queue may not use tail"]
    );
    assert_eq!(wrong_uses("src/tail.rs", "use crate::queue::Handle;\nuse crate::Thing;\n"), [""; 0]);
    assert_eq!(
        wrong_uses("src/cmd/x.rs", "// toml::Table\nuse clap::Parser;\n"),
        ["src/cmd/x.rs: clap belongs to cli, main"]
    );
    let reads = "if why.starts_with(\"damage\") {}\n// starts_with(\"x\")\nmatch word { \"idle\" => {} }\n";
    assert_eq!(looks_into_text("src/queue/x.rs", reads).len(), 2);
    assert_eq!(looks_into_text("src/queue/x.rs", "Phase::Idle => State::Idle.word(),\n"), [""; 0]);
    assert!(is_without_purpose("use std::fs;\n"));
    assert_eq!(examples_that_nobody_runs("/// ```text\n/// a\n/// ```\n"), 0);
    assert_eq!(examples_that_nobody_runs("/// ```text\n/// a\n/// ```\n  //! ```\n//! f();\n//! ```\n"), 1);
    let long = "line\n".repeat(LINES_MAX + 1);
    assert!(is_long_without_reason(&long));
    assert!(!is_long_without_reason(&format!("// long: a table\n{long}")));
    let tested = format!("line\n#[cfg(test)]\nmod tests {{\n{long}");
    assert!(!is_long_without_reason(&tested));
    assert_eq!(
        dependencies("[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n"),
        BTreeSet::from(["a", "b"])
    );
}
