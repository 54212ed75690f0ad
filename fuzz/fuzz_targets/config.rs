//! The configuration: a file, variables and options.
//!
//! Whatever they are: settings, or at least one problem, each with a key and a reason on one line that no terminal acts
//! on. Settings that are accepted can be shown, and what `config show` prints gives the same settings when it
//! is read, but for the query of a URL and the values of `env`, which are secrets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spillq::config::{ConfigError, Overrides, Sources, as_json, as_toml, load_given};
use spillq::tail::From;
use spillq_fuzz::Choices;

const VARIABLES: &[&str] = &[
    "SPILLQ_DATA_DIR",
    "SPILLQ_DISK_LIMIT",
    "SPILLQ_DISK_KEEP",
    "SPILLQ_DISK_WHEN_FULL",
    "SPILLQ_WINDOW_BYTES",
    "SPILLQ_STALL_AFTER",
    "SPILLQ_GROUP",
];

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let mut sources = Sources { working_dir: "/work".into(), ..Sources::default() };
    let how = choices.byte();
    let mut word = || String::from_utf8_lossy(choices.take(12)).into_owned();
    if how & 3 == 1 {
        let variable = VARIABLES[usize::from(how >> 2) % VARIABLES.len()];
        sources.environment.insert(variable.to_owned(), word());
    }
    if how & 3 == 2 {
        sources.overrides = match how >> 2 & 7 {
            0 => Overrides { data_dir: Some(word().into()), ..Overrides::default() },
            1 => Overrides { follow: vec![word()], ..Overrides::default() },
            2 => Overrides { from: Some(From::End), ..Overrides::default() },
            3 => Overrides { group: Some(word()), ..Overrides::default() },
            4 => Overrides { group: Some(word()), command: vec![word().into()], ..Overrides::default() },
            _ => Overrides { command: vec!["cat".into(), word().into()], ..Overrides::default() },
        };
    }
    let text = String::from_utf8_lossy(choices.0);
    let loaded = match load_given(&text, &sources) {
        Ok(loaded) => loaded,
        Err(ConfigError::Problems { problems, .. }) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.key.is_empty() && !problem.expected.is_empty(), "{problem:?}");
                let line = problem.to_string();
                assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
                assert!(
                    problem.line.is_none_or(|line| line <= text.matches('\n').count() + 1),
                    "{problem:?}"
                );
            }
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert!(as_json(&loaded).is_object());
    let shown = as_toml(&loaded);
    let plain = Sources { working_dir: "/work".into(), ..Sources::default() };
    match load_given(&shown, &plain) {
        Ok(again) => assert_eq!(again.settings, loaded.settings, "{shown}"),
        Err(error) => assert!(text.contains('?') || text.contains("env"), "{error:?}\n{shown}"),
    }
});
