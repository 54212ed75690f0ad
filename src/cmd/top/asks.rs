//! Who asks: a thread that asks the service once a second, and one that waits for signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::cmd::place::Place;
use crate::http::{DoctorJson, StatusJson};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// What the service said, or why it said nothing.
pub(super) type Heard = Result<Box<(StatusJson, DoctorJson)>, String>;

/// The thread that asks. Ends when this is dropped, once its question under way is answered.
pub(super) struct Asks {
    heard: Receiver<Heard>,
    _go_on: SyncSender<()>,
}

impl Asks {
    pub(super) fn start(place: Place) -> io::Result<Asks> {
        // What is not taken is not kept: the next answer is as good.
        let (tell, heard) = sync_channel(2);
        let (go_on, ended) = sync_channel(0);
        std::thread::Builder::new().name("spillq-asks".to_owned()).spawn(move || {
            loop {
                if let Err(TrySendError::Disconnected(_)) = tell.try_send(ask(&place)) {
                    return;
                }
                match ended.recv_timeout(EVERY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return,
                }
            }
        })?;
        Ok(Asks { heard, _go_on: go_on })
    }

    /// The next answer, if there is one.
    pub(super) fn heard(&self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }
}

fn ask(place: &Place) -> Heard {
    let service = place.service().map_err(|failure| failure.to_string())?;
    let service = service.ok_or_else(|| "no service runs on it".to_owned())?;
    let status = service.get("/v1/status").map_err(|error| error.to_string())?;
    let doctor = service.get("/v1/doctor").map_err(|error| error.to_string())?;
    Ok(Box::new((status, doctor)))
}

/// Whether somebody wants the process to end.
pub(super) struct Signals(Arc<AtomicBool>);

impl Signals {
    /// From now on SIGTERM, SIGINT and SIGHUP do not end the process at once: the terminal is given back first.
    pub(super) fn listen() -> io::Result<Signals> {
        let came = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let theirs = Arc::clone(&came);
        let (mut terminate, mut interrupt, mut hangup) = {
            let _within = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new().name("spillq-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            theirs.store(true, Ordering::Release);
        })?;
        Ok(Signals(came))
    }

    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
