//! Appends: what was read goes to the log with the checkpoints that cover it, and the answer is waited for.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use spillq_storage::{BlockBuilder, NewBlock};

use crate::queue::{Append, Closed, Handle, Ticket};
use crate::tail::bytes::{APPEND_BYTES, Compressor, Filler};
use crate::tail::pipes::streams::{HELD_BYTES_MAX, InputStreams};
use crate::tail::rules::Book;

/// Appends of few lines that wait for the log. While they wait, more lines come, which make a larger append.
pub(crate) const IN_FLIGHT_MAX: usize = 3;
/// Full appends that wait for the log. While the lines of one commit are recorded, those of the next are written, and those
/// of a third gather. A slow disk needs them large: then it syncs less often.
pub(crate) const IN_FLIGHT_LARGE_MAX: usize = 8;
/// Bytes of lines that were read and are not durable yet: the appends in flight, the last of which may hold a line of
/// the longest, and the incomplete lines of streams.
pub const BUFFERED_BYTES_MAX: u64 =
    ((IN_FLIGHT_LARGE_MAX + 1) * APPEND_BYTES + BlockBuilder::LINE_BYTES_MAX + HELD_BYTES_MAX) as u64;
/// Checkpoints in one append. With 10,000 quiet sources renamed at once the rest goes with the next.
const CHECKPOINTS_MAX: usize = 2_048;

/// The way to the log, and what is on it.
#[derive(Debug)]
pub(crate) struct Appends {
    handle: Handle,
    compressor: Compressor,
    in_flight: VecDeque<InFlight>,
    /// [`APPEND_BYTES`]; less for small files that take many appends.
    pub(crate) append_bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    ticket: Ticket,
    bytes: usize,
    /// Of streams.
    stream_bytes: usize,
    since: SystemTime,
}

impl Appends {
    pub(crate) fn new(handle: Handle) -> Appends {
        Appends {
            handle,
            compressor: Compressor::default(),
            in_flight: VecDeque::new(),
            append_bytes: APPEND_BYTES,
        }
    }

    /// Begins an append at the wall-clock time `now_ms`.
    pub(crate) fn begin(&self, now_ms: u64) -> Filler {
        Filler::begin(now_ms, self.append_bytes).with_jobs(self.compressor.jobs())
    }

    /// Waits for the oldest append, up to `timeout`, and takes the answers that are there.
    pub(crate) fn retire(&mut self, timeout: Duration) -> Result<(), Closed> {
        while let Some(oldest) = self.in_flight.front() {
            if oldest.ticket.wait_timeout(timeout)?.is_none() {
                break;
            }
            self.in_flight.pop_front();
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Another append may be sent, and what is in flight has no giant line that a second append would double.
    pub(crate) fn has_slot(&self) -> bool {
        let few = self.in_flight.iter().filter(|append| append.bytes < self.append_bytes / 2).count();
        few < IN_FLIGHT_MAX && self.bytes() < IN_FLIGHT_LARGE_MAX * self.append_bytes
    }

    /// Bytes of lines that wait for the log.
    pub(crate) fn bytes(&self) -> usize {
        self.in_flight.iter().map(|append| append.bytes).sum()
    }

    /// Bytes of streams that a kill would lose: they are read, and the log has not answered.
    pub(crate) fn stream_bytes(&self) -> usize {
        self.in_flight.iter().map(|append| append.stream_bytes).sum()
    }

    /// Since when the oldest append waits.
    pub(crate) fn oldest_since(&self) -> Option<SystemTime> {
        self.in_flight.front().map(|oldest| oldest.since)
    }

    /// Sends lines and the checkpoints that are owed. False if there was nothing. `stream_bytes` of the lines cannot be
    /// read again.
    pub(crate) fn send(
        &mut self,
        book: &mut Book,
        streams: &mut InputStreams,
        filler: Filler,
        stream_bytes: usize,
    ) -> Result<bool, Closed> {
        let mut append = Append::default();
        let checkpoints_max = if filler.lines > 0 { usize::MAX } else { CHECKPOINTS_MAX };
        append.checkpoints = book.take_checkpoints(checkpoints_max);
        let mut last = book.take_last_checkpoints();
        append.forget = last.iter().map(|last| last.0).collect();
        append.checkpoints.append(&mut last);
        streams.give_checkpoints(&mut append);
        book.counters.lines += filler.lines;
        append.blocks = filler.finish();
        if append.blocks.is_empty() && append.checkpoints.is_empty() {
            return Ok(false);
        }
        let bytes = append.blocks.iter().map(NewBlock::raw_bytes).sum();
        book.counters.bytes += bytes as u64;
        book.counters.appends += 1;
        let ticket = self.handle.append(append)?;
        self.in_flight.push_back(InFlight { ticket, bytes, stream_bytes, since: SystemTime::now() });
        Ok(true)
    }
}
