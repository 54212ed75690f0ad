//! Adds each line to a stream of Redis, once. The entries have ids derived from seqs.
//!
//! A key next to the stream is the note of the lines that the stream was given. The stream itself cannot serve as one: consumers
//! remove entries, and so does `max_len`. A script compares the key with what we know, adds entries, and writes
//! the key, all of it or nothing. So it does not matter how a command whose reply was lost ended: the next connection
//! begins by reading the key. If that key ever said less than is true, the server would still refuse an id that is not
//! above the newest. A stream to which others add is refused.
//!
//! The scripts of one batch are pipelined: all are sent, then their replies are read. What is durable when the server
//! answers is the server's own setting (`appendonly`, `appendfsync`), see docs/how-to/destinations/redis.md.

mod entries;
mod errors;
pub(super) mod resp;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use spillq_storage::{Seq, SeqRange, SourceId};

use self::entries::{Frame, Held, Id, note, scripts};
use self::errors::judge;
use self::resp::{Command, Connection, Reply};
use super::driver::{Called, Destination, Doing, Driver, Lines, Note};
use super::link::Dialer;
use super::server::RedisStream;
use super::trouble::Trouble;
use super::written::Written;
use super::{Epoch, Paths, Processor};
use crate::plain::harmless;

/// A server that closes a connection may say why just before: how long to wait for that.
const LAST_WORDS: Duration = Duration::from_secs(1);

const LOOK: &str = include_str!("redis/look.lua");

impl RedisStream {
    /// The processor that adds lines to this stream, each once. It connects at the first batch. The seqs of the lines
    /// belong to `epoch`.
    ///
    /// # Errors
    /// If the certificates to trust cannot be read, or there are none, or the database is no number.
    pub fn processor(self, epoch: Epoch, paths: Paths) -> io::Result<Box<dyn Processor>> {
        Ok(Box::new(Driver::new(Redis::new(self, epoch)?, paths)))
    }
}

/// Adds lines to a stream.
struct Redis {
    to: RedisStream,
    /// The number of the database.
    database: u32,
    dialer: Dialer,
    /// The key with the note.
    key: String,
    owner: String,
}

/// A connection, and what the stream and its key hold.
struct Session {
    connection: Connection,
    /// The id of the newest entry when the connection was made.
    top: Id,
    /// What the key says, without its ranges.
    owner: Option<String>,
    held: Held,
}

impl Redis {
    fn new(to: RedisStream, epoch: Epoch) -> io::Result<Redis> {
        let dialer = Dialer::new(&to.server, to.ca_file.as_deref(), to.password.as_ref())?;
        let database = to.server.database.as_deref().map_or(Ok(0), str::parse);
        let database = database.map_err(|error| {
            io::Error::other(format!("the database of {} is no number: {error}", to.server))
        })?;
        // In a cluster both keys have to be on one node: the part in braces decides, or else the whole key.
        let has_tag =
            to.stream.split_once('{').is_some_and(|(_, rest)| rest.find('}').is_some_and(|at| at > 0));
        let key = if has_tag { format!("spillq:{}", to.stream) } else { format!("spillq:{{{}}}", to.stream) };
        Ok(Redis { to, database, dialer, key, owner: epoch.to_string() })
    }

    fn frame<'a>(&'a self, names: &'a BTreeMap<SourceId, String>) -> Frame<'a> {
        let Redis { to, key, owner, .. } = self;
        Frame { stream: &to.stream, key, owner, max_len: to.max_len, names }
    }

    /// What the key said, and whether the stream is ours to add to.
    fn note_of(&self, top: Id, owner: Option<&str>, held: &Held) -> Result<Option<Note>, String> {
        let Called { target, note, .. } = self.called();
        let Some(owner) = owner else {
            if top > Id::default() {
                return Err(format!(
                    "{target} has entries, and {note} does not say where they come from: they are somebody else's, or \
                     the key was removed; name a stream that does not exist yet"
                ));
            }
            return Ok(None);
        };
        if owner == self.owner && top > held.last {
            return Err(format!(
                "somebody else adds to {target}: its newest entry is {top}, the newest from here {}; name a stream that \
                 nobody else adds to",
                held.last
            ));
        }
        Ok(Some(Note { owner: owner.to_owned(), written: held.written.to_string() }))
    }
}

