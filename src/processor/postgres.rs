//! Copies each line into a table of PostgreSQL, once: what the table was given is noted in the same transaction.
//!
//! The table `spillq_written` has a row for each table that lines go to: the owner (group, store,
//! restoration) and the ranges of lines that were given to it. A transaction locks that row, leaves out what is
//! written, copies the rest (COPY, binary), writes the row, and commits. So a commit whose answer was lost is found
//! out by the next transaction, and two of them never add the same line. A floor alone would not do: lines also come
//! behind higher ones (a dead letter put back, a seek). A table that was given
//! lines of another store is refused.
//!
//! A server that is away or full spares the lines: they come again together, in order, uncharged. What is set up
//! wrongly is refused. A line that the table does not take is named by the server, and cut out of its batch.

mod columns;
mod forget;
mod verdict;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use spillq_storage::{Seq, SeqRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls, Transaction};

use self::columns::LineColumn;
use self::verdict::{Stage, judge};
use super::command::lines;
use super::epoch::Epoch;
use super::given::Given;
use super::input::Paths;
use super::link::{Link, Place, connect, encrypt};
use super::names::names;
use super::outage::Outage;
use super::trust::trust;
use super::written::{Written, has_too_many_gaps};
use super::{Batch, Evidence, Forgetting, Outcome, Piece, Processing, Processor, Secret};
use crate::plain::harmless;

/// A host that is gone answers nothing; this includes logging in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Asks for TLS before anything else is said.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Of the table: what is copied, in this order.
const COLUMNS: &str = "seq, source, source_offset, part, line";

/// Where lines go.
#[derive(Clone)]
pub struct Table {
    /// The server.
    pub place: Place,
    /// Over TLS; to TCP only.
    pub is_tls: bool,
    /// Certificates (PEM) to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// As whom.
    pub user: String,
    /// The password.
    pub password: Option<Secret>,
    /// Its name; the user's where there is none.
    pub database: Option<String>,
    /// The name, perhaps with a schema before it.
    pub table: String,
    /// A statement that takes longer is ended, also where nobody waits for it any more.
    pub timeout: Duration,
    /// Whose lines they are.
    pub epoch: Epoch,
    /// The paths of sources.
    pub paths: Paths,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("place", &self.place)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Copies batches into a table.
pub struct Postgres {
    to: Table,
    tls: Option<Arc<ClientConfig>>,
    owner: String,
    statements: Statements,
    /// Away while a batch is under way, so that one that is interrupted leaves no connection behind.
    open: Option<Open>,
    given: Given,
    outage: Outage,
    doing: Option<(&'static str, Instant)>,
}

/// A connection; it ends with this.
struct Open {
    client: Client,
    line: LineColumn,
    _connection: JoinSet<()>,
}

/// What is said to the server. Names are quoted.
#[derive(Debug, PartialEq, Eq)]
struct Statements {
    /// The table, quoted.
    table: String,
    look: String,
    begin: String,
    copy: String,
    note: String,
}

/// Why a batch was not copied.
enum Trouble {
    Told(tokio_postgres::Error, Stage),
    Away(String),
    Refused(String),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        Trouble::Told(error, Stage::Around)
    }
}

impl Statements {
    fn new(table: &str) -> Statements {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let names: Vec<String> = table.split('.').map(quote).collect();
        // Beside the table: in its schema, or where both are found.
        let written = match names.as_slice() {
            [schema, _] => format!("{schema}.spillq_written"),
            _ => "spillq_written".to_owned(),
        };
        Statements {
            table: names.join("."),
            look: format!("SELECT owner, written FROM {written} WHERE target = $1 FOR UPDATE"),
            begin: format!("INSERT INTO {written} (target, owner, written) VALUES ($1, $2, '')"),
            copy: format!("COPY {} ({COLUMNS}) FROM STDIN (FORMAT binary)", names.join(".")),
            note: format!("UPDATE {written} SET written = $2 WHERE target = $1"),
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.name()).finish()
    }
}

impl Postgres {
    /// Will copy into a table. Nothing is connected before the first batch.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read, or there are none.
    pub fn new(to: Table) -> io::Result<Postgres> {
        let tls = match to.is_tls {
            true => Some(Arc::new(trust(to.ca_file.as_deref(), true)?)),
            false => None,
        };
        let (owner, statements) = (to.epoch.to_string(), Statements::new(&to.table));
        Ok(Postgres {
            to,
            tls,
            owner,
            statements,
            open: None,
            given: Given::default(),
            outage: Outage::default(),
            doing: None,
        })
    }

