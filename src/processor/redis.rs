//! Adds each line to a stream of Redis, once: entries with ids derived from seqs, and beside the stream a key that
//! says which lines it was given, written in the same step.
//!
//! That key is what tells a repeat, not the stream: consumers remove entries, and `max_len` does. It also names the
//! owner (group, store, restoration), so that lines are never taken for those of another store: that is
//! refused, plainly, and so is a stream to which others add. A script compares the key with what we know, adds, and
//! writes the key, all of it or nothing. So it does not matter how a command whose reply was lost ended: the next
//! connection begins by looking. If ever that key said less than is true, the server itself would still refuse an id
//! that is not above the newest.
//!
//! Scripts of one batch are pipelined: sent one after the other, then their replies are read. What is durable when
//! the server answers is its own setting (`appendonly`, `appendfsync`), see docs/how-to/destinations.md.
//!
//! A server that is away, full or still loading spares the lines: they come again together, in order, uncharged. What
//! is set up wrongly is refused.

mod entries;
pub(super) mod resp;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use spillq_storage::{Seq, SeqRange};

use self::entries::{Frame, Held, Id, note, scripts};
use self::resp::{Command, Connection, Reply};
use self::verdict::{Trouble, judge};
use super::command::lines;
use super::epoch::Epoch;
use super::given::Given;
use super::input::Paths;
use super::link::{Place, connect, encrypt};
use super::names::names;
use super::outage::Outage;
use super::trust::trust;
use super::written::has_too_many_gaps;
use super::{Batch, Evidence, Forgetting, Outcome, Processing, Processor, Secret};
use crate::plain::harmless;

/// A host that is gone answers nothing; this includes logging in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that closes a connection says why just before, where it says anything.
const LAST_WORDS: Duration = Duration::from_secs(1);

const LOOK: &str = include_str!("redis/look.lua");

/// Where lines go.
#[derive(Clone)]
pub struct Stream {
    /// The server.
    pub place: Place,
    /// Over TLS; to TCP only.
    pub is_tls: bool,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The user of an ACL.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Its number.
    pub database: u32,
    /// The key of the stream.
    pub stream: String,
    /// About so many entries are kept; 0 for all.
    pub max_len: u64,
    /// Whose lines they are.
    pub epoch: Epoch,
    /// The paths of sources.
    pub paths: Paths,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("place", &self.place)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Adds batches to a stream.
pub struct Redis {
    to: Stream,
    tls: Option<Arc<ClientConfig>>,
    /// The key beside the stream.
    key: String,
    owner: String,
    /// Away while a batch is under way, so that one that is interrupted leaves no connection behind.
    open: Option<Open>,
    given: Given,
    outage: Outage,
    doing: Option<(&'static str, Instant)>,
}

struct Open {
    connection: Connection,
    held: Held,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.name()).finish()
    }
}

impl Redis {
    /// Will add to a stream. Nothing is connected before the first batch.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read, or there are none.
    pub fn new(to: Stream) -> io::Result<Redis> {
        let tls = match to.is_tls {
            true => Some(Arc::new(trust(to.ca_file.as_deref(), true)?)),
            false => None,
        };
        // In a cluster both keys have to be on one node: what is in braces decides, or else all of a key.
        let has_tag =
            to.stream.split_once('{').is_some_and(|(_, rest)| rest.find('}').is_some_and(|at| at > 0));
        let key = if has_tag { format!("spillq:{}", to.stream) } else { format!("spillq:{{{}}}", to.stream) };
        let owner = to.epoch.to_string();
        Ok(Redis {
            to,
            tls,
            key,
            owner,
            open: None,
            given: Given::default(),
            outage: Outage::default(),
            doing: None,
        })
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        let what = format!("adding {} to {}", lines(batch), self.name());
        let evidence = |why: &str| Evidence { summary: format!("{what} failed: {why}"), tail: String::new() };
        if has_too_many_gaps(batch) {
            return Outcome::TooLarge(evidence("too many gaps between them"));
        }
        let added = self.add(batch).await;
        self.doing = None;
        match added {
            Ok(()) => {
                self.outage.is_over();
                Outcome::Done
            }
            Err(Trouble::Away(why)) => Outcome::Later(self.outage.pause(), evidence(&why)),
            Err(Trouble::Refused(why)) => Outcome::Refused(evidence(&why)),
            Err(Trouble::TooLarge(why)) => Outcome::TooLarge(evidence(&why)),
        }
    }

