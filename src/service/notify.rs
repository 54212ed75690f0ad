//! Notifies a service manager: systemd's protocol of `Type=notify`, with datagrams on the socket that `NOTIFY_SOCKET` names.
//! Without the variable nothing is sent.
//!
//! Ready means that the log is open, files are followed and commands are answered. A manager that does not listen is logged
//! as a warning, and never stops the service.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::http::reason;
use crate::plain::{beginning, escape, waiting};
use crate::queue::{Command, GroupStatus, Handle, Pulse, Status, now_ms};
use crate::supervise::State;

/// How often the status line is renewed.
const EVERY: Duration = Duration::from_secs(10);
/// The maximum length of a status line: a store can have many groups.
const STATUS_BYTES_MAX: usize = 512;

/// The manager that started the service, if there is one.
pub(super) struct Manager {
    socket: Option<Arc<Socket>>,
    renewed: Option<JoinHandle<()>>,
}

impl Manager {
    pub(super) fn from_environment() -> Manager {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            Socket::open(&name)
                .inspect_err(|error| {
                    tracing::warn!("cannot notify the service manager on {}: {error}", name.display())
                })
                .ok()
        });
        Manager { socket: socket.map(Arc::new), renewed: None }
    }

    /// The service is ready. From now on its status line is updated.
    pub(super) fn ready(&mut self, handle: Handle) {
        let Some(socket) = &self.socket else { return };
        socket.send("READY=1");
        let socket = Arc::clone(socket);
        self.renewed = Some(tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                let Ok(status) = handle.ask(Command::Status).await else { return };
                socket.send(&format!("STATUS={}", sentence(&status)));
            }
        }));
    }

    /// The configuration is being read again.
    pub(super) fn reloading(&self) {
        let Some(socket) = &self.socket else { return };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
        socket.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// It was read again, whatever the result.
    pub(super) fn ready_again(&self) {
        if let Some(socket) = &self.socket {
            socket.send("READY=1");
        }
    }

    /// Sends watchdog messages: the manager ends a service that is silent for `WATCHDOG_USEC`. The owner of the log sends them
    /// at the end of a round, and the supervisor's requests cause one round a second. While the disk hangs there is none; a
    /// timer would send messages even then.
    pub(super) fn watch(&self, pulse: &Pulse) {
        let Some(within) = watchdog(|name| std::env::var(name).ok()) else { return };
        let Some(socket) = self.socket.clone() else { return };
        let sent = Mutex::new(None::<Instant>);
        pulse.at_each_round(move || {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            if sent.is_none_or(|sent| sent.elapsed() >= within / 4) {
                *sent = Some(Instant::now());
                socket.send("WATCHDOG=1");
            }
        });
    }

    /// The service stops, which may take as long as the batches in flight.
    pub(super) fn stopping(&mut self) {
        if let Some(renewed) = self.renewed.take() {
            renewed.abort();
        }
        if let Some(socket) = &self.socket {
            socket.send("STOPPING=1\nSTATUS=stopping; finishing the batches in flight");
        }
    }
}

/// How often the manager expects a watchdog message, if it does.
fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let number = |name| variable(name)?.parse::<u64>().ok();
    let is_for_others = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| *usec > 0 && !is_for_others).map(Duration::from_micros)
}

struct Socket {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Socket {
    fn open(name: &OsStr) -> io::Result<Socket> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up the service.
        socket.set_nonblocking(true)?;
        Ok(Socket { socket, to })
    }

    fn send(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.to) {
            tracing::warn!("cannot notify the service manager of {state:?}: {error}");
        }
    }
}

/// The status line: what each group is doing and why, and how many lines wait.
fn sentence(status: &Status) -> String {
    let now_ms = now_ms();
    let of_group = |group: &GroupStatus| {
        let reason = reason(&group.phase, now_ms).map(|reason| format!(" ({reason})")).unwrap_or_default();
        let state = State::from(&group.phase).word();
        format!("{} {state}{reason}, {}", group.name, waiting(group.lag_lines))
    };
    let groups: Vec<_> = status.groups.iter().map(of_group).collect();
    // A new line would begin another assignment of the protocol.
    beginning(escape(&groups.join("; ")).into_owned(), STATUS_BYTES_MAX)
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
    fn a_manager_is_notified_on_a_path_and_on_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("spillq-test-{}", std::process::id());
        let at = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (listens, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&at).unwrap(), format!("@{abstract_name}").into()),
        ] {
            Socket::open(&name).unwrap().send("READY=1");
            listens.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut message = [0; 64];
            let size = listens.recv(&mut message).unwrap();
            assert_eq!(&message[..size], b"READY=1", "{}", name.display());
        }
    }
}
