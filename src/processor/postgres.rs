//! Copies each line into a table of PostgreSQL, once.
//!
//! The table `spillq_written` has a row for each table that lines go to: the note of the lines that it was given. A
//! transaction locks that row, copies the lines that are missing (COPY, binary), writes the row, and commits. So the
//! next transaction finds out whether a commit whose answer was lost was done, and two of them never add the same line. The
//! highest seq alone would not do as a note: lines also come after higher ones (a dead letter that is retried, a seek).
//!
//! A line that the table does not take is named by the server, and cut out of its batch.

mod columns;
mod errors;

use std::io;
use std::pin::pin;
use std::time::Duration;

use spillq_storage::{Seq, SeqRange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

use self::columns::LineColumn;
use self::errors::{Stage, judge};
use super::driver::{Called, Destination, Doing, Driver, Lines, Note};
use super::link::{Dialer, Link, no_connection};
use super::server::PostgresTable;
use super::trouble::Trouble;
use super::written::Written;
use super::{Epoch, Paths, Piece, Processor};
use crate::plain::harmless;

/// Asks for TLS before anything else is sent.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The columns of the table that are copied, in this order.
const COLUMNS: &str = "seq, source, source_offset, part, line";

impl PostgresTable {
    /// The processor that copies lines into this table, each once. It connects at the first batch. The seqs of the lines
    /// belong to `epoch`.
    ///
    /// # Errors
    /// If the certificates to trust cannot be read, or there are none.
    pub fn processor(self, epoch: Epoch, timeout: Duration, paths: Paths) -> io::Result<Box<dyn Processor>> {
        Ok(Box::new(Driver::new(Postgres::new(self, epoch, timeout)?, paths)))
    }
}

/// Copies lines into a table.
struct Postgres {
    to: PostgresTable,
    dialer: Dialer,
    owner: String,
    statements: Statements,
    /// The server ends a statement that takes longer, even if nobody waits for it any more.
    timeout: Duration,
}

/// A connection; it ends when this is dropped, and a transaction with it.
struct Session {
    client: Client,
    line: LineColumn,
    _connection: JoinSet<()>,
}

/// What is sent to the server. Names are quoted.
#[derive(Debug, PartialEq, Eq)]
struct Statements {
    /// The table, quoted.
    table: String,
    look: String,
    begin: String,
    copy: String,
    note: String,
}

impl Statements {
    fn new(table: &str) -> Statements {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let names: Vec<String> = table.split('.').map(quote).collect();
        // In the schema of the table, or where both are found.
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

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        judge(&error, Stage::Around, |_| None)
    }
}

impl Postgres {
    fn new(to: PostgresTable, epoch: Epoch, timeout: Duration) -> io::Result<Postgres> {
        let dialer = Dialer::new(&to.server, to.ca_file.as_deref(), to.password.as_ref())?;
        let (owner, statements) = (epoch.to_string(), Statements::new(&to.table));
        Ok(Postgres { to, dialer, owner, statements, timeout })
    }

    /// A connection that speaks TLS if that is configured.
    async fn dial(&self) -> Result<Link, Trouble> {
        let mut link = self.dialer.connect().await?;
        if self.dialer.is_tls() && !ask_for_tls(&mut link).await.map_err(no_connection)? {
            return Err(Trouble::setup(
                "the server does not speak TLS; nothing was sent. Set TLS up there, or write ?sslmode=disable",
            ));
        }
        self.dialer.encrypt(link).await
    }

    async fn copy(&self, session: &Session, lines: &Lines<'_>) -> Result<(), Trouble> {
        let sink = session.client.copy_in(self.statements.copy.as_str()).await?;
        let types = [Type::INT8, Type::TEXT, Type::INT8, Type::TEXT, Type::BYTEA];
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        let mut jsonb = Vec::new();
        for line in lines.pieces.iter().flat_map(Piece::lines) {
            let source = lines.names.get(&line.source).map_or("", String::as_str);
            // A text or varchar column takes the same bytes, and the server refuses those that are not text.
            let bytes = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
            let (seq, offset) = (line.seq.0 as i64, line.offset as i64);
            if session.line == LineColumn::Jsonb {
                jsonb.clear();
                jsonb.push(1);
                jsonb.extend_from_slice(bytes);
            }
            let bytes = if session.line == LineColumn::Jsonb { jsonb.as_slice() } else { bytes };
            writer.as_mut().write(&[&seq, &source, &offset, &line.flags.part(), &bytes]).await?;
        }
        writer.finish().await.map_err(|error| of_lines(&error, lines))?;
        Ok(())
    }
}

impl Destination for Postgres {
    type Session = Session;

    const KIND: &'static str = "postgres";
    const VERB: &'static str = "copying";

    fn about(&self) -> String {
        format!("{} on {}", harmless(&self.to.table), self.dialer.address)
    }

    fn called(&self) -> Called {
        Called {
            target: format!("the table {}", self.to.table),
            note: "its row in spillq_written".to_owned(),
            remedy: "name another table, or delete that row if the table may hold lines of both",
        }
    }

    fn owner(&self) -> &str {
        &self.owner
    }

    async fn connect(&self) -> Result<Session, Trouble> {
        let (link, server) = (self.dial().await?, &self.to.server);
        let mut config = Config::new();
        // What is to be encrypted is already.
        config
            .user(server.user.as_deref().unwrap_or_default())
            .ssl_mode(SslMode::Disable)
            .application_name("spillq");
        if let Some(database) = &server.database {
            config.dbname(database);
        }
        if let Some(password) = self.dialer.password().await? {
            config.password(password);
        }
        let (client, connection) = config.connect_raw(link, NoTls).await?;
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            if let Err(error) = connection.await {
                // Whoever waits for an answer gets the error as well.
                tracing::debug!("a connection to PostgreSQL has ended: {error}");
            }
        });
        // An ack needs a commit that is durable: `synchronous_commit` is switched on if it is off, and left alone otherwise.
        let milliseconds = self.timeout.as_millis().clamp(1, i32::MAX as u128);
        let setup = format!(
            "SET statement_timeout = {milliseconds}; SET lock_timeout = {milliseconds}; \
             SET idle_in_transaction_session_timeout = {milliseconds}; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'"
        );
        client.batch_execute(&setup).await?;
        let line = columns::look(&client, &self.statements.table).await?.map_err(Trouble::setup)?;
        Ok(Session { client, line, _connection: connections })
    }

    fn is_open(&self, session: &Session) -> bool {
        !session.client.is_closed()
    }

    /// Begins the transaction in which [`write`](Destination::write) or [`renote`](Destination::renote) follows. Others
    /// wait for its end: the row is locked.
    async fn note(&self, session: &mut Session, _: SeqRange) -> Result<Option<Note>, Trouble> {
        let (client, target) = (&session.client, &self.to.table);
        client.batch_execute("BEGIN").await?;
        let Some(row) = client.query_opt(&self.statements.look, &[target]).await? else {
            client.execute(&self.statements.begin, &[target, &self.owner]).await?;
            return Ok(None);
        };
        Ok(Some(Note { owner: row.try_get(0)?, written: row.try_get(1)? }))
    }

    async fn write(
        &self,
        session: &mut Session,
        lines: &Lines<'_>,
        mut written: Written,
        doing: &mut Doing,
    ) -> Result<Written, Trouble> {
        if !lines.pieces.is_empty() {
            doing.begin("copying");
            self.copy(session, lines).await?;
            lines.pieces.iter().for_each(|piece| written.add(piece.covers()));
            session.client.execute(&self.statements.note, &[&self.to.table, &written.to_string()]).await?;
        }
        doing.begin("committing");
        session.client.batch_execute("COMMIT").await.map_err(|error| of_lines(&error, lines))?;
        Ok(written)
    }

    async fn renote(&self, session: &mut Session, _: Seq, written: &Written) -> Result<(), Trouble> {
        let client = &session.client;
        client.execute(&self.statements.note, &[&self.to.table, &written.to_string()]).await?;
        Ok(client.batch_execute("COMMIT").await?)
    }
}

