//! The incident: never called, crashing, hanging, not clearing, each staged with the built program and real processes. Checked
//! are the verdict, its evidence, and that every line arrives once the cause is gone.

mod bounds;
mod causes;
mod controls;
mod died;
mod outage;
mod space;
mod stuck;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use spillq::http::{DoctorJson, VerdictJson};

use crate::support::{
    Bounded, PEAK_KIB, Service, Stage, binary, lines_by_source, needs, peak_kib, program, spillq, wait_for,
};

const LINES: u64 = 2_000;

/// A folder with a file of lines, and a configuration with a short `stall_after` and these sections.
fn staged(sections: &str) -> Stage {
    staged_with("1s", sections)
}

/// The same with another `stall_after`.
fn staged_with(stall_after: &str, sections: &str) -> Stage {
    let stage = Stage::at_a_path_to_be_quoted();
    stage.append("in.log", &(0..LINES).map(|number| format!("node {number} fill\n")).collect::<String>());
    stage.configure(&format!(
        "data_dir = \"q\"\nstall_after = \"{stall_after}\"\n[[follow]]\ninclude = [\"in*.log\"]\n{sections}"
    ));
    stage
}

/// Files whose names begin with `in` are followed.
impl Stage {
    /// Adds sections to the configuration, for the next start.
    fn add_sections(&self, sections: &str) {
        self.configure(&(fs::read_to_string(self.config()).unwrap() + sections));
    }

    /// Lets the processor work from now on.
    fn cure(&self) {
        fs::write(self.path("cured"), "").unwrap();
    }

    /// A path as one word for a shell.
    fn quoted(&self, name: &str) -> String {
        spillq::supervise::quoted(self.path(name).to_str().unwrap())
    }

