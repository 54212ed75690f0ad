//! What a service manager is told: systemd's protocol of `Type=notify`, datagrams on the socket that
//! `NOTIFY_SOCKET` names. Without the variable nothing is sent.
//!
//! Ready means that the log is open, files are followed and commands are answered. A manager that does not listen
//! is warned about once and never stops the service.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::http::reason;
use crate::plain::{escape, waiting};
use crate::queue::{Command, GroupStatus, Handle, Pulse, Status, now_ms};
use crate::supervise::State;

/// How often the status line is renewed.
const EVERY: Duration = Duration::from_secs(10);
/// A status line is cut here: a store can have many groups.
const STATUS_BYTES_MAX: usize = 512;

/// Who started the service and wants to know how it is.
pub(super) struct Manager {
    line: Option<Line>,
    renewed: Option<JoinHandle<()>>,
}

impl Manager {
    pub(super) fn from_environment() -> Manager {
        let line = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            Line::open(&name)
                .inspect_err(|error| tracing::warn!("cannot tell the manager on {}: {error}", name.display()))
                .ok()
        });
        Manager { line, renewed: None }
    }

    /// The service works. From now on its status line is kept fresh.
    pub(super) fn ready(&mut self, handle: Handle) {
        let Some(line) = &self.line else { return };
        line.tell("READY=1");
        let Ok(line) = line.again() else { return };
        self.renewed = Some(tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                let Ok(status) = handle.ask(Command::Status).await else { return };
                line.tell(&format!("STATUS={}", sentence(&status)));
            }
        }));
    }

    /// The configuration is being read again.
    pub(super) fn reloading(&self) {
        let Some(line) = &self.line else { return };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
        line.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// It was, whatever came of it.
    pub(super) fn ready_again(&self) {
        if let Some(line) = &self.line {
            line.tell("READY=1");
        }
    }

    /// The manager ends a service that it hears nothing of for `WATCHDOG_USEC`. It is told by the owner of the log, at
    /// the end of a round: the supervisor's questions see to it that there is one a second. A disk that hangs is told to
    /// nobody, and a timer of our own would have nothing to say.
    pub(super) fn watch(&self, pulse: &Pulse) {
        let Some(within) = watchdog(|name| std::env::var(name).ok()) else { return };
        let Some(line) = self.line.as_ref().and_then(|line| line.again().ok()) else { return };
        let told = Mutex::new(None::<Instant>);
        pulse.at_each_round(move || {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|told| told.elapsed() >= within / 4) {
                *told = Some(Instant::now());
                line.tell("WATCHDOG=1");
            }
        });
    }

    /// The service ends, which may take as long as the batches that are out.
    pub(super) fn stopping(&mut self) {
        if let Some(renewed) = self.renewed.take() {
            renewed.abort();
        }
        if let Some(line) = &self.line {
            line.tell("STOPPING=1\nSTATUS=stopping; finishing the batches that are out");
        }
    }
}

/// In what time the manager wants to hear of this process, if it does.
fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let number = |name| variable(name)?.parse::<u64>().ok();
    let is_for_others = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| *usec > 0 && !is_for_others).map(Duration::from_micros)
}

struct Line {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Line {
    fn open(name: &OsStr) -> io::Result<Line> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up the service.
        socket.set_nonblocking(true)?;
        Ok(Line { socket, to })
    }

    fn again(&self) -> io::Result<Line> {
        Ok(Line { socket: self.socket.try_clone()?, to: self.to.clone() })
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.to) {
            tracing::warn!("cannot tell the manager {state:?}: {error}");
        }
    }
}

/// One line for people: what waits for whom, and why nothing goes on.
fn sentence(status: &Status) -> String {
    let now_ms = now_ms();
    let of_group = |group: &GroupStatus| {
        let reason = reason(&group.phase, now_ms).map(|reason| format!(" ({reason})")).unwrap_or_default();
        let state = State::from(&group.phase).word();
        format!("{} {state}{reason}, {}", group.name, waiting(group.lag_lines))
    };
    let groups: Vec<_> = status.groups.iter().map(of_group).collect();
    // A line of its own would be another assignment of the protocol.
    let mut text = escape(&groups.join("; ")).into_owned();
    text.truncate(text.floor_char_boundary(STATUS_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        let asked = |usec: Option<&str>, pid: Option<&str>| {
            watchdog(|name| if name == "WATCHDOG_USEC" { usec } else { pid }.map(str::to_owned))
        };
        assert_eq!(asked(Some("3000000"), None), Some(Duration::from_secs(3)));
        assert_eq!(asked(Some("3000000"), Some(own.as_str())), Some(Duration::from_secs(3)));
        for (usec, pid) in
            [(Some("3000000"), Some("1")), (None, None), (Some("0"), None), (Some("soon"), None)]
        {
            assert_eq!(asked(usec, pid), None, "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn a_manager_is_told_on_a_path_and_on_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("spillq-test-{}", std::process::id());
        let at = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (listens, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&at).unwrap(), format!("@{abstract_name}").into()),
        ] {
            Line::open(&name).unwrap().tell("READY=1");
            listens.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut told = [0; 64];
            let size = listens.recv(&mut told).unwrap();
            assert_eq!(&told[..size], b"READY=1", "{}", name.display());
        }
    }
}
