//! The incident: never called, crashing, hanging, not clearing, each staged with the built program and real
//! processes; the verdict, its evidence, and that every line arrives once the cause is gone.

mod causes;
mod stuck;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spillq::http::{DoctorJson, VerdictJson};

use crate::support::{Service, binary, lines_by_source, spillq, wait_for, write_config};

const LINES: u64 = 2_000;

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// A folder with a file of lines, and a configuration with these sections behind a short `stall_after`.
    fn new(sections: &str) -> Stage {
        // A path that has to be quoted.
        let folder = tempfile::Builder::new().prefix("it's staged ").tempdir().unwrap();
        let stage = Stage { folder };
        let lines: String = (0..LINES).map(|number| format!("node {number} fill\n")).collect();
        fs::write(stage.path("in.log"), lines).unwrap();
        write_config(
            stage.folder.path(),
            &format!(
                "data_dir = \"q\"\nstall_after = \"1s\"\n[[follow]]\ninclude = [\"in*.log\"]\n{sections}"
            ),
        );
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Types what doctor said is next.
    #[track_caller]
    fn paste(&self, next: &str) {
        let folder = binary().parent().unwrap().display().to_string();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
        let output = Command::new("sh").args(["-c", next]).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{next}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn start(&self) -> Service {
        Service::start(&self.path("q"), &["--config", self.path("spillq.toml").to_str().unwrap()])
    }

    /// What doctor says, and its exit status.
    fn doctor(&self) -> Option<(DoctorJson, i32)> {
        let output =
            spillq(&["doctor", "--json", "--data-dir", self.path("q").to_str().unwrap()]).output().unwrap();
        Some((serde_json::from_slice(&output.stdout).ok()?, output.status.code()?))
    }

    /// Waits for a verdict on `group`, and checks that it is complete.
    #[track_caller]
    fn verdict(&self, group: &str, state: &str, hypothesis: Option<&str>, cause: &str) -> VerdictJson {
        let mut last = None;
        let found = wait_for(|| {
            last = self.doctor();
            let (doctor, exit) = last.as_ref()?;
            let verdict = doctor.groups.iter().find(|verdict| verdict.group == group)?;
            let is_it = verdict.state == state
                && verdict.hypothesis.as_deref() == hypothesis
                && verdict.cause.as_deref() == Some(cause);
            is_it.then(|| (verdict.clone(), *exit, doctor.healthy))
        });
        let (verdict, exit, healthy) =
            found.unwrap_or_else(|| panic!("never {state} {cause}; the last was {last:#?}"));
        assert!((exit, healthy) == (1, false), "{exit} {healthy}");
        assert!(!verdict.evidence.is_empty() && !verdict.next.is_empty(), "{verdict:#?}");
        verdict
    }

    /// Nothing waits any more: every line has arrived once, and doctor has nothing to say.
    #[track_caller]
    fn is_cured(&self, service: &mut Service) {
        service.wait("everything is acked", |status| {
            status.log.next_seq > LINES && status.groups.iter().all(|group| group.lag_lines == 0)
        });
        assert_eq!(lines_by_source(&self.path("out"))["node"], (0..LINES).collect::<Vec<_>>());
        self.is_well();
    }

    #[track_caller]
    fn is_well(&self) -> DoctorJson {
        let (doctor, exit) = self.doctor().unwrap();
        assert!(doctor.healthy && exit == 0, "{doctor:#?}");
        doctor
    }

    /// Waits for a finding beside the groups, and checks that it is complete.
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
        finding
    }
}

fn processor(script: &str) -> String {
    format!("[[processor]]\ngroup = \"default\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {script:?}]\n")
}

/// Fails in its own way until the file `cured` is there.
fn ill_until_cured(ill: &str) -> String {
    format!("test -e cured || {{ {ill}; }}; cat >> out")
}

