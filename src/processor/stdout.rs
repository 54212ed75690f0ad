//! Writes each batch to standard output.
//!
//! A batch is done when the kernel has its bytes, in the pipe or the file; nobody need have read them. If a slow reader
//! lets the time-out pass, the write in progress still continues to its end, so that no line is torn. The next batch waits for
//! it, and leaves out the lines that were written. So a slow reader sees no line twice while the service runs. The runtime must
//! never be held up: a separate thread writes.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use spillq_storage::{Seq, SeqRange};

use super::blocking::Blocking;
use super::written::Written;
use super::{Batch, Evidence, Outcome, Piece, Processing, Processor};
use crate::file_limit::explained;

/// The pause before a full non-blocking standard output is tried again: too short for readers to notice.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// Standard output as a destination.
#[derive(Debug)]
pub struct Stdout {
    thread: Blocking<Sink>,
    /// The latest batch that was done: its number and its lines. If these are delivered again, they are written
    /// again. Other lines that were written are delivered again because their batch was cut off.
    done: (u64, Vec<SeqRange>),
}

impl Stdout {
    /// Will write to standard output.
    ///
    /// # Errors
    /// If it is closed, or no thread can be started.
    pub fn new() -> io::Result<Stdout> {
        // A separate descriptor: the standard library would buffer, and keep half a line after an error.
        Stdout::to(File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Stdout> {
        let sink = Sink { out: Box::new(out), written: Written::default(), done: 0, torn: None };
        Ok(Stdout { thread: Blocking::start("stdout", sink)?, done: (0, Vec::new()) })
    }

    async fn write(&mut self, batch: &Batch) -> Outcome {
        let (copy, (number, done)) = (batch.clone(), self.done.clone());
        let written = self.thread.call(move |sink| {
            sink.forget(number, &done);
            sink.write(&copy)
        });
        let error = match written.await {
            Ok(Ok(())) => {
                self.done = (number + 1, batch.pieces().iter().map(Piece::covers).collect());
                return Outcome::Done;
            }
            Ok(Err(error)) | Err(error) => error,
        };
        let evidence = |why: String| Evidence::new(format!("standard output could not be written: {why}"));
        match error.kind() {
            ErrorKind::FileTooLarge => Outcome::Refused(evidence(explained(&error))),
            ErrorKind::BrokenPipe => {
                Outcome::Refused(Evidence::new("standard output was closed by its reader".to_owned()))
            }
            _ => Outcome::Failed(evidence(error.to_string())),
        }
    }
}

impl Processor for Stdout {
    fn name(&self) -> String {
        "stdout".to_owned()
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.write(batch))
    }
}

/// A line that was written only in part before an error.
#[derive(Clone, Copy, Debug)]
struct Torn {
    seq: Seq,
    bytes: usize,
}

struct Sink {
    out: Box<dyn Write + Send>,
    /// Lines of batches that are not done, which were written: they will be delivered again.
    written: Written,
    /// The latest batch whose lines were forgotten.
    done: u64,
    torn: Option<Torn>,
}

impl Sink {
    /// Forgets the lines of a batch that is done. Only once: they may have been written again since.
    fn forget(&mut self, number: u64, done: &[SeqRange]) {
        if number > self.done {
            self.done = number;
            for range in done {
                self.written.remove(*range);
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        for piece in self.written.rest(batch) {
            let mut at = 0;
            if let Some(torn) = self.torn {
                if torn.seq == piece.range().first {
                    at = torn.bytes;
                } else {
                    // The next line is another one: end the torn line, or the two would become one.
                    self.write_some(b"\n")?;
                }
                self.torn = None;
            }
            while let Some(rest) = piece.bytes().get(at..).filter(|rest| !rest.is_empty()) {
                match self.write_some(rest) {
                    Ok(bytes) => at += bytes,
                    Err(error) => {
                        self.note(&piece, at);
                        return Err(error);
                    }
                }
            }
            self.written.add(piece.covers());
        }
        self.out.flush()
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.out.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
                other => return other,
            }
        }
    }