/// What `look.lua` returned: the newest id of the stream, the owner, and what is held.
fn parse_look(seen: &str) -> Result<(Id, Option<String>, Held), String> {
    let mut parts = seen.splitn(4, ' ');
    let mut part = || parts.next().unwrap_or_default();
    let (top, last) = (part().parse()?, part().parse()?);
    let owner = Some(part()).filter(|owner| *owner != "-").map(str::to_owned);
    Ok((top, owner, Held { written: part().parse()?, last }))
}

impl Destination for Redis {
    type Session = Session;

    const KIND: &'static str = "redis";
    const VERB: &'static str = "adding";

    fn about(&self) -> String {
        format!("{} on {}", harmless(&self.to.stream), self.dialer.address)
    }

    fn called(&self) -> Called {
        Called {
            target: format!("the stream {}", self.to.stream),
            note: format!("the key {}", self.key),
            remedy: "name another stream, or remove both keys",
        }
    }

    fn owner(&self) -> &str {
        &self.owner
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let link = self.dialer.encrypt(self.dialer.connect().await?).await?;
        let mut connection = Connection::new(link);
        if let Some(password) = self.dialer.password().await? {
            let user = self.to.server.user.as_deref().map(str::as_bytes);
            let words: Vec<&[u8]> =
                [&b"AUTH"[..]].into_iter().chain(user).chain([password.as_bytes()]).collect();
            is_ok(connection.ask(&words).await)?;
        }
        if self.database > 0 {
            is_ok(connection.ask(&[b"SELECT", self.database.to_string().as_bytes()]).await)?;
        }
        let words: [&[u8]; 5] =
            [b"EVAL", LOOK.as_bytes(), b"2", self.to.stream.as_bytes(), self.key.as_bytes()];
        let seen = value(connection.ask(&words).await)?;
        let (top, owner, held) = parse_look(&seen).map_err(Trouble::setup)?;
        Ok(Session { connection, top, owner, held })
    }

    /// Read when the connection was made; every script makes sure that it is still so.
    async fn note(&self, session: &mut Session, _: SeqRange) -> Result<Option<Note>, Trouble> {
        self.note_of(session.top, session.owner.as_deref(), &session.held).map_err(Trouble::setup)
    }

    async fn write(
        &self,
        session: &mut Session,
        lines: &Lines<'_>,
        written: Written,
        doing: &mut Doing,
    ) -> Result<Written, Trouble> {
        doing.begin("sending");
        let before = Held { written, last: session.held.last };
        let mut scripts = scripts(self.frame(lines.names), lines.pieces, before);
        let mut sent = 0;
        for script in scripts.by_ref() {
            if let Err(error) = session.connection.send(&script).await {
                return Err(last_words(&mut session.connection, sent, &error).await);
            }
            sent += 1;
        }
        doing.begin("waiting for the replies");
        for _ in 0..sent {
            is_ok(session.connection.reply().await)?;
            session.owner = Some(self.owner.clone());
        }
        session.held = scripts.held;
        Ok(session.held.written.clone())
    }

    async fn renote(&self, session: &mut Session, _: Seq, written: &Written) -> Result<(), Trouble> {
        let after = Held { written: written.clone(), last: session.held.last };
        if after == session.held {
            return Ok(());
        }
        let names = BTreeMap::new();
        let script = note(&self.frame(&names), &session.held, &after, Command::default());
        session.connection.send(&script).await.map_err(Trouble::server)?;
        is_ok(session.connection.reply().await)?;
        session.held = after;
        Ok(())
    }
}