/// The most memory that the process ever had, in KiB.
fn peak_kib(service_pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{service_pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_processor_that_is_never_called() {
    let stage = Stage::new("");
    let service = stage.start();
    let verdict = stage.verdict("default", "never_called", Some("A"), "never_called");
    assert!(verdict.summary.contains("no processor is set up"), "{verdict:#?}");
    assert_eq!(service.status().unwrap().groups[0].state, "never_called");
    service.stop();
    let stopped = stage.is_well();
    assert!(stopped.groups[0].summary.contains("stopped; 2000 lines wait"), "{stopped:#?}");
    assert!(stopped.groups[0].next.contains("spillq drain --data-dir '/"), "{stopped:#?}");
    let with = fs::read_to_string(stage.path("spillq.toml")).unwrap() + &processor("cat >> out");
    fs::write(stage.path("spillq.toml"), with).unwrap();
    stage.is_cured(&mut stage.start());
}

#[test]
fn a_processor_that_crashes() {
    let stage = Stage::new(&processor(&ill_until_cured("echo last words >&2; kill -SEGV $$")));
    let mut service = stage.start();
    let verdict = stage.verdict("default", "crashing", Some("B"), "crashing");
    let evidence = verdict.evidence.join("\n");
    assert!(evidence.contains("SIGSEGV") && evidence.contains("stderr: last words"), "{evidence}");
    assert!(peak_kib(service.status().unwrap().pid) < 96 << 10);
    fs::write(stage.path("cured"), "").unwrap();
    stage.is_cured(&mut service);
}

#[test]
fn a_processor_that_hangs() {
    let group = "[[group]]\nname = \"default\"\ntimeout = \"1s\"\n";
    let stage = Stage::new(&(group.to_owned() + &processor(&ill_until_cured("sleep 600 & wait"))));
    let mut service = stage.start();
    let verdict = stage.verdict("default", "hung", Some("C"), "hung");
    assert!(verdict.evidence.join("\n").contains("sleep (S"), "{verdict:#?}");
    fs::write(stage.path("cured"), "").unwrap();
    stage.is_cured(&mut service);
}

#[test]
fn a_log_that_is_not_given_back() {
    let groups = "[[group]]\nname = \"default\"\n[[group]]\nname = \"audit\"\n";
    let stage = Stage::new(&(groups.to_owned() + &processor("cat > /dev/null")));
    let script =
        format!("head -c 30000000 /dev/urandom | base64 -w 500 > \"{}\"", stage.path("in2.log").display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let service = stage.start();
    let verdict = stage.verdict("default", "not_clearing", Some("D"), "not_clearing");
    assert!(verdict.summary.contains("held by group audit"), "{verdict:#?}");
    stage.verdict("audit", "never_called", Some("A"), "never_called");
    stage.paste(&verdict.next);
    let cured = wait_for(|| stage.doctor().filter(|(doctor, exit)| doctor.healthy && *exit == 0));
    assert!(cured.is_some(), "{:#?}", stage.doctor());
    service.stop();
}

#[test]
fn who_is_slow_is_not_ill() {
    let group = "[[group]]\nname = \"default\"\nbatch = { lines = 1000 }\n";
    let stage = Stage::new(&(group.to_owned() + &processor("sleep 2; cat >> out")));
    let mut service = stage.start();
    let mut states = Vec::new();
    let done = wait_for(|| {
        let (doctor, exit) = stage.doctor().filter(|(doctor, _)| doctor.from == "service")?;
        assert!(doctor.healthy && exit == 0, "{doctor:#?}");
        states.push(doctor.groups[0].state.clone());
        service.status().filter(|status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0)
    });
    assert!(done.is_some() && states.contains(&"slow".to_owned()), "{states:?}");
    stage.is_cured(&mut service);
}

#[test]
fn after_a_kill_doctor_says_what_the_run_was_doing() {
    let stage = Stage::new(&processor(&ill_until_cured("echo last words >&2; exit 3")));
    let service = stage.start();
    stage.verdict("default", "crashing", Some("B"), "crashing");
    let noted = wait_for(|| says(&stage.path("q"), "\"to\":\"crashing\"").then_some(()));
    assert!(noted.is_some());
    service.kill();
    let (doctor, exit) = stage.doctor().unwrap();
    assert_eq!((doctor.from.as_str(), exit), ("disk", 1));
    assert!(doctor.findings.iter().any(|found| found.cause.as_deref() == Some("killed")), "{doctor:#?}");
    let last = doctor.last_run.unwrap();
    let doing = last.doing.join("\n");
    assert_eq!(last.ended, "killed");
    assert!(doing.contains("was crashing") && doing.contains("exit status 3"), "{doing}");
    fs::write(stage.path("cured"), "").unwrap();
    stage.is_cured(&mut stage.start());
}

fn says(data_dir: &Path, text: &str) -> bool {
    String::from_utf8_lossy(&fs::read(data_dir.join("EVENTS")).unwrap_or_default()).contains(text)
}