    async fn run(&mut self, batch: &Batch) -> Outcome {
        let what = format!("copying {} to {}", lines(batch), self.name());
        let evidence = |why: &str| Evidence { summary: format!("{what} failed: {why}"), tail: String::new() };
        if has_too_many_gaps(batch) {
            return Outcome::TooLarge(evidence("too many gaps between them"));
        }
        let mut copied = Vec::new();
        let done = self.copy(batch, &mut copied).await;
        self.doing = None;
        match done {
            Ok(()) => {
                self.outage.is_over();
                Outcome::Done
            }
            Err(Trouble::Told(error, stage)) => {
                let line = |row: u64| nth(&copied, row);
                judge(&what, &error, stage, self.outage.pause(), line)
            }
            Err(Trouble::Away(why)) => Outcome::Later(self.outage.pause(), evidence(&why)),
            Err(Trouble::Refused(why)) => Outcome::Refused(evidence(&why)),
        }
    }

    /// One transaction. `copied` becomes what is copied in it.
    async fn copy(&mut self, batch: &Batch, copied: &mut Vec<Piece>) -> Result<(), Trouble> {
        let mut open = self.opened().await?;
        let (copy, paths) = (batch.clone(), Arc::clone(&self.to.paths));
        let names = tokio::task::spawn_blocking(move || names(&copy, &paths)).await;
        let names = names.map_err(|error| Trouble::Away(error.to_string()))?;

        self.doing = Some(("waiting to see what is written", Instant::now()));
        let line_column = open.line;
        let transaction = open.client.transaction().await?;
        let mut written = self.look(&transaction).await?;
        self.given.is_now(&written);
        *copied = written.rest(batch);
        self.doing = Some(("copying", Instant::now()));
        let told = |error| Trouble::Told(error, Stage::Lines);
        if !copied.is_empty() {
            let sink = transaction.copy_in(self.statements.copy.as_str()).await?;
            let types = [Type::INT8, Type::TEXT, Type::INT8, Type::TEXT, Type::BYTEA];
            let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
            let mut jsonb = Vec::new();
            for line in copied.iter().flat_map(Piece::lines) {
                let source = names.get(&line.source).map_or("", String::as_str);
                // A text or varchar column takes the same bytes, and says where they are no text.
                let bytes = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
                let (seq, offset) = (line.seq.0 as i64, line.offset as i64);
                if line_column == LineColumn::Jsonb {
                    jsonb.clear();
                    jsonb.push(1);
                    jsonb.extend_from_slice(bytes);
                }
                let bytes = if line_column == LineColumn::Jsonb { jsonb.as_slice() } else { bytes };
                writer.as_mut().write(&[&seq, &source, &offset, &line.flags.part(), &bytes]).await?;
            }
            writer.finish().await.map_err(told)?;
            copied.iter().for_each(|piece| written.add(piece.range()));
            transaction.execute(&self.statements.note, &[&self.to.table, &written.to_string()]).await?;
        }
        self.doing = Some(("committing", Instant::now()));
        transaction.commit().await.map_err(told)?;
        self.given.is_now(&written);
        self.open = Some(open);
        Ok(())
    }

    /// The connection that is there, or another.
    async fn opened(&mut self) -> Result<Open, Trouble> {
        if let Some(open) = self.open.take().filter(|open| !open.client.is_closed()) {
            return Ok(open);
        }
        self.doing = Some(("connecting", Instant::now()));
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        connected.map_err(|_| Trouble::Away(format!("no connection within {CONNECT_TIMEOUT:?}")))?
    }

