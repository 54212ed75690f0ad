//! The standard error of a long-lived command. It is always read, so that it never blocks the command. It is shown on ours, and
//! its end is kept as evidence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::evidence::Tail;
use super::passthrough::{Passthrough, WholeLines};

/// How much is read at once.
const CHUNK_BYTES: usize = 8 * 1024;
/// How long the pipe is read after the end of the command, see `exec`.
const DRAIN: Duration = Duration::from_millis(100);

/// What was read so far. Reading ends with the stream.
#[derive(Clone, Debug)]
pub(super) struct Stderr {
    tail: Arc<Mutex<Tail>>,
    /// Asks for the pipe to be read until it is empty. Closed when reading has ended.
    catch_up: mpsc::Sender<oneshot::Sender<()>>,
}

impl Stderr {
    /// Starts to read.
    pub(super) fn follow(from: Option<ChildStderr>, group: &str) -> Stderr {
        let tail = Arc::new(Mutex::new(Tail::default()));
        // One batch is in flight at a time, and so is one request.
        let (catch_up, asked) = mpsc::channel(1);
        if let Some(from) = from {
            let shown = Passthrough::to_messages().of(group);
            tokio::spawn(read(from, shown, Arc::clone(&tail), asked));
        }
        Stderr { tail, catch_up }
    }

    /// The end of what was read so far.
    pub(super) fn seen(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// The same, including all that the command wrote before its answer came.
    pub(super) async fn tail(&self) -> String {
        let (reply, caught_up) = oneshot::channel();
        // An error means that all was read, up to the end of the stream.
        let asked = async {
            if self.catch_up.send(reply).await.is_ok() {
                let _ = caught_up.await;
            }
        };
        let _ = timeout(DRAIN, asked).await;
        self.seen()
    }

    /// The end of the stream, once the command has ended.
    pub(super) async fn end(self) -> String {
        // After that time, an unknown process holds the pipe open.
        let _ = timeout(DRAIN, self.catch_up.closed()).await;
        self.seen()
    }
}

/// Reads until the end of the stream.
async fn read(
    mut from: ChildStderr,
    mut shown: WholeLines,
    tail: Arc<Mutex<Tail>>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    // How many bytes to read before a request is answered: not more than were in the pipe when it came.
    let mut request: Option<(u64, oneshot::Sender<()>)> = None;
    loop {
        if let Some((_, reply)) = request.take_if(|(waiting, _)| *waiting == 0) {
            // The caller may have stopped waiting.
            let _ = reply.send(());
        }
        tokio::select! {
            read = from.read(&mut buffer) => {
                let Ok(read @ 1..) = read else { return };
                let chunk = buffer.get(..read).unwrap_or_default();
                tail.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
                shown.push(chunk);
                if let Some((waiting, _)) = &mut request {
                    *waiting = waiting.saturating_sub(read as u64);
                }
            }
            Some(reply) = asked.recv(), if request.is_none() => {
                request = Some((rustix::io::ioctl_fionread(&from).unwrap_or(0), reply));
            }
        }
    }
}
