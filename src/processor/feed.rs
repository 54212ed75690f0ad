//! The lines of a group on their way out: asks the owner for the next ones, reads them, and leases them.
//!
//! What cannot be read is reported to the owner, which decides what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use spillq_storage::{GroupId, ReadError, Reader, Seq, SeqRange};
use tokio::sync::oneshot;

use super::{Piece, Prepare};
use crate::queue::{Closed, Command, Handle, Lease, Lent, Offer, Window};

/// How many reads may fail in a row, for another reason than damage, before the group is blocked there.
const READS_MAX: u32 = 20;
/// The pause between two of them.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// Where the lines of one group come from. One read at a time.
pub(crate) struct Feed {
    pub(crate) handle: Handle,
    pub(crate) group: GroupId,
    pub(crate) name: Arc<str>,
    window: Arc<Window>,
    /// `None` before the first read, and while one is under way.
    reader: Option<Reader>,
    /// Reads in a row that failed for another reason than damage.
    failed_reads: u32,
}

/// Lines that were read and are not leased yet.
pub(crate) struct Read {
    pub(crate) offer: Offer,
    pub(crate) pieces: Vec<Piece>,
    /// Counts them in the memory budget until it is dropped.
    pub(crate) lent: Lent,
}

impl Read {
    pub(crate) fn line_count(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.range().lines()).sum()
    }
}

/// Lines whose lease was requested.
pub(crate) struct Leasing {
    pub(crate) read: Read,
    pub(crate) asked: oneshot::Receiver<Option<Lease>>,
}

/// A request for the next lines. If it is dropped before the answer was read, the offer is released.
pub(crate) struct Asked {
    handle: Handle,
    group: GroupId,
    pub(crate) answer: oneshot::Receiver<Offer>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Offer { reservation, .. }) = self.answer.try_recv() {
            // If the owner has ended, there is nothing to release.
            let _ = self.handle.send(Command::Release { group: self.group, reservation });
        }
    }
}

impl Feed {
    /// The lines of `group`.
    pub(crate) fn new(handle: Handle, group: GroupId, name: Arc<str>, window: Arc<Window>) -> Feed {
        Feed { handle, group, name, window, reader: None, failed_reads: 0 }
    }

