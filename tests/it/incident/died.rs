//! The service itself died: with lines in flight, because of a line, because memory ran out.

use super::*;
use crate::support::need;

impl Stage {
    /// The verdict on the stopped store, with the configuration.
    #[track_caller]
    fn verdict_after(&self, cause: &str) -> VerdictJson {
        let mut command = spillq(&["doctor", "--json", "--config"]);
        let output = command.arg(self.config()).finished();
        let doctor: DoctorJson = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((doctor.from.as_str(), output.status.code(), doctor.healthy), ("disk", Some(1), false));
        let all = doctor.findings.iter().chain(&doctor.groups);
        let found = all.into_iter().find(|found| found.cause.as_deref() == Some(cause)).cloned();
        let found = found.unwrap_or_else(|| panic!("not {cause}: {doctor:#?}"));
        assert!(!found.evidence.is_empty() && !found.next.is_empty(), "{found:#?}");
        is_explained(&found);
        found
    }
}

#[test]
fn a_drain_that_vanished_with_lines_is_reported_and_they_are_delivered_again() {
    let stage = staged("");
    let mut service = stage.start();
    service.wait("all lines are in", |status| status.log.next_seq > LINES);
    assert_eq!(service.stop(), 0);
    stage.add_sections(&processor(&format!("touch took; {}", held_until_cured())));
    let mut drain = spillq(&["--log", "warn", "drain", "--config"]);
    let mut drain = drain.arg(stage.config()).current_dir(stage.folder()).started();
    assert!(wait_for(|| stage.path("took").exists().then_some(())).is_some(), "it has lines in flight");
    drain.killed();
    let found = stage.verdict_after("consumer_vanished");
    assert_eq!(found.group, "default");
    assert!(found.summary.contains("the processor of group default vanished"), "{found:#?}");
    assert!(
        found.evidence.join("\n").contains("lines 1-2000 were in flight for group default"),
        "{found:#?}"
    );
    stage.verdict_after("killed");
    assert!(found.next.contains("spillq --log warn run --data-dir "), "{found:#?}");
    stage.cure();
    stage.paste(&found.or);
    assert_eq!(lines_by_source(&stage.path("out"))["node"], (0..LINES).collect::<Vec<_>>());
    let (doctor, exit) = stage.doctor().unwrap();
    assert!(doctor.healthy && exit == 0, "{doctor:#?}");
}

#[test]
fn a_line_that_kills_the_service_is_named_and_can_be_parked() {
    const KILLER: u64 = 1_234;
    let group = "[[group]]\nname = \"default\"\nbatch = { lines = 200 }\n";
    // The parent of its shim is the service.
    let script = format!(
        "cat > batch; if grep -q '^node {KILLER} ' batch && ! test -e cured; then \
         kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat); sleep 600; fi; cat batch >> out"
    );
    let stage = staged(&(group.to_owned() + &processor(&script)));
    let mut deaths = 0;
    let found = loop {
        assert_eq!(stage.start().ended(), -1, "killed by a signal");
        deaths += 1;
        assert!(deaths < 20, "{:#?}", stage.doctor());
        let (doctor, _) = stage.doctor().unwrap();
        let found = doctor.findings.iter().find(|found| found.cause.as_deref() == Some("killer_line"));
        if let Some(found) = found {
            break found.clone();
        }
    };
    assert!(found.summary.contains(&format!("line {} of group default", KILLER + 1)), "{found:#?}");
    stage.finding("crash_loop");
    stage.paste(&found.next);
    stage.paste(&found.or);
    let mut service = stage.start();
    service.wait("all others are acked", |status| {
        status.log.next_seq > LINES && status.groups[0].lag_lines == 0 && status.groups[0].dead_letters == 1
    });
    stage.cure();
    let retry = spillq(&["dead-letter", "retry", "--all", "--data-dir"]).arg(stage.path("q")).finished();
    assert!(retry.status.success(), "{retry:?}");
    service.wait("it is acked too", |status| {
        status.groups[0].dead_letters == 0 && status.groups[0].lag_lines == 0
    });
    let mut arrived = lines_by_source(&stage.path("out"))["node"].clone();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..LINES).collect::<Vec<_>>());
    // The first clean stop ends the loop.
    assert_eq!(service.stop(), 0);
    stage.is_healthy();
}

