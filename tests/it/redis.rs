//! Lines into streams of a real Redis: each once, whether spillq or the server is killed; and wrong setups.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::chaos::{self, start, wait_for_word, wait_until};
use crate::support::{Bounded, Port, Process, needs, program, run, wait_for, write_config};

/// The setup in docs/how-to/destinations/redis.md.
const ACL: &str = "user spillq on >secret resetchannels ~lines ~spillq:{lines} +eval +select +exists +xinfo|stream +xadd +xtrim +hmget +hset";

/// A server for one test, killed when it is dropped. The test uses its unix socket.
struct Redis {
    folder: tempfile::TempDir,
    port: Port,
    tls_port: Port,
    more: String,
    process: Option<Process>,
}

impl Redis {
    fn start(more: &str) -> Redis {
        let folder = tempfile::tempdir().unwrap();
        chaos::certificates(folder.path());
        let more = format!("{more}\n{ACL}\nuser default on >root ~* &* +@all");
        let mut redis =
            Redis { folder, port: Port::reserved(), tls_port: Port::reserved(), more, process: None };
        chaos::Server::start(&mut redis);
        redis
    }

    fn cli(&self, args: &[&str]) -> String {
        let socket = self.folder.path().join("s");
        let mut command = program("redis-cli");
        command.args(["--no-auth-warning", "--pass", "root", "-s"]).arg(socket).args(args);
        let output = command.finished();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The id, seq and line of each entry.
    fn entries(&self, stream: &str) -> Vec<(String, u64, String)> {
        let text = self.cli(&["XRANGE", stream, "-", "+"]);
        let words: Vec<&str> = text.lines().collect();
        let entry = |words: &[&str]| {
            let names: Vec<&str> = words.iter().skip(1).step_by(2).copied().collect();
            assert_eq!(names, ["seq", "source", "offset", "line"], "{words:?}");
            (words[0].to_owned(), words[2].parse().unwrap(), words[8].to_owned())
        };
        words.chunks(9).map(entry).collect()
    }
}

impl chaos::Server for Redis {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.killed();
        }
    }

    fn start(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let config = format!(
            "bind 127.0.0.1\nport {}\ntls-port {}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
             tls-auth-clients no\nunixsocket {}\ndir {}\nlogfile {}\nappendonly yes\nappendfsync always\nsave \"\"\n{}\n",
            self.port.number,
            self.tls_port.number,
            path("leaf.pem"),
            path("leaf.key"),
            path("ca.pem"),
            path("s"),
            self.folder.path().display(),
            path("log"),
            self.more
        );
        fs::write(path("conf"), config).unwrap();
        self.process = Some(program("redis-server").arg(path("conf")).started());
        let is_up = || TcpStream::connect(("127.0.0.1", self.port.number)).is_ok();
        assert!(wait_for(|| is_up().then_some(())).is_some(), "{}", fs::read_to_string(path("log")).unwrap());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        chaos::Server::kill(self);
    }
}

fn config(folder: &Path, url: &str, more: &str) -> std::path::PathBuf {
    let kind = format!(
        "kind = \"redis\"\nurl = {url:?}\nstream = \"lines\"\npassword = \"file:password\"\n{more}\n"
    );
    write_config(folder, &[chaos::settings(), &kind].concat())
}

