//! The service with a server that behaves like ClickHouse, both killed at random moments: every line arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::support::{Bounded, Port, Process, SMALL_STORE, Service, needs, program, wait_for, write_config};

const LINES: u64 = 20_000;
const BATCH: u64 = 250;
/// A line that is not JSON.
const BAD: u64 = 7_777;

/// The server, killed when it is dropped.
struct Server {
    _process: Process,
}

impl Server {
    fn start(port: u16, table: &Path) -> Server {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clickhouse.py");
        let process = program("python3").arg(script).arg(port.to_string()).arg(table).started();
        let server = Server { _process: process };
        assert!(wait_for(|| TcpStream::connect(("127.0.0.1", port)).ok()).is_some(), "it listens");
        server
    }
}

#[derive(serde::Deserialize)]
struct Row {
    key: String,
    seq: u64,
    n: u64,
}

/// The rows of all parts, without those that a kill left half written.
fn rows(table: &Path) -> Vec<Row> {
    let parts = fs::read_dir(table).unwrap().map(|entry| entry.unwrap().path());
    let whole = parts.filter(|part| part.extension().is_none_or(|extension| extension != "tmp"));
    let text: String = whole.map(|part| fs::read_to_string(part).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_line_reaches_a_clickhouse_and_key_and_seq_identify_repeats() {
    needs!("python3");
    let folder = tempfile::tempdir().unwrap();
    let (table, key) = (folder.path().join("table"), folder.path().join("key"));
    let lines = |range: std::ops::Range<u64>| -> String {
        let line = |n| if n == BAD { "no fill\n".to_owned() } else { format!("{{\"n\":{n}}}\n") };
        range.map(line).collect()
    };
    fs::write(folder.path().join("a.log"), lines(0..LINES)).unwrap();
    fs::write(&key, "wrong").unwrap();
    let reserved = Port::reserved();
    let port = reserved.number;
    let config = write_config(
        folder.path(),
        &format!(
            r#"
            data_dir = "q"
            {SMALL_STORE}
            [[follow]]
            include = ["*.log"]
            [[group]]
            name = "default"
            batch = {{ lines = {BATCH} }}
            retry = {{ initial = "10ms", max = "100ms", attempts = 3 }}
            [[processor]]
            kind = "http"
            url = "http://127.0.0.1:{port}/?query=INSERT%20INTO%20fills%20FORMAT%20JSONEachRow"
            compression = "gzip"
            secret_headers = ["X-ClickHouse-Key: file:key"]
            "#
        ),
    );
    let data_dir = folder.path().join("q");
    let start = || Service::start(&data_dir, &["--config", config.to_str().unwrap()]);

    // Nothing listens, then the key is wrong, then the table is missing: everything waits.
    let mut service = start();
    let why = |what: &'static str| {
        move |status: &spillq::http::StatusJson| {
            let group = &status.groups[0];
            group.ack_floor == 0 && group.dead_letters == 0 && format!("{group:?}").contains(what)
        }
    };
    service.wait("nobody listens", why("got no reply"));
    let mut server = Server::start(port, &table);
    service.wait("the key is refused", why("403"));
    fs::write(&key, "secret\n").unwrap();
    service.wait("the table is missing", why("404"));
    fs::create_dir(&table).unwrap();

    let mut kills = 0;
    for at in (1_000..).step_by(3_000).take(3) {
        service.wait("some lines are acked", |status| status.groups[0].ack_floor >= at);
        drop(server);
        server = Server::start(port, &table);
        service.wait("more lines are acked", |status| status.groups[0].ack_floor >= at + 1_000);
        service.kill();
        service = start();
        kills += 2;
    }
    let status = service.wait("all lines are settled", |status| status.groups[0].ack_floor == LINES);
    assert_eq!(status.groups[0].dead_letters, 1);
    assert_eq!(service.stop(), 0);
    drop(server);

    let rows = rows(&table);
    let seqs: BTreeSet<u64> = rows.iter().map(|row| row.seq).collect();
    let expected: BTreeSet<u64> = (1..=LINES).filter(|seq| *seq != BAD + 1).collect();
    assert_eq!(seqs, expected, "every line but the bad one");
    let mut by_key: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for row in &rows {
        assert_eq!(row.n, row.seq - 1, "a seq is always the same line");
        by_key.entry(&row.key).or_default().insert(row.seq);
    }
    for (key, seqs) in by_key {
        let named: Vec<u64> = key.rsplit('-').take(2).map(|part| part.parse().unwrap()).collect();
        assert_eq!(seqs, (named[1]..=named[0]).collect(), "{key} stands for these lines and no others");
    }
    let repeats = rows.len() as u64 - (LINES - 1);
    assert!(repeats <= kills * BATCH, "at most what was out at each of {kills} kills: {repeats}");
}
