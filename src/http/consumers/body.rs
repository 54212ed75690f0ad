//! The lines of a lease as the body of an answer. Nothing is copied; its memory is free again once it is sent.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::consumers;

/// How long the whole body may take: a client that reads 64 KiB a second gets the largest batch.
const SEND_WAIT: Duration = Duration::from_secs(300);

/// How much is passed on at once: what hyper has taken is not in the budget any more.
const FRAME_BYTES: usize = 32 * 1024;

/// The body.
pub(super) struct Sending {
    chunks: VecDeque<Bytes>,
    left: u64,
    until: Instant,
    /// Its share of the memory budget.
    _held: consumers::Body,
}

impl Sending {
    pub(super) fn new(mut body: consumers::Body) -> Sending {
        let chunks: VecDeque<Bytes> = std::mem::take(&mut body.chunks).into();
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Sending { chunks, left, until: Instant::now() + SEND_WAIT, _held: body }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if Instant::now() > self.until {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let Some(mut chunk) = self.chunks.pop_front() else { return Poll::Ready(None) };
        if chunk.len() > FRAME_BYTES {
            self.chunks.push_front(chunk.split_off(FRAME_BYTES));
        }
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
