//! What comes with the program: the example configurations, tried with real files, and the unit file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Bounded, binary, needs, program, run, spillq};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_commands_of_the_readme_work_as_they_are_pasted() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = readme.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let pasted = blocks.find(|block| block.starts_with("mkdir ")).expect("commands in an empty folder");
    // `run` may need an option where temporary folders are on a file system that keeps nothing.
    let run: Vec<_> = spillq(&["run"]).get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let run = run.join(" ");
    let script = format!(
        "set -e\nspillq() {{ [ \"$1\" != run ] || set -- {run} \"${{@:2}}\"; command spillq \"$@\"; }}\n{pasted}"
    );
    let folder = tempfile::tempdir().unwrap();
    let program_dir = binary().parent().unwrap().display().to_string();
    let path = format!("{program_dir}:{}", std::env::var("PATH").unwrap());
    let mut shell = program("bash");
    shell.args(["-c", &script]).current_dir(folder.path());
    let output = shell.env("PATH", path).env("SPILLQ_DISK_MIN_FREE", "1MiB").finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"1000"), Some(&"500")), "{printed}");
    assert!(printed.contains("500 lines wait"), "{printed}");
}

/// Every configuration that comes with the program.
fn configurations() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["config", "deploy"]
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_configuration_is_fine_and_without_a_warning() {
    let files = configurations();
    let names: Vec<_> =
        files.iter().map(|file| file.strip_prefix(root()).unwrap().to_str().unwrap()).collect();
    let expected = [
        "config/clickhouse.toml",
        "config/elasticsearch.toml",
        "config/hourly-files.toml",
        "config/kafka.toml",
        "config/loki.toml",
        "config/many-services.toml",
        "config/nats.toml",
        "config/nginx.toml",
        "config/postgres.toml",
        "config/redis.toml",
        "config/s3.toml",
        "config/spillq.toml",
        "config/victoria-logs.toml",
        "deploy/compose.toml",
        "deploy/spillq.toml",
    ];
    assert_eq!(names, expected);
    let is_built = |file: &&PathBuf| cfg!(feature = "kafka") || !file.ends_with("config/kafka.toml");
    for file in files.iter().filter(is_built) {
        let output = spillq(&["config", "check"]).arg(file).finished();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{}: {told}", file.display());
        let summary = String::from_utf8(output.stdout).unwrap();
        assert!(summary.starts_with(&format!("{}: valid\n", file.display())), "{summary}");
        // What they name is not on this machine, or only root may look into it; nothing else is odd.
        let is_absent = |line: &&str| {
            let is_denied = !rustix::process::geteuid().is_root() && line.contains("Permission denied");
            line.ends_with("matches no file yet") || line.contains("No such file") || is_denied
        };
        let odd = summary.lines().filter(|line| line.starts_with("warning: ")).find(|line| !is_absent(line));
        assert_eq!(odd, None, "{}", file.display());
    }
}

/// The configuration, moved with all its paths below `folder`, where a program appends its batches to `got`.
fn moved(name: &str, folder: &Path) -> PathBuf {
    let below = format!("\"{}/", folder.display());
    let text = fs::read_to_string(root().join("config").join(name)).unwrap().replace("\"/", &below);
    let programs = folder.join("usr/local/bin");
    fs::create_dir_all(&programs).unwrap();
    for line in text.lines().filter(|line| line.starts_with("command = [")) {
        let program = line.split('"').nth(1).unwrap();
        fs::write(program, format!("#!/bin/sh\ncat >> {}/got\n", folder.display())).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = folder.join(name);
    fs::write(&config, text).unwrap();
    config
}

/// Runs the example over `files` with a line each; returns what its program got.
#[track_caller]
fn try_out(name: &str, folder: &Path, files: &[&str]) -> String {
    let config = moved(name, folder);
    for file in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("line of {file}\n")).unwrap();
    }
    // Free space on the machine of the tests does not matter to the example.
    let output =
        spillq(&["run", "--once", "--config"]).arg(&config).env("SPILLQ_DISK_MIN_FREE", "1MiB").finished();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !messages.contains("WARN"), "{name}: {messages}");
    fs::read_to_string(folder.join("got")).unwrap_or_default()
}

#[test]
fn the_hourly_files_of_a_node_reach_the_program_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        "var/lib/node/data/node_fills/hourly/20251007/15",
        "var/lib/node/data/node_fills/hourly/20251007/16",
    ];
    let got = try_out("hourly-files.toml", folder.path(), &files);
    assert_eq!(got, files.map(|file| format!("line of {file}\n")).concat());
}

#[test]
fn the_logs_of_nginx_are_shipped_from_now_on() {
    let folder = tempfile::tempdir().unwrap();
    let before = try_out("nginx.toml", folder.path(), &["var/log/nginx/access.log"]);
    assert_eq!(before, "", "what was there before the first start");
    let got =
        try_out("nginx.toml", folder.path(), &["var/log/nginx/error.log", "var/log/nginx/access.log.1"]);
    let lines: Vec<serde_json::Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{got}");
    assert_eq!(lines[0]["text"], "line of var/log/nginx/error.log");
    assert!(lines[0]["source"].as_str().unwrap().ends_with("/var/log/nginx/error.log"), "{got}");
}

#[test]
fn the_logs_of_many_services_are_archived_and_watched() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("var/lib/spillq-archive")).unwrap();
    let files = [
        "srv/shop/log/app.log",
        "srv/shop/log/debug.log",
        "var/log/billing/2026/invoices.log",
        "var/log/other/x.log",
        "srv/jobs/output/7.out",
    ];
    let got = try_out("many-services.toml", folder.path(), &files);
    let archive = fs::read_to_string(folder.path().join("var/lib/spillq-archive/all.log")).unwrap();
    let mut lines: Vec<&str> = archive.lines().collect();
    lines.sort_unstable();
    let mut expected = [0, 2, 4].map(|file| format!("line of {}", files[file]));
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(got.lines().count(), 3, "{got}");
}

#[test]
fn the_unit_restarts_only_what_a_restart_can_mend_and_is_hardened() {
    needs!("systemd-analyze");
    let unit = root().join("deploy/spillq.service");
    let text = fs::read_to_string(&unit).unwrap();
    for line in [
        "Type=notify",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 3",
        "OOMPolicy=continue",
        "WatchdogSec=3min",
        "StateDirectory=spillq",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    // In tenths: fails above 1.5.
    run(
        "systemd-analyze",
        &["security", "--no-pager", "--offline=true", "--threshold=15", unit.to_str().unwrap()],
    );
}
