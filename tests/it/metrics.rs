//! Metrics and addresses of a running service: what Prometheus reads, what each listener answers, and how the service treats
//! clients that misbehave.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use spillq::http::StatusJson;

use crate::support::{Bounded, PATIENCE, Process, needs, program, spillq, wait_for, write_config};

/// A service with a port that the kernel chose, killed when the test ends.
struct Listening {
    process: Process,
    folder: tempfile::TempDir,
    address: String,
}

impl Listening {
    fn start(sections: &str) -> Listening {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "data_dir = \"q\"\nstall_after = \"1s\"\n[[follow]]\ninclude = [\"*.log\"]\n[http]\n\
             listen = [\"unix\", \"127.0.0.1:0\"]\nhosts = [\"q.example\"]\n{sections}"
        );
        let config = write_config(folder.path(), &text);
        let mut command = spillq(&["run", "--config"]);
        let process = command.arg(config).current_dir(folder.path()).started();
        let address = wait_for(|| {
            let printed = String::from_utf8(process.printed()).unwrap();
            let (address, _) = printed.split_once("/v1/doctor on http://")?.1.split_once('\n')?;
            Some(address.trim().to_owned())
        });
        let service = Listening { process, folder, address: address.expect("it prints its address") };
        assert!(wait_for(|| service.over_socket("/metrics")).is_some(), "it answers");
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The body of an answer on the socket.
    fn over_socket(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("q/spillq.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.starts_with("HTTP/1.1 200 ").then(|| text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The status code and the whole answer over TCP, with this Host header.
    fn over_tcp(&self, request: &str, host: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: {host}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Every series with its value.
fn values(text: &str) -> BTreeMap<String, f64> {
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

const COUNT: &str = "[[processor]]\ngroup = \"default\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"sleep 0.01; cat >> out\"]\n";

#[test]
fn counters_never_fall_and_memory_stays_within_its_bounds() {
    let groups = "[[group]]\nname = \"default\"\nbatch = { lines = 500 }\n[[group]]\nname = \"idle\"\n";
    let service = Listening::start(&format!("{groups}{COUNT}"));
    let mut before: BTreeMap<String, f64> = BTreeMap::new();
    let mut written = 0;
    let lines = 40_000;
    let done = wait_for(|| {
        if written < lines {
            let mut file =
                fs::OpenOptions::new().create(true).append(true).open(service.path("a.log")).unwrap();
            let more: String =
                (written..written + 4_000).map(|n| format!("node {n} {}\n", "x".repeat(300))).collect();
            file.write_all(more.as_bytes()).unwrap();
            written += 4_000;
        }
        let now = values(&service.over_socket("/metrics").unwrap());
        for (series, value) in
            before.iter().filter(|(series, _)| series.split('{').next().unwrap().ends_with("_total"))
        {
            assert!(now[series] >= *value, "{series} fell from {value} to {}", now[series]);
        }
        for unit in ["bytes", "entries"] {
            let held = format!("spillq_memory_held_{unit}{{");
            for (series, value) in now.iter().filter(|(series, _)| series.starts_with(&held)) {
                let bound = now[&series.replace("_held_", "_bound_")];
                assert!(*value <= bound, "{series} is {value}, its bound {bound}");
            }
        }
        before = now;
        (before["spillq_group_acked_lines_total{group=\"default\"}"] >= f64::from(lines)).then_some(())
    });
    assert!(done.is_some(), "{before:#?}");
    let is = |series: &str, expected: f64| {
        assert!((before[series] - expected).abs() < 1e-9, "{series}: {before:#?}")
    };
    is("spillq_log_appended_lines_total", f64::from(lines));
    is("spillq_tail_read_lines_total", f64::from(lines));
    is("spillq_group_lag_lines{group=\"idle\"}", f64::from(lines));
    is("spillq_group_failed_batches_total{group=\"default\"}", 0.0);
    assert!(before["spillq_group_acked_batches_total{group=\"default\"}"] >= 80.0, "{before:#?}");
    assert!(before["spillq_process_peak_bytes"] < f64::from(96 << 20), "{before:#?}");
    // Doctor names the group without a processor.
    let named = wait_for(|| {
        let now = values(&service.over_socket("/metrics")?);
        now.contains_key("spillq_active_causes{cause=\"never_called\",group=\"idle\"}").then_some(now)
    });
    assert!(named.is_some_and(|now| now["spillq_doctor_causes"] >= 1.0));
}

#[test]
fn promtool_reads_what_is_printed() {
    needs!("promtool");
    let service = Listening::start(COUNT);
    fs::write(service.path("wild \u{1b}[31m\"name\"\\.log"), "node 1\n").unwrap();
    let text = wait_for(|| {
        service.over_socket("/metrics").filter(|text| text.contains("spillq_source_offset_bytes{"))
    });
    let text = text.expect("the source has metrics");
    assert!(!text.contains('\u{1b}'), "{text}");
    fs::write(service.path("metrics"), text).unwrap();
    let metrics = fs::File::open(service.path("metrics")).unwrap();
    let output = program("promtool").args(["check", "metrics"]).stdin(metrics).finished();
    let printed =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
}

#[test]
fn a_tcp_listener_is_read_only_and_checks_the_host_header() {
    let mut service = Listening::start(COUNT);
    let ours = service.address.clone();
    for path in ["/healthz", "/metrics", "/v1/status", "/v1/doctor"] {
        let (code, text) = service.over_tcp(&format!("GET {path}"), &ours);
        assert_eq!(code, 200, "{path}: {text}");
        // As if evil.example had pointed its name at this address.
        let (code, text) = service.over_tcp(&format!("GET {path}"), "evil.example");
        assert!(code == 403 && text.contains("listed in http.hosts"), "{path}: {text}");
    }
    assert_eq!(service.over_tcp("GET /metrics", "q.example:9464").0, 200);
    assert!(
        service.over_tcp("GET /metrics", &ours).1.contains("\r\ncontent-type: text/plain; version=0.0.4")
    );
    for controls in ["POST /v1/admin", "GET /v1/lines?from=1&limit=1", "GET /v1/line?seq=1", "GET /"] {
        assert_eq!(service.over_tcp(controls, &ours).0, 404, "{controls}");
    }
    assert_eq!(service.over_tcp("POST /v1/status", &ours).0, 405);

    let output = spillq(&["status", "--json", "--url", &service.url()]).finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: StatusJson = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((status.from.as_str(), status.pid), ("service", service.process.child.id()));
    let output = spillq(&["doctor", "--url", &service.url()]).finished();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with(&service.url()), "{text}");

    service.process.killed();
    let output = spillq(&["status", "--url", &service.url()]).finished();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && printed.contains("Connection refused"), "{printed}");
    let output = spillq(&["status", "--running", "--url", &service.url()]).finished();
    assert_eq!(output.status.code(), Some(1));
    for (url, why) in
        [("https://127.0.0.1:1", "not http"), ("http://127.0.0.1:1/x", "without a path"), ("q", "not http")]
    {
        let output = spillq(&["status", "--url", url]).finished();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && printed.contains(why), "{url}: {printed}");
    }
}

#[test]
fn clients_that_send_nothing_or_too_much_are_disconnected_and_others_are_answered() {
    let service = Listening::start(COUNT);
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&service.address).unwrap()).collect();
    let mut half = TcpStream::connect(&service.address).unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nhost: 127.0").unwrap();
    // All connections are in use, and become free again by themselves.
    let ours = service.address.clone();
    let began = Instant::now();
    assert_eq!(service.over_tcp("GET /healthz", &ours).0, 200);
    assert!(began.elapsed() < PATIENCE);
    assert!(service.over_socket("/healthz").is_some(), "the socket has other connections");
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // A reset counts as an end too.
    let _ = half.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "), "{}", String::from_utf8_lossy(&rest));
    drop(silent);

