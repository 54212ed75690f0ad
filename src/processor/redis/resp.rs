//! The part of RESP2, the protocol of Redis, that is used here: commands are arrays of byte strings, and every reply is
//! one value without nested values.
//!
//! docs/contributing/dependencies.md says why this is not a client crate. The server is not trusted: at most
//! [`REPLY_BYTES_MAX`] of a reply are read.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::link::Link;

/// The longest reply. Expected are some KiB: the ranges of lines that are written.
pub(super) const REPLY_BYTES_MAX: usize = 64 * 1024;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Reply {
    /// A status, a number, or a byte string with any content.
    Value(Vec<u8>),
    /// An error: a word in capitals, and a sentence.
    Error(String),
}

/// A connection. Replies come in the order of the commands.
pub(in super::super) struct Connection {
    link: Link,
    /// Bytes that were read and not parsed yet.
    read: Vec<u8>,
}

impl Connection {
    pub(in super::super) fn new(link: Link) -> Connection {
        Connection { link, read: Vec::new() }
    }

    /// Sends a command and waits for its reply.
    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        let mut command = Command::default();
        words.iter().for_each(|word| command.push(word));
        self.send(&command).await?;
        self.reply().await
    }

    /// Sends a command, without waiting for its reply.
    pub(super) async fn send(&mut self, command: &Command) -> io::Result<()> {
        self.link.write_all(format!("*{}\r\n", command.words).as_bytes()).await?;
        self.link.write_all(&command.body).await?;
        self.link.flush().await
    }

    /// The next reply.
    pub(in super::super) async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            if let Some((reply, used)) = parse(&self.read)? {
                self.read.drain(..used);
                return Ok(reply);
            }
            if self.read.len() > REPLY_BYTES_MAX {
                return Err(unexpected("a reply has no end"));
            }
            if self.link.read_buf(&mut self.read).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
        }
    }
}

/// A command, word by word.
#[derive(Debug, Default)]
pub(super) struct Command {
    words: usize,
    body: Vec<u8>,
}

impl Command {
    pub(super) fn push(&mut self, word: &[u8]) {
        self.words += 1;
        self.body.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        self.body.extend_from_slice(word);
        self.body.extend_from_slice(b"\r\n");
    }

    /// Appends all words of `other`.
    pub(super) fn append(&mut self, mut other: Command) {
        self.words += other.words;
        self.body.append(&mut other.body);
    }

    pub(super) fn byte_count(&self) -> usize {
        self.body.len()
    }
}

/// The first reply in `bytes` and its length; `None` if its end is missing.
fn parse(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let Some((kind, text)) = line.and_then(<[u8]>::split_first) else {
        return Err(unexpected("the server does not speak the protocol of Redis"));
    };
    let used = end + 1;
    match kind {
        b'+' | b':' => Ok(Some((Reply::Value(text.to_vec()), used))),
        b'-' => Ok(Some((Reply::Error(String::from_utf8_lossy(text).into_owned()), used))),
        b'$' => {
            let length = std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok());
            let Some(length) = length.filter(|length| *length <= REPLY_BYTES_MAX) else {
                return Err(unexpected("a reply is longer than any that is expected"));
            };
            let value = bytes.get(used..used + length).map(<[u8]>::to_vec);
            let is_whole = bytes.len() >= used + length + 2;
            Ok(value.filter(|_| is_whole).map(|value| (Reply::Value(value), used + length + 2)))
        }
        _ => Err(unexpected("a reply of an unexpected kind")),
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Reply {
        Reply::Value(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_are_read_however_they_are_cut() {
        let whole = b"+OK\r\n:12\r\n$5\r\na\r\nbc\r\n-NOAUTH who are you\r\n$0\r\n\r\n";
        let expected = [
            value("OK"),
            value("12"),
            value("a\r\nbc"),
            Reply::Error("NOAUTH who are you".to_owned()),
            value(""),
        ];
        for cut in 1..whole.len() {
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            for part in whole.chunks(cut) {
                bytes.extend_from_slice(part);
                while let Some((reply, used)) = parse(&bytes).unwrap() {
                    bytes.drain(..used);
                    found.push(reply);
                }
            }
            assert_eq!((found, bytes.len()), (expected.to_vec(), 0), "in parts of {cut}");
        }
    }

    #[test]
    fn what_is_not_a_reply_to_our_commands_is_refused() {
        for bytes in
            ["HTTP/1.1 400 Bad\r\n", "*1\r\n:1\r\n", "$-1\r\n", "$99999999\r\n", "\r\n", "+OK\n", "$x\r\n"]
        {
            assert!(parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_of_a_server_make_it_panic() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let bytes: Vec<u8> =
                (0..random.usize(..40)).map(|_| b"+-:$*\r\n0123456789aZ\xff"[random.usize(..20)]).collect();
            if let Ok(Some((_, used))) = parse(&bytes) {
                assert!(used <= bytes.len(), "{bytes:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_reply_without_an_end_is_an_error() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let endless = tokio::spawn(async move { while theirs.write_all(&[b'+'; 512]).await.is_ok() {} });
        let error = Connection::new(Box::new(ours)).ask(&[b"PING"]).await.unwrap_err();
        assert_eq!(error.to_string(), "a reply has no end");
        endless.await.unwrap();
    }

    #[tokio::test]
    async fn a_command_is_an_array_of_byte_strings() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"$1\r\nx\r\n").await.unwrap();
        let reply = Connection::new(Box::new(ours)).ask(&[b"ECHO", b"a\r\n\xff"]).await.unwrap();
        assert_eq!(reply, value("x"));
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"*2\r\n$4\r\nECHO\r\n$4\r\na\r\n\xff\r\n");
    }
}
