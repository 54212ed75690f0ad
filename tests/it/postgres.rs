//! Lines into tables of a real PostgreSQL: each once, whether spillq or the server is killed; and wrong setups.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chaos::{self, start, wait_for_word, wait_until};
use crate::support::need::POSTGRES;
use crate::support::{Bounded, Port, Process, Service, need, needs, program, spillq, wait_for, write_config};

/// The setup in docs/how-to/destinations/postgresql.md.
const SETUP: &str = "
    CREATE ROLE spillq LOGIN PASSWORD 'secret';
    CREATE TABLE spillq_written (target text PRIMARY KEY, owner text NOT NULL, written text NOT NULL);
    GRANT SELECT, INSERT, UPDATE ON spillq_written TO spillq;
    CREATE TABLE lines (
        seq bigint PRIMARY KEY,
        source text NOT NULL,
        source_offset bigint NOT NULL,
        part text,
        line text NOT NULL
    );
    GRANT INSERT ON lines TO spillq;
";

/// A server for one test, killed when it is dropped. The test uses its unix socket.
struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    port: Port,
    process: Option<Process>,
}

impl Postgres {
    fn start() -> Postgres {
        let bin = need::find(need::POSTGRES).expect("it is there").parent().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let postgres = Postgres { folder, bin, port: Port::reserved(), process: None };
        chaos::certificates(postgres.folder.path());
        let (data, id) = (postgres.path("data"), rustix::process::getuid());
        if id.is_root() {
            // It refuses to run as root.
            let owner = String::from_utf8(program("id").args(["-u", "postgres"]).finished().stdout).unwrap();
            let owner = owner.trim().parse().expect("a user postgres");
            for name in ["", "leaf.key", "leaf.pem"] {
                chown(postgres.path(name), Some(owner), None).unwrap();
            }
        }
        let made = postgres
            .command("initdb")
            .args([
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "-A",
                "scram-sha-256",
                "--auth-local=trust",
                "-D",
            ])
            .arg(&data)
            .finished();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = postgres;
        chaos::Server::start(&mut postgres);
        postgres
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of the server, as a user that it accepts.
    fn command(&self, name: &str) -> Command {
        let path = self.bin.join(name);
        let mut command = if rustix::process::getuid().is_root() {
            let mut command = program("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(path);
            command
        } else {
            program(path)
        };
        command.current_dir(self.folder.path());
        command
    }

    /// The result of a query, one row per line; `None` if the server does not answer.
    fn ask(&self, sql: &str) -> Option<String> {
        let output = program(self.bin.join("psql"))
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-p",
                &self.port.number.to_string(),
                "-h",
            ])
            .arg(self.folder.path())
            .args(["-c", sql])
            .finished();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || !told.contains("ERROR"), "{sql}: {told}");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn query(&self, sql: &str) -> String {
        self.ask(sql).expect("the server is up")
    }

    fn url(&self, more: &str) -> String {
        format!("postgres://spillq@localhost:{}/postgres{more}", self.port.number)
    }
}

