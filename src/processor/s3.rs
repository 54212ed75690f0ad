//! Stores lines as objects in a bucket of S3, each line in one object.
//!
//! A batch becomes an object for each run of seqs, which is put only if no object has its key (`If-None-Match: *`), the first seq.
//! The objects are the note: a list of their keys, and what those say of themselves that can have the lines of a batch ([`objects`]).
//!
//! **When there is a list.** A session that has listed up to the end knows that nothing from its *frontier* on is stored, as
//! nobody else adds. It lists again for lines below: dead letters that were put back, a seek backward.
//!
//! **Who else puts.** A request of an earlier attempt or run that arrives late has the key of the first line that was missing then, and
//! that is the one that is missing now: one of both is refused, and this one looks again. So is a second service with a copy of the
//! store; it is known by its run, which has a greater number than the objects that it found. What remains: if that first line is
//! parked or excluded while a request is late, lines behind it can be stored twice.

mod credentials;
mod objects;
mod requests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rusty_s3::Credentials;
use rusty_s3::actions::list_objects_v2::CommonPrefixes;
use spillq_storage::{Seq, SeqRange};

use self::credentials::{Held, credentials};
use self::objects::{About, Content, Keys, compressed, contents};
use self::requests::{Put, Requests};
use super::driver::{Called, Destination, Doing, Driver, Lines, Note};
use super::run::Run;
use super::server::S3Prefix;
use super::trouble::{Fault, Trouble};
use super::written::Written;
use super::{Epoch, Paths, Processor};
use crate::plain::harmless;

/// How many seqs a list looks back at first, for the object that can have the first line of a batch. As many as there are keys on
/// a page. If there is none, it looks back ten times as far, and so on.
const LOOK_BACK: u64 = 1_000;
/// Objects that a batch may have lines of, each asked for by a request of its own. A batch of more is bisected.
const LOOKS_MAX: usize = 64;
/// Is put at every start: shows that the server knows conditions.
const CONDITIONAL: &str = ".conditional";
/// Its content. Not empty: the client leaves out the length of an empty body, which S3 refuses.
const WHAT_FOR: &[u8] = b"spillq looks whether this can be stored a second time\n";

impl S3Prefix {
    /// The processor that stores lines here, each once. It connects at the first batch. The seqs of the lines belong to `epoch`.
    ///
    /// # Errors
    /// If the URL is not one, or the certificates to trust cannot be read, or there are none.
    pub fn processor(self, epoch: Epoch, paths: Paths) -> io::Result<Box<dyn Processor>> {
        Ok(Box::new(Driver::new(S3::new(self, epoch)?, paths)))
    }
}

/// Stores objects.
struct S3 {
    to: S3Prefix,
    /// With a slash at its end, if it is not empty.
    prefix: String,
    owner: String,
    keys: Keys,
    requests: Arc<Requests>,
    known: Mutex<Known>,
}

/// Its first seq, and its key.
type Object = (Seq, String);

/// What a run of the service knows, over all sessions.
struct Known {
    run: Run,
    /// Whether an object is of this run.
    has_stored: bool,
    /// Whether the server was seen to refuse an object that exists.
    is_conditional: bool,
}

/// Credentials, and what is known of the objects.
struct Session {
    held: Held,
    requests: Arc<Requests>,
    /// No line from here on is stored; `None` if that is not known.
    frontier: Option<Seq>,
}

/// What is under way ends with it: its bytes are not sent later.
impl Drop for Session {
    fn drop(&mut self) {
        self.requests.end();
    }
}

