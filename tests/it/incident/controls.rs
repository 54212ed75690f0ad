//! Controls: a group that is slow, waits, or fails once must not be called unhealthy.

use std::time::{Duration, Instant};

use super::*;
use crate::support::need::FAKETIME;
use crate::support::{SMALL_STORE, need, needs};

impl Stage {
    /// Asks doctor for this long; it must report nothing each time. Returns the states of the first group.
    #[track_caller]
    fn stays_healthy(&self, how_long: Duration) -> Vec<String> {
        let (mut states, until) = (Vec::new(), Instant::now() + how_long);
        while Instant::now() < until {
            states.push(self.is_healthy().groups[0].state.clone());
        }
        states
    }

    /// Asks doctor until everything is acked; it must report nothing meanwhile.
    #[track_caller]
    fn stays_healthy_until_acked(&self, service: &Service, lines: u64) -> Vec<String> {
        let mut states = Vec::new();
        let done = wait_for(|| {
            states.push(self.is_healthy().groups[0].state.clone());
            let is_done = |status: &spillq::http::StatusJson| {
                status.log.next_seq > lines && status.groups.iter().all(|group| group.lag_lines == 0)
            };
            service.status().filter(is_done)
        });
        assert!(done.is_some(), "{states:?}");
        states
    }
}

/// With `sleep 2` in place of `go`, and a second for `stall_after`, it failed on a busy machine: a lease could begin late, and
/// nobody asked while one was slow.
#[test]
fn a_slow_processor_is_healthy() {
    let group = "[[group]]\nname = \"default\"\ntimeout = \"5m\"\nbatch = { lines = 1000 }\n";
    let script = "until rm go 2> /dev/null; do sleep 0.05; done; cat >> out";
    let stage = staged_with("4s", &(group.to_owned() + &processor(script)));
    let mut service = stage.start();
    let mut status = service.wait("all lines are in", |status| status.log.next_seq > LINES);
    let mut batches = 0;
    while status.groups[0].lag_lines > 0 {
        let mut states = Vec::new();
        let slow = wait_for(|| {
            states.push(stage.is_healthy().groups[0].state.clone());
            (states.last()? == "slow").then_some(())
        });
        assert!(slow.is_some(), "{states:?}");
        fs::write(stage.path("go"), "").unwrap();
        let acked = status.groups[0].acked_lines;
        status = service.wait("the batch is acked", |status| status.groups[0].acked_lines > acked);
        batches += 1;
    }
    assert!(batches >= 2, "{batches}");
    stage.is_cured(&mut service);
}

#[test]
fn a_dead_letter_is_reported_until_it_is_acked_and_blocks_no_line() {
    let group =
        "[[group]]\nname = \"default\"\nretry = { initial = \"10ms\", max = \"100ms\", attempts = 2 }\n";
    let script = "cat > batch; test -e cured || ! grep -q '^node 7 ' batch || exit 65; cat batch >> out";
    let stage = staged(&(group.to_owned() + &processor(script)));
    let mut service = stage.start();
    service.wait("all others are acked", |status| {
        status.groups[0].dead_letters == 1 && status.groups[0].lag_lines == 0 && status.log.next_seq > LINES
    });
    let verdict = stage.verdict("default", "idle", None, "dead_letters");
    stage.paste(&verdict.next);
    stage.cure();
    let retry = spillq(&["dead-letter", "retry", "--all", "--data-dir"]).arg(stage.path("q")).finished();
    assert!(retry.status.success(), "{retry:?}");
    service.wait("it is acked too", |status| {
        status.groups[0].dead_letters == 0 && status.groups[0].lag_lines == 0
    });
    let mut arrived = lines_by_source(&stage.path("out"))["node"].clone();
    arrived.sort_unstable();
    assert_eq!(arrived, (0..LINES).collect::<Vec<_>>());
    stage.is_healthy();
}

