//! Calls that never return, made by strace: a sync of the owner, a read of the tail.

use std::fs;
use std::os::unix::net::UnixDatagram;

use super::*;
use crate::support::{PATIENCE, Process, need, needs};

/// Traces a process and delays some of its calls for an hour; the end of the test ends the trace.
struct Hold {
    _strace: Process,
}

impl Hold {
    /// If strace may not trace, the test that has this closure is recorded as skipped.
    fn on<F>(of: F, target: &[&str], calls: &str) -> Option<Hold> {
        let inject = format!("inject={calls}:delay_enter=3600000000");
        let trace = format!("trace={calls}");
        let mut command = program("strace");
        command.args(target).args(["-e", &trace, "-e", &inject, "-o", "/dev/null"]);
        let mut strace = command.started();
        let printed = |strace: &Process| String::from_utf8(strace.printed()).unwrap();
        let attached = wait_for(|| {
            if strace.exit().is_some() {
                return Some(false);
            }
            printed(&strace).contains("attached").then_some(true)
        });
        let printed = printed(&strace);
        if attached == Some(false) {
            assert!(printed.contains("Operation not permitted"), "{printed}");
            need::skip(of, "the right to trace another process");
            return None;
        }
        assert_eq!(attached, Some(true), "{printed}");
        // The drop kills it, as it ignores TERM while it delays a call. The kernel then releases its target.
        Some(Hold { _strace: strace })
    }
}

#[test]
fn a_sync_that_never_returns_ends_the_process_and_is_reported() {
    needs!("strace");
    let stage = staged(&processor("cat >> out"));
    let with = fs::read_to_string(stage.config()).unwrap();
    fs::write(stage.config(), format!("stuck_after = \"2s\"\n{with}")).unwrap();
    let mut service = stage.start();
    service
        .wait("everything is acked", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    let pid = service.status().unwrap().pid.to_string();
    let Some(hold) = Hold::on(|| {}, &["-f", "-p", &pid], "fdatasync,fsync") else {
        return;
    };
    stage.append("in2.log", "other 0 fill\n");
    // It has called exit; strace keeps the thread in the sync from ending.
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
    let last = stage.is_healthy().last_run.unwrap();
    assert_eq!(last.ended, "stuck");
    stage.is_cured(&mut service);
    assert_eq!(lines_by_source(&stage.path("out"))["other"], [0]);
}

#[test]
fn a_read_that_never_returns_is_reported_and_delivery_continues() {
    needs!("strace");
    let stage = staged(&processor("cat >> out"));
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
    let healthy = wait_for(|| stage.doctor().filter(|(doctor, _)| doctor.healthy));
    assert!(healthy.is_some(), "{:#?}", stage.doctor());
    stage.is_cured(&mut service);
    assert_eq!(lines_by_source(&stage.path("out"))["other"], [0]);
}

#[test]
fn during_a_sync_that_never_returns_the_manager_gets_no_watchdog_message() {
    needs!("strace");
    let stage = staged(&processor("cat >> out"));
    let socket = UnixDatagram::bind(stage.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = spillq(&["--log", "warn", "run", "--config"]);
    command.arg(stage.config()).env("NOTIFY_SOCKET", stage.path("notify"));
    command.env("WATCHDOG_USEC", "1000000").current_dir(stage.folder());
    let service = command.started();
    let next = || {
        let mut message = [0; 4096];
        socket.recv(&mut message).map(|size| String::from_utf8(message[..size].to_vec()).unwrap())
    };
    assert!(
        std::iter::repeat_with(|| next().unwrap()).any(|message| message == "WATCHDOG=1"),
        "the owner makes progress"
    );
    let pid = service.child.id().to_string();
    let Some(hold) = Hold::on(|| {}, &["-f", "-p", &pid], "fdatasync,fsync") else {
        return;
    };
    stage.append("in2.log", "other 0 fill\n");
    // Five times as long as it may be silent. On a machine so slow that a healthy owner is silent too, the test passes without
    // having shown anything.
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let silent = wait_for(|| next().is_err().then_some(()));
    assert!(silent.is_some(), "the manager still gets messages");
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!state.rsplit(')').next().unwrap().trim_start().starts_with('Z'), "it still runs: {state}");
    drop(hold);
}