impl S3 {
    fn new(to: S3Prefix, epoch: Epoch) -> io::Result<S3> {
        let owner = epoch.to_string();
        let place = to.place().map_err(|error| io::Error::other(format!("the url: {error}")))?;
        let prefix = if place.prefix.is_empty() { String::new() } else { place.prefix + "/" };
        let keys = Keys { folder: format!("{prefix}{owner}/"), suffix: to.suffix.clone() };
        let known = Mutex::new(Known { run: Run::begin(), has_stored: false, is_conditional: false });
        let requests = Arc::new(Requests::new(&to)?);
        Ok(S3 { to, prefix, owner, keys, requests, known })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a prefix with objects of another owner: of another store or group, or of this one before it was restored.
    async fn has_one_owner(&self, credentials: &Credentials) -> Result<(), Trouble> {
        let mut token: Option<String> = None;
        let other = loop {
            let next = token.take();
            let list = self.requests.list(credentials, |list| {
                list.with_prefix(self.prefix.clone());
                list.with_delimiter("/");
                next.into_iter().for_each(|token| list.with_continuation_token(token));
            });
            let page = list.await?;
            let is_other = |folder: &CommonPrefixes| folder.prefix != self.keys.folder;
            if let Some(other) = page.common_prefixes.into_iter().find(is_other) {
                break other;
            }
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(());
            }
        };
        let Called { target, remedy, .. } = self.called();
        Err(Trouble::setup(format!(
            "{target} belongs to another store or group, or to this one before it was restored: it has objects in {}, this is {}; {remedy}",
            harmless(&other.prefix),
            harmless(&self.keys.folder)
        )))
    }

    /// Makes sure that the server refuses an object that exists: one that ignores the condition would lose lines.
    async fn is_conditional(&self, credentials: &Credentials) -> Result<(), Trouble> {
        if self.known().is_conditional {
            return Ok(());
        }
        let key = format!("{}{CONDITIONAL}", self.keys.folder);
        // The first time it is not there yet.
        for _ in 0..2 {
            if self.requests.put(credentials, &key, None, WHAT_FOR.to_vec()).await? == Put::Exists {
                self.known().is_conditional = true;
                return Ok(());
            }
        }
        Err(Trouble::setup(format!(
            "the server stores an object over another in spite of If-None-Match ({}): it cannot store each line once",
            harmless(&key)
        )))
    }

    /// Notes who stored an object. Refuses one of another service with a copy of the store.
    fn judge(&self, key: &str, about: &About) -> Result<(), Trouble> {
        let mut known = self.known();
        if about.owner != self.owner || about.run.id == known.run.id {
            return Ok(());
        }
        if !known.has_stored {
            known.run.number = known.run.number.max(about.run.number + 1);
        }
        if about.run.number < known.run.number {
            return Ok(());
        }
        Err(Trouble::setup(format!(
            "another spillq with a copy of this data dir stores objects in {}: {} is its; stop one of the two, and start the other again",
            self.to.url,
            harmless(key)
        )))
    }

    /// The first seqs and the keys of the objects that can have lines of `of`, and whether there is none behind these.
    async fn listed(&self, credentials: &Credentials, of: SeqRange) -> Result<(Vec<Object>, bool), Trouble> {
        let mut back = LOOK_BACK;
        loop {
            let from = Seq(of.first.0.saturating_sub(back));
            let (objects, is_end) = self.listed_from(credentials, from, of).await?;
            // The last that begins at or before the first line can have it.
            let is_found = objects.first().is_some_and(|(first, _)| *first <= of.first);
            if is_found || from == Seq(0) {
                return Ok((objects, is_end));
            }
            back = back.saturating_mul(10);
        }
    }

    /// The same of objects that begin at `from` or behind it.
    async fn listed_from(
        &self,
        credentials: &Credentials,
        from: Seq,
        of: SeqRange,
    ) -> Result<(Vec<Object>, bool), Trouble> {
        let mut objects: Vec<Object> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let next = token.take();
            let list = self.requests.list(credentials, |list| {
                list.with_prefix(self.keys.folder.clone());
                match next {
                    Some(token) => list.with_continuation_token(token),
                    None => list.with_start_after(self.keys.before(from)),
                }
            });
            let page = list.await?;
            for object in page.contents {
                let Some(first) = self.keys.first(&object.key) else { continue };
                if first > of.last {
                    return Ok((objects, false));
                }
                if first <= of.first {
                    objects.clear();
                }
                objects.push((first, object.key));
                if objects.len() > LOOKS_MAX {
                    return Err(Trouble::new(Fault::Size, "too many objects have some of them"));
                }
            }
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok((objects, true));
            }
        }
    }
}

impl Destination for S3 {
    type Session = Session;