#[test]
fn a_group_in_back_off_or_idle_is_healthy() {
    let group = "[[group]]\nname = \"default\"\nretry = { initial = \"4s\", max = \"4s\" }\n";
    let stage = staged(&(group.to_owned() + &processor(&fails_until_cured("exit 3"))));
    let mut service = stage.start();
    service.wait("a batch failed", |status| status.groups[0].last_failure.is_some());
    stage.cure();
    let (mut states, until) = (Vec::new(), Instant::now() + Duration::from_secs(2));
    while Instant::now() < until {
        states.push(stage.is_healthy().groups[0].state.clone());
    }
    assert!(states.contains(&"retrying".to_owned()), "{states:?}");
    stage.is_cured(&mut service);
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(stage.is_healthy().groups[0].state, "idle");
    }
}

#[test]
fn a_burst_after_a_quiet_time_is_not_falling_behind() {
    const DENSE: u64 = 5_000;
    let group = "[[group]]\nname = \"default\"\nbatch = { lines = 500 }\n";
    let disk = format!("{SMALL_STORE}limit = \"512MiB\"\n");
    let stage = staged_with("3s", &(disk + group + &processor("sleep 0.6; cat >> out")));
    let mut service = stage.start();
    service.wait("quiet", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    stage.append("in-dense.log", dense(DENSE));
    stage.stays_healthy_until_acked(&service, LINES + DENSE);
    stage.is_cured_of(&mut service, DENSE);
}

#[test]
fn lines_retained_on_purpose_are_held_by_no_group() {
    const DENSE: u64 = 120_000;
    let stage = staged(&("[disk]\nkeep = \"1h\"\n".to_owned() + &processor("cat >> out")));
    stage.append("in-dense.log", dense(DENSE));
    let mut service = stage.start();
    service.wait("all is acked, in several segments", |status| {
        status.log.next_seq > LINES + DENSE && status.groups[0].lag_lines == 0 && status.log.segments > 1
    });
    stage.stays_healthy(Duration::from_secs(3));
    stage.is_cured_of(&mut service, DENSE);
}

#[test]
fn a_group_that_processes_the_oldest_lines_is_not_blamed_for_disk_space() {
    const DENSE: u64 = 120_000;
    let groups = "[[group]]\nname = \"default\"\n[[group]]\nname = \"audit\"\ntimeout = \"5m\"\n";
    let audit = "[[processor]]\ngroup = \"audit\"\nkind = \"exec\"\n\
                 command = [\"sh\", \"-c\", \"while ! test -e cured; do sleep 0.1; done; cat > /dev/null\"]\n";
    let stage = staged(&(groups.to_owned() + &processor("cat >> out") + audit));
    stage.append("in-dense.log", dense(DENSE));
    let mut service = stage.start();
    service.wait("default has acked a segment that audit is processing", |status| {
        let lag =
            |name: &str| status.groups.iter().find(|group| group.group == name).map(|one| one.lag_lines);
        status.log.next_seq > LINES + DENSE
            && status.log.segments > 1
            && lag("default") == Some(0)
            && lag("audit") == Some(LINES + DENSE)
    });
    stage.stays_healthy(Duration::from_secs(3));
    stage.cure();
    stage.is_cured_of(&mut service, DENSE);
}

#[test]
fn a_step_of_the_clock_makes_no_group_unhealthy() {
    needs!(FAKETIME);
    let library = need::find(FAKETIME).expect("checked above").display().to_string();
    let group = "[[group]]\nname = \"default\"\nbatch = { lines = 500 }\n";
    let stage = staged(&(group.to_owned() + &processor("sleep 1.5; cat >> out")));
    let set = |offset: &str| fs::write(stage.path("clock"), offset).unwrap();
    set("+0");
    let clock = format!(
        "export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
        stage.quoted("clock")
    );
    let config = stage.config();
    let mut service = Service::start_with(&stage.data_dir, &clock, &["--config", config.to_str().unwrap()]);
    service.wait("a batch is in flight", |status| status.groups[0].leased > 0);
    for offset in ["-2d", "+5d"] {
        set(offset);
        stage.append("in2.log", "other 0 fill\n");
        stage.stays_healthy(Duration::from_secs(2));
    }
    stage.is_cured(&mut service);
    // By the right clock, times that were recorded five days ahead mean that the clock was set back, which is a note.
    let noted =
        stage.is_healthy().notes.into_iter().find(|note| note.contains("behind the last time in the store"));
    assert!(noted.is_some_and(|note| note.contains("the clock was set back")));
    assert_eq!(lines_by_source(&stage.path("out"))["other"], [0, 0]);
}
