//! Consumers that lease lines over HTTP, as real clients on real sockets.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::web::{Answer, Web};
use crate::support::{
    Bounded, PATIENCE, PEAK_KIB, Port, SMALL_STORE, Service, Stage, from_env, peak_kib, wait_for,
};

/// A strict group and one without order, and a socket.
const GROUPS: &str = r#"
[[group]]
name = "strict"
batch = { lines = 10 }
[[group]]
name = "any"
order = "none"
in_flight = 4
batch = { lines = 10 }
[consumers]
listen = ["unix:c.sock"]
"#;

fn staged(lines: u64, sections: &str) -> Stage {
    let stage = Stage::new();
    stage.append("in.log", &(1..=lines).map(|line| format!("line {line}\n")).collect::<String>());
    stage.configure(&format!(
        "data_dir = \"q\"\nstall_after = \"2s\"\n{SMALL_STORE}[[follow]]\ninclude = [\"in.log\"]\n{sections}"
    ));
    stage
}

impl Stage {
    fn socket(&self) -> PathBuf {
        self.path("c.sock")
    }

    fn web(&self) -> Web {
        Web::unix(&self.socket())
    }

    /// Starts the service, and waits until all lines are there.
    fn serves(&self, lines: u64) -> Service {
        let mut service = self.start();
        service.wait("the lines", |status| status.log.next_seq == lines + 1);
        service
    }
}

impl Web {
    fn lease(&mut self, group: &str, request: Value) -> Answer {
        self.post(&format!("/v1/groups/{group}/lease"), &request.to_string())
    }

    fn settle(&mut self, lease: &str, settlement: Value) -> Answer {
        self.ask("POST", "/v1/leases/settle", &[("spillq-lease", lease)], &settlement.to_string()).unwrap()
    }
}

impl Answer {
    fn lease(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.header("spillq-lease").to_owned()
    }
}

#[track_caller]
fn says(answer: &Answer, status: u16, expected: &Value) {
    assert_eq!(answer.status, status, "{answer:?}");
    let found = answer.json();
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key} of {found}");
    }
}

