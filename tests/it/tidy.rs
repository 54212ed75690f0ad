//! Rules of the code base that a compiler cannot hold: who may use whom, that every module says what it is for,
//! that no file is long without a reason, and that every dependency is argued for.
//!
//! Each rule is a function of text, and is shown to fail on a text that breaks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use imports::Imports;

mod imports;

/// A logic file wants a reason to pass this. Tests are not counted.
const LINES_MAX: usize = 400;

/// Which modules of the service a module may use, itself aside. Who is not listed may use anybody.
const MAY_USE: &[(&str, &[&str])] = &[
    ("config", &["globs", "plain", "processor", "queue", "secret", "supervise", "tail"]),
    ("consumers", &["plain", "processor", "queue", "secret"]),
    ("queue", &["globs", "plain", "secret"]),
    ("secret", &[]),
    ("globs", &[]),
    ("plain", &[]),
    ("tail", &["globs", "plain", "queue", "unreadable"]),
    ("cgroup", &[]),
    ("unreadable", &[]),
    ("file_limit", &[]),
    ("processor", &["cgroup", "file_limit", "plain", "queue", "secret"]),
    ("supervise", &["cgroup", "consumers", "plain", "queue", "unreadable"]),
    ("metrics", &["consumers", "plain", "queue", "supervise", "tail"]),
    ("http", &["consumers", "metrics", "plain", "queue", "supervise", "tail", "unreadable"]),
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

/// Files that still import each other in a circle. Nothing is added here.
const CIRCLES_LEFT: &[&str] = &[];

/// The layers of the tail, from the top: each file or folder belongs to one, and a file imports nothing from a layer above
/// its own (docs/decisions/0007-tail-in-layers.md).
const TAIL_LAYERS: &[&[&str]] = &[
    &["fuzzing", "mod"],
    &["thread"],
    &["worker"],
    &["append", "checkpoint", "scan", "turn"],
    &["rules"],
    &["pipes"],
    &["find"],
    &["bytes"],
    &["known"],
    &["bell", "clock", "error", "settings", "status"],
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

/// What the files of a crate use that they may not.
fn wrong_uses(imports: &Imports) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    for (file, used, _) in imports.edges() {
        let (Some(module), Some(other)) = (module_of(file), module_of(used)) else {
            continue;
        };
        let allowed = MAY_USE.iter().find(|(name, _)| *name == module).map(|(_, allowed)| allowed);
        if other != module && allowed.is_some_and(|allowed| !allowed.contains(&other)) {
            wrong.insert(format!("{file}: {module} may not use {other}"));
        }
    }
    for (file, named) in imports.crates() {
        let module = module_of(file).unwrap_or_default();
        for (_, allowed) in ONLY_IN.iter().filter(|(name, _)| *name == named) {
            if !allowed.contains(&module) {
                wrong.insert(format!("{file}: {named} belongs to {}", allowed.join(", ")));
            }
        }
    }
    wrong.into_iter().collect()
}

/// Files that import each other in a circle, except for those that are known to; and what is known in vain.
fn wrong_circles(imports: &Imports, known: &[&str]) -> Vec<String> {
    let circles = imports.circles();
    let mut wrong: Vec<_> = circles
        .iter()
        .filter(|circle| !circle.iter().all(|file| known.contains(file)))
        .map(|circle| format!("these import each other in a circle:\n{}", imports.describe(circle)))
        .collect();
    let in_circles: BTreeSet<_> = circles.into_iter().flatten().collect();
    let gone = known.iter().filter(|file| !in_circles.contains(*file));
    wrong.extend(gone.map(|file| format!("{file} is in no circle any more: take it off CIRCLES_LEFT")));
    wrong
}

/// Which layer of the tail a file belongs to; 0 is the top.
fn tail_layer(file: &str) -> Option<usize> {
    let name = file.strip_prefix("src/tail/")?.split(['/', '.']).next()?;
    TAIL_LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Imports of a file of the tail from a layer above its own, and files without a layer.
fn wrong_layers(imports: &Imports) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    let in_tail = |file: &&str| file.starts_with("src/tail/") && !file.starts_with("src/tail/tests/");
    for (file, used, names) in imports.edges() {
        for file in [file, used].into_iter().filter(in_tail).filter(|file| tail_layer(file).is_none()) {
            wrong.insert(format!("{file} is in no layer: add it to TAIL_LAYERS"));
        }
        if let (Some(layer), Some(other)) = (tail_layer(file), tail_layer(used))
            && other < layer
        {
            let names = Vec::from_iter(names.iter().map(String::as_str)).join(", ");
            wrong.insert(format!("{file} imports {names} from {used}, which is in a layer above"));
        }
    }
    wrong.into_iter().collect()
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

/// Whether `cargo test` runs the examples in the documentation of a package.
fn runs_examples(manifest: &str) -> bool {
    !manifest.lines().any(|line| line == "doctest = false")
}

/// Examples in documentation that nothing runs: all of them in a package without doctests, otherwise those with `ignore` or
/// `no_run`. Text that is not an example is marked `text`. Doctests run after the list of what was skipped, so only a
/// package whose examples need nothing of the machine may have them.
fn examples_that_nobody_runs(text: &str, are_run: bool) -> usize {
    let lines = text.lines().map(str::trim_start);
    let comments = lines.filter_map(|line| line.strip_prefix("///").or_else(|| line.strip_prefix("//!")));
    let fences = comments.map(str::trim).filter(|line| line.starts_with("```"));
    fences.step_by(2).filter(|fence| *fence != "```text" && !(are_run && *fence == "```")).count()
}

/// The pages of the documentation, from the root.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !matches!(name.as_str(), "target" | "corpus") {
                folders.push(path);
            } else if name.ends_with(".md") {
                pages.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    pages.sort();
    pages
}

/// The files that a page links to, as written.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

fn dead_links(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let folder = root().join(page);
    let dead = links(&text).into_iter().filter(|target| !folder.with_file_name(target).exists());
    dead.map(|target| format!("{page}: {target} does not exist")).collect()
}

/// The names of tests that a page cites: words of code of at least four parts. Those of metrics are not of Rust.
fn cited_tests(page: &str) -> impl Iterator<Item = &str> {
    let names = page.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit("::").next());
    names.filter(|name| {
        let is_name = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        is_name && name.split('_').count() > 3 && !name.starts_with("spillq_")
    })
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
    let sources = sources(&["src"]);
    for root in ["lib.rs", "main.rs"] {
        let wrong = wrong_uses(&Imports::of("src", root, &sources));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for folder in ["src", "storage/src", "torture/src"] {
        let imports = Imports::of(folder, "lib.rs", &sources(&[folder]));
        let known: Vec<_> =
            CIRCLES_LEFT.iter().copied().filter(|file| file.starts_with(&format!("{folder}/"))).collect();
        wrong.extend(wrong_circles(&imports, &known));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tail_imports_only_downwards() {
    let imports = Imports::of("src", "lib.rs", &sources(&["src"]));
    let wrong = wrong_layers(&imports);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_in_the_documentation_leads_to_a_file() {
    let pages = pages();
    assert!(pages.len() > 20, "only {pages:?}");
    let wrong: Vec<_> = pages.iter().flat_map(|page| dead_links(page)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a page says that a test shows can be looked up there.
#[test]
fn every_test_that_the_documentation_cites_is_there() {
    let sources = sources(&["src", "storage", "tests", "torture/src", "fuzz/src", "fuzz/fuzz_targets"]);
    let is_in_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let known: BTreeSet<&str> =
        sources.iter().flat_map(|(_, text)| text.split(|letter| !is_in_name(letter))).collect();
    // The change log names what has gone.
    let pages = pages().into_iter().filter(|page| page != "CHANGELOG.md");
    let texts: Vec<_> = pages.map(|page| (fs::read_to_string(root().join(&page)).unwrap(), page)).collect();
    let cited: Vec<_> =
        texts.iter().flat_map(|(text, page)| cited_tests(text).map(move |name| (name, page))).collect();
    assert!(cited.len() > 50, "only {cited:?}");
    let wrong: Vec<_> = cited.iter().filter(|(name, _)| !known.contains(name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
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
    let packages =
        [("src", "Cargo.toml"), ("storage/src", "storage/Cargo.toml"), ("torture/src", "torture/Cargo.toml")];
    let wrong: Vec<_> = packages
        .into_iter()
        .flat_map(|(folder, manifest)| {
            let are_run = runs_examples(&fs::read_to_string(root().join(manifest)).unwrap());
            sources(&[folder])
                .into_iter()
                .filter(move |(_, text)| examples_that_nobody_runs(text, are_run) > 0)
        })
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
    let manifests =
        ["Cargo.toml", "storage/Cargo.toml", "torture/Cargo.toml", "plots/Cargo.toml", "fuzz/Cargo.toml"];
    let manifests = manifests.map(|file| fs::read_to_string(root().join(file)).unwrap());
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
    let files = |files: &[(&str, &str)]| -> Vec<(String, String)> {
        files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    };
    // A re-export leads to where the name is; tests may use anybody; a module that is only named is not used.
    let house = files(&[
        ("src/lib.rs", "mod queue; mod tail; mod processor; struct Thing;"),
        (
            "src/queue.rs",
            "use crate::{processor::{Batch, Outcome}, tail}; fn f() { warn!(\"{}\", tail::g()) }\n\
             #[cfg(test)] mod tests { use crate::cmd::X; }",
        ),
        ("src/tail/mod.rs", "mod a; mod b; pub(crate) use a::g;"),
        ("src/tail/a.rs", "use toml::Table; use super::b::B; use crate::Thing; pub fn g() {}"),
        ("src/tail/b.rs", "use std::fmt; pub struct B; fn f(_: super::a::A) {}"),
        ("src/processor.rs", "pub struct Batch; pub struct Outcome;"),
    ]);
    let house = Imports::of("src", "lib.rs", &house);
    assert_eq!(
        wrong_uses(&house),
        [
            "src/queue.rs: queue may not use processor",
            "src/queue.rs: queue may not use tail",
            "src/tail/a.rs: tail may not use lib",
            "src/tail/a.rs: toml belongs to config",
        ]
    );
    let edges: Vec<_> = house.edges().map(|(file, used, _)| format!("{file} {used}")).collect();
    assert_eq!(
        edges,
        [
            "src/queue.rs src/processor.rs",
            "src/queue.rs src/tail/a.rs",
            "src/tail/a.rs src/lib.rs",
            "src/tail/a.rs src/tail/b.rs",
            "src/tail/b.rs src/tail/a.rs",
        ]
    );
    let wrong = wrong_circles(&house, &[]);
    assert_eq!(
        wrong,
        ["these import each other in a circle:\n  src/tail/a.rs -> src/tail/b.rs (B)\n  \
          src/tail/b.rs -> src/tail/a.rs (A)"]
    );
    assert_eq!(wrong_circles(&house, &["src/tail/a.rs", "src/tail/b.rs"]), [""; 0]);
    assert_eq!(wrong_circles(&house, &["src/tail/a.rs", "src/tail/b.rs", "src/queue.rs"]).len(), 1);
    let tail = [
        ("src/lib.rs", "mod tail;"),
        ("src/tail/mod.rs", "mod bell; mod known; mod other;"),
        ("src/tail/bell.rs", "use crate::tail::known::Source; pub struct Bell;"),
        ("src/tail/known.rs", "use crate::tail::bell::Bell; pub struct Source;"),
        ("src/tail/other.rs", "use crate::tail::bell::Bell;"),
    ];
    let tail = Imports::of("src", "lib.rs", &tail.map(|(file, text)| (file.to_owned(), text.to_owned())));
    assert_eq!(
        wrong_layers(&tail),
        [
            "src/tail/bell.rs imports Source from src/tail/known.rs, which is in a layer above",
            "src/tail/other.rs is in no layer: add it to TAIL_LAYERS",
        ]
    );
    assert_eq!(links("[a](b.md) ![c](d.svg#e) [f](https://g) [h](#i)"), ["b.md", "d.svg"]);
    let page = "`a::one_two_three_four` and `no_name` one_two_three_five `spillq_one_two_three` `One_two_three_four`";
    assert_eq!(cited_tests(page).collect::<Vec<_>>(), ["one_two_three_four"]);
    let reads = "if why.starts_with(\"damage\") {}\n// starts_with(\"x\")\nmatch word { \"idle\" => {} }\n";
    assert_eq!(looks_into_text("src/queue/x.rs", reads).len(), 2);
    assert_eq!(looks_into_text("src/queue/x.rs", "Phase::Idle => State::Idle.word(),\n"), [""; 0]);
    assert!(is_without_purpose("use std::fs;\n"));
    assert!(runs_examples("[lib]\nname = \"x\"\n") && !runs_examples("[lib]\ndoctest = false\n"));
    let text = "/// ```text\n/// a\n/// ```\n";
    let example = format!("{text}  //! ```\n//! f();\n//! ```\n");
    let ignored = format!("{example}/// ```no_run\n/// f();\n/// ```\n");
    assert_eq!([text, &example, &ignored].map(|text| examples_that_nobody_runs(text, false)), [0, 1, 2]);
    assert_eq!([text, &example, &ignored].map(|text| examples_that_nobody_runs(text, true)), [0, 0, 1]);
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