    /// Notes that the first `bytes` of `piece` are written.
    fn note(&mut self, piece: &Piece, mut bytes: usize) {
        for line in piece.lines() {
            if bytes < line.bytes.len() {
                self.torn = (bytes > 0).then_some(Torn { seq: line.seq, bytes });
                return;
            }
            bytes -= line.bytes.len();
            self.written.add(piece.covered_by(line.seq));
        }
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("written", &self.written).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::{Arc, Mutex};

    use tokio::time::timeout;

    use super::super::sample;
    use super::*;

    const LINES: u64 = 6;

    fn batch(ranges: &[(u64, u64)]) -> Batch {
        let texts: Vec<Vec<u8>> =
            (1..=LINES).map(|seq| seq.to_string().repeat(40_000).into_bytes()).collect();
        let block = sample::block(1, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Batch::new(Arc::from("g"), 1, sample::pieces(&block, ranges, Piece::new)).unwrap()
    }

    /// The seqs of the whole lines in `out`; 0 for anything else.
    fn seqs(out: &[u8]) -> Vec<u64> {
        let seq = |line: &[u8]| match line {
            [digit, ..] if line.len() == 40_000 && line.iter().all(|byte| byte == digit) => {
                u64::from(digit - b'0')
            }
            _ => 0,
        };
        out.strip_suffix(b"\n").unwrap_or(out).split(|byte| *byte == b'\n').map(seq).collect()
    }

    #[tokio::test]
    async fn a_slow_reader_sees_no_line_twice_and_none_torn() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stdout = Stdout::to(writer).unwrap();
        // Three deliveries that nobody reads: cut off, then bisected.
        for range in [(1, 4), (1, 4), (1, 2)] {
            let gave_up = timeout(Duration::from_millis(20), stdout.process(&batch(&[range]))).await;
            assert!(gave_up.is_err());
        }
        let reads = thread::spawn(move || {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).unwrap();
            out
        });
        assert_eq!(stdout.process(&batch(&[(1, 2)])).await, Outcome::Done);
        assert_eq!(stdout.process(&batch(&[(3, 6)])).await, Outcome::Done);
        assert_eq!(stdout.process(&batch(&[(2, 2)])).await, Outcome::Done, "delivered again after its ack");
        drop(stdout);
        assert_eq!(seqs(&reads.join().unwrap()), [1, 2, 3, 4, 5, 6, 2]);
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_a_refusal() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outcome = Stdout::to(writer).unwrap().process(&batch(&[(1, 1)])).await;
        let Outcome::Refused(evidence) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(evidence.summary, "standard output was closed by its reader");
    }

    /// A disk that has space for a number of bytes, and is full until it gets more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let room = disk.1.min(bytes.len());
            if room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            disk.1 -= room;
            disk.0.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn after_a_full_disk_writing_continues_where_it_stopped() {
        for room in [1, 39_999, 40_000, 40_001, 60_000, 81_000] {
            let disk = Disk::default();
            disk.0.lock().unwrap().1 = room;
            let mut stdout = Stdout::to(disk.clone()).unwrap();
            assert!(matches!(stdout.process(&batch(&[(1, 3)])).await, Outcome::Failed(_)));
            assert!(matches!(stdout.process(&batch(&[(1, 3)])).await, Outcome::Failed(_)));
            disk.0.lock().unwrap().1 = usize::MAX;
            assert_eq!(stdout.process(&batch(&[(1, 6)])).await, Outcome::Done);
            assert_eq!(seqs(&disk.0.lock().unwrap().0), [1, 2, 3, 4, 5, 6], "space for {room}");
        }
    }

    #[tokio::test]
    async fn a_torn_line_never_joins_another() {
        let disk = Disk::default();
        disk.0.lock().unwrap().1 = 100;
        let mut stdout = Stdout::to(disk.clone()).unwrap();
        assert!(matches!(stdout.process(&batch(&[(1, 1)])).await, Outcome::Failed(_)));
        disk.0.lock().unwrap().1 = usize::MAX;
        assert_eq!(stdout.process(&batch(&[(2, 2)])).await, Outcome::Done);
        assert_eq!(seqs(&disk.0.lock().unwrap().0), [0, 2]);
    }
}
