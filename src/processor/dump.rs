//! A signal that is sent shortly before a command that hangs is ended, so that it can print where it hangs: `dump_signal`.
//!
//! Only those processes of the command that catch the signal get it: most programs end at such a signal if they do not
//! expect it, and so does a shell around the program that hangs.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep_until};

use super::report::signal_name;
use super::{Batch, procs};
use crate::plain::harmless;

/// How long the command has to print. At most half of the time-out.
const BEFORE_END: Duration = Duration::from_secs(1);
/// How many processes are named.
const NAMED_MAX: usize = 8;

/// The signal for one batch. Sent once.
#[derive(Debug)]
pub(super) struct Dump {
    signal: Signal,
    at: Instant,
    sent: Option<Sent>,
}

/// The result of the signal.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// For people.
    pub(super) what: String,
    /// A process got it, and may have ended because of it.
    pub(super) has_reached: bool,
}

impl Dump {
    /// For this batch; `None` without a signal, and for a batch without a time-out.
    pub(super) fn of(signal: Option<Signal>, batch: &Batch) -> Option<Dump> {
        let (signal, deadline) = (signal?, batch.deadline()?);
        let left = deadline.saturating_duration_since(Instant::now());
        Some(Dump { signal, at: deadline - BEFORE_END.min(left / 2), sent: None })
    }

    /// Sends it to the descendants of `shim` that catch it.
    fn send(&mut self, shim: Option<Pid>) {
        let name = signal_name(self.signal.as_raw()).unwrap_or("the signal");
        let processes = shim.map(procs::descendants).unwrap_or_default();
        let (mut reached, mut refused) = (Vec::new(), Vec::new());
        for process in processes.iter().filter(|process| process.catches(self.signal)).take(NAMED_MAX) {
            let named =
                format!("{} {}", process.pid.as_raw_pid(), harmless(&process.name).replace('\n', "?"));
            match process.signal(self.signal) {
                Ok(()) => reached.push(named),
                Err(error) => refused.push(format!("{named} ({error})")),
            }
        }
        let has_reached = !reached.is_empty();
        let what = match (has_reached, refused.is_empty()) {
            (true, _) => format!("{name} was sent to {}", reached.join(", ")),
            (false, false) => format!("{name} could not be sent to {}", refused.join(", ")),
            (false, true) if processes.is_empty() && !procs::can_look() => {
                format!(
                    "{name} was not sent: /proc is not mounted, so it is not known which process catches it"
                )
            }
            (false, true) => format!("{name} was not sent: no process of the command catches it"),
        };
        self.sent = Some(Sent { what, has_reached });
    }
}

/// Waits until the signal is due, and sends it. Never returns if there is none to send.
pub(super) async fn sent(dump: &mut Option<Dump>, shim: Option<Pid>) -> Sent {
    match dump {
        Some(dump) if dump.sent.is_none() => {
            sleep_until(dump.at).await;
            dump.send(shim);
            match &dump.sent {
                Some(sent) => sent.clone(),
                None => std::future::pending().await,
            }
        }
        _ => std::future::pending().await,
    }
}
