//! The body of a request, frame by frame. It reports how much is left to send.
//!
//! A status of 2xx acks lines, so it counts only if all of them were sent to the server. Bytes that hyper has taken count as
//! sent; at most about 128 KiB of them wait in its buffer. Nothing is copied.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;

/// How much is passed on at once: little enough that a status that comes too early is noticed.
const FRAME_BYTES: usize = 32 * 1024;

/// A body.
#[derive(Debug)]
pub(super) struct Upload {
    /// None of them empty.
    chunks: VecDeque<Bytes>,
    left: watch::Sender<u64>,
}

impl Upload {
    /// The chunks one after the other. The receiver has the number of bytes that are left, and closes with the body.
    pub(super) fn new(chunks: Vec<Bytes>) -> (Upload, watch::Receiver<u64>) {
        let chunks: VecDeque<Bytes> = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let (left, seen) = watch::channel(chunks.iter().map(|chunk| chunk.len() as u64).sum());
        (Upload { chunks, left }, seen)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(mut chunk) = self.chunks.pop_front() else { return Poll::Ready(None) };
        if chunk.len() > FRAME_BYTES {
            self.chunks.push_front(chunk.split_off(FRAME_BYTES));
        }
        self.left.send_modify(|left| *left -= chunk.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(*self.left.borrow())
    }
}
