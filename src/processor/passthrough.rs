//! Shows what commands write to standard error as messages: each line whole, with its time and group, and safe to print.
//!
//! At most [`CHUNKS_MAX`] chunks wait. If our standard error is blocked (a stopped terminal, a full pipe), batches must
//! not wait for it: output that does not fit is left out, and a message says how much. A line longer than
//! [`LINE_BYTES_MAX`] is shown in pieces. The last line of a command is shown when it ends, with or without a newline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::{mem, thread};

use crate::plain::harmless;

/// How many chunks of at most 16 KiB wait to be shown: 1 MiB for all commands together.
const CHUNKS_MAX: usize = 64;
/// A longer line is shown in pieces: messages are cut at this length.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The target of messages that a command wrote. The field `group` has its group.
pub const SAID_BY_COMMAND: &str = "spillq::command";

/// Whole lines of a command of a group.
type Chunk = (Arc<str>, Vec<u8>);

/// Where lines go. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Passthrough {
    chunks: Option<SyncSender<Chunk>>,
    left_out: Arc<AtomicU64>,
}

impl Passthrough {
    /// To messages, by one thread for all commands. It is never joined: it may be stuck for ever.
    pub(super) fn to_messages() -> Passthrough {
        static SHARED: OnceLock<Passthrough> = OnceLock::new();
        let show = |group: Option<&str>, text: &str| match group {
            Some(group) => tracing::info!(target: SAID_BY_COMMAND, group, "{text}"),
            None => tracing::warn!("{text}"),
        };
        SHARED.get_or_init(|| Passthrough::to(show)).clone()
    }

    /// `show` gets the group and a line of its command, or no group and a message about all commands.
    fn to(mut show: impl FnMut(Option<&str>, &str) + Send + 'static) -> Passthrough {
        let (chunks, waiting) = sync_channel::<Chunk>(CHUNKS_MAX);
        let left_out = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&left_out);
        let started = thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            for (group, chunk) in waiting {
                let text = harmless(&String::from_utf8_lossy(&chunk));
                for line in text.lines().filter(|line| !line.is_empty()) {
                    for piece in pieces(line) {
                        show(Some(&group), piece);
                    }
                }
                let bytes = counted.swap(0, Ordering::Relaxed);
                if bytes > 0 {
                    let said =
                        "bytes that commands wrote to standard error are not shown: the standard error of spillq was blocked";
                    show(None, &format!("{bytes} {said}"));
                }
            }
        });
        Passthrough {
            // Without the thread nothing is shown; the evidence is still kept.
            chunks: started.ok().map(|_| chunks),
            left_out,
        }
    }

    /// For one command of this group.
    pub(super) fn of(&self, group: &str) -> WholeLines {
        WholeLines { to: self.clone(), group: Arc::from(group), rest: Vec::new() }
    }

    /// Queues `chunk` to be shown, or leaves it out. Never blocks.
    fn show(&self, group: &Arc<str>, chunk: Vec<u8>) {
        let bytes = chunk.len() as u64;
        let sent = self.chunks.as_ref().map(|chunks| chunks.try_send((Arc::clone(group), chunk)));
        if !matches!(sent, Some(Ok(()))) {
            self.left_out.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Collects whole lines of what one command writes. When it is dropped, it shows the rest.
#[derive(Debug)]
pub(super) struct WholeLines {
    to: Passthrough,
    group: Arc<str>,
    /// The beginning of a line; shorter than [`LINE_BYTES_MAX`].
    rest: Vec<u8>,
}

impl WholeLines {
    /// Adds what was read. Never blocks.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.rest.extend_from_slice(chunk);
        let end = match memchr::memrchr(b'\n', &self.rest) {
            Some(newline) => newline + 1,
            None if self.rest.len() >= LINE_BYTES_MAX => self.rest.len(),
            None => return,
        };
        let rest = self.rest.split_off(end);
        self.to.show(&self.group, mem::replace(&mut self.rest, rest));
    }
}

impl Drop for WholeLines {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            self.to.show(&self.group, mem::take(&mut self.rest));
        }
    }
}

/// A line in pieces of at most [`LINE_BYTES_MAX`] bytes.
fn pieces(mut line: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = line.split_at(line.floor_char_boundary(LINE_BYTES_MAX.min(line.len())));
        line = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::mpsc;

    use super::*;

    /// What is shown of chunks of one command, line by line.
    fn shown(chunks: &[&[u8]]) -> Vec<String> {
        let (show, lines) = mpsc::channel();
        let passthrough = Passthrough::to(move |group, text| {
            show.send(format!("{}: {text}", group.unwrap_or("all"))).unwrap();
        });
        let mut of_command = passthrough.of("a");
        chunks.iter().for_each(|chunk| of_command.push(chunk));
        drop(of_command);
        drop(passthrough);
        lines.iter().collect()
    }

    #[test]
    fn a_terminal_acts_on_nothing_that_is_shown_and_lines_are_whole() {
        // The second chunk is cut in the middle of a line, and of a character that begins a sequence in 8 bits.
        let chunks = [&b"a\x1b[2J\x07\tb\n"[..], b"c\xc2", b"\x9b31m\x9b\n\n", b"10%\r20%\nlast", b" words"];
        assert_eq!(shown(&chunks), ["a: a?[2J?\tb", "a: c?31m\u{fffd}", "a: 10%", "a: 20%", "a: last words"]);
    }

    #[test]
    fn a_line_without_an_end_is_shown_in_pieces() {
        let chunk = "ä".repeat(LINE_BYTES_MAX / 2 + 10);
        let lines = shown(&[chunk.as_bytes(), b"x\n"]);
        assert_eq!(lines.iter().map(|line| line.len() - 3).collect::<Vec<_>>(), [LINE_BYTES_MAX, 20, 1]);
    }

    #[test]
    fn a_blocked_standard_error_does_not_block_commands() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let passthrough = Passthrough::to(move |_, text| writeln!(writer, "{text}").unwrap());
        let mut of_command = passthrough.of("a");
        let line = [&[b'x'; 8 * 1024 - 1][..], b"\n"].concat();
        // More than the pipe and the queue take.
        for _ in 0..1_000 {
            of_command.push(&line);
        }
        drop(of_command);
        drop(passthrough);
        let mut shown = String::new();
        reader.read_to_string(&mut shown).unwrap();
        assert!(shown.len() < 1_000 * 8 * 1024);
        assert!(shown.contains("bytes that commands wrote to standard error are not shown"));
    }
}
