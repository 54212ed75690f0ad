//! The lines of a group on their way out: asks the owner for the next ones, reads them, and leases them.
//!
//! What cannot be read is reported to the owner, which decides what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use spillq_storage::{Block, GroupId, ReadError, Reader, Seq, SeqRange, SourceLines};
use tokio::sync::oneshot;

use super::{Piece, Prepare};
use crate::queue::{Closed, Command, Handle, Lease, Lent, Members, Offer, Own, Taken, Window};

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

/// Blocks whose lines are all of other sources, after which a read ends, so that the offer is not taken for long.
const PASSED_BLOCKS_MAX: usize = 1_024;
/// Ranges of own lines in a batch of a group over some sources: each is a piece of memory.
const OWN_RANGES_MAX: usize = 16_384;

/// Lines that were read and are not leased yet.
pub(crate) struct Read {
    pub(crate) offer: Offer,
    pub(crate) pieces: Vec<Piece>,
    /// Which lines of the offer they are.
    pub(crate) taken: Taken,
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
        let (reservation, taken) = (read.offer.reservation, read.taken.clone());
        self.handle.send(Command::Lease { group: self.group, reservation, taken, reply })?;
        Ok(Leasing { read, asked })
    }

    /// Reads the first lines of an offer, as far as they fit in `lines_max` and `bytes_max`, on a thread for blocking calls.
    /// `None` if there are none to lease: the first of its lines cannot be read, or those that were read are of other sources.
    /// The offer has ended then, and the owner knows.
    pub(crate) async fn read(
        &mut self,
        offer: Offer,
        lines_max: u64,
        bytes_max: u64,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Result<Option<Read>, Closed> {
        let members = offer.members.clone();
        let Gathered { mut pieces, to, error } =
            self.gather(offer.range, members, (lines_max.min(offer.lines_max), bytes_max), prepare).await?;
        let (group, reservation) = (self.group, offer.reservation);
        let Some(last) = pieces.last() else {
            if let Some(to) = to {
                self.failed_reads = 0;
                self.handle.send(Command::Pass { group, reservation, to })?;
                return Ok(None);
            }
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
                Some(ReadError::Damaged { range: lost, .. }) if lost.contains(offer.range.first) => (
                    lost.intersection(offer.range).unwrap_or(offer.range),
                    error.map(|error| error.to_string()),
                ),
                other => (SeqRange::one(offer.range.first), other.map(|error| error.to_string())),
            };
            let what = what.unwrap_or_default();
            self.handle.send(Command::Unreadable { group, reservation, range: lost, what, is_refused })?;
            return Ok(None);
        };
        let taken = match &offer.members {
            None => Taken::UpTo(last.range().last),
            Some(_) => {
                let own: Vec<SeqRange> = pieces.iter().map(Piece::range).collect();
                let to = to.unwrap_or(last.range().last);
                pieces = cover(pieces, SeqRange { last: to, ..offer.range });
                Taken::Own { own: Own::of(&own), to }
            }
        };
        self.failed_reads = 0;
        let bytes = pieces.iter().map(|piece| piece.bytes().len() as u64).sum();
        let lent = self.window.lend(bytes);
        Ok(Some(Read { offer, pieces, taken, lent }))
    }

    /// Reads lines that are leased already, or as far as they can be read.
    pub(crate) async fn read_leased(&mut self, ranges: Vec<SeqRange>) -> Result<(Vec<Piece>, Lent), Closed> {
        let Gathered { pieces, error, .. } =
            self.blocking(move |reader, window| gather_ranges(reader, window, &ranges)).await?;
        if let Some(error) = error {
            tracing::warn!(group = %self.name, "leased lines cannot be read again: {error}");
        }
        let bytes = pieces.iter().map(|piece| piece.bytes().len() as u64).sum();
        let lent = self.window.lend(bytes);
        Ok((pieces, lent))
    }

    async fn gather(
        &mut self,
        range: SeqRange,
        members: Option<Members>,
        (lines_max, bytes_max): (u64, u64),
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Result<Gathered, Closed> {
        self.blocking(move |reader, window| {
            let gathered = match members {
                None => gather(reader, window, range, (lines_max, bytes_max)),
                Some(members) => gather_own(reader, window, range, &members, (lines_max, bytes_max)),
            };
            if let Some(prepare) = prepare.filter(|_| !gathered.pieces.is_empty()) {
                prepare.prepare(&gathered.pieces);
            }
            gathered
        })
        .await
    }

    /// Reads on a thread for blocking calls.
    async fn blocking(
        &mut self,
        read: impl FnOnce(&mut Reader, &Window) -> Gathered + Send + 'static,
    ) -> Result<Gathered, Closed> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.handle.ask(Command::Reader).await?,
        };
        let window = Arc::clone(&self.window);
        let read = move || {
            let gathered = read(&mut reader, &window);
            (reader, gathered)
        };
        let joined = tokio::task::spawn_blocking(read).await;
        let Ok((reader, gathered)) = joined else { return Err(Closed) };
        self.reader = Some(reader);
        Ok(gathered)
    }
}

/// What was read of a range.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Piece>,
    /// In a group over some sources: up to here all lines were read that are its own.
    to: Option<Seq>,
    error: Option<ReadError>,
}

/// The block that holds a line, from the window or from disk.
fn block(reader: &mut Reader, window: &Window, seq: Seq) -> Result<Arc<Block>, ReadError> {
    window.get(seq).map_or_else(|| reader.block(seq).map(Arc::new), Ok)
}