    const KIND: &'static str = "s3";
    const VERB: &'static str = "storing";
    /// Objects are removed when they are old enough, and only those around a batch are looked at.
    const IS_WHOLE: bool = false;

    fn about(&self) -> String {
        harmless(&self.to.url)
    }

    fn called(&self) -> Called {
        Called {
            target: format!("the prefix {}", self.to.url),
            note: "an object".to_owned(),
            remedy: "name another prefix, or move its objects elsewhere",
        }
    }

    fn owner(&self) -> &str {
        &self.owner
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let held = credentials(&self.to).await?;
        self.has_one_owner(&held.credentials).await?;
        self.is_conditional(&held.credentials).await?;
        Ok(Session { held, requests: Arc::clone(&self.requests), frontier: None })
    }

    fn is_open(&self, session: &Session) -> bool {
        session.held.until.is_none_or(|until| SystemTime::now() < until)
    }

    async fn note(&self, session: &mut Session, of: SeqRange) -> Result<Option<Note>, Trouble> {
        let mut written = Written::default();
        if session.frontier.is_none_or(|frontier| of.first < frontier) {
            let credentials = &session.held.credentials;
            let (objects, is_end) = self.listed(credentials, of).await?;
            let mut frontier = of.first;
            for (first, key) in objects {
                // It may have been removed since.
                let Some(about) = self.requests.about(credentials, &key).await? else { continue };
                self.judge(&key, &about)?;
                if about.owner != self.owner {
                    return Ok(Some(Note { owner: about.owner, written: String::new() }));
                }
                written.add(SeqRange { first, last: about.last });
                frontier = frontier.max(about.last.next());
            }
            if is_end {
                session.frontier = Some(frontier);
            }
        }
        Ok(Some(Note { owner: self.owner.clone(), written: written.to_string() }))
    }

    async fn write(
        &self,
        session: &mut Session,
        lines: &Lines<'_>,
        mut written: Written,
        doing: &mut Doing,
    ) -> Result<Written, Trouble> {
        for Content { covers, pieces } in contents(lines.pieces) {
            doing.begin("compressing");
            let body =
                tokio::task::spawn_blocking(move || compressed(&pieces)).await.map_err(Trouble::server)?;
            let body = body.map_err(Trouble::server)?;
            doing.begin("storing an object");
            let (key, run) = (self.keys.key(covers.first), self.known().run.clone());
            let about = Some((self.owner.as_str(), &run, covers.last.0));
            let credentials = &session.held.credentials;
            match self.requests.put(credentials, &key, about, body).await? {
                Put::Stored => self.known().has_stored = true,
                Put::Exists => {
                    if let Some(about) = self.requests.about(credentials, &key).await? {
                        self.judge(&key, &about)?;
                    }
                    let key = harmless(&key);
                    return Err(Trouble::server(format!(
                        "{key} is there already, from a request that arrived late"
                    )));
                }
            }
            written.add(covers);
            session.frontier = session.frontier.map(|frontier| frontier.max(covers.last.next()));
        }
        Ok(written)
    }

    /// Objects are not changed: those that have lines from there on have to be removed by whoever wants the lines again.
    async fn renote(&self, session: &mut Session, from: Seq, written: &Written) -> Result<(), Trouble> {
        let credentials = &session.held.credentials;
        let behind = self.requests.list(credentials, |list| {
            list.with_prefix(self.keys.folder.clone());
            list.with_start_after(self.keys.before(from));
            list.with_max_keys(1);
        });
        let is_object = |key: &String| self.keys.first(key).is_some();
        let mut found = behind.await?.contents.into_iter().map(|object| object.key).find(is_object);
        let (objects, _) = self.listed(credentials, SeqRange::one(from)).await?;
        for (_, key) in objects {
            let about = self.requests.about(credentials, &key).await?;
            found = about.filter(|about| about.last >= from).map(|_| key).or(found);
        }
        if let Some(key) = found {
            return Err(Trouble::setup(format!(
                "objects from {} on have lines from {from} on; remove them, or move them elsewhere, and run this again",
                harmless(&key)
            )));
        }
        session.frontier = None;
        // Nothing to change: `written` is what the objects say.
        debug_assert!(written.last() < from);
        Ok(())
    }
}
