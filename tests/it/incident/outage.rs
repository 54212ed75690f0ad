//! A destination that is down: for long, which is reported, and for a moment, which is not.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::*;
use crate::support::{Port, Process, needs};

/// Appends what is posted to the file `out`, unless it is empty.
const SERVER: &str = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        with open(sys.argv[2], 'ab') as out: out.write(body)
        self.send_response(200); self.send_header('content-length', '0'); self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

/// A server, killed when it is dropped.
struct Server {
    _process: Process,
}

impl Server {
    fn start(stage: &Stage, port: u16) -> Server {
        let mut command = program("python3");
        command.args(["-c", SERVER, &port.to_string()]).arg(stage.path("out"));
        let server = Server { _process: command.started() };
        assert!(wait_for(|| TcpStream::connect(("127.0.0.1", port)).ok()).is_some(), "it listens");
        server
    }
}

fn posts_to(port: u16) -> String {
    format!(
        "[[group]]\nname = \"default\"\nretry = {{ initial = \"100ms\", max = \"400ms\", attempts = 2 }}\n\
         [[processor]]\ngroup = \"default\"\nkind = \"http\"\nformat = \"lines\"\nurl = \"http://127.0.0.1:{port}/in\"\n"
    )
}

#[test]
fn a_destination_that_is_down_for_long_is_an_outage_and_costs_no_line() {
    needs!("python3");
    let reserved = Port::reserved();
    let port = reserved.number;
    let stage = staged(&posts_to(port));
    let mut service = stage.start();
    let verdict = stage.verdict("default", "retrying", None, "outage");
    assert!(verdict.summary.contains("the destination of group default is down"), "{verdict:#?}");
    assert!(verdict.evidence.join("\n").contains("127.0.0.1"), "{verdict:#?}");
    let status = service.status().unwrap();
    assert_eq!((status.groups[0].dead_letters, status.groups[0].lag_lines), (0, LINES));
    let _server = Server::start(&stage, port);
    stage.paste(&verdict.next);
    let status = service.wait("everything is acked", |status| status.groups[0].lag_lines == 0);
    assert_eq!(status.groups[0].dead_letters, 0);
    // A line that was retried alone may arrive after the line that was acked first.
    let mut arrived = lines_by_source(&stage.path("out"))["node"].clone();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..LINES).collect::<Vec<_>>());
    stage.is_healthy();
}

#[test]
fn a_destination_that_restarts_makes_no_group_unhealthy() {
    needs!("python3");
    let reserved = Port::reserved();
    let port = reserved.number;
    let stage = staged_with("60s", &posts_to(port));
    let server = Server::start(&stage, port);
    let mut service = stage.start();
    service.wait("it works", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    drop(server);
    stage.append("in2.log", "more 0 fill\n");
    let mut states = Vec::new();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until || !states.contains(&"retrying".to_owned()) {
        states.push(stage.is_healthy().groups[0].state.clone());
        assert!(Instant::now() < until + crate::support::PATIENCE, "{states:?}");
    }
    let _server = Server::start(&stage, port);
    service.wait("delivery resumes", |status| {
        status.log.next_seq > LINES + 1 && status.groups[0].lag_lines == 0
    });
    stage.is_cured(&mut service);
    assert_eq!(lines_by_source(&stage.path("out"))["more"], [0]);
}