    let mut large = TcpStream::connect(&service.address).unwrap();
    large.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nhost: {ours}\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    // The service may close the connection meanwhile.
    let _ = large.write_all(head.as_bytes());
    let mut text = Vec::new();
    let _ = large.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431 "), "{text}");
    assert_eq!(service.over_tcp("GET /healthz", &ours).0, 200);
}

/// The exit status and output of `run` with this address.
fn refused(folder: &Path, listen: &str) -> (Option<i32>, String) {
    let text = format!("[[follow]]\ninclude = [\"*.log\"]\n[http]\nlisten = [\"unix\", \"{listen}\"]\n");
    let output = spillq(&["run", "--config"]).arg(write_config(folder, &text)).finished();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_address_that_cannot_be_used_is_reported_before_anything_else_happens() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, printed) = refused(folder.path(), &address);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains(&format!("could not listen on {address}: Address already in use")), "{printed}");
    assert!(printed.contains("hint: another program has it: `ss -ltnp"), "{printed}");
    assert!(!folder.path().join("spillq-data").exists(), "no store was made");
    let (code, printed) = refused(folder.path(), "0.0.0.0:0");
    assert!(code == Some(2) && printed.contains("can be reached from other hosts"), "{printed}");
    // An address of TEST-NET-1, which no host has.
    let text =
        "[[follow]]\ninclude = [\"*.log\"]\n[http]\nlisten = [\"unix\", \"192.0.2.1:1\"]\nremote = true\n";
    let output = spillq(&["run", "--config"]).arg(write_config(folder.path(), text)).finished();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && printed.contains("no interface of this host has it"),
        "{printed}"
    );
}