/// The processes that `pid` started.
fn children(pid: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

impl chaos::Server for Postgres {
    fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let others = children(process.child.id());
        process.killed();
        for pid in others {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            // Each ends by itself when it sees that the first is gone, so it may be gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let is_gone = || rustix::process::test_kill_process(pid).is_err().then_some(());
            assert!(wait_for(is_gone).is_some(), "{pid:?} lives on");
        }
    }

    fn start(&mut self) {
        let process = self
            .command("postgres")
            .arg("-D")
            .arg(self.path("data"))
            .args(["-p", &self.port.number.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on"])
            // A kill keeps the page cache: a sync would make no difference, and each start would sync all files.
            .args(["-c", "fsync=off", "-c", "shared_buffers=8MB", "-c", "max_connections=20", "-k"])
            .arg(self.folder.path())
            .arg("-c")
            .arg(format!("ssl_cert_file={}", self.path("leaf.pem").display()))
            .arg("-c")
            .arg(format!("ssl_key_file={}", self.path("leaf.key").display()))
            .started();
        self.process = Some(process);
        assert!(wait_for(|| self.ask("SELECT 1")).is_some(), "it answers");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        chaos::Server::kill(self);
    }
}

fn config(folder: &Path, url: &str, more: &str) -> PathBuf {
    fs::write(folder.join("password"), "secret\n").unwrap();
    let kind = format!(
        "kind = \"postgres\"\nurl = {url:?}\ntable = \"lines\"\npassword = \"file:password\"\n{more}\n"
    );
    write_config(folder, &[chaos::settings(), &kind].concat())
}

#[test]
fn a_table_holds_every_line_once_and_in_order_through_kills() {
    needs!(POSTGRES, "openssl");
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start();
    // Without a unique key, so that a repeat would show.
    postgres
        .query(&SETUP.replace(" PRIMARY KEY,\n        source", ",\n        id bigserial,\n        source"));
    postgres.query("GRANT USAGE ON SEQUENCE lines_id_seq TO spillq");
    // An ack needs more than this setting.
    postgres.query("ALTER ROLE spillq SET synchronous_commit = off");
    let config = config(folder.path(), &postgres.url("?sslmode=disable"), "");
    let log = folder.path().join("a.log");
    let written = chaos::through_kills(&log, &folder.path().join("q"), &config, &mut postgres);
    let rows = postgres.query("SELECT seq, source, line FROM lines ORDER BY id");
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows.len() as u64, written);
    for (n, row) in rows.into_iter().enumerate() {
        assert_eq!(row, format!("{}|{}|{}", n + 1, log.display(), chaos::line(n as u64)));
    }
    assert_eq!(postgres.query("SELECT written FROM spillq_written").trim(), format!("1-{written}"));
}

#[test]
fn a_wrong_setup_is_reported_and_loses_nothing() {
    needs!(POSTGRES, "openssl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n\nfour\n").unwrap();
    let mut postgres = Postgres::start();
    let config_file = config(folder.path(), &postgres.url("?sslmode=disable"), "");
    fs::write(folder.path().join("password"), "wrong").unwrap();
    chaos::Server::kill(&mut postgres);
    let mut service = start(folder.path(), &config_file);
    wait_for_word(&mut service, "no connection");
    service.wait("an outage is not reported as a wrong setup", |status| status.groups[0].state != "refused");
    chaos::Server::start(&mut postgres);
    wait_for_word(&mut service, "28P01");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    postgres.query("CREATE ROLE spillq LOGIN PASSWORD 'secret'");
    fs::write(folder.path().join("password"), "secret").unwrap();
    wait_for_word(&mut service, "42P01");
    postgres.query(
        "CREATE TABLE spillq_written (target text PRIMARY KEY, owner text NOT NULL, written text NOT NULL);
         CREATE TABLE lines (seq int, source text, source_offset bigint, part text, line text)",
    );
    wait_for_word(&mut service, "column seq is int4, and has to be bigint");
    postgres.query("ALTER TABLE lines DROP COLUMN part");
    wait_for_word(&mut service, "there is no column part");
    postgres.query("ALTER TABLE lines ADD COLUMN part text, ALTER COLUMN seq TYPE bigint, ADD UNIQUE (seq)");
    wait_for_word(&mut service, "42501");
    postgres.query("GRANT SELECT, INSERT, UPDATE ON spillq_written, lines TO spillq");
    service.wait("all is there", |status| status.groups[0].ack_floor == 4);
    let rows = "1|0|one\n2|4|two\n3|8|\n4|9|four\n";
    assert_eq!(postgres.query("SELECT seq, source_offset, line FROM lines ORDER BY seq"), rows);

    // Another store with the same seqs: found by the owner, and if that row was removed by the key of the table.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("a.log"), "uno\n").unwrap();
    let mut strange = start(other.path(), &config(other.path(), &postgres.url("?sslmode=disable"), ""));
    wait_for_word(&mut strange, "another store");
    postgres.query("DELETE FROM spillq_written");
    wait_for_word(&mut strange, "(seq)=(1)");
    assert_eq!(strange.stop(), 0);
    assert_eq!(postgres.query("SELECT seq, source_offset, line FROM lines ORDER BY seq"), rows);
    assert_eq!(service.stop(), 0);
}

#[test]
fn lines_that_the_table_rejects_are_dead_lettered_and_late_ones_are_stored_once() {
    needs!(POSTGRES, "openssl");
    let folder = tempfile::tempdir().unwrap();
    // Some of the 400 lines are not JSON, not text, or have a character that a text of PostgreSQL cannot have.
    let bad = |n: u64| n % 97 == 5;
    let mut lines = Vec::new();
    for n in 1..=400 {
        match (bad(n), n % 3) {
            (false, _) => lines.extend(format!("{{\"n\":{n}}}\n").into_bytes()),
            (true, 0) => lines.extend(b"no json\n"),
            (true, 1) => lines.extend(b"\"\xff\"\n"),
            (true, _) => lines.extend(b"\"\0\"\n"),
        }
    }
    fs::write(folder.path().join("a.log"), lines).unwrap();
    let postgres = Postgres::start();
    postgres.query(SETUP);
    postgres.query("ALTER TABLE lines ADD COLUMN fill jsonb GENERATED ALWAYS AS (line::jsonb) STORED");
    postgres.query("ALTER ROLE spillq SET synchronous_commit = off");
    let ca = postgres.path("ca.pem");
    let with_ca = config(folder.path(), &postgres.url(""), &format!("ca_file = {ca:?}"));
    let mut service = start(folder.path(), &with_ca);
    let status = service.wait("all is settled", |status| status.groups[0].ack_floor == 400);
    let expected: Vec<u64> = (1..=400).filter(|n| !bad(*n)).collect();
    assert_eq!(status.groups[0].dead_letters, 400 - expected.len() as u64);
    let seqs = || -> Vec<u64> {
        let rows = postgres.query("SELECT seq FROM lines WHERE fill->>'n' = seq::text ORDER BY seq");
        rows.lines().map(|row| row.parse().unwrap()).collect()
    };
    assert_eq!(seqs(), expected);

    // One of them fits now, and comes after all others.
    let command = |args: &[&str]| {
        let output = spillq(args).arg("--data-dir").arg(folder.path().join("q")).finished();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let late = (1..=400).find(|n| bad(*n) && n % 3 == 0).unwrap();
    postgres.query("ALTER TABLE lines DROP COLUMN fill");
    command(&["dead-letter", "retry", &late.to_string()]);
    wait_until(&format!("{late}|no json\n"), || {
        postgres.query("SELECT seq, line FROM lines WHERE line NOT LIKE '{%'")
    });
    // All again, with the dead letters: none is stored twice.
    let no_json = (1..=400).filter(|n| bad(*n) && n % 3 == 0).count();
    command(&["group", "seek", "default", "--to", "beginning", "--missing"]);
    fs::write(folder.path().join("b.log"), "last\n").unwrap();
    service.wait("all are done again", |status| status.groups[0].ack_floor == 401);
    assert_eq!(
        postgres.query("SELECT count(*) FROM lines").trim(),
        (expected.len() + no_json + 1).to_string()
    );
    // Some of them once more, for rows that were deleted.
    let rows = || postgres.query("SELECT seq, line FROM lines ORDER BY seq");
    let all = rows();
    postgres.query("DELETE FROM lines WHERE seq >= 300");
    command(&["group", "seek", "default", "--to", "300", "--again"]);
    service.wait("they are done", |status| status.groups[0].lag_lines == 0);
    assert_eq!(rows(), all);
    // As after a failover to a standby that was behind.
    postgres.query("DELETE FROM lines WHERE seq > 398; UPDATE spillq_written SET written = '1-398'");
    fs::write(folder.path().join("late.log"), "later\n").unwrap();
    service.wait("the loss is reported", |status| {
        format!("{:?}", status.groups[0].reason)
            .contains("lost 3 lines that it had stored, between lines 399 and 401")
    });
    command(&["group", "seek", "default", "--to", "399", "--missing"]);
    service.wait("they are done", |status| status.groups[0].lag_lines == 0);
    assert_eq!(rows(), format!("{all}402|later\n"));
    assert_eq!(service.stop(), 0);

    // A server that is not trusted gets nothing.
    let mut service = start(folder.path(), &config(folder.path(), &postgres.url(""), ""));
    fs::write(folder.path().join("c.log"), "after all\n").unwrap();
    wait_for_word_of_dead(&mut service, "TLS: ");
    assert_eq!(service.stop(), 0);
}

/// Like [`wait_for_word`], with dead letters that are expected.
fn wait_for_word_of_dead(service: &mut Service, word: &str) {
    service.wait(word, |status| format!("{:?}", status.groups[0].last_failure).contains(word));
}

/// A column `line` of type bigint stored 3616445709096661041 for `20260101`, and acked it.
#[test]
fn a_column_whose_type_would_misread_lines_is_refused_by_name_and_jsonb_is_supported() {
    needs!(POSTGRES, "openssl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "20260101\n{\"n\": 2}\n").unwrap();
    let postgres = Postgres::start();
    postgres.query(SETUP);
    let config = config(folder.path(), &postgres.url("?sslmode=disable"), "");
    let mut service = start(folder.path(), &config);
    service.wait("it is taken as text", |status| status.groups[0].ack_floor == 2);
    assert_eq!(service.stop(), 0);
    for (n, of) in ["bigint", "integer", "double precision", "timestamptz", "uuid"].into_iter().enumerate() {
        postgres.query(&format!(
            "TRUNCATE lines; ALTER TABLE lines DROP COLUMN line; ALTER TABLE lines ADD COLUMN line {of}"
        ));
        fs::write(folder.path().join(format!("b{n}.log")), format!("2026020{n}\n")).unwrap();
        let mut service = start(folder.path(), &config);
        wait_for_word(&mut service, "column line is ");
        let status = service.wait("it is refused", |status| status.groups[0].state == "refused");
        assert_eq!((status.groups[0].ack_floor, status.groups[0].dead_letters), (2, 0), "{of}");
        assert_eq!(service.stop(), 0);
        assert_eq!(postgres.query("SELECT count(*) FROM lines").trim(), "0", "{of}");
    }
    postgres.query(
        "ALTER TABLE lines DROP COLUMN line; CREATE DOMAIN js AS jsonb; ALTER TABLE lines ADD COLUMN line js",
    );
    fs::write(folder.path().join("z.log"), "{\"n\": [1, 2]}\n\"\u{e4}\"\nno json\n").unwrap();
    let mut service = start(folder.path(), &config);
    let status = service
        .wait("all are settled", |status| status.log.next_seq == 11 && status.groups[0].lag_lines == 0);
    assert_eq!(status.groups[0].dead_letters, 1, "a line that is not JSON is rejected");
    let rows = postgres.query("SELECT line FROM lines WHERE seq > 7 ORDER BY seq");
    assert_eq!(rows, "{\"n\": [1, 2]}\n\"\u{e4}\"\n");
    assert_eq!(service.stop(), 0);
}
