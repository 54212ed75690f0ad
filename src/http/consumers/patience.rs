//! A connection that is cut off if its client makes no progress: connections are bounded, and a client that does nothing
//! keeps others out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client may read nothing of what is sent to it.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// How long a connection stays without an answer to send: the longest wait for lines, and the time until the next request.
const IDLE_WAIT: Duration = Duration::from_secs(140);

/// The same until a client has shown a valid token.
const UNKNOWN_WAIT: Duration = Duration::from_secs(10);

/// What is known of a client.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Standing(Arc<AtomicU8>);

const UNKNOWN: u8 = 0;
const KNOWN: u8 = 1;
/// Leases end with its connection: then it may be idle for as long as they last.
const BOUND: u8 = 2;

impl Standing {
    /// It may use the socket, or has shown a valid token.
    pub(super) fn known(self) -> Standing {
        self.is_known();
        self
    }

    pub(super) fn is_known(&self) {
        self.0.fetch_max(KNOWN, Ordering::Relaxed);
    }

    pub(super) fn is_bound(&self) {
        self.0.fetch_max(BOUND, Ordering::Relaxed);
    }
}

/// The connection.
pub(super) struct Patience<S> {
    stream: S,
    timer: Pin<Box<Sleep>>,
    /// When something was written last; at first when it was accepted.
    written: Instant,
    /// Since when a write waits for the client.
    blocked: Option<Instant>,
    standing: Standing,
}

impl<S> Patience<S> {
    pub(super) fn new(stream: S, standing: Standing) -> Patience<S> {
        let now = Instant::now();
        Patience {
            stream,
            timer: Box::pin(sleep_until(now + UNKNOWN_WAIT)),
            written: now,
            blocked: None,
            standing,
        }
    }

    fn deadline(&self) -> Instant {
        match self.blocked {
            Some(since) => since + WRITE_WAIT,
            None => match self.standing.0.load(Ordering::Relaxed) {
                UNKNOWN => self.written + UNKNOWN_WAIT,
                BOUND => Instant::now() + IDLE_WAIT,
                _ => self.written + IDLE_WAIT,
            },
        }
    }

    /// Fails once the deadline has passed; otherwise the task is woken at it.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let deadline = self.deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            if self.timer.deadline() != deadline {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(context));
        }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(_) => (self.written, self.blocked) = (Instant::now(), None),
            Poll::Pending => self.blocked = self.blocked.or_else(|| Some(Instant::now())),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_deadline(context).map(Err),
            read => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&written);
        match written {
            Poll::Pending => self.poll_deadline(context).map(Err),
            written => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(&written);
        match written {
            Poll::Pending => self.poll_deadline(context).map(Err),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_cut_off() {
        let (_client, server) = duplex(64);
        let mut server = Patience::new(server, Standing::default().known());
        let began = Instant::now();
        let error = server.write_all(&[0; 1_000]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, WRITE_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_slowly_is_cut_off_unless_leases_are_bound_to_it() {
        let (mut client, server) = duplex(64);
        let standing = Standing::default();
        let mut server = Patience::new(server, standing.clone());
        tokio::spawn(async move {
            while client.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        });
        let began = Instant::now();
        let mut read_all = async || loop {
            if let Err(error) = server.read_u8().await {
                return error.kind();
            }
        };
        assert_eq!(read_all().await, io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= UNKNOWN_WAIT, "{:?}", began.elapsed());
        standing.is_known();
        assert_eq!(read_all().await, io::ErrorKind::TimedOut);
        assert!(began.elapsed() > UNKNOWN_WAIT && began.elapsed() <= IDLE_WAIT, "{:?}", began.elapsed());
        standing.is_bound();
        let longer = tokio::time::timeout(10 * IDLE_WAIT, read_all()).await;
        assert!(longer.is_err(), "its leases are out");
    }
}
