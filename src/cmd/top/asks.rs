//! Threads: one asks the service once a second and sends it requests, one waits for signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::cmd::place::Place;
use crate::http::{AdminJson, AnswerJson, DoctorJson, StatusJson};

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(1);

/// The answer of the service, or why there is none.
pub(super) type Heard = Result<Box<(StatusJson, DoctorJson)>, String>;

/// What a thread reports.
pub(super) enum News {
    /// An answer.
    Heard(Heard),
    /// The result of a request.
    Done(AdminJson, Result<AnswerJson, String>),
}

/// The thread that asks. Ends when this is dropped, after the answer to its current question.
pub(super) struct Asks {
    news: Receiver<News>,
    wanted: SyncSender<AdminJson>,
}

impl Asks {
    pub(super) fn start(place: Place) -> io::Result<Asks> {
        // An answer that is not taken in time is dropped: the next one replaces it.
        let (tell, news) = sync_channel(2);
        // One request at a time: repeats of a key that is held down are dropped.
        let (wanted, wants) = sync_channel(1);
        std::thread::Builder::new().name("spillq-asks".to_owned()).spawn(move || {
            loop {
                if let Err(TrySendError::Disconnected(_)) = tell.try_send(News::Heard(ask(&place))) {
                    return;
                }
                match wants.recv_timeout(EVERY) {
                    Ok(request) => {
                        let done = order(&place, &request);
                        if tell.send(News::Done(request, done)).is_err() {
                            return;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Asks { news, wanted })
    }

    /// The next answer, if there is one.
    pub(super) fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Sends a request, unless another is in progress.
    pub(super) fn order(&self, request: AdminJson) {
        // If it is dropped, the user presses the key again.
        let _ = self.wanted.try_send(request);
    }
}

fn ask(place: &Place) -> Heard {
    let service = place.service().map_err(|failure| failure.to_string())?;
    let service = service.ok_or_else(|| "no service runs on it".to_owned())?;
    let status = service.get("/v1/status").map_err(|error| error.to_string())?;
    let doctor = service.get("/v1/doctor").map_err(|error| error.to_string())?;
    Ok(Box::new((status, doctor)))
}

fn order(place: &Place, request: &AdminJson) -> Result<AnswerJson, String> {
    if matches!(place, Place::Url(_)) {
        return Err("--url only shows; run top on the host, with --data-dir".to_owned());
    }
    let service = place.service().map_err(|failure| failure.to_string())?;
    let service = service.ok_or_else(|| "no service runs on it".to_owned())?;
    service.post("/v1/admin", request).map_err(|error| error.to_string())
}

/// Whether the process was asked to end.
pub(super) struct Signals(Arc<AtomicBool>);

impl Signals {
    /// From now on SIGTERM, SIGINT and SIGHUP do not end the process at once: the terminal is restored first.
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