    async fn add(&mut self, batch: &Batch) -> Result<(), Trouble> {
        let mut open = self.opened().await?;
        let rest = open.held.written.rest(batch);
        if !rest.is_empty() {
            let (copy, paths) = (batch.clone(), Arc::clone(&self.to.paths));
            let names = tokio::task::spawn_blocking(move || names(&copy, &paths)).await;
            let names = names.map_err(|error| Trouble::Away(error.to_string()))?;
            self.doing = Some(("sending", Instant::now()));
            let mut scripts =
                scripts(Frame::of(&self.to, &self.key, &self.owner, &names), &rest, open.held.clone());
            let mut sent = 0;
            for script in scripts.by_ref() {
                if let Err(error) = open.connection.send(&script).await {
                    return Err(last_words(&mut open.connection, sent, &error).await);
                }
                sent += 1;
            }
            self.doing = Some(("waiting for the replies", Instant::now()));
            for _ in 0..sent {
                is_ok(open.connection.reply().await)?;
            }
            open.held = scripts.held;
        }
        self.given.is_now(&open.held.written);
        self.open = Some(open);
        Ok(())
    }

    /// Takes the lines from `from` on out of the key beside the stream.
    async fn unnote(&mut self, from: Seq) -> Result<(), Trouble> {
        let mut open = self.opened().await?;
        self.given.forget(from);
        let mut held = open.held.clone();
        held.written.forget(from);
        if held != open.held {
            let names = BTreeMap::new();
            let script = note(
                &Frame::of(&self.to, &self.key, &self.owner, &names),
                &open.held,
                &held,
                Command::default(),
            );
            open.connection
                .send(&script)
                .await
                .map_err(|error| Trouble::Away(harmless(&error.to_string())))?;
            is_ok(open.connection.reply().await)?;
            open.held = held;
        }
        self.given.is_now(&open.held.written);
        self.open = Some(open);
        Ok(())
    }

    /// The connection that is there, or another.
    async fn opened(&mut self) -> Result<Open, Trouble> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        self.doing = Some(("connecting", Instant::now()));
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        let away = |_| Trouble::Away(format!("no connection within {CONNECT_TIMEOUT:?}"));
        let open = connected.map_err(away)??;
        self.given.is_now(&open.held.written);
        Ok(open)
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let away =
            |error: io::Error| Trouble::Away(format!("no connection: {}", harmless(&error.to_string())));
        let mut link = connect(&self.to.place).await.map_err(away)?;
        if let (Some(tls), Place::Tcp { host, .. }) = (&self.tls, &self.to.place) {
            link = encrypt(link, host, Arc::clone(tls)).await.map_err(|error| match error.kind() {
                // A certificate that is not trusted, or no TLS there at all: neither passes by itself.
                io::ErrorKind::InvalidData => {
                    Trouble::Refused(format!("TLS: {}", harmless(&error.to_string())))
                }
                _ => away(error),
            })?;
        }
        let mut connection = Connection::new(link);
        if let Some(secret) = self.to.password.clone() {
            let read = tokio::task::spawn_blocking(move || secret.read()).await;
            let read = read.map_err(|error| Trouble::Away(error.to_string()))?;
            let password = read.map_err(Trouble::Refused)?;
            let user = self.to.user.as_deref().map(str::as_bytes);
            let words: Vec<&[u8]> =
                [&b"AUTH"[..]].into_iter().chain(user).chain([password.as_bytes()]).collect();
            is_ok(connection.ask(&words).await)?;
        }
        if self.to.database > 0 {
            is_ok(connection.ask(&[b"SELECT", self.to.database.to_string().as_bytes()]).await)?;
        }
        let words: [&[u8]; 5] =
            [b"EVAL", LOOK.as_bytes(), b"2", self.to.stream.as_bytes(), self.key.as_bytes()];
        let seen = value(connection.ask(&words).await)?;
        let held = self.held(&seen).map_err(Trouble::Refused)?;
        Ok(Open { connection, held })
    }

    /// What the stream holds, by what was `seen`, and whether it is ours to add to.
    fn held(&self, seen: &str) -> Result<Held, String> {
        let (stream, key) = (harmless(&self.to.stream), harmless(&self.key));
        let mut parts = seen.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (top, last, owner, written): (Id, Id, &str, _) =
            (part().parse()?, part().parse()?, part(), part().parse()?);
        if owner == "-" && top > Id::default() {
            return Err(format!(
                "the stream {stream} has entries, and the key {key} does not say from where: they are somebody else's, \
                 or the key was removed; name a stream that does not exist yet"
            ));
        }
        if owner != "-" && owner != self.owner {
            return Err(format!(
                "the stream {stream} belongs to another store or group, or to this one before it was restored: {key} \
                 says {}, this is {}; name another stream, or remove both keys",
                harmless(owner),
                self.owner
            ));
        }
        if top > last {
            return Err(format!(
                "somebody else adds to the stream {stream}: its newest entry is {top}, the newest from here {last}; \
                 name a stream that nobody else adds to"
            ));
        }
        Ok(Held { written, last })
    }
}