/// Reads from `range.first` on until the batch is full, the range ends, or a block cannot be read.
fn gather(
    reader: &mut Reader,
    window: &Window,
    range: SeqRange,
    (lines_max, bytes_max): (u64, u64),
) -> Gathered {
    let last = range.last.min(range.first.plus(lines_max.saturating_sub(1).min(range.lines())));
    let (mut gathered, mut bytes) = (Gathered::default(), 0_u64);
    let mut from = range.first;
    while let Some(rest) = SeqRange::new(from, last) {
        let block = match block(reader, window, from) {
            Ok(block) => block,
            Err(error) => return Gathered { error: Some(error), ..gathered },
        };
        let Some(piece) = Piece::new(Arc::clone(&block), rest) else { break };
        let size = piece.bytes().len() as u64;
        if size > bytes_max - bytes {
            if let Some(last) = last_that_fits(&piece, bytes_max - bytes, gathered.pieces.is_empty()) {
                gathered.pieces.extend(SeqRange::new(from, last).and_then(|fits| Piece::new(block, fits)));
            }
            break;
        }
        bytes += size;
        from = piece.range().last.next();
        gathered.pieces.push(piece);
    }
    gathered
}

/// Reads all lines of `ranges`, as far as they can be read. Several are copied out of their blocks.
fn gather_ranges(reader: &mut Reader, window: &Window, ranges: &[SeqRange]) -> Gathered {
    if let [one] = ranges {
        return gather(reader, window, *one, (u64::MAX, u64::MAX));
    }
    let (mut all, mut last) = (Gathered::default(), None::<Arc<Block>>);
    for range in ranges {
        let mut from = range.first;
        while let Some(rest) = SeqRange::new(from, range.last) {
            let known = last.take().filter(|block| block.range().contains(from));
            let found = match known.map_or_else(|| block(reader, window, from), Ok) {
                Ok(found) => found,
                Err(error) => return Gathered { error: Some(error), ..all },
            };
            let Some(piece) = found.part(rest).and_then(|part| Piece::new(Arc::new(part), rest)) else {
                break;
            };
            from = piece.range().last.next();
            all.pieces.push(piece);
            last = Some(found);
        }
    }
    all
}

/// [`gather`] for a group over some sources: only its own lines. Of a block without any, only the header is read.
fn gather_own(
    reader: &mut Reader,
    window: &Window,
    range: SeqRange,
    members: &Members,
    (lines_max, bytes_max): (u64, u64),
) -> Gathered {
    let (mut gathered, mut bytes, mut lines) = (Gathered::default(), 0_u64, 0_u64);
    let mut passed = 0;
    let mut from = range.first;
    while from <= range.last && passed < PASSED_BLOCKS_MAX {
        let in_memory = window.get(from);
        let by_source = match &in_memory {
            Some(block) => Ok(block.by_source().collect()),
            None => reader.by_source(from),
        };
        let by_source: Vec<SourceLines> = match by_source {
            Ok(by_source) => by_source,
            Err(error) => return Gathered { error: Some(error), ..gathered },
        };
        let all = SeqRange { first: from, ..range };
        let behind = by_source.last().map_or(from.next(), |of| of.range.last.next());
        let own = |of: SourceLines| of.range.intersection(all).filter(|_| members.has(of.source));
        let own: Vec<SeqRange> = by_source.into_iter().filter_map(own).collect();
        if own.is_empty() {
            passed += 1;
            gathered.to = Some(range.last.min(behind.prev()));
            from = behind;
            continue;
        }
        let block = match in_memory.map_or_else(|| reader.block(from).map(Arc::new), Ok) {
            Ok(block) => block,
            Err(error) => return Gathered { error: Some(error), ..gathered },
        };
        // A few lines of a large block would keep all of it in memory.
        let kept: usize = own.iter().map(|own| block.slice(*own).len()).sum();
        let is_sparse = kept < block.raw().len() / 2;
        for own in own {
            let left = lines_max - lines;
            let Some(fits) = SeqRange::new(own.first, own.last.min(own.first.plus(left).prev())) else {
                return gathered;
            };
            let whole = || Some(Arc::clone(&block));
            let of = if is_sparse { block.part(fits).map(Arc::new) } else { whole() };
            let Some(piece) = of.and_then(|of| Piece::new(of, fits)) else { return gathered };
            let size = piece.bytes().len() as u64;
            if size > bytes_max - bytes {
                let last = last_that_fits(&piece, bytes_max - bytes, gathered.pieces.is_empty());
                if let Some(piece) = last.and_then(|last| piece.within(SeqRange { last, ..fits })) {
                    gathered.to = Some(piece.range().last);
                    gathered.pieces.push(piece);
                }
                return gathered;
            }
            (bytes, lines) = (bytes + size, lines + fits.lines());
            gathered.to = Some(fits.last);
            gathered.pieces.push(piece);
            if fits.last < own.last || gathered.pieces.len() == OWN_RANGES_MAX {
                return gathered;
            }
        }
        gathered.to = Some(range.last.min(behind.prev()));
        from = behind;
        if lines >= lines_max {
            break;
        }
    }
    gathered
}

/// All lines of `range` that are between own ones are of other sources.
fn cover(pieces: Vec<Piece>, range: SeqRange) -> Vec<Piece> {
    let behind: Vec<Seq> = pieces.iter().skip(1).map(|piece| piece.range().first).collect();
    let mut from = range.first;
    let pieces = pieces.into_iter().enumerate().map(|(at, piece)| {
        let last = behind.get(at).map_or(range.last, |next| next.prev());
        let covers = SeqRange { first: from, last };
        from = last.next();
        piece.covering(covers)
    });
    pieces.collect()
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
