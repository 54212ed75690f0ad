//! The standard error of a command that lives on: always read, so that it never blocks the command, shown on ours,
//! and its end kept as evidence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::sync::watch;
use tokio::time::timeout;

use super::evidence::Tail;
use super::passthrough::Passthrough;

/// So much is taken at once.
const CHUNK_BYTES: usize = 8 * 1024;
/// What stands in the pipe after the end of the command is read for so long, see `exec`.
const DRAIN: Duration = Duration::from_millis(100);

/// What was seen of it so far. The reading ends with the stream.
#[derive(Clone, Debug)]
pub(super) struct Stderr {
    tail: Arc<Mutex<Tail>>,
    ended: watch::Receiver<()>,
}

impl Stderr {
    /// Begins to read.
    pub(super) fn follow(from: Option<ChildStderr>) -> Stderr {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (end, ended) = watch::channel(());
        let kept = Arc::clone(&tail);
        if let Some(mut from) = from {
            tokio::spawn(async move {
                let passthrough = Passthrough::to_stderr();
                let mut buffer = vec![0; CHUNK_BYTES];
                while let Ok(read @ 1..) = from.read(&mut buffer).await {
                    let chunk = buffer.get(..read).unwrap_or_default();
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
                    passthrough.show(chunk);
                }
                drop(end);
            });
        }
        Stderr { tail, ended }
    }

    /// The end of it so far.
    pub(super) fn tail(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// The end of it, once the command has ended.
    pub(super) async fn end(mut self) -> String {
        // An error is the end of the stream. Beyond the time, somebody that we do not know of holds the pipe.
        let _ = timeout(DRAIN, self.ended.changed()).await;
        self.tail()
    }
}