#[test]
fn a_stream_holds_every_line_once_and_in_order_through_kills() {
    needs!("redis-server", "redis-cli", "openssl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), "secret\n").unwrap();
    let mut redis = Redis::start("");
    let config = config(folder.path(), &format!("redis://spillq@127.0.0.1:{}", redis.port.number), "");
    let log = folder.path().join("a.log");
    let lines = chaos::through_kills(&log, &folder.path().join("q"), &config, &mut redis);
    let entries = redis.entries("lines");
    assert_eq!(entries.len() as u64, lines);
    for (n, entry) in entries.into_iter().enumerate() {
        let seq = n as u64 + 1;
        assert_eq!(entry, (format!("{seq}-0"), seq, chaos::line(n as u64)));
    }
}

#[test]
fn a_wrong_setup_is_reported_and_loses_nothing() {
    needs!("redis-server", "redis-cli", "openssl");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "wrong").unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\n\nfour\n").unwrap();
    let mut redis = Redis::start("");
    let url = format!("redis://spillq@127.0.0.1:{}", redis.port.number);
    chaos::Server::kill(&mut redis);
    let config_file = config(folder.path(), &url, "");
    let mut service = start(folder.path(), &config_file);
    wait_for_word(&mut service, "no connection");
    service.wait("an outage is not reported as a wrong setup", |status| status.groups[0].state != "refused");
    chaos::Server::start(&mut redis);
    wait_for_word(&mut service, "WRONGPASS");
    service.wait("it is refused", |status| status.groups[0].state == "refused");
    redis.cli(&["SET", "lines", "no stream"]);
    redis.cli(&["ACL", "SETUSER", "spillq", "-xadd"]);
    fs::write(&password, "secret\n").unwrap();
    wait_for_word(&mut service, "WRONGTYPE");
    redis.cli(&["DEL", "lines"]);
    wait_for_word(&mut service, "run this command");
    redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    redis.cli(&["ACL", "SETUSER", "spillq", "+xadd"]);
    wait_for_word(&mut service, "OOM");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    service.wait("all is there", |status| status.groups[0].ack_floor == 4);
    let entry = |id: &str, seq: u64, line: &str| (id.to_owned(), seq, line.to_owned());
    let all = [entry("1-0", 1, "one"), entry("2-0", 2, "two"), entry("3-0", 3, ""), entry("4-0", 4, "four")];
    assert_eq!(redis.entries("lines"), all);

    // Another store, with the same seqs.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("a.log"), "uno\n").unwrap();
    fs::write(other.path().join("password"), "secret").unwrap();
    let mut strange = start(other.path(), &config(other.path(), &url, ""));
    wait_for_word(&mut strange, "belongs to another store");
    assert_eq!(strange.stop(), 0);

    // Entries of another program, with other ids.
    redis.cli(&["XADD", "lines", "7-7", "their", "entry"]);
    fs::write(folder.path().join("b.log"), "five\n").unwrap();
    wait_for_word(&mut service, "somebody else adds");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_line_that_comes_late_or_again_is_stored_once_also_over_tls() {
    needs!("redis-server", "redis-cli", "openssl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), "secret").unwrap();
    fs::write(folder.path().join("a.log"), "one\ntwo\nthree\nfour\n").unwrap();
    let mut redis = Redis::start("");
    let ca = redis.folder.path().join("ca.pem");
    let url = format!("rediss://spillq@localhost:{}/0", redis.tls_port.number);
    let with_ca = || config(folder.path(), &url, &format!("ca_file = {ca:?}\nmax_len = 1000000"));
    let command = |args: &[&str]| chaos::command(folder.path(), args);
    chaos::Server::kill(&mut redis);
    let mut service = start(folder.path(), &with_ca());
    wait_for_word(&mut service, "no connection");
    command(&["dead-letter", "park", "2"]);
    chaos::Server::start(&mut redis);
    service.wait("the others are there", |status| status.groups[0].ack_floor == 4);
    command(&["dead-letter", "retry", "2"]);
    let ids = || -> Vec<String> { redis.entries("lines").into_iter().map(|(id, ..)| id).collect() };
    wait_until(&["1-0", "3-0", "4-0", "4-1"].map(str::to_owned).to_vec(), ids);
    assert_eq!(redis.entries("lines")[3], ("4-1".to_owned(), 2, "two".to_owned()));

    // All of them again, some removed by a consumer: none is added.
    redis.cli(&["XDEL", "lines", "1-0", "4-1"]);
    command(&["group", "seek", "default", "--to", "beginning", "--missing"]);
    fs::write(folder.path().join("b.log"), "five\n").unwrap();
    service.wait("all are done again", |status| {
        status.groups[0].ack_floor == 5 && status.groups[0].lag_lines == 0
    });
    assert_eq!(ids(), ["3-0", "4-0", "5-0"]);
    // With --again each is added once more, after the newest.
    command(&["group", "seek", "default", "--to", "4", "--again"]);
    wait_until(&["3-0", "4-0", "5-0", "5-1", "5-2"].map(str::to_owned).to_vec(), ids);
    assert_eq!(redis.entries("lines")[3], ("5-1".to_owned(), 4, "four".to_owned()));
    service.wait("they are done", |status| status.groups[0].lag_lines == 0);
    assert_eq!(service.stop(), 0);

    // A server that is not trusted gets nothing.
    let mut service = start(folder.path(), &config(folder.path(), &url, ""));
    fs::write(folder.path().join("c.log"), "six\n").unwrap();
    wait_for_word(&mut service, "TLS: ");
    assert_eq!(service.stop(), 0);
    let mut service = start(folder.path(), &with_ca());
    service.wait("the sixth is there", |status| status.groups[0].ack_floor == 6);
    assert_eq!(service.stop(), 0);
}

/// A failover to a replica that was behind, or a crash without a sync. It was known on the next connection, and not reported.
#[test]
fn lines_that_the_server_has_lost_are_reported_and_delivered_again_on_request() {
    needs!("redis-server", "redis-cli", "openssl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), "secret").unwrap();
    let mut redis = Redis::start("");
    let data = redis.folder.path().join("appendonlydir");
    let config = config(folder.path(), &format!("redis://spillq@127.0.0.1:{}", redis.port.number), "");
    let lines =
        |redis: &Redis| redis.entries("lines").into_iter().map(|(_, seq, line)| (seq, line)).collect();
    chaos::lines_are_lost_and_delivered_again(folder.path(), &config, (&mut redis, &data), lines);
}

#[test]
fn a_stream_is_bounded_and_a_line_that_the_server_rejects_is_dead_lettered() {
    needs!("redis-server", "redis-cli", "openssl");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), "secret").unwrap();
    let long = "x".repeat(2 << 20);
    let lines: String =
        (1..=3_000).map(|n| if n == 1_500 { format!("{long}\n") } else { format!("{n}\n") }).collect();
    fs::write(folder.path().join("a.log"), lines).unwrap();
    let redis = Redis::start("proto-max-bulk-len 1mb");
    let socket = redis.folder.path().join("s");
    run("chmod", &["a+rw", socket.to_str().unwrap()]);
    let url = format!("redis+unix://spillq@{}", socket.display());
    let config = config(folder.path(), &url, "max_len = 100");
    let mut service = start(folder.path(), &config);
    let status = service.wait("all is settled", |status| status.groups[0].ack_floor == 3_000);
    assert_eq!(status.groups[0].dead_letters, 1, "{:?}", status.groups[0].last_failure);
    let ids: Vec<u64> = redis.entries("lines").into_iter().map(|(_, seq, _)| seq).collect();
    assert!((100..=300).contains(&ids.len()), "nodes of 100 entries go whole: {}", ids.len());
    assert!(ids.contains(&3_000), "{ids:?}");
    assert_eq!(service.stop(), 0);
}
