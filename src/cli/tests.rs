//! The command line as a contract: what it accepts, what it refuses, and that everything has help.

use clap::CommandFactory;

use super::*;

/// Every table, so that those whose command is still to come are checked too.
#[derive(Debug, Parser)]
#[command(name = "spillq")]
enum Whole {
    Run(RunArgs),
    Drain(DrainArgs),
    Demo(DemoArgs),
    Status(StatusArgs),
    Inspect(InspectArgs),
    Verify(VerifyArgs),
    DeadLetter(DeadLetterArgs),
    Group(GroupArgs),
    Config(ConfigArgs),
    BenchGenerate(BenchGenerateArgs),
    BenchIngest(BenchIngestArgs),
    BenchDrain(BenchDrainArgs),
}

fn parse(line: &str) -> Result<Whole, clap::Error> {
    Whole::try_parse_from(["spillq"].into_iter().chain(line.split_whitespace()))
}

#[track_caller]
fn check_refused(line: &[&str], expected: &str) {
    let error = Whole::try_parse_from(["spillq"].iter().chain(line)).unwrap_err();
    assert_eq!(usage(&error).as_deref(), Some(expected));
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn the_tables_are_consistent() {
    Cli::command().debug_assert();
    Whole::command().debug_assert();
}

#[test]
fn every_command_has_one_line_of_help_without_a_full_stop() {
    for command in Whole::command().get_subcommands().chain(Cli::command().get_subcommands()) {
        for command in std::iter::once(command).chain(command.get_subcommands()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(
                !about.is_empty() && !about.ends_with('.') && !about.contains('\n'),
                "{}: {about:?}",
                command.get_name()
            );
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }
}

#[test]
fn run_takes_globs_options_and_a_command() {
    let line =
        "run --data-dir ./q --follow a*.log --follow b*.log --from end --group fills --once -- ./p.sh -x";
    let Whole::Run(args) = parse(line).unwrap() else {
        panic!("not run");
    };
    assert_eq!(
        args.overrides(),
        Overrides {
            data_dir: Some("./q".into()),
            follow: vec!["a*.log".to_owned(), "b*.log".to_owned()],
            from: Some(crate::tail::From::End),
            group: Some("fills".to_owned()),
            command: vec!["./p.sh".into(), "-x".into()],
        }
    );
    assert!(args.once);
    let Whole::Run(args) = parse("run --follow a.log b.log -- cat").unwrap() else {
        panic!("not run");
    };
    assert_eq!(args.follow.len(), 2, "a glob that the shell took apart");
}

#[test]
fn the_contract_is_taken() {
    for line in [
        "run",
        "run --config spillq.toml",
        "drain --data-dir q --config f --group g --max-lines 1_000 --for 1h30m --rate 5 -- cat",
        "demo",
        "status --data-dir q --json --watch",
        "inspect --data-dir q --from 5 --limit 3 --json",
        "verify --data-dir q --json",
        "dead-letter list --data-dir q --group g --json",
        "dead-letter show --data-dir q 5",
        "dead-letter retry --data-dir q --group g 5 7-9",
        "dead-letter discard --data-dir q --all",
        "dead-letter park --data-dir q 5",
        "group list --data-dir q",
        "group add --data-dir q fills --start end",
        "group remove --data-dir q fills",
        "group pause --data-dir q fills",
        "group resume --data-dir q fills",
        "group seek --data-dir q fills --to 5",
        "group seek --data-dir q fills --to 24h",
        "group seek --data-dir q fills --to 2026-03-01T08:00:00Z",
        "group seek --data-dir q fills --to beginning",
        "config check f",
        "config check --config f",
        "config show --json",
        "config init f",
        "bench-generate 10 --seed 4",
        "bench-ingest --lines 10 --json",
        "bench-drain --dir d --json",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn the_contract_refuses() {
    for line in [
        "",
        "run --from middle",
        "run cat",
        "dead-letter retry",
        "dead-letter retry 5 --all",
        "dead-letter park",
        "group add",
        "group seek fills",
        "group seek fills --to yesterday",
        "group seek fills --to 0",
        "config check a --config b",
        "bench-generate",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert_eq!(parse("run --help").unwrap_err().exit_code(), 0);
}

#[test]
fn values_that_are_none_are_told_in_one_line_with_an_example() {
    check_refused(
        &["drain", "--for", "5 parsecs"],
        "--for 5 parsecs: not a duration; write it as 90s, 10m or 1h30m",
    );
    check_refused(
        &["drain", "--rate", "fast"],
        "--rate fast: not a number of lines; write it as 1000000 or 1_000_000",
    );
    check_refused(
        &["run", "--group", "No Name"],
        "--group No Name: not a group's name; it takes 1 to 64 of a-z, 0-9, _ and -",
    );
    check_refused(&["inspect", "--from", "0"], "--from 0: not a seq; seqs are numbers from 1");
    check_refused(
        &["dead-letter", "show", "9-5"],
        "[SEQ]... 9-5: neither a seq nor a range of them; write it as 100 or 100-120",
    );
}