    /// Runs the command that doctor suggested.
    #[track_caller]
    fn paste(&self, next: &str) {
        let folder = binary().parent().unwrap().display().to_string();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
        let output = program("sh").args(["-c", next]).env("PATH", path).finished();
        assert!(output.status.success(), "{next}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits for a verdict on `group`, and checks that it is complete.
    #[track_caller]
    fn verdict(&self, group: &str, state: &str, hypothesis: Option<&str>, cause: &str) -> VerdictJson {
        let mut last = None;
        let found = wait_for(|| {
            last = self.doctor();
            let (doctor, exit) = last.as_ref()?;
            let verdict = doctor.groups.iter().find(|verdict| verdict.group == group)?;
            let matches = verdict.state == state
                && verdict.hypothesis.as_deref() == hypothesis
                && verdict.cause.as_deref() == Some(cause);
            matches.then(|| (verdict.clone(), *exit, doctor.healthy))
        });
        let (verdict, exit, healthy) =
            found.unwrap_or_else(|| panic!("never {state} {cause}; the last was {last:#?}"));
        assert!((exit, healthy) == (1, false), "{exit} {healthy}");
        assert!(!verdict.evidence.is_empty() && !verdict.next.is_empty(), "{verdict:#?}");
        is_explained(&verdict);
        verdict
    }

    /// No line waits, every line has arrived once, and doctor reports nothing.
    #[track_caller]
    fn is_cured(&self, service: &mut Service) {
        self.is_cured_of(service, 0);
    }

    /// The same with this many dense lines too.
    #[track_caller]
    fn is_cured_of(&self, service: &mut Service, dense: u64) {
        let status = service.wait("everything is acked", |status| {
            status.log.next_seq > LINES + dense && status.groups.iter().all(|group| group.lag_lines == 0)
        });
        assert!(status.groups.iter().all(|group| group.dead_letters == 0), "{status:#?}");
        let arrived = lines_by_source(&self.path("out"));
        assert_eq!(arrived["node"], (0..LINES).collect::<Vec<_>>());
        let of_dense = arrived.get("dense").cloned().unwrap_or_default();
        assert_eq!(of_dense, (0..dense).collect::<Vec<_>>());
        assert!(peak_kib(status.pid) < PEAK_KIB, "{} KiB", peak_kib(status.pid));
        // A verdict that compares several statuses ends with the next one.
        let healthy = wait_for(|| self.doctor().filter(|(doctor, exit)| doctor.healthy && *exit == 0));
        assert!(healthy.is_some(), "{:#?}", self.doctor());
    }

    #[track_caller]
    fn is_healthy(&self) -> DoctorJson {
        let (doctor, exit) = self.doctor().unwrap();
        assert!(doctor.healthy && exit == 0, "{doctor:#?}");
        doctor
    }

    /// Waits for a verdict on the log, and checks that it is complete.
    #[track_caller]
    fn finding(&self, cause: &str) -> VerdictJson {
        let mut last = None;
        let found = wait_for(|| {
            last = self.doctor();
            let (doctor, exit) = last.as_ref()?;
            let finding = doctor.findings.iter().find(|found| found.cause.as_deref() == Some(cause))?;
            Some((finding.clone(), *exit, doctor.healthy))
        });
        let (finding, exit, healthy) =
            found.unwrap_or_else(|| panic!("never {cause}; the last was {last:#?}"));
        assert!((exit, healthy) == (1, false), "{exit} {healthy}");
        assert!(!finding.summary.is_empty() && !finding.next.is_empty(), "{finding:#?}");
        is_explained(&finding);
        finding
    }
}

/// The runbook quotes the summary.
#[track_caller]
fn is_explained(verdict: &VerdictJson) {
    let cause = verdict.cause.as_deref().unwrap();
    let section = spillq(&["doctor", "--explain", cause]).finished();
    let section = String::from_utf8(section.stdout).unwrap();
    let seen = section.split("**You see** ").nth(1).unwrap().split("\n- **").next().unwrap();
    let quoted: Vec<&str> = seen.split('`').skip(1).step_by(2).collect();
    // The parts between the dots are in the summary, in this order, from its beginning on.
    let is_quoted = |sentence: &&str| {
        let mut rest = Some(verdict.summary.as_str());
        for (number, fixed) in sentence.split('…').enumerate() {
            rest = rest.and_then(|text| {
                text.find(fixed).filter(|at| number > 0 || *at == 0).map(|at| &text[at + fixed.len()..])
            });
        }
        rest.is_some()
    };
    assert!(quoted.iter().any(is_quoted), "{cause}: {:?} is not among {quoted:#?}", verdict.summary);
}

fn processor(script: &str) -> String {
    format!("[[processor]]\ngroup = \"default\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n")
}

/// A script that fails in this way until the file `cured` exists.
fn fails_until_cured(fail: &str) -> String {
    format!("test -e cured || {{ {fail}; }}; cat >> out")
}

/// A script that waits until the file `cured` exists.
fn held_until_cured() -> String {
    "while ! test -e cured; do sleep 0.1; done; cat >> out".to_owned()
}

/// The most dense lines that a test begins with.
const DENSE_MAX: u64 = 220_000;

/// The first `count` of the dense lines, which are made once for all tests.
fn dense(count: u64) -> &'static str {
    static LINES: OnceLock<String> = OnceLock::new();
    let lines = LINES.get_or_init(|| dense_lines(0..DENSE_MAX));
    let end = lines.match_indices('\n').nth(usize::try_from(count).unwrap() - 1).unwrap().0;
    &lines[..=end]
}

/// Lines that do not compress, 300 bytes each.
fn dense_lines(numbers: std::ops::Range<u64>) -> String {
    let mut rng = fastrand::Rng::with_seed(numbers.start);
    let line = |number| {
        let filling: String = (0..290).map(|_| rng.alphanumeric()).collect();
        format!("dense {number} {filling}\n")
    };
    numbers.map(line).collect()
}

#[test]
fn a_processor_that_is_never_called() {
    let stage = staged("");
    let service = stage.start();
    let verdict = stage.verdict("default", "never_called", Some("A"), "never_called");
    assert!(verdict.summary.starts_with("group default has no processor: "), "{verdict:#?}");
    assert_eq!(service.status().unwrap().groups[0].state, "never_called");
    service.stop();
    let stopped = stage.is_healthy();
    assert!(stopped.groups[0].summary == "2,000 lines wait", "{stopped:#?}");
    assert!(stopped.groups[0].or.starts_with("spillq drain --data-dir '/"), "{stopped:#?}");
    stage.add_sections(&processor("cat >> out"));
    stage.is_cured(&mut stage.start());
}

#[test]
fn a_processor_that_crashes() {
    let stage = staged(&processor(&fails_until_cured("echo last words >&2; kill -SEGV $$")));
    let mut service = stage.start();
    let verdict = stage.verdict("default", "crashing", Some("B"), "crashing");
    let evidence = verdict.evidence.join("\n");
    assert!(evidence.contains("SIGSEGV") && evidence.contains("stderr: last words"), "{evidence}");
    stage.paste(&verdict.next);
    stage.cure();
    stage.is_cured(&mut service);
}

#[test]
fn a_processor_that_hangs() {
    needs!("setsid");
    // Besides the command that waits, a command that left its process group and its parent, and holds its standard error open.
    let hangs = "(setsid sleep 6543 &); sleep 600 & wait";
    let verdict = hangs_until_cured(&processor(&fails_until_cured(hangs)));
    let evidence = verdict.evidence.join("\n");
    assert!(
        evidence.contains(" sh (S, in ") && evidence.contains("sleep (S, in clock_nanosleep"),
        "{evidence}"
    );
    assert_eq!(evidence.matches(" sleep (S").count(), 2, "the one that left is named too: {evidence}");
    assert_eq!(pids_of("sleep\u{0}6543\u{0}"), [0; 0], "all of them were ended");
}

/// The processes with this command line, as the kernel keeps it.
fn pids_of(command_line: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let is_one =
        |path: &PathBuf| fs::read(path.join("cmdline")).is_ok_and(|line| line == command_line.as_bytes());
    processes.filter(is_one).filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
}

/// Takes a batch, asks a server that never answers, and ignores SIGTERM.
const ASKS: &str = "
import json, os, signal, socket, sys
def ask(port):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    socket.create_connection(('127.0.0.1', port)).recv(1)
def is_broken():
    return not os.path.exists('cured')
def keep(lines):
    with open('out', 'ab') as out: out.write(lines)
";

/// A processor that hangs in a request to a server: the evidence must name the server.
fn hangs_at_a_server(kind: &str, body: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let program = format!("{ASKS}{body}").replace("PORT", &server.port().to_string());
    let verdict = hangs_until_cured(&format!(
        "[[processor]]\ngroup = \"default\"\nkind = \"{kind}\"\ncommand = [\"python3\", \"-c\", {program:?}]\n"
    ));
    let evidence = verdict.evidence.join("\n");
    assert!(evidence.contains(" python3 (S, in recvfrom"), "{evidence}");
    assert!(evidence.contains(&format!(", connected to {server})")), "{evidence}");
}

#[test]
fn a_processor_that_hangs_at_a_server_names_it() {
    needs!("python3");
    hangs_at_a_server("exec", "if is_broken(): ask(PORT)\nkeep(sys.stdin.buffer.read())\n");
}

#[test]
fn a_stream_that_hangs_at_a_server_names_it() {
    needs!("python3");
    let body = "while header := sys.stdin.buffer.readline():
    lines = sys.stdin.buffer.read(json.loads(header)['bytes'])
    if is_broken(): ask(PORT)
    keep(lines)
    print('OK', flush=True)
";
    hangs_at_a_server("exec-stream", body);
}

/// Waits for the verdict on a processor that hangs, then cures it.
#[track_caller]
fn hangs_until_cured(processor: &str) -> VerdictJson {
    let stage = staged(&("[[group]]\nname = \"default\"\ntimeout = \"2s\"\n".to_owned() + processor));
    let mut service = stage.start();
    let verdict = stage.verdict("default", "hung", Some("C"), "hung");
    stage.paste(&verdict.next);
    stage.cure();
    stage.is_cured(&mut service);
    verdict
}

#[test]
fn disk_space_that_is_not_freed() {
    let groups = "[[group]]\nname = \"default\"\n[[group]]\nname = \"audit\"\n";
    let stage = staged(&(groups.to_owned() + &processor("cat > /dev/null")));
    let script =
        format!("head -c 30000000 /dev/urandom | base64 -w 500 > \"{}\"", stage.path("in2.log").display());
    assert!(program("sh").args(["-c", &script]).finished().status.success());
    let service = stage.start();
    let verdict = stage.verdict("default", "not_clearing", Some("D"), "not_clearing");
    assert!(verdict.summary.contains("held by group audit"), "{verdict:#?}");
    let pins = stage.verdict("audit", "never_called", Some("A"), "pins_log");
    assert!(pins.summary.contains("although group default has acked it"), "{pins:#?}");
    // The suggested step discards no line: it adds a processor. Removing the group is the other way.
    assert!(verdict.next.starts_with("see the verdict on group audit"), "{verdict:#?}");
    assert!(pins.next.starts_with("add a [[processor]] with group = \"audit\" in "), "{pins:#?}");
    let q = stage.data_dir.to_str().unwrap();
    assert_eq!(spillq(&["group", "remove", "audit", "--data-dir", q]).finished().status.code(), Some(2));
    let removed = spillq(&["group", "remove", "audit", "--discard-lines", "--data-dir", q]).finished().status;
    assert!(removed.success());
    let cured = wait_for(|| stage.doctor().filter(|(doctor, exit)| doctor.healthy && *exit == 0));
    assert!(cured.is_some(), "{:#?}", stage.doctor());
    service.stop();
}

#[test]
fn after_a_kill_doctor_reports_what_the_run_was_doing() {
    let stage = staged(&processor(&fails_until_cured("echo last words >&2; exit 3")));
    let service = stage.start();
    stage.verdict("default", "crashing", Some("B"), "crashing");
    let recorded = wait_for(|| has_event(&stage.path("q"), "\"to\":\"crashing\"").then_some(()));
    assert!(recorded.is_some());
    service.kill();
    let (doctor, exit) = stage.doctor().unwrap();
    assert_eq!((doctor.from.as_str(), exit), ("disk", 1));
    assert!(doctor.findings.iter().any(|found| found.cause.as_deref() == Some("killed")), "{doctor:#?}");
    let last = doctor.last_run.unwrap();
    let doing = last.doing.join("\n");
    assert_eq!(last.ended, "killed");
    assert!(doing.contains("was crashing") && doing.contains("exit status 3"), "{doing}");
    stage.cure();
    stage.is_cured(&mut stage.start());
}

fn has_event(data_dir: &Path, text: &str) -> bool {
    String::from_utf8_lossy(&fs::read(data_dir.join("EVENTS")).unwrap_or_default()).contains(text)
}
