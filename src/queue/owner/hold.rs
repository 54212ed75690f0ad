//! While a backup copies files, none is removed.

use spillq_storage::Error;

use super::Owner;
use crate::queue::admin::{Answer, HOLD, Refusal};
use crate::queue::clock;

/// One copy at a time: a token, and until when it holds.
pub(super) type Hold = Option<(u64, u64)>;

impl Owner {
    /// What was gathered is durable: the snapshot is a commit's state.
    pub(super) fn hold(&mut self, token: Option<u64>) -> Result<Answer, Refusal> {
        self.expire_hold();
        let until = clock::now_ms() + HOLD.as_millis() as u64;
        match (token, self.hold) {
            (None, None) => {
                let token = self.next_token;
                self.next_token += 1;
                self.hold = Some((token, until));
                self.log.hold_removal(true);
                Ok(Answer::Held { token, snapshot: Some(Box::new(self.log.snapshot())) })
            }
            (None, Some(_)) => Err(Refusal::Hold("a backup is being made already")),
            (Some(token), Some((held, _))) if token == held => {
                self.hold = Some((held, until));
                Ok(Answer::Held { token, snapshot: None })
            }
            (Some(_), _) => Err(Refusal::Hold("the backup took too long between two signs of life")),
        }
    }

    pub(super) fn let_go(&mut self, token: u64) -> Result<Answer, Refusal> {
        if self.hold.is_some_and(|(held, _)| held == token) {
            self.hold = None;
            self.log.hold_removal(false);
        }
        Ok(Answer::Done)
    }

    /// A copy that died is not waited for.
    pub(super) fn expire_hold(&mut self) {
        if self.hold.is_some_and(|(_, until)| until <= clock::now_ms()) {
            tracing::warn!("a backup stopped renewing its hold; spillq removes segments again");
            self.hold = None;
            self.log.hold_removal(false);
        }
    }

    /// Removes what is due, as long as there is more.
    pub(super) fn remove_due(&mut self) -> Result<(), Error> {
        self.expire_hold();
        while self.log.maintain(clock::wall_ms())? {}
        Ok(())
    }
}