/// A memory cgroup of this test, removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Below the cgroup of this process, if that is permitted.
    fn new(name: &str, bytes: u64) -> Result<Cgroup, String> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let v1 = own.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path.to_owned()));
        let v2 = own.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned));
        let (root, path, limit) = match (v1, v2) {
            (Some(path), _) => ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"),
            (None, Some(path)) => ("/sys/fs/cgroup", path, "memory.max"),
            (None, None) => return Err("there is no memory cgroup".to_owned()),
        };
        let own = format!("{root}{}", path.trim_end_matches('/'));
        let folder =
            [own.as_str(), root].into_iter().find(|folder| Path::new(folder).exists()).unwrap_or(root);
        let folder = Path::new(folder).join(format!("spillq-it-{name}-{}", std::process::id()));
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir(&folder).map_err(failed)?;
        let cgroup = Cgroup(folder.clone());
        fs::write(cgroup.0.join(limit), bytes.to_string()).map_err(failed)?;
        Ok(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It is busy until its last process has been reaped.
        let _ = wait_for(|| fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_service_that_the_kernel_kills_because_memory_ran_out_is_reported_as_that() {
    let cgroup = match Cgroup::new("service", 192 << 20) {
        Ok(cgroup) => cgroup,
        Err(why) => return need::skip(|| {}, &format!("a memory cgroup ({why})")),
    };
    // It takes all memory, and the kernel chooses another process to kill.
    let hog = "echo 0 > /proc/self/oom_score_adj; exec tail /dev/zero";
    let stage = staged(&processor(&fails_until_cured(hog)));
    let enter =
        format!("echo $$ > {}/cgroup.procs && echo 1000 > /proc/self/oom_score_adj", cgroup.0.display());
    let service =
        Service::start_with(&stage.path("q"), &enter, &["--config", stage.config().to_str().unwrap()]);
    assert_eq!(service.ended(), -1, "killed by a signal");
    let found = stage.verdict_after("out_of_memory");
    assert!(found.summary.contains("was killed by the kernel because memory ran out"), "{found:#?}");
    assert!(found.evidence.join("\n").contains("lines 1-2000 were in flight"), "{found:#?}");
    stage.cure();
    let mut service = stage.start();
    stage.is_cured(&mut service);
    assert_eq!(stage.is_healthy().last_run.unwrap().ended, "out_of_memory");
}

/// The cgroup counted 12 kills, and doctor reported `signal 9`.
#[test]
fn a_command_that_the_kernel_kills_because_memory_ran_out_is_reported_as_that() {
    let cgroup = match Cgroup::new("command", 256 << 20) {
        Ok(cgroup) => cgroup,
        Err(why) => return need::skip(|| {}, &format!("a memory cgroup ({why})")),
    };
    let hog = "echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero";
    let retry = "[[group]]\nname = \"default\"\nretry = { initial = \"200ms\", max = \"500ms\" }\n";
    let stage = staged(&format!("{retry}{}", processor(&fails_until_cured(hog))));
    let mut service = Service::start_with(
        &stage.path("q"),
        &format!("echo $$ > {}/cgroup.procs", cgroup.0.display()),
        &["--config", stage.config().to_str().unwrap()],
    );
    let verdict = stage.verdict("default", "crashing", Some("B"), "processor_oom");
    assert!(
        verdict.summary.contains("the limit of its cgroup is 256.0 MiB; OOM kills in the cgroup: "),
        "{verdict:#?}"
    );
    let evidence = verdict.evidence.join("\n");
    assert!(
        evidence.contains("was killed by signal 9 (SIGKILL), by the kernel for want of memory, on line"),
        "{evidence}"
    );
    assert!(verdict.next.starts_with("set a smaller `batch` for group default in "), "{verdict:#?}");
    stage.cure();
    stage.is_cured(&mut service);
    assert_eq!(service.stop(), 0);
}