    /// What the table was given. Others wait until the transaction has ended.
    async fn look(&self, transaction: &Transaction<'_>) -> Result<Written, Trouble> {
        let target = &self.to.table;
        let row = transaction.query_opt(&self.statements.look, &[target]).await?;
        let Some(row) = row else {
            transaction.execute(&self.statements.begin, &[target, &self.owner]).await?;
            return Ok(Written::default());
        };
        let (owner, written): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if owner != self.owner {
            return Err(Trouble::Refused(format!(
                "the table was given lines of another store or group, or of this one before it was restored: \
                 spillq_written says {}, this is {}; name another table, or delete that row where the table may hold \
                 both",
                harmless(&owner),
                self.owner
            )));
        }
        written
            .parse()
            .map_err(|error: String| Trouble::Refused(format!("spillq_written has {}", harmless(&error))))
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let away =
            |error: io::Error| Trouble::Away(format!("no connection: {}", harmless(&error.to_string())));
        let mut link = connect(&self.to.place).await.map_err(away)?;
        if let (Some(tls), Place::Tcp { host, .. }) = (&self.tls, &self.to.place) {
            if !ask_for_tls(&mut link).await.map_err(away)? {
                return Err(Trouble::Refused(
                    "the server speaks no TLS; nothing was sent. Set it up, or write ?sslmode=disable"
                        .to_owned(),
                ));
            }
            link = encrypt(link, host, Arc::clone(tls)).await.map_err(|error| match error.kind() {
                // A certificate that is not trusted.
                io::ErrorKind::InvalidData => {
                    Trouble::Refused(format!("TLS: {}", harmless(&error.to_string())))
                }
                _ => away(error),
            })?;
        }
        let mut config = Config::new();
        // What is encrypted is so already.
        config.user(&self.to.user).ssl_mode(SslMode::Disable).application_name("spillq");
        if let Some(database) = &self.to.database {
            config.dbname(database);
        }
        if let Some(secret) = self.to.password.clone() {
            let read = tokio::task::spawn_blocking(move || secret.read()).await;
            let read = read.map_err(|error| Trouble::Away(error.to_string()))?;
            config.password(read.map_err(Trouble::Refused)?);
        }
        let (client, connection) = config.connect_raw(link, NoTls).await?;
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            if let Err(error) = connection.await {
                // Whoever waits for an answer is told as well.
                tracing::debug!("a connection to PostgreSQL has ended: {error}");
            }
        });
        // An ack needs a commit that lasts: only where somebody has switched that off is it switched on.
        let milliseconds = self.to.timeout.as_millis().clamp(1, i32::MAX as u128);
        let setup = format!(
            "SET statement_timeout = {milliseconds}; SET lock_timeout = {milliseconds}; \
             SET idle_in_transaction_session_timeout = {milliseconds}; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'"
        );
        client.batch_execute(&setup).await?;
        let line = columns::look(&client, &self.statements.table).await?.map_err(Trouble::Refused)?;
        Ok(Open { client, line, _connection: connections })
    }
}

/// The seq of a row by its number, from 1.
fn nth(pieces: &[Piece], row: u64) -> Option<Seq> {
    let at = usize::try_from(row.checked_sub(1)?).ok()?;
    pieces.iter().flat_map(Piece::lines).nth(at).map(|line| line.seq)
}

/// Whether the server goes on with TLS.
async fn ask_for_tls(link: &mut Link) -> io::Result<bool> {
    link.write_all(&SSL_REQUEST).await?;
    link.flush().await?;
    Ok(link.read_u8().await? == b'S')
}

impl Processor for Postgres {
    fn name(&self) -> String {
        format!("postgres {}", self.about())
    }

    fn about(&self) -> String {
        format!("{} on {}", harmless(&self.to.table), self.to.place)
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
        Box::pin(self.forget_from(from))
    }

    fn interrupted(&mut self) -> Option<Evidence> {
        let (doing, since) = self.doing.take()?;
        let summary = format!("it was {doing} for {:.1} s", since.elapsed().as_secs_f64());
        Some(Evidence { summary, tail: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn names_are_quoted_and_the_note_is_beside_the_table() {
        let plain = Statements::new("fills");
        assert_eq!(
            plain.copy,
            "COPY \"fills\" (seq, source, source_offset, part, line) FROM STDIN (FORMAT binary)"
        );
        assert!(plain.look.contains(" FROM spillq_written "), "{}", plain.look);
        let odd = Statements::new("a\"b.fills");
        assert!(odd.copy.starts_with("COPY \"a\"\"b\".\"fills\" ("), "{}", odd.copy);
        assert!(odd.note.starts_with("UPDATE \"a\"\"b\".spillq_written "), "{}", odd.note);
    }

    #[test]
    fn a_row_is_a_line_also_behind_a_gap() {
        let block = sample::block(10, &[b"a", b"b", b"c", b"d"]);
        let pieces = sample::pieces(&block, &[(10, 11), (13, 13)], Piece::new);
        let found = [0, 1, 2, 3, 4].map(|row| nth(&pieces, row).map(|seq| seq.0));
        assert_eq!(found, [None, Some(10), Some(11), Some(13), None]);
    }
}
