//! Requests to the service: to the socket in its data dir, and to an address.
//!
//! Whatever bytes a client sends: the service lives, and answers the next client. A request that is whole is answered,
//! with 200 or with a 4xx and the reason, in JSON under `/v1`. A request to an address changes nothing, and is
//! answered only if its `Host` is the service's. The store is a real one and is used for all inputs; surplus groups are
//! removed.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use spillq::consumers::{Access, Coordinator};
use spillq::http::Api;
use spillq::http::fuzzing::Routers;
use spillq::processor::Epoch;
use spillq::queue::{Admin, Command, GroupSettings, Queue, WhenFull};
use spillq::supervise::{DiskSettings, JudgeSettings, Supervision};
use spillq_fuzz::Choices;
use spillq_fuzz::wire::run;
use spillq_storage::{BlockBuilder, Commit, DiskOptions, Log, Options, SourceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "get", "X"];
const PATHS: &[&str] = &[
    "/healthz",
    "/metrics",
    "/v1/status",
    "/v1/doctor",
    "/v1/lines",
    "/v1/line",
    "/v1/admin",
    "/v1/admin",
    "/v1/reload",
    "/v1/leases/settle",
    "/v1/leases/extend",
    "/v1/groups/default",
    "/v1/groups/default/consumers/w/leave",
    "/v1/openapi.json",
    "/",
];
const HOSTS: &[&str] = &["localhost", "127.0.0.1:9464", "[::1]", "logs.example.net", "evil.example", ""];
const GROUPS_MAX: usize = 8;

struct Service {
    _folder: tempfile::TempDir,
    queue: Queue,
    routers: Routers,
}

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    SERVICE.with_borrow_mut(|slot| {
        let service = slot.get_or_insert_with(start);
        let mut choices = Choices(data);
        let (how, is_socket) = (choices.few(4), choices.few(3) > 0);
        match how {
            0 => raw(service, is_socket, choices.0),
            _ => whole(service, is_socket, &mut choices),
        }
    });
});

fn start() -> Service {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = folder.path().join("q");
    let disk = DiskOptions { min_free_bytes: 0, reserve_bytes: 0, ..DiskOptions::default() };
    let mut log = Log::open_or_create(&dir, Options { disk, ..Options::default() }).unwrap();
    let mut builder = BlockBuilder::new();
    for nth in 0..50 {
        builder.push_whole(SourceId(1), nth * 7, format!("line {}\n", nth % 10).as_bytes(), 1);
    }
    let checkpoints = vec![(SourceId(1), Bytes::from_static(b"350"))];
    log.commit(&Commit { blocks: vec![builder.build(1)], checkpoints, ..Commit::default() }).unwrap();
    let groups = vec![GroupSettings::named("default"), GroupSettings::named("other")];
    let queue = Queue::start(log, groups, 1 << 20, WhenFull::Pause, |_| None).unwrap();
    let supervision = Supervision::new(
        JudgeSettings { stall_after_ms: 600_000, ..JudgeSettings::default() },
        BTreeMap::new(),
        DiskSettings { limit_bytes: 1 << 40, ..DiskSettings::default() },
        None,
        Vec::new(),
    );
    let groups = run(queue.handle().ask(Command::Groups)).expect("the owner lives");
    let coordinator =
        Coordinator::new(queue.handle(), queue.window(), Epoch::default(), 1, Arc::new(|_| None));
    coordinator.set(Access::new(&groups, None, |_| false, |_| true).expect("there is no secret"));
    let api = Api::new(queue.handle(), queue.window(), None, supervision, &dir).with_coordinator(coordinator);
    Service { _folder: folder, queue, routers: Routers::new(&api, &["logs.example.net".to_owned()]) }
}

/// How many commits there were: nothing changes without one.
fn commits(service: &Service) -> u64 {
    run(async {
        let status = service.queue.handle().ask(Command::Status).await.expect("the owner lives");
        for group in status.groups.iter().skip(GROUPS_MAX) {
            let remove = Admin::RemoveGroup { name: group.name.clone(), discard_lines: true };
            let removed = service.queue.handle().ask(|reply| Command::Admin(remove, reply)).await;
            removed.expect("the owner lives").expect("it is there");
        }
        status.counters.commits
    })
}

/// Bytes, and then nothing more.
fn raw(service: &Service, is_socket: bool, bytes: &[u8]) {
    let before = commits(service);
    let answer = run(async {
        let (mut client, server) = duplex(1 << 16);
        let talk = async {
            // Who is not listened to any more cannot write.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.map(|_| answer)
        };
        tokio::join!(talk, service.routers.answer(server, is_socket)).0
    });
    if let Ok(answer) = answer {
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(is_socket || commits(service) == before, "asked at an address, it changed");
}

/// A well-formed request whose parts may be malformed.
fn whole(service: &Service, is_socket: bool, choices: &mut Choices<'_>) {
    let (method, host) = (METHODS[choices.few(METHODS.len())], choices.few(HOSTS.len() + 4));
    let path = PATHS[choices.few(PATHS.len())];
    let host = HOSTS.get(host).copied().unwrap_or("localhost");
    let printable =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| char::from(b'!' + byte % 94)).collect() };
    let query = match choices.few(4) {
        0 => printable(choices.take(24)),
        1 => format!("from={}&limit={}", choices.few(256), choices.few(256)),
        2 => format!("seq={}", u64::from_le_bytes(choices.take(8).try_into().unwrap_or_default())),
        _ => String::new(),
    };
    let (name, value) = match choices.few(7) {
        0 => ("Origin", printable(choices.take(24))),
        1 => ("Accept", printable(choices.take(24))),
        2 => ("Authorization", printable(choices.take(24))),
        3 => ("Spillq-Lease", printable(choices.take(40))),
        _ => ("User-Agent", "fuzz".to_owned()),
    };
    let kind = ["application/json", "application/json", "text/plain", ""][choices.few(4)];
    let body = if method == "POST" { choices.0 } else { b"" };
    let mark = if query.is_empty() { "" } else { "?" };
    let head = format!(
        "{method} {path}{mark}{query} HTTP/1.1\r\nHost: {host}\r\n{name}: {value}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let before = commits(service);
    let answer = run(async {
        let (mut client, server) = duplex(1 << 20);
        let talk = async {
            client.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        tokio::join!(talk, service.routers.answer(server, is_socket)).0
    });
    let status: u16 = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    let is_ours = is_socket || !matches!(host, "evil.example" | "");
    assert!(status == 200 || (400..500).contains(&status), "{head}{answer}");
    assert!(status != 200 || is_ours, "{head}{answer}");
    let (_, said) = answer.split_once("\r\n\r\n").expect("a head");
    let is_json = answer.contains("content-type: application/json");
    if is_json && method != "HEAD" {
        assert!(serde_json::from_str::<serde_json::Value>(said).is_ok(), "{head}{answer}");
    }
    assert!(!path.starts_with("/v1") || status != 200 || is_json, "{head}{answer}");
    assert!(is_socket || commits(service) == before, "asked at an address, it changed: {head}");
}