/// What an error means that came while `lines` were copied, or when they were committed.
fn of_lines(error: &tokio_postgres::Error, lines: &Lines<'_>) -> Trouble {
    judge(error, Stage::Lines, |row| nth(lines.pieces, row))
}

/// The seq of a row by its number, from 1.
fn nth(pieces: &[Piece], row: u64) -> Option<Seq> {
    let at = usize::try_from(row.checked_sub(1)?).ok()?;
    pieces.iter().flat_map(Piece::lines).nth(at).map(|line| line.seq)
}

/// Whether the server speaks TLS.
async fn ask_for_tls(link: &mut Link) -> io::Result<bool> {
    link.write_all(&SSL_REQUEST).await?;
    link.flush().await?;
    Ok(link.read_u8().await? == b'S')
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn names_are_quoted_and_the_note_is_in_the_schema_of_the_table() {
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
    fn a_row_is_a_line_even_after_a_gap() {
        let block = sample::block(10, &[b"a", b"b", b"c", b"d"]);
        let pieces = sample::pieces(&block, &[(10, 11), (13, 13)], Piece::new);
        let found = [0, 1, 2, 3, 4].map(|row| nth(&pieces, row).map(|seq| seq.0));
        assert_eq!(found, [None, Some(10), Some(11), Some(13), None]);
    }
}
