//! Lines once more: they are taken out of the row that notes what the table was given.

use spillq_storage::Seq;

use super::super::evidence::chain;
use super::super::{Evidence, Processor};
use super::{Postgres, Trouble};

impl Postgres {
    pub(super) async fn forget_from(&mut self, from: Seq) -> Result<(), Evidence> {
        let was_open = self.open.is_some();
        let mut forgotten = self.unnote(from).await;
        // A connection that nobody used for long may be gone.
        if was_open && forgotten.is_err() {
            forgotten = self.unnote(from).await;
        }
        self.doing = None;
        let why = match forgotten {
            Ok(()) => return Ok(()),
            Err(Trouble::Told(error, _)) => chain(&error),
            Err(Trouble::Away(why) | Trouble::Refused(why)) => why,
        };
        Err(Evidence { summary: format!("{}: {why}", self.name()), tail: String::new() })
    }

    /// Takes the lines from `from` on out of the row: one transaction.
    async fn unnote(&mut self, from: Seq) -> Result<(), Trouble> {
        let mut open = self.opened().await?;
        let transaction = open.client.transaction().await?;
        let mut written = self.look(&transaction).await?;
        self.given.is_now(&written);
        self.given.forget(from);
        written.forget(from);
        transaction.execute(&self.statements.note, &[&self.to.table, &written.to_string()]).await?;
        transaction.commit().await?;
        self.given.is_now(&written);
        self.open = Some(open);
        Ok(())
    }
}
