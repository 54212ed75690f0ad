//! Shows what commands write to standard error on ours, harmless: as it comes, or, where messages are for programs, as
//! messages.
//!
//! At most [`CHUNKS_MAX`] chunks wait. A standard error of ours that takes nothing (a stopped terminal, a full pipe)
//! must never hold up a batch: what does not fit then is left out, and said so once there is room again.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::evidence::harmless;

/// Chunks of at most 8 KiB that wait to be shown: half a MiB for all commands together.
const CHUNKS_MAX: usize = 64;

/// The target of messages that a command wrote: for who prints them.
pub const SAID_BY_COMMAND: &str = "spillq::command";

/// Whether what commands write becomes messages.
static AS_MESSAGES: AtomicBool = AtomicBool::new(false);

/// From now on each line, or piece of one, that a command writes to standard error is a message of its own, with the
/// target [`SAID_BY_COMMAND`].
pub fn show_as_messages() {
    AS_MESSAGES.store(true, Ordering::Relaxed);
}

/// Where chunks go. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Passthrough {
    chunks: Option<SyncSender<Vec<u8>>>,
    left_out: Arc<AtomicU64>,
}

impl Passthrough {
    /// To standard error, by one thread for all. It is never joined: it may be stuck for ever.
    pub(super) fn to_stderr() -> Passthrough {
        static SHARED: OnceLock<Passthrough> = OnceLock::new();
        SHARED.get_or_init(|| Passthrough::to(std::io::stderr())).clone()
    }

    fn to(mut out: impl Write + Send + 'static) -> Passthrough {
        let (chunks, waiting) = sync_channel::<Vec<u8>>(CHUNKS_MAX);
        let left_out = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&left_out);
        let started = thread::Builder::new().name("stderr".to_owned()).spawn(move || {
            for chunk in waiting {
                show(&mut out, &harmless(&String::from_utf8_lossy(&chunk)));
                let bytes = counted.swap(0, Ordering::Relaxed);
                if bytes > 0 {
                    show(
                        &mut out,
                        &format!("\nspillq: {bytes} bytes of a command's standard error are not shown\n"),
                    );
                }
            }
        });
        Passthrough {
            // Without the thread nothing is shown; the evidence is kept all the same.
            chunks: started.ok().map(|_| chunks),
            left_out,
        }
    }

    /// Shows `chunk` soon, or leaves it out. Never blocks.
    pub(super) fn show(&self, chunk: &[u8]) {
        let sent = self.chunks.as_ref().map(|chunks| chunks.try_send(chunk.to_vec()));
        if !matches!(sent, Some(Ok(()))) {
            self.left_out.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    }
}

fn show(out: &mut impl Write, text: &str) {
    if AS_MESSAGES.load(Ordering::Relaxed) {
        for line in text.lines().filter(|line| !line.is_empty()) {
            tracing::info!(target: SAID_BY_COMMAND, "{line}");
        }
    } else {
        // Errors are left alone: there is no better place to tell them than the one that failed.
        let _ = out.write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_terminal_acts_on_nothing_that_is_shown() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let passthrough = Passthrough::to(writer);
        // The second is cut in the middle of a character that begins a sequence in 8 bits.
        for chunk in [&b"a\x1b[2J\x07\tb\n"[..], b"c\xc2", b"\x9b31m\x9b\n"] {
            passthrough.show(chunk);
        }
        drop(passthrough);
        let mut shown = String::new();
        reader.read_to_string(&mut shown).unwrap();
        assert_eq!(shown, "a?[2J?\tb\nc\u{fffd}\u{fffd}31m\u{fffd}\n");
    }

    #[test]
    fn a_blocked_standard_error_holds_nobody_up() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let passthrough = Passthrough::to(writer);
        // More than the pipe and the queue take.
        for _ in 0..1_000 {
            passthrough.show(&[b'x'; 8 * 1024]);
        }
        drop(passthrough);
        let mut shown = String::new();
        reader.read_to_string(&mut shown).unwrap();
        assert!(shown.len() < 1_000 * 8 * 1024);
        assert!(shown.contains("bytes of a command's standard error are not shown"));
    }
}