    /// Asks for the next lines. With `ahead` also while the maximum of batches is in flight.
    pub(crate) fn ask(&self, ahead: bool) -> Result<Asked, Closed> {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Command::Next { group: self.group, ahead, reply })?;
        Ok(Asked { handle: self.handle.clone(), group: self.group, answer })
    }

    /// Gives an offer back.
    pub(crate) fn release(&self, offer: Offer) -> Result<(), Closed> {
        self.handle.send(Command::Release { group: self.group, reservation: offer.reservation })
    }

    /// Asks for a lease of the lines that were read. They are leased if the offer is still valid.
    pub(crate) fn lease(&self, read: Read) -> Result<Leasing, Closed> {
        let (reply, asked) = oneshot::channel();
        let last = read.pieces.last().map_or(read.offer.range.first, |piece| piece.range().last);
        let reservation = read.offer.reservation;
        self.handle.send(Command::Lease { group: self.group, reservation, last, reply })?;
        Ok(Leasing { read, asked })
    }

    /// Reads `range`, with which the offer begins, as far as it fits in `bytes_max`, on a thread for blocking calls. `None` if
    /// the first of its lines cannot be read: the offer has ended then, and the owner knows.
    pub(crate) async fn read(
        &mut self,
        offer: Offer,
        range: SeqRange,
        bytes_max: u64,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Result<Option<Read>, Closed> {
        let (pieces, error) = self.gather(range, bytes_max, prepare).await?;
        if pieces.is_empty() {
            // The file was compacted a moment ago, or the system lacks some resource: try again.
            let is_damage = matches!(error, Some(ReadError::Damaged { .. }));
            if !is_damage && self.failed_reads < READS_MAX {
                self.failed_reads += 1;
                tracing::debug!(group = %self.name, ?error, "could not read lines; trying again");
                self.release(offer)?;
                tokio::time::sleep(READ_AGAIN).await;
                return Ok(None);
            }
            let is_refused = error.as_ref().is_some_and(ReadError::is_refused);
            let (lost, what) = match error {
                Some(ReadError::Damaged { range: lost, .. }) if lost.contains(range.first) => (
                    lost.intersection(offer.range).unwrap_or(offer.range),
                    error.map(|error| error.to_string()),
                ),
                other => (SeqRange::one(range.first), other.map(|error| error.to_string())),
            };
            let what = what.unwrap_or_default();
            let (group, reservation) = (self.group, offer.reservation);
            self.handle.send(Command::Unreadable { group, reservation, range: lost, what, is_refused })?;
            return Ok(None);
        }
        self.failed_reads = 0;
        let bytes = pieces.iter().map(|piece| piece.bytes().len() as u64).sum();
        let lent = self.window.lend(bytes);
        Ok(Some(Read { offer, pieces, lent }))
    }

    /// Reads lines that are leased already, all of them or as far as they can be read.
    pub(crate) async fn read_leased(&mut self, range: SeqRange) -> Result<(Vec<Piece>, Lent), Closed> {
        let (pieces, error) = self.gather(range, u64::MAX, None).await?;
        if let Some(error) = error {
            tracing::warn!(group = %self.name, lines = %range, "leased lines cannot be read again: {error}");
        }
        let bytes = pieces.iter().map(|piece| piece.bytes().len() as u64).sum();
        let lent = self.window.lend(bytes);
        Ok((pieces, lent))
    }

    async fn gather(
        &mut self,
        range: SeqRange,
        bytes_max: u64,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Result<(Vec<Piece>, Option<ReadError>), Closed> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.handle.ask(Command::Reader).await?,
        };
        let window = Arc::clone(&self.window);
        let read = move || {
            let gathered = gather(reader, &window, range, bytes_max);
            if let Some(prepare) = prepare.filter(|_| !gathered.1.is_empty()) {
                prepare.prepare(&gathered.1);
            }
            gathered
        };
        let joined = tokio::task::spawn_blocking(read).await;
        let Ok((reader, pieces, error)) = joined else { return Err(Closed) };
        self.reader = Some(reader);
        Ok((pieces, error))
    }
}

/// Reads from `range.first` on until the batch is full, the range ends, or a block cannot be read.
fn gather(
    mut reader: Reader,
    window: &Window,
    range: SeqRange,
    bytes_max: u64,
) -> (Reader, Vec<Piece>, Option<ReadError>) {
    let (mut pieces, mut bytes) = (Vec::new(), 0_u64);
    let mut from = range.first;
    while let Some(rest) = SeqRange::new(from, range.last) {
        let block = match window.get(from) {
            Some(block) => block,
            None => match reader.block(from) {
                Ok(block) => Arc::new(block),
                Err(error) => return (reader, pieces, Some(error)),
            },
        };
        let Some(piece) = Piece::new(Arc::clone(&block), rest) else { break };
        let size = piece.bytes().len() as u64;
        if size > bytes_max - bytes {
            if let Some(last) = last_that_fits(&piece, bytes_max - bytes, pieces.is_empty()) {
                pieces.extend(SeqRange::new(from, last).and_then(|fits| Piece::new(block, fits)));
            }
            break;
        }
        bytes += size;
        from = piece.range().last.next();
        pieces.push(piece);
    }
    (reader, pieces, None)
}

/// The last line of a piece that fits in `bytes_left`. If `even_one`, it is at least the first line.
fn last_that_fits(piece: &Piece, bytes_left: u64, even_one: bool) -> Option<Seq> {
    let (mut bytes, mut last) = (0, None);
    for line in piece.lines() {
        bytes += line.bytes.len() as u64;
        if bytes > bytes_left && !(even_one && last.is_none()) {
            break;
        }
        last = Some(line.seq);
    }
    last
}