/// Why a connection broke while something was sent: a reply that came meanwhile says more than the `error`.
async fn last_words(connection: &mut Connection, sent: usize, error: &io::Error) -> Trouble {
    for _ in 0..=sent {
        match tokio::time::timeout(LAST_WORDS, connection.reply()).await {
            Ok(Ok(Reply::Error(error))) => return judge(&error),
            Ok(Ok(Reply::Value(_))) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Trouble::server(error)
}

fn value(reply: io::Result<Reply>) -> Result<String, Trouble> {
    match reply {
        Ok(Reply::Value(value)) => Ok(String::from_utf8_lossy(&value).into_owned()),
        Ok(Reply::Error(error)) => Err(judge(&error)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Trouble::setup(error)),
        Err(error) => Err(Trouble::server(error)),
    }
}

fn is_ok(reply: io::Result<Reply>) -> Result<(), Trouble> {
    match value(reply)?.as_str() {
        "OK" => Ok(()),
        // The next connection reads the key again.
        "changed" => Err(Trouble::server("a command of an earlier connection was done meanwhile")),
        other => Err(Trouble::setup(format!("the server answered {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use spillq_storage::{GroupId, StoreId};

    use super::super::driver::check;
    use super::super::server::{Server, ServerAddress};
    use super::*;

    fn redis(stream: &str) -> Redis {
        let address = ServerAddress::Tcp { host: "::1".to_owned(), port: 6379 };
        let server = Server { address, ..Server::default() };
        let to = RedisStream { server, stream: stream.to_owned(), ..RedisStream::default() };
        let epoch = Epoch { store: StoreId(7), number: 0, group: GroupId(1) };
        Redis::new(to, epoch).unwrap()
    }

    #[test]
    fn a_database_that_is_no_number_is_refused() {
        let server = Server { database: Some("fills".to_owned()), ..Server::default() };
        let to = RedisStream { server, ..RedisStream::default() };
        let error = Redis::new(to, Epoch::default()).err().unwrap();
        assert!(error.to_string().contains("is no number: invalid digit"), "{error}");
    }

    /// What the driver makes of what a connection saw.
    fn held(redis: &Redis, seen: &str) -> Result<(String, Id), String> {
        let (top, owner, held) = parse_look(seen)?;
        let note = redis.note_of(top, owner.as_deref(), &held)?;
        let written = check(redis, note).map_err(|trouble| trouble.why)?;
        Ok((written.to_string(), held.last))
    }

    #[test]
    fn a_stream_that_is_not_ours_is_refused() {
        let redis = redis("fills");
        let owner = redis.owner.clone();
        assert_eq!((owner.as_str(), redis.about().as_str()), ("1-0000000000000007-0", "fills on [::1]:6379"));
        assert_eq!(
            held(&redis, "0-0 0-0 - "),
            Ok((String::new(), Id(0, 0))),
            "no stream yet, or an empty one"
        );
        assert_eq!(held(&redis, &format!("12-0 12-0 {owner} 1-12")), Ok(("1-12".to_owned(), Id(12, 0))));
        let removed = held(&redis, &format!("0-0 12-0 {owner} 1-12"));
        assert_eq!(removed, Ok(("1-12".to_owned(), Id(12, 0))), "somebody removed the stream");
        for (seen, why) in [
            ("12-0 0-0 - ".to_owned(), "does not say where"),
            ("12-0 12-0 1-0000000000000008-0 1-12".to_owned(), "another store"),
            ("12-0 12-0 2-0000000000000007-0 1-12".to_owned(), "another store"),
            ("12-0 12-0 1-0000000000000007-1 1-12".to_owned(), "restored"),
            (format!("1700000000000-0 12-0 {owner} 1-12"), "somebody else adds"),
            (format!("12-0 12-0 {owner} 12-1"), "not the lines"),
            ("what".to_owned(), "not the id"),
        ] {
            let refused = held(&redis, &seen).unwrap_err();
            assert!(refused.contains(why), "{seen}: {refused}");
        }
    }

    #[test]
    fn both_keys_are_on_one_node_of_a_cluster() {
        for (stream, key) in
            [("fills", "spillq:{fills}"), ("{a}fills", "spillq:{a}fills"), ("{}x", "spillq:{{}x}")]
        {
            assert_eq!(redis(stream).key, key);
        }
    }
}
