//! Calls that never return, made by strace: a sync of the owner, a read of the tail.

use std::fs;
use std::os::unix::net::UnixDatagram;

use super::*;
use crate::support::{PATIENCE, Process, need, needs};

/// Traces a process and holds up some of its calls for an hour; lets go of it at the end of the test.
struct Hold {
    _strace: Process,
}

impl Hold {
    /// Where strace may not trace, the test that has this closure is noted as skipped.
    fn on<F>(of: F, target: &[&str], calls: &str) -> Option<Hold> {
        let inject = format!("inject={calls}:delay_enter=3600000000");
        let trace = format!("trace={calls}");
        let mut command = program("strace");
        command.args(target).args(["-e", &trace, "-e", &inject, "-o", "/dev/null"]);
        let mut strace = command.started();
        let said = |strace: &Process| String::from_utf8(strace.printed()).unwrap();
        let attached = wait_for(|| {
            if strace.exit().is_some() {
                return Some(false);
            }
            said(&strace).contains("attached").then_some(true)
        });
        let said = said(&strace);
        if attached == Some(false) {
            assert!(said.contains("Operation not permitted"), "{said}");
            need::skip(of, "the right to trace another process");
            return None;
        }
        assert_eq!(attached, Some(true), "{said}");
        // Dropped, it is killed: it does not listen to TERM while it holds a call up. The kernel lets its target go.
        Some(Hold { _strace: strace })
    }
}

#[test]
fn a_sync_that_never_returns_ends_the_process_and_is_told() {
    needs!("strace");
    let stage = Stage::new(&processor("cat >> out"));
    let with = fs::read_to_string(stage.path("spillq.toml")).unwrap();
    fs::write(stage.path("spillq.toml"), format!("stuck_after = \"2s\"\n{with}")).unwrap();
    let mut service = stage.start();
    service
        .wait("everything is acked", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    let pid = service.status().unwrap().pid.to_string();
    let Some(hold) = Hold::on(|| {}, &["-f", "-p", &pid], "fdatasync,fsync") else {
        return;
    };
    stage.append("in2.log", "other 0 fill\n");
    // It has called exit; strace keeps the thread in the sync from being reaped.
    let over = wait_for(|| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('Z').then_some(())
    });
    assert!(over.is_some(), "it ends by itself");
    drop(hold);
    assert_eq!(service.ended(), 4);
    let found = stage.finding("stuck");
    assert!(found.summary.contains("did not finish a commit within 2s"), "{found:#?}");
    let mut service = stage.start();
    service.wait("the line is acked", |status| {
        status.log.next_seq > LINES + 1 && status.groups[0].lag_lines == 0
    });
    let last = stage.is_well().last_run.unwrap();
    assert_eq!(last.ended, "stuck");
    stage.is_cured(&mut service);
    assert_eq!(lines_by_source(&stage.path("out"))["other"], [0]);
}

#[test]
fn a_read_that_never_returns_is_told_and_delivery_goes_on() {
    needs!("strace");
    let stage = Stage::new(&processor("cat >> out"));
    let mut service = stage.start();
    service
        .wait("everything is acked", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    let pid = service.status().unwrap().pid;
    let tail = fs::read_dir(format!("/proc/{pid}/task")).unwrap().find_map(|task| {
        let task = task.unwrap();
        let name = fs::read_to_string(task.path().join("comm")).unwrap();
        (name.trim() == "tail").then(|| task.file_name().into_string().unwrap())
    });
    let tail = tail.expect("a thread named tail");
    let Some(hold) = Hold::on(|| {}, &["-p", &tail], "read,pread64,readv,preadv") else {
        return;
    };
    stage.append("in2.log", "other 0 fill\n");
    let found = stage.finding("tail_hung");
    assert!(found.summary.contains("ingestion hangs: one read "), "{found:#?}");
    assert_eq!(stage.doctor().unwrap().0.groups[0].state, "idle");
    drop(hold);
    service.wait("the line is acked", |status| {
        status.log.next_seq > LINES + 1 && status.groups[0].lag_lines == 0
    });
    let well = wait_for(|| stage.doctor().filter(|(doctor, _)| doctor.healthy));
    assert!(well.is_some(), "{:#?}", stage.doctor());
    stage.is_cured(&mut service);
    assert_eq!(lines_by_source(&stage.path("out"))["other"], [0]);
}

#[test]
fn a_sync_that_never_returns_is_no_sign_of_life_for_the_manager() {
    needs!("strace");
    let stage = Stage::new(&processor("cat >> out"));
    let socket = UnixDatagram::bind(stage.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = spillq(&["--log", "warn", "run", "--config"]);
    command.arg(stage.path("spillq.toml")).env("NOTIFY_SOCKET", stage.path("notify"));
    command.env("WATCHDOG_USEC", "1000000").current_dir(stage.path(""));
    let service = command.started();
    let next = || {
        let mut told = [0; 4096];
        socket.recv(&mut told).map(|size| String::from_utf8(told[..size].to_vec()).unwrap())
    };
    assert!(std::iter::repeat_with(|| next().unwrap()).any(|told| told == "WATCHDOG=1"), "it gets on");
    let pid = service.child.id().to_string();
    let Some(hold) = Hold::on(|| {}, &["-f", "-p", &pid], "fdatasync,fsync") else {
        return;
    };
    stage.append("in2.log", "other 0 fill\n");
    // Five times as long as it may be silent. A machine so slow that a healthy owner is silent, too, proves nothing, and
    // fails nothing.
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let silent = wait_for(|| next().is_err().then_some(()));
    assert!(silent.is_some(), "the manager still hears of it");
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(
        !state.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
        "it lives, and its threads look: {state}"
    );
    drop(hold);
}