#[test]
fn a_consumer_leases_lines_and_settles_them() {
    let stage = staged(100, GROUPS);
    let service = stage.serves(100);
    let mut web = stage.web();
    let leased = web.lease("strict", json!({"consumer": "w1", "max_lines": 3}));
    let headers = ["first-seq", "last-seq", "lines", "attempt", "expires-ms"]
        .map(|name| leased.header(&format!("spillq-{name}")));
    assert_eq!(headers, ["1", "3", "3", "1", "30000"]);
    assert_eq!((leased.header("content-type"), leased.seqs()), ("application/x-ndjson", vec![1, 2, 3]));
    let first: Value =
        serde_json::from_slice(leased.body.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(
        (&first["text"], &first["offset"], &first["attempt"]),
        (&json!("line 1"), &json!(0), &json!(1))
    );
    assert!(
        first["time"].as_str().unwrap().ends_with('Z')
            && first["source"].as_str().unwrap().ends_with("/in.log")
    );
    let acked = web.settle(&leased.lease(), json!({"ack": "all"}));
    says(&acked, 200, &json!({"acked": 3, "dead": 0, "left": [], "ack_floor": 3, "durable": true}));
    assert_eq!(stage.status().groups[0].ack_floor, 3, "the answer comes after the sync");

    let raw = [("accept", "application/vnd.spillq.lines")];
    let leased =
        web.ask("POST", "/v1/groups/strict/lease", &raw, r#"{"consumer":"w1","max_bytes":21}"#).unwrap();
    assert_eq!(
        (leased.header("content-type"), leased.body.as_slice()),
        ("application/vnd.spillq.lines", &b"line 4\nline 5\nline 6\n"[..])
    );
    let lease = leased.lease();
    says(
        &web.settle(&lease, json!({"ack": {"through": 5}})),
        200,
        &json!({"acked": 2, "left": [[6, 6]], "ack_floor": 5}),
    );
    says(&web.settle(&lease, json!({"ack": {"through": 5}})), 200, &json!({"acked": 0, "left": [[6, 6]]}));
    says(&web.settle(&lease, json!({"ack": {"ranges": [[6, 6]]}})), 400, &json!({"code": "settlement"}));
    says(
        &web.settle(&lease, json!({"fail": {"reason": "db down", "delay_ms": 1}})),
        200,
        &json!({"acked": 0, "left": []}),
    );
    let again = web.lease("strict", json!({"consumer": "w1"}));
    assert_eq!(again.seqs(), (6..=6).collect::<Vec<_>>(), "what failed together comes again together");
    says(&web.settle(&again.lease(), json!({"release": true})), 200, &json!({"acked": 0}));
    let again = web.lease("strict", json!({"consumer": "w1"}));
    says(&web.settle(&again.lease(), json!({"ack": "all"})), 200, &json!({"ack_floor": 6}));

    let leased = web.lease("any", json!({"consumer": "w1"}));
    let lease = leased.lease();
    says(
        &web.settle(&lease, json!({"ack": {"ranges": [[2, 3], [9, 9]]}})),
        200,
        &json!({"left": [[1, 1], [4, 8], [10, 10]]}),
    );
    let bad = json!({"ack": "all", "bad": [{"seq": 5, "reason": "no such coin"}, {"seq": 10, "reason": "no size"}]});
    says(&web.settle(&lease, bad), 200, &json!({"acked": 5, "dead": 2, "left": []}));
    let claim = json!({"epoch": leased.header("spillq-epoch"), "first": 1, "last": 10, "ack": "all"});
    says(&web.settle(&lease, claim), 410, &json!({"code": "stale", "why": "settled", "acked": [[1, 10]]}));
    let letters = String::from_utf8(stage.spillq(&["dead-letter", "list", "--group", "any"]).stdout).unwrap();
    assert!(letters.contains("no such coin") && letters.contains("no size"), "{letters}");
    assert_eq!(service.stop(), 0);
    assert!(!stage.socket().exists(), "the socket goes with the service");
}

#[test]
fn a_lease_has_one_holder_until_it_is_settled_or_its_time_is_up() {
    let stage = staged(30, GROUPS);
    let service = stage.serves(30);
    let (mut one, mut two) = (stage.web(), stage.web());
    let held = one.lease("strict", json!({"consumer": "w1", "lease_ms": 3000})).lease();
    let nothing = two.lease("strict", json!({"consumer": "w2", "wait_ms": 0}));
    assert_eq!(nothing.status, 204);
    assert!(nothing.header("spillq-why").starts_with("held-by w1 "), "{nothing:?}");
    let status = two.get("/v1/groups/strict").json();
    assert_eq!(
        (&status["leases"][0]["consumer"], &status["consumers"][0]["name"]),
        (&json!("w1"), &json!("w2"))
    );
    // The other waits, and gets the lines when the first lease expires.
    let asked = Instant::now();
    let again = two.lease("strict", json!({"consumer": "w2", "request": "r1"}));
    assert_eq!((again.seqs(), again.header("spillq-attempt")), ((1..=10).collect(), "2"));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    says(&one.settle(&held, json!({"ack": "all"})), 410, &json!({"why": "expired"}));
    // An answer that was lost costs nothing.
    let same = two.lease("strict", json!({"consumer": "w2", "request": "r1"}));
    assert_eq!((same.lease(), same.body.clone()), (again.lease(), again.body.clone()));
    let extend = |web: &mut Web, lease: &str| {
        web.ask("POST", "/v1/leases/extend", &[("spillq-lease", lease)], r#"{"lease_ms":60000}"#)
    };
    says(&extend(&mut two, &again.lease()).unwrap(), 200, &json!({"expires_ms": 60000}));
    says(&extend(&mut two, &held).unwrap(), 410, &json!({"why": "expired"}));
    // A consumer that leaves gives its lines back at once.
    says(&two.post("/v1/groups/strict/consumers/w2/leave", ""), 200, &json!({"released": 10}));
    let third = one.lease("strict", json!({"consumer": "w1", "wait_ms": 1000}));
    assert_eq!(third.seqs(), (1..=10).collect::<Vec<_>>());
    let epoch = third.header("spillq-epoch").to_owned();
    says(&one.settle(&third.lease(), json!({"ack": {"through": 4}})), 200, &json!({"ack_floor": 4}));
    // A token does not outlive the service; what was acked does.
    service.kill();
    let service = stage.start();
    let mut web = wait_for(|| std::os::unix::net::UnixStream::connect(stage.socket()).ok())
        .map(|_| stage.web())
        .unwrap();
    let claim = json!({"epoch": epoch, "first": 1, "last": 10, "ack": "all"});
    says(&web.settle(&third.lease(), claim), 410, &json!({"why": "restarted", "acked": [[1, 4]]}));
    let left = web.lease("strict", json!({"consumer": "w1"}));
    assert_eq!(left.seqs()[0], 5, "what was not acked comes again");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_lease_that_is_bound_to_a_connection_ends_with_it() {
    let stage = staged(30, GROUPS);
    let service = stage.serves(30);
    let mut one = stage.web().with("spillq-bind", "connection");
    let held = one.lease("strict", json!({"consumer": "w1", "lease_ms": 60000})).lease();
    let waits = thread::spawn({
        let mut two = stage.web();
        move || two.lease("strict", json!({"consumer": "w2"}))
    });
    wait_for(|| {
        let status = stage.web().get("/v1/groups/strict").json();
        status["consumers"].as_array().unwrap().iter().any(|one| one["name"] == "w2").then_some(())
    });
    drop(one);
    let gone = Instant::now();
    assert_eq!(waits.join().unwrap().seqs(), (1..=10).collect::<Vec<_>>());
    assert!(gone.elapsed() < Duration::from_secs(1), "leased again after {:?}", gone.elapsed());
    says(&stage.web().settle(&held, json!({"ack": "all"})), 410, &json!({"why": "left"}));
    assert_eq!(service.stop(), 0);
}

#[test]
fn requests_that_are_wrong_are_told_why_and_change_nothing() {
    let stage = staged(
        30,
        &format!(
            "{GROUPS}[[group]]\nname = \"served\"\n[[processor]]\ngroup = \"served\"\nkind = \"exec\"\ncommand = [\"true\"]\n"
        ),
    );
    let service = stage.serves(30);
    let mut web = stage.web();
    for (path, body, status, code) in [
        ("/v1/groups/strict/lease", "", 400, "request"),
        ("/v1/groups/strict/lease", "[]", 400, "request"),
        ("/v1/groups/strict/lease", "{}", 400, "request"),
        ("/v1/groups/strict/lease", r#"{"consumer":""}"#, 400, "request"),
        ("/v1/groups/strict/lease", r#"{"consumer":"a b"}"#, 400, "request"),
        ("/v1/groups/strict/lease", r#"{"consumer":"w","max_lines":0}"#, 400, "request"),
        ("/v1/groups/strict/lease", r#"{"consumer":"w","wait_ms":60001}"#, 400, "request"),
        ("/v1/groups/strict/lease", r#"{"consumer":"w","lease_ms":99}"#, 400, "request"),
        ("/v1/groups/strict/lease", r#"{"consumer":"w","more":1}"#, 400, "request"),
        ("/v1/groups/none/lease", r#"{"consumer":"w"}"#, 404, "no-group"),
        ("/v1/groups/served/lease", r#"{"consumer":"w"}"#, 409, "has-processor"),
        ("/v1/leases/settle", r#"{"ack":"all"}"#, 400, "request"),
        ("/v1/leases/extend", "{}", 400, "request"),
        ("/v1/admin", "{}", 404, "no-route"),
        ("/v1/reload", "", 404, "no-route"),
        ("/v1/groups/strict", "", 405, "no-method"),
    ] {
        let answer = web.post(path, body);
        says(&answer, status, &json!({"code": code}));
        assert!(!answer.json()["next"].as_str().unwrap().is_empty(), "{answer:?}");
    }
    says(&web.post("/v1/groups/strict/lease", &"x".repeat(70_000)), 413, &json!({"code": "body"}));
    let mut web = stage.web();
    for lease in ["", "nonsense", "1-00000000000000000000000000000000", &"9".repeat(500)] {
        says(&web.settle(lease, json!({"ack": "all"})), 404, &json!({"code": "no-lease"}));
    }
    let lease = web.lease("strict", json!({"consumer": "w"})).lease();
    for (settlement, code) in [
        (json!({"ack": {"through": 11}}), "settlement"),
        (json!({"ack": "all", "bad": [{"seq": 11}]}), "settlement"),
        (json!({"ack": "all", "first": 2, "last": 10}), "other-lines"),
        (json!({"ack": "all", "release": true}), "request"),
        (json!({}), "request"),
    ] {
        says(&web.settle(&lease, settlement), 400, &json!({"code": code}));
    }
    assert_eq!(stage.status().groups[0].ack_floor, 0);
    says(&web.settle(&lease, json!({"ack": "all"})), 200, &json!({"acked": 10}));
    // What it describes is what it serves.
    assert_eq!(web.get("/v1/openapi.json").json()["openapi"], "3.1.0");
    assert_eq!(service.stop(), 0);
}

#[test]
fn an_address_wants_the_token_of_the_group_and_a_reload_replaces_it() {
    let port = Port::reserved();
    let sockets = format!("[consumers]\nlisten = [\"127.0.0.1:{}\"]\ntoken = \"file:all\"\n", port.number);
    let groups = "[[group]]\nname = \"default\"\n[[group]]\nname = \"fills\"\ntoken = \"file:fills\"\n";
    let stage = staged(30, &format!("{groups}{sockets}"));
    stage.append("all", "for all\n");
    stage.append("fills", "for fills\n");
    let service = stage.serves(30);
    let web = || Web::tcp(port.number);
    let bearer = |token: &str| web().with("authorization", &format!("Bearer {token}"));
    let ask = json!({"consumer": "w", "wait_ms": 0, "max_lines": 1});
    for (mut web, group, status) in [
        (web(), "default", 401),
        (bearer("for all"), "default", 200),
        (bearer("for fills"), "default", 401),
        (bearer("for all"), "fills", 401),
        (bearer("for fills"), "fills", 200),
        (bearer("for fills"), "none", 401),
        (bearer("for all"), "none", 404),
        (web().with("authorization", "Basic for all"), "default", 401),
        (web().with("host", "evil.example"), "default", 403),
    ] {
        assert_eq!(web.lease(group, ask.clone()).status, status, "{group}");
        assert_eq!(web.get(&format!("/v1/groups/{group}")).status, status, "{group}");
    }
    // A lease token alone settles nothing, nor does the token of another group.
    says(&bearer("for fills").post("/v1/groups/fills/consumers/w/leave", ""), 200, &json!({"released": 1}));
    let lease = bearer("for fills").lease("fills", json!({"consumer": "w"})).lease();
    for mut other in [web(), bearer("for all"), bearer("wrong")] {
        says(&other.settle(&lease, json!({"ack": "all"})), 401, &json!({"code": "token"}));
    }
    assert_eq!(bearer("for fills").with("spillq-bind", "connection").lease("fills", ask.clone()).status, 400);
    std::fs::write(stage.path("fills"), "renewed\n").unwrap();
    let reloaded = stage.spillq(&["config", "reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    says(&bearer("for fills").settle(&lease, json!({"ack": "all"})), 401, &json!({"code": "token"}));
    says(&bearer("renewed").settle(&lease, json!({"ack": "all"})), 200, &json!({"durable": true}));
    std::fs::remove_file(stage.path("fills")).unwrap();
    let refused = stage.spillq(&["config", "reload"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("the secret in"),
        "{refused:?}"
    );
    assert_eq!(bearer("renewed").lease("fills", ask).status, 204, "the earlier one is still in effect");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_thousand_consumers_wait_in_turn_or_are_told_to_come_back() {
    const CONSUMERS: usize = 1_000;
    const GROUPS: usize = 5;
    /// As many requests wait at once.
    const WAITING: usize = 256;
    let groups: String = (0..GROUPS)
        .map(|group| format!("[[group]]\nname = \"g{group}\"\nbatch = {{ lines = 1 }}\n"))
        .collect();
    let stage = staged(0, &format!("{groups}[consumers]\nlisten = [\"unix:c.sock\"]\n"));
    let service = stage.serves(0);
    let socket = stage.socket();
    let mut look = Web::unix(&socket);
    let mut asked = Vec::new();
    for number in 0..CONSUMERS {
        let (name, group) = (format!("w{number}"), number % GROUPS);
        let mut web = Web::unix(&socket);
        let ask = json!({"consumer": name, "wait_ms": 60000}).to_string();
        web.send("POST", &format!("/v1/groups/g{group}/lease"), &[], &ask).unwrap();
        if number < WAITING {
            // The next one asks when this one waits.
            let waits = wait_for(|| {
                let seen = look.get(&format!("/v1/groups/g{group}")).json();
                seen["consumers"].as_array().unwrap().iter().any(|one| one["name"] == name).then_some(())
            });
            assert!(waits.is_some(), "{name}");
            asked.push((group, web));
        } else {
            let refused = web.answer().unwrap();
            assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{refused:?}");
            assert!(web.answer().is_none(), "its connection is closed");
        }
    }
    let lines = WAITING.div_ceil(GROUPS);
    stage.append("in.log", &(1..=lines).map(|line| format!("line {line}\n")).collect::<String>());
    let mut expected = [1; GROUPS];
    for (group, web) in &mut asked {
        // Each settles its line, so that the next gets the next one.
        let leased = web.answer().unwrap();
        assert_eq!(leased.seqs(), [expected[*group]], "in the order of asking");
        expected[*group] += 1;
        says(&web.settle(&leased.lease(), json!({"ack": "all"})), 200, &json!({"acked": 1}));
    }
    let peak = peak_kib(stage.status().pid);
    assert!(peak <= PEAK_KIB, "{peak} KiB");
    assert_eq!(service.stop(), 0);
}

#[test]
fn doctor_knows_who_asks_and_who_does_not_settle() {
    let stage = staged(30, GROUPS);
    let service = stage.serves(30);
    let found = |cause: &str| {
        let mut last = None;
        let verdict = wait_for(|| {
            let (doctor, _) = last.insert(stage.doctor()?);
            doctor
                .groups
                .iter()
                .find(|one| one.group == "strict" && one.cause.as_deref() == Some(cause))
                .cloned()
        });
        verdict.unwrap_or_else(|| panic!("no {cause}: {last:#?}"))
    };
    let summary = found("no_consumer").summary;
    assert!(
        summary.starts_with(
            "no consumer has asked for lines of group strict since the service started: 30 lines wait"
        ),
        "{summary}"
    );
    let mut web = stage.web();
    web.lease("strict", json!({"consumer": "w1", "lease_ms": 100})).lease();
    let summary = found("leases_expire").summary;
    assert_eq!(
        summary,
        "consumer w1 vanished with lines 1-10 of group strict: its lease expired, and the lines are delivered again"
    );
    web.lease("strict", json!({"consumer": "w1", "lease_ms": 100})).lease();
    let found_again = wait_for(|| {
        let summary = found("leases_expire").summary;
        summary
            .starts_with("consumers lease lines of group strict and settle none: 2 leases expired")
            .then_some(())
    });
    assert!(found_again.is_some());
    let lease = web.lease("strict", json!({"consumer": "w2"})).lease();
    says(&web.settle(&lease, json!({"ack": "all"})), 200, &json!({"durable": true}));
    let held = web.lease("strict", json!({"consumer": "w2", "max_lines": 2})).lease();
    let status = String::from_utf8(stage.spillq(&["status"]).stdout).unwrap();
    assert!(status.contains("held by w2 for"), "{status}");
    says(&web.settle(&held, json!({"ack": "all"})), 200, &json!({"durable": true}));
    let summary = found("no_consumer").summary;
    assert!(summary.contains("the last was w2"), "{summary}");
    assert_eq!(service.stop(), 0);
}

/// The last run's verdict is the evidence, and nothing is suggested that these groups cannot have: a drain needs a processor.
#[test]
fn after_a_kill_doctor_says_what_consumers_did() {
    let stage = staged(30, GROUPS);
    for (lease_ms, cause, said) in [
        (None, "no_consumer", "no consumer has asked for lines of group strict since the service started"),
        (
            Some(100),
            "leases_expire",
            "consumer w1 vanished with lines 1-10 of group strict: its lease expired",
        ),
        (Some(600_000), "", "lines 1-10: held by w1"),
    ] {
        let service = stage.serves(30);
        if let Some(lease_ms) = lease_ms {
            stage.web().lease("strict", json!({"consumer": "w1", "lease_ms": lease_ms})).lease();
        }
        let live = wait_for(|| {
            let (doctor, _) = stage.doctor()?;
            let of_strict = doctor.groups.into_iter().find(|one| one.group == "strict")?;
            (of_strict.cause.as_deref().unwrap_or_default() == cause && of_strict.summary.contains(said))
                .then_some(())
        });
        assert!(live.is_some(), "{said}: {:#?}", stage.doctor());
        // The supervisor records it with its next look.
        let recorded = || std::fs::read(stage.data_dir.join("EVENTS")).ok();
        let is_recorded = || String::from_utf8_lossy(&recorded()?).contains(said).then_some(());
        assert!(wait_for(is_recorded).is_some(), "{said}");
        service.kill();
        let (doctor, exit) = stage.doctor().unwrap();
        let killed = doctor.findings.iter().find(|one| one.cause.as_deref() == Some("killed")).unwrap();
        assert!(exit == 1 && killed.evidence.iter().any(|text| text.contains(said)), "{said}: {doctor:#?}");
        let strict = doctor.groups.iter().find(|one| one.group == "strict").unwrap();
        let in_flight = strict.cause.as_deref() == Some("consumer_vanished");
        assert_eq!(in_flight, cause.is_empty(), "{strict:#?}");
        let summary = "consumers of group strict had lines in flight when the last run";
        assert!(!in_flight || strict.summary.starts_with(summary), "{strict:#?}");
        assert!(strict.next.contains("spillq") && strict.next.contains(" run "), "{strict:#?}");
        assert!(!format!("{doctor:?}").contains("drain"), "{doctor:#?}");
    }
}

#[test]
fn a_shell_leases_and_settles() {
    let stage = staged(30, "[[group]]\nname = \"fills\"\nbatch = { lines = 10 }\n");
    let none = stage.spillq(&["group", "lease", "fills"]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    let service = stage.serves(30);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let seen = stage.spillq(&["group", "lease", "fills", "--lines", "2", "--raw", "--release"]);
    assert_eq!((text(&seen.stdout).as_str(), seen.status.code()), ("line 1\nline 2\n", Some(0)));
    let leased = stage.spillq(&["group", "lease", "fills", "--lines", "4", "--json"]);
    let lines: Vec<Value> =
        text(&leased.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (lines.len(), &lines[0]["first"], &lines[0]["last"], &lines[4]["text"]),
        (5, &json!(1), &json!(4), &json!("line 4"))
    );
    let token = lines[0]["lease"].as_str().unwrap();
    let none = stage.spillq(&["group", "lease", "fills", "--wait", "0s"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    assert!(
        text(&none.stderr).contains("nothing to lease of group fills: held-by spillq-group-lease"),
        "{none:?}"
    );
    let settled = stage.spillq(&["group", "settle", token, "--through", "2"]);
    assert_eq!(text(&settled.stdout), "2 lines acknowledged, 2 lines still leased; acknowledged up to 2\n");
    let settled = stage.spillq(&["group", "settle", token, "--ack", "--bad", "4=no such coin"]);
    assert_eq!(text(&settled.stdout), "1 line acknowledged, 1 dead letter made; acknowledged up to 4\n");
    for (args, told) in [
        (
            &["group", "settle", token, "--ack"][..],
            "the lease is no longer valid: all of its lines were settled",
        ),
        (&["group", "settle", "nonsense", "--ack"], "the lease is no longer valid: it was never given out"),
        (&["group", "settle", token], "required"),
        (&["group", "settle", token, "--ack", "--release"], "cannot be used with"),
        (&["group", "settle", token, "--ack", "--bad", "x"], "not a"),
        (&["group", "settle", token, "--ack", "--delay", "5s"], "cannot be used with"),
        (&["group", "lease", "fills", "--wait", "60s"], "at most"),
        (&["group", "lease", "none"], "there is no group of that name"),
    ] {
        let refused = stage.spillq(args);
        let status = if told.starts_with("the lease is no longer") { 1 } else { 2 };
        assert_eq!(refused.status.code(), Some(status), "{refused:?}");
        assert!(text(&refused.stderr).contains(told), "{args:?}: {}", text(&refused.stderr));
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_clean_stop_waits_for_the_settlement_and_blames_nobody() {
    let stage = staged(30, GROUPS);
    let service = stage.serves(30);
    let mut web = stage.web();
    let lease = web.lease("strict", json!({"consumer": "w1"})).lease();
    let waiting = thread::spawn({
        let mut two = stage.web();
        move || two.lease("strict", json!({"consumer": "w2"}))
    });
    wait_for(|| {
        (stage.web().get("/v1/groups/strict").json()["consumers"].as_array().unwrap().len() == 2)
            .then_some(())
    });
    let stopping = thread::spawn(move || service.stop());
    let told = waiting.join().unwrap();
    says(&told, 503, &json!({"code": "stopping"}));
    says(&web.settle(&lease, json!({"ack": {"through": 6}})), 200, &json!({"ack_floor": 6}));
    assert_eq!(stopping.join().unwrap(), 0, "the rest is released");
    let status = stage.status();
    assert_eq!((status.groups[0].ack_floor, status.groups[0].leases.len()), (6, 0));
}

/// One consumer or four, in order or not: at random moments a consumer dies in the middle of its lease, or the service is killed,
/// or both. Every line is settled once and none is lost; no stale token counts.
#[test]
fn every_line_is_settled_once_through_kills_of_consumers_and_of_the_service() {
    let kills = from_env("SPILLQ_TEST_KILLS", 3);
    for (group, consumers) in [("strict", 1), ("strict", 4), ("any", 1), ("any", 4)] {
        through_kills(group, consumers, kills);
    }
}

fn through_kills(group: &'static str, consumers: usize, kills: u64) {
    // Enough that some wait at each kill.
    let lines = 1_000 + 300 * kills;
    let stage = staged(lines, &GROUPS.replace("lines = 10", "lines = 40"));
    let mut service = stage.serves(lines);
    let socket = stage.socket();
    let work: Vec<_> = (0..consumers)
        .map(|number| {
            let socket = socket.clone();
            let seed = from_env("SPILLQ_TEST_SEED", 1) + number as u64;
            thread::spawn(move || consume(&socket, group, &format!("w{number}"), fastrand_of(seed)))
        })
        .collect();
    let mut random = fastrand_of(7);
    for kill in 0..kills {
        assert!(kill == 0 || work.iter().any(|one| !one.is_finished()), "nothing waits at kill {kill}");
        thread::sleep(Duration::from_millis(random(300)));
        service.kill();
        service = stage.start();
    }
    let mut acked: Vec<u64> = work.into_iter().flat_map(|one| one.join().unwrap()).collect();
    acked.sort_unstable();
    let twice: Vec<u64> = acked.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(twice.is_empty(), "{group}, {consumers}: settled twice: {twice:?}");
    assert_eq!(acked.len() as u64, lines, "{group}, {consumers}");
    let status = stage.status();
    let of = status.groups.iter().find(|one| one.group == group).unwrap();
    assert_eq!((of.ack_floor, of.lag_lines, of.acked_lines), (lines, 0, lines));
    assert_eq!(service.stop(), 0);
}

/// Leases, sometimes dies or settles late, and returns the lines whose settlement counted: by its answer, or, if the answer was
/// lost, by what the service says is acked.
fn consume(
    socket: &std::path::Path,
    group: &str,
    name: &str,
    mut random: impl FnMut(u64) -> u64,
) -> Vec<u64> {
    let mut acked = Vec::new();
    // A settlement whose answer was lost: the lease, and its lines.
    let mut unsure: Option<(String, Value, Vec<u64>)> = None;
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < 10 * PATIENCE, "{group}: {} acked by {name}", acked.len());
        let Some(web) = Web::if_open(socket) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut web = web.with("spillq-bind", "connection");
        while let Some((lease, claim, lines)) = unsure.take() {
            let answer =
                web.ask("POST", "/v1/leases/settle", &[("spillq-lease", &lease)], &claim.to_string());
            match answer {
                Some(answer) if answer.status == 200 => acked.extend(lines),
                Some(answer) if answer.status == 410 => {
                    let ranges: Vec<(u64, u64)> =
                        serde_json::from_value(answer.json()["acked"].clone()).unwrap();
                    acked.extend(
                        lines
                            .into_iter()
                            .filter(|line| ranges.iter().any(|(first, last)| (first..=last).contains(&line))),
                    );
                }
                answer => {
                    unsure = Some((lease, claim, lines));
                    assert!(answer.is_none_or(|answer| answer.status == 503));
                    break;
                }
            }
        }
        if unsure.is_some() {
            continue;
        }
        for _ in 0..=random(20) {
            let ask =
                json!({"consumer": name, "wait_ms": 1000, "max_lines": 1 + random(40), "lease_ms": 2000})
                    .to_string();
            let Some(leased) = web.ask("POST", &format!("/v1/groups/{group}/lease"), &[], &ask) else {
                break;
            };
            if leased.status == 204 {
                let status = web.get(&format!("/v1/groups/{group}")).json();
                if status["lag_lines"] == 0 {
                    return acked;
                }
                continue;
            }
            if leased.status != 200 {
                break;
            }
            if random(10) == 0 {
                // It dies: its connection, and with it the lease, ends.
                break;
            }
            let number = |name: &str| leased.header(name).parse::<u64>().unwrap();
            let claim = json!({
                "epoch": leased.header("spillq-epoch"),
                "first": number("spillq-first-seq"),
                "last": number("spillq-last-seq"),
                "ack": "all",
            });
            let (lease, lines) = (leased.lease(), leased.seqs());
            match web.ask("POST", "/v1/leases/settle", &[("spillq-lease", &lease)], &claim.to_string()) {
                Some(answer) if answer.status == 200 => acked.extend(lines),
                _ => {
                    unsure = Some((lease, claim, lines));
                    break;
                }
            }
        }
    }
}

/// Numbers below a bound, the same in each run of a test.
fn fastrand_of(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// Labels are those of the section that follows the file, also after it was renamed to a name that no section has.
#[test]
fn lines_have_the_labels_of_their_section_and_a_reload_changes_them() {
    let stage = Stage::new();
    let sections = |env: &str| {
        format!(
            "data_dir = \"q\"\n{SMALL_STORE}[[follow]]\ninclude = [\"node.log\"]\nlabels = {{ service = \"node\", env = \"{env}\" }}\n\
             [[follow]]\ninclude = [\"other.log\"]\n[[group]]\nname = \"any\"\nbatch = {{ lines = 1 }}\n\
             [consumers]\nlisten = [\"unix:c.sock\"]\n"
        )
    };
    stage.configure(&sections("prod"));
    stage.append("node.log", "one\n");
    let mut service = stage.start();
    service.wait("a line", |status| status.log.next_seq == 2);
    stage.append("other.log", "two\n");
    service.wait("another line", |status| status.log.next_seq == 3);
    std::fs::rename(stage.path("node.log"), stage.path("node.log.1")).unwrap();
    let mut web = stage.web();
    let mut labels = || {
        let leased = web.lease("any", json!({"consumer": "w1"}));
        let line: Value = serde_json::from_slice(&leased.body).unwrap();
        says(&web.settle(&leased.lease(), json!({"ack": "all"})), 200, &json!({"acked": 1}));
        (line["text"].clone(), line["labels"].clone())
    };
    assert_eq!(labels(), (json!("one"), json!({"env": "prod", "service": "node"})));
    assert_eq!(labels(), (json!("two"), json!(null)));
    stage.configure(&sections("test"));
    let reloaded = stage.spillq(&["config", "reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    stage.append("node.log", "three\n");
    assert_eq!(labels(), (json!("three"), json!({"env": "test", "service": "node"})));

    // What prints lines has them as well: the service knows them, and beside a stopped store a configuration.
    let node = json!({"env": "test", "service": "node"});
    let with = |words: &[&str]| -> Vec<Value> {
        let printed = stage.spillq(words);
        assert!(printed.status.success(), "{printed:?}");
        let lines: Vec<Value> = printed
            .stdout
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        assert!(!lines.is_empty(), "{printed:?}");
        lines
            .into_iter()
            .filter_map(|line| Some(line.get("line").unwrap_or(&line).get("labels")?.clone()))
            .collect()
    };
    let inspect = ["inspect", "--json"];
    let with_config = ["inspect", "--json", "--config", "spillq.toml"];
    assert_eq!(with(&inspect), [node.clone(), node.clone()]);
    stage.append("node.log", "four\n");
    service.wait("one more line", |status| status.log.next_seq == 5);
    assert_eq!(with(&["group", "lease", "any", "--json", "--release"]), std::slice::from_ref(&node));
    assert!(stage.spillq(&["dead-letter", "park", "4", "--group", "any"]).status.success());
    let export = ["dead-letter", "export", "--group", "any"];
    let export_config = ["dead-letter", "export", "--group", "any", "--config", "spillq.toml"];
    assert_eq!(with(&export), std::slice::from_ref(&node));
    assert_eq!(service.stop(), 0);
    assert_eq!(with(&with_config), vec![node.clone(); 3]);
    assert!(with(&inspect).is_empty(), "without a configuration nobody knows them");
    assert_eq!(with(&export_config), [node]);
    assert!(with(&export).is_empty());
}

/// What a settlement did not do is said: lines that are rejected before anything was acked come again, as the consumer may be wrong.
#[test]
fn an_answer_says_what_comes_again_and_why_nothing_is_leased() {
    let stage = staged(20, GROUPS);
    let service = stage.serves(20);
    let mut web = stage.web();
    let bad = |seqs: &[u64]| seqs.iter().map(|seq| json!({"seq": seq, "reason": "r"})).collect::<Vec<_>>();
    let lease = web.lease("strict", json!({"consumer": "w1", "max_lines": 3})).lease();
    let none = json!({"acked": 0, "dead": 1, "again": 2, "left": []});
    says(&web.settle(&lease, json!({"ack": "all", "bad": bad(&[1, 2, 3])})), 200, &none);
    let lease = web.lease("any", json!({"consumer": "w1"})).lease();
    says(
        &web.settle(&lease, json!({"fail": {"reason": "down"}})),
        200,
        &json!({"acked": 0, "dead": 0, "again": 10}),
    );
    let lease = web.lease("any", json!({"consumer": "w1"})).lease();
    says(&web.settle(&lease, json!({"ack": {"through": 12}})), 200, &json!({"acked": 2, "again": 0}));
    says(&web.settle(&lease, json!({"release": true})), 200, &json!({"again": 8}));
    // All but the rejected line are leased: it waits for what becomes of them, and no consumer waits for long.
    let mut held = Vec::new();
    let rejected = loop {
        let leased = web.lease("any", json!({"consumer": "w2", "wait_ms": 3_000}));
        let seqs = leased.seqs();
        if seqs.len() > 2 {
            let lease = leased.lease();
            says(
                &web.settle(&lease, json!({"bad": bad(&seqs[1..2])})),
                200,
                &json!({"dead": 0, "again": seqs.len()}),
            );
            break seqs[1];
        }
        held.push(leased.lease());
    };
    let asked = Instant::now();
    let why = loop {
        let leased = web.lease("any", json!({"consumer": "w3", "wait_ms": 0}));
        if leased.status == 204 {
            break leased.header("spillq-why").to_owned();
        }
        assert!(!leased.seqs().contains(&rejected), "{leased:?}");
        held.push(leased.lease());
    };
    assert!(why.starts_with("held-by w3 ") || why.starts_with("backoff "), "{why}");
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());

    // A body that comes later than the answer could is read, and an array is no request.
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(stage.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        "POST /v1/groups/none/lease HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 17\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut early = [0; 1];
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut early).is_err(), "it waits for the body");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(br#"{"consumer":"w1"}"#).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("there is no group of that name"),
        "{answer}"
    );
    says(
        &web.post("/v1/groups/any/lease", r#"["me"]"#),
        400,
        &json!({"error": "the body is not a JSON object"}),
    );
    service.kill();
}

#[test]
fn config_check_knows_what_keeps_consumers_away() {
    let stage = staged(
        0,
        "[[group]]\nname = \"g\"\ntoken = \"file:empty\"\n[consumers]\nsocket_group = \"no_such_group\"\n\
                           listen = [\"unix:nodir/c.sock\"]\ntoken = \"file:missing\"\n",
    );
    stage.append("empty", "");
    let checked = crate::support::spillq(&["config", "check"]).arg(stage.config()).finished();
    let said =
        String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    for expected in [
        "nodir/c.sock cannot be made",
        "there is no group no_such_group",
        "/missing cannot be read",
        "it is empty",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// Each of these stopped the service, or left a lease that nobody knew of, once.
#[test]
fn hostile_and_unlucky_clients_leave_nothing_behind() {
    let stage = staged(100, GROUPS);
    let service = stage.serves(100);
    let mut web = stage.web();
    // A claim about lines that do not exist yet.
    let leased = web.lease("strict", json!({"consumer": "w1", "max_lines": 4}));
    let (epoch, lease) = (leased.header("spillq-epoch").to_owned(), leased.lease());
    says(&web.settle(&lease, json!({"ack": "all"})), 200, &json!({"acked": 4}));
    let claim = |last: u64| json!({"ack": "all", "epoch": epoch, "first": 1, "last": last});
    for last in [100, 101, u64::MAX - 1, u64::MAX] {
        says(&web.settle(&lease, claim(last)), 410, &json!({"acked": [[1, 4]]}));
    }
    // A client that goes while its lease is made, though it could repeat the request.
    for _ in 0..20 {
        let mut gone = stage.web().with("spillq-bind", "connection");
        let ask = json!({"consumer": "gone", "request": "q1", "lease_ms": 60000, "max_lines": 2}).to_string();
        gone.send("POST", "/v1/groups/strict/lease", &[], &ask).unwrap();
        drop(gone);
    }
    let none_is_out = || {
        let status = stage.web().get("/v1/groups/strict").json();
        status["leases"].as_array().unwrap().is_empty().then_some(())
    };
    assert!(wait_for(none_is_out).is_some());
    // A line that was named, and succeeded later, takes nothing from later lists.
    wait_for(|| {
        let leased = web.lease("strict", json!({"consumer": "w1", "max_lines": 5, "wait_ms": 5000}));
        (leased.status == 200).then(|| {
            web.settle(&leased.lease(), json!({"bad": [{"seq": leased.seqs()[0], "reason": "bad"}]}))
        })
    })
    .unwrap();
    let leased = wait_for(|| {
        Some(web.lease("strict", json!({"consumer": "w1"}))).filter(|leased| leased.status == 200)
    })
    .unwrap();
    let seqs = leased.seqs();
    let bad = json!({"ack": "all", "bad": [{"seq": seqs[0], "reason": "bad too"}]});
    says(&web.settle(&leased.lease(), bad), 200, &json!({"acked": seqs.len() - 1, "dead": 1}));
    // What an operator takes away is not extended.
    let held = web.lease("strict", json!({"consumer": "w1", "lease_ms": 60000})).lease();
    assert!(
        stage.spillq(&["group", "seek", "strict", "--to", "1"]).status.success()
            || stage.spillq(&["group", "seek", "strict", "--to", "end", "--discard-lines"]).status.success()
    );
    let extended = web.ask("POST", "/v1/leases/extend", &[("spillq-lease", &held)], "{}").unwrap();
    says(&extended, 410, &json!({"why": "revoked"}));
    let began = Instant::now();
    assert_eq!(service.stop(), 0);
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "a lease that is not out held the stop: {:?}",
        began.elapsed()
    );
}

#[test]
fn unread_answers_take_a_bounded_part_of_memory() {
    let stage = staged(0, GROUPS);
    let service = stage.serves(0);
    // As objects six times as long.
    stage.append("in.log", &format!("{}\n", "\u{1}".repeat(1_000_000)));
    wait_for(|| (stage.status().log.next_seq == 2).then_some(()));
    let before = peak_kib(stage.status().pid);
    let mut unread = Vec::new();
    for _ in 0..40 {
        let mut web = stage.web();
        let ask = json!({"consumer": "m", "request": "r1", "lease_ms": 600000, "wait_ms": 0}).to_string();
        web.send("POST", "/v1/groups/any/lease", &[], &ask).unwrap();
        unread.push(web);
        // All others repeat the request of the first.
        let is_leased = || stage.status().groups.iter().any(|group| group.leased > 0).then_some(());
        assert!(unread.len() > 1 || wait_for(is_leased).is_some());
    }
    // Each answer would take 6 MB: there is room for some, and the others are told so after a while.
    let statuses: Vec<_> = unread.iter_mut().map(Web::status).collect();
    assert!(statuses.contains(&Some(200)) && statuses.contains(&Some(503)), "{statuses:?}");
    assert!(stage.spillq(&["status", "--json"]).status.success());
    let peak = peak_kib(stage.status().pid);
    assert!(peak < before + 100 * 1024, "{before} KiB before, {peak} KiB at the peak");
    drop(unread);
    service.kill();
}

#[test]
fn lines_that_cannot_be_read_end_a_request_and_are_reported() {
    // More than the window keeps in memory.
    let stage = staged(0, &format!("[window]\nbytes = \"1MiB\"\n{GROUPS}"));
    let mut service = stage.start();
    let line = format!("{}\n", "x".repeat(999));
    stage.append("in.log", &line.repeat(6_000));
    service.wait("the lines", |status| status.log.next_seq == 6_001);
    let mut web = stage.web();
    let lease = web.lease("any", json!({"consumer": "w1", "max_lines": 1})).lease();
    says(&web.settle(&lease, json!({"ack": "all"})), 200, &json!({"acked": 1}));
    for segment in std::fs::read_dir(stage.data_dir.join("segments")).unwrap() {
        let path = segment.unwrap().path();
        std::fs::rename(&path, stage.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let asked = Instant::now();
    let nothing = web.lease("any", json!({"consumer": "w1", "wait_ms": 500}));
    assert!(
        nothing.status == 204 && asked.elapsed() < Duration::from_secs(15),
        "{nothing:?} after {:?}",
        asked.elapsed()
    );
    let blocked = wait_for(|| {
        let nothing = web.lease("any", json!({"consumer": "w1", "wait_ms": 500}));
        (nothing.header("spillq-why") == "blocked damage").then_some(())
    });
    assert!(blocked.is_some());
    service.kill();
}

#[test]
fn a_group_that_an_operator_adds_is_there_and_one_that_is_removed_is_not() {
    let stage = staged(10, GROUPS);
    let service = stage.serves(10);
    assert!(stage.spillq(&["group", "add", "extra"]).status.success());
    let leased = stage.spillq(&["group", "lease", "extra", "--lines", "1", "--raw", "--release"]);
    assert_eq!((leased.stdout.as_slice(), leased.status.code()), (&b"line 1\n"[..], Some(0)), "{leased:?}");
    says(&stage.web().lease("extra", json!({"consumer": "w"})), 404, &json!({"code": "no-group"}));
    assert!(stage.spillq(&["group", "remove", "extra", "--discard-lines"]).status.success());
    let gone = stage.spillq(&["group", "lease", "extra"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("there is no group of that name"), "{gone:?}");
    assert_eq!(service.stop(), 0);
}
