//! A plain thread for calls that may block for ever: a pipe that nobody reads, a disk that hangs.
//!
//! Not `spawn_blocking`: the runtime waits for its own threads when it shuts down, and one stuck write would keep
//! the service from ending. This thread is never joined. One call runs at a time and at most one waits: a call
//! that was given up does not begin, and one that had begun runs to its end before the next.

use std::io;
use std::thread;

use tokio::sync::{mpsc, oneshot};

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A `T` that lives on a thread of its own.
#[derive(Debug)]
pub(super) struct Blocking<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T: Send + 'static> Blocking<T> {
    /// Starts the thread. It ends when this is dropped and the last call has returned.
    pub(super) fn start(name: &str, mut state: T) -> io::Result<Blocking<T>> {
        let (jobs, mut waiting) = mpsc::channel::<Job<T>>(1);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut state);
            }
        })?;
        Ok(Blocking { jobs })
    }

    /// Calls `job` on the thread. Where the future is dropped, the call does not begin, or its answer is lost.
    /// An error when the thread has ended, which only a panic does.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> io::Result<R> {
        let ended = || io::Error::other("the thread that does it has ended");
        let (reply, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |state| {
            if !reply.is_closed() {
                // Nobody may wait any more: the answer is lost then, as documented.
                let _ = reply.send(job(state));
            }
        });
        self.jobs.send(job).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc as plain;

    #[tokio::test]
    async fn a_call_that_was_given_up_does_not_begin() {
        let thread = Blocking::start("test", Vec::new()).unwrap();
        let (go, gate) = plain::channel::<()>();
        let first = thread.call(move |seen: &mut Vec<i32>| {
            let _ = gate.recv();
            seen.push(1);
        });
        tokio::pin!(first);
        assert!(futures_poll(first.as_mut()).await);
        {
            let second = thread.call(|seen: &mut Vec<i32>| seen.push(2));
            tokio::pin!(second);
            assert!(futures_poll(second.as_mut()).await);
        }
        go.send(()).unwrap();
        first.await.unwrap();
        assert_eq!(thread.call(|seen| seen.clone()).await.unwrap(), [1]);
    }

    /// Polls once; whether it is pending.
    async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }
}
