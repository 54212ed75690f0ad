//! The standard error of a command that lives on: always read, so that it never blocks the command, shown on ours,
//! and its end kept as evidence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::evidence::Tail;
use super::passthrough::{Lines, Passthrough};

/// So much is taken at once.
const CHUNK_BYTES: usize = 8 * 1024;
/// What stands in the pipe after the end of the command is read for so long, see `exec`.
const DRAIN: Duration = Duration::from_millis(100);

/// What was seen of it so far. The reading ends with the stream.
#[derive(Clone, Debug)]
pub(super) struct Stderr {
    tail: Arc<Mutex<Tail>>,
    /// Asks for what is in the pipe to be read. Closed when the reading has ended.
    catch_up: mpsc::Sender<oneshot::Sender<()>>,
}

impl Stderr {
    /// Begins to read.
    pub(super) fn follow(from: Option<ChildStderr>, group: &str) -> Stderr {
        let tail = Arc::new(Mutex::new(Tail::default()));
        // One batch is out at a time, and so is one question.
        let (catch_up, asked) = mpsc::channel(1);
        if let Some(from) = from {
            let shown = Passthrough::to_messages().of(group);
            tokio::spawn(read(from, shown, Arc::clone(&tail), asked));
        }
        Stderr { tail, catch_up }
    }

    /// The end of it, as far as it was read.
    pub(super) fn seen(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// The end of it so far: what the command wrote before its answer came is in it.
    pub(super) async fn tail(&self) -> String {
        let (reply, caught_up) = oneshot::channel();
        // An error means that all was read, to the end of the stream.
        let asked = async {
            if self.catch_up.send(reply).await.is_ok() {
                let _ = caught_up.await;
            }
        };
        let _ = timeout(DRAIN, asked).await;
        self.seen()
    }

    /// The end of it, once the command has ended.
    pub(super) async fn end(self) -> String {
        // Beyond the time, somebody that we do not know of holds the pipe.
        let _ = timeout(DRAIN, self.catch_up.closed()).await;
        self.seen()
    }
}

/// Reads until the end of the stream.
async fn read(
    mut from: ChildStderr,
    mut shown: Lines,
    tail: Arc<Mutex<Tail>>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    // What is to be read before a question is answered: never more than was in the pipe when it was asked.
    let mut question: Option<(u64, oneshot::Sender<()>)> = None;
    loop {
        if let Some((_, reply)) = question.take_if(|(waiting, _)| *waiting == 0) {
            // Who asked may have stopped waiting.
            let _ = reply.send(());
        }
        tokio::select! {
            read = from.read(&mut buffer) => {
                let Ok(read @ 1..) = read else { return };
                let chunk = buffer.get(..read).unwrap_or_default();
                tail.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
                shown.push(chunk);
                if let Some((waiting, _)) = &mut question {
                    *waiting = waiting.saturating_sub(read as u64);
                }
            }
            Some(reply) = asked.recv(), if question.is_none() => {
                question = Some((rustix::io::ioctl_fionread(&from).unwrap_or(0), reply));
            }
        }
    }
}