impl Processor for Redis {
    fn name(&self) -> String {
        format!("redis {}", self.about())
    }

    fn about(&self) -> String {
        format!("{} on {}", harmless(&self.to.stream), self.to.place)
    }

    fn process<'a>(&'a mut self, batch: &'a Batch) -> Processing<'a> {
        Box::pin(self.run(batch))
    }

    fn lost(&mut self) -> Vec<SeqRange> {
        self.given.take_lost()
    }

    fn keeps_note(&self) -> bool {
        true
    }

    fn forget(&mut self, from: Seq) -> Forgetting<'_> {
        Box::pin(async move {
            let was_open = self.open.is_some();
            let mut forgotten = self.unnote(from).await;
            // A connection that nobody used for long may be gone.
            if was_open && forgotten.is_err() {
                forgotten = self.unnote(from).await;
            }
            self.doing = None;
            forgotten.map_err(|trouble| {
                let (Trouble::Away(why) | Trouble::Refused(why) | Trouble::TooLarge(why)) = trouble;
                Evidence { summary: format!("{}: {why}", self.name()), tail: String::new() }
            })
        })
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        let (doing, since) = self.doing.take()?;
        let summary = format!("it was {doing} for {:.1} s", since.elapsed().as_secs_f64());
        Some(Evidence { summary, tail: String::new() })
    }
}

/// Why a connection broke while something was sent: a reply that came meanwhile says more than the `error`.
async fn last_words(connection: &mut Connection, sent: usize, error: &io::Error) -> Trouble {
    for _ in 0..=sent {
        match tokio::time::timeout(LAST_WORDS, connection.reply()).await {
            Ok(Ok(Reply::Error(told))) => return judge(&told),
            Ok(Ok(Reply::Value(_))) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Trouble::Away(harmless(&error.to_string()))
}

fn value(reply: io::Result<Reply>) -> Result<String, Trouble> {
    match reply {
        Ok(Reply::Value(value)) => Ok(String::from_utf8_lossy(&value).into_owned()),
        Ok(Reply::Error(error)) => Err(judge(&error)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Trouble::Refused(harmless(&error.to_string())))
        }
        Err(error) => Err(Trouble::Away(harmless(&error.to_string()))),
    }
}

fn is_ok(reply: io::Result<Reply>) -> Result<(), Trouble> {
    match value(reply)?.as_str() {
        "OK" => Ok(()),
        // Looking again tells.
        "changed" => Err(Trouble::Away("a command of an earlier connection was done meanwhile".to_owned())),
        other => Err(Trouble::Refused(format!("the server answered {}", harmless(other)))),
    }
}

#[cfg(test)]
mod tests {
    use spillq_storage::{GroupId, StoreId};

    use super::*;

    fn redis(stream: &str) -> Redis {
        let epoch = Epoch { store: StoreId(7), number: 0, group: GroupId(1) };
        Redis::new(Stream {
            place: Place::Tcp { host: "::1".to_owned(), port: 6379 },
            is_tls: false,
            ca_file: None,
            user: None,
            password: None,
            database: 0,
            stream: stream.to_owned(),
            max_len: 0,
            epoch,
            paths: Arc::new(|_| None),
        })
        .unwrap()
    }

    #[test]
    fn a_stream_that_is_not_ours_is_refused_and_never_taken_for_ours() {
        let redis = redis("fills");
        let owner = redis.owner.clone();
        assert_eq!(
            (owner.as_str(), redis.name().as_str()),
            ("1-0000000000000007-0", "redis fills on [::1]:6379")
        );
        assert_eq!(redis.held("0-0 0-0 - "), Ok(Held::default()), "no stream yet, or an empty one");
        let ours = redis.held(&format!("12-0 12-0 {owner} 1-12")).unwrap();
        assert_eq!((ours.written.to_string().as_str(), ours.last), ("1-12", Id(12, 0)));
        let ours = redis.held(&format!("0-0 12-0 {owner} 1-12")).unwrap();
        assert_eq!(ours.last, Id(12, 0), "somebody removed the stream");
        for (seen, why) in [
            ("12-0 0-0 - ".to_owned(), "does not say from where"),
            ("12-0 12-0 1-0000000000000008-0 1-12".to_owned(), "another store"),
            ("12-0 12-0 2-0000000000000007-0 1-12".to_owned(), "another store"),
            ("12-0 12-0 1-0000000000000007-1 1-12".to_owned(), "restored"),
            (format!("1700000000000-0 12-0 {owner} 1-12"), "somebody else adds"),
            (format!("12-0 12-0 {owner} 12-1"), "not the lines"),
            ("what".to_owned(), "not the id"),
        ] {
            let told = redis.held(&seen).unwrap_err();
            assert!(told.contains(why), "{seen}: {told}");
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
