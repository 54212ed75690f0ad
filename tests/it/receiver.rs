//! Servers of `tests/servers`, which are downloaded or built, once per machine.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::chaos;
use crate::support::{Bounded, Port, Process, need, program, wait_for};

/// A server is downloaded and built once per machine.
const FETCH_MAX: Duration = Duration::from_secs(400);

/// A server of `tests/servers`, killed when it is dropped.
pub struct Receiver {
    script: PathBuf,
    folder: tempfile::TempDir,
    pub port: Port,
    process: Option<Process>,
    /// A path that it answers once it takes requests; empty for a server that does not speak HTTP.
    ready: &'static str,
    /// For its own parts.
    more: Vec<Port>,
}

impl Receiver {
    /// `None` if it cannot be had here. Then the test is noted as skipped.
    pub fn start<F>(of: F, name: &str, ready: &'static str, lacks: &str) -> Option<Receiver> {
        Receiver::start_with(of, (name, 0), ready, lacks)
    }

    /// With more ports of its own.
    pub fn start_with<F>(
        of: F,
        (name, ports): (&str, usize),
        ready: &'static str,
        lacks: &str,
    ) -> Option<Receiver> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name);
        let fetched = program(&script).arg("fetch").finished_within(FETCH_MAX);
        if !fetched.status.success() {
            println!("{}", String::from_utf8_lossy(&fetched.stderr));
            need::skip(of, lacks);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let more = (0..ports).map(|_| Port::reserved()).collect();
        let mut receiver = Receiver { script, folder, port: Port::reserved(), process: None, ready, more };
        chaos::Server::start(&mut receiver);
        Some(receiver)
    }

    /// Stops all of it, or lets it continue.
    #[cfg(feature = "kafka")]
    pub fn pause(&self, is_paused: bool) {
        use rustix::process::{Signal, kill_process};
        let signal = if is_paused { Signal::STOP } else { Signal::CONT };
        // `exec`: the process of the script is that of the server.
        kill_process(self.process.as_ref().unwrap().pid(), signal).unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port.number)
    }

    /// A request by curl: the body of the answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let mut curl = program("curl");
        curl.args([
            "-sS",
            "--fail-with-body",
            "--max-time",
            "30",
            "-X",
            method,
            "-H",
            "content-type: application/json",
        ]);
        curl.args(["--data-binary", body]).arg(self.url(path));
        let output = curl.finished();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
    }

    pub fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, &body.to_string());
        serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap()
    }
}

impl chaos::Server for Receiver {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.killed();
        }
    }

    fn start(&mut self) {
        let mut command = program(&self.script);
        command.arg("run").arg(self.folder.path().join("data")).arg(self.port.number.to_string());
        command.args(self.more.iter().map(|port| port.number.to_string()));
        self.process = Some(command.started());
        let is_up = || {
            TcpStream::connect(("127.0.0.1", self.port.number)).ok()?;
            // One that does not speak HTTP listens.
            if self.ready.is_empty() { Some(String::new()) } else { self.ask("GET", self.ready, "").ok() }
        };
        assert!(wait_for(is_up).is_some(), "it takes requests");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        chaos::Server::kill(self);
    }
}

/// The example `config/NAME` in `folder`: it follows `*.log` there, delivers to `url`, does not wait for more lines, and has no secrets.
pub fn example(folder: &Path, name: &str, url: &str) -> PathBuf {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap();
    let folder_text = folder.to_str().unwrap();
    let line = |line: &str| match line.split(" = ").next().unwrap_or_default() {
        "url" => format!("url = {url:?}\n"),
        "secret_headers" => String::new(),
        "access_key_id" | "secret_access_key" => {
            let key = line.split(" = ").next().unwrap_or_default();
            format!("{key} = \"file:{key}\"\n")
        }
        _ => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    let text =
        text.replace("/var/lib/spillq", &format!("{folder_text}/q")).replace("/var/log/app", folder_text);
    let text = text.replace("linger = \"60s\"", "linger = \"0s\"");
    let file = folder.join("spillq.toml");
    fs::write(&file, text).unwrap();
    file
}
