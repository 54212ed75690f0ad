//! A plain thread for calls that may block for ever: a pipe that is not read, a disk that hangs.
//!
//! `spawn_blocking` does not fit: the runtime waits for its threads at shutdown, and one stuck write would keep the
//! service from ending. This thread is never joined. One call runs at a time and at most one waits. A call that was
//! given up does not start; if it has started, it runs to its end before the next.

use std::io;
use std::thread;

use tokio::sync::{mpsc, oneshot};

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A `T` on a separate thread.
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

    /// Calls `job` on the thread. If the future is dropped, the call does not start, or its result is lost. Fails if the
    /// thread has ended, which happens only after a panic.
    pub(super) async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> io::Result<R> {
        let ended = || io::Error::other("the thread for blocking calls has ended");
        let (reply, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |state| {
            if !reply.is_closed() {
                // If the caller no longer waits, the result is lost, as documented.
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
    async fn a_call_that_was_given_up_does_not_start() {
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
