//! A seek of a group whose destination keeps a note of the lines that it was given: the request says what happens to those lines.

use axum::http::StatusCode;

use super::refused::Refused;
use super::server::Api;
use super::wire::GivenJson;
use crate::queue::{Admin, Answer, ReplayError, SeekTo};

impl Api {
    /// Moves a group. If lines would wait again that the destination may have in its note, the request must say what happens to
    /// those that were `given`.
    pub(super) async fn seek(
        &self,
        group: String,
        to: SeekTo,
        discard_lines: bool,
        given: Option<GivenJson>,
    ) -> Result<Answer, Refused> {
        let seek = |to, dry_run| Admin::Seek { group: group.clone(), to, discard_lines, dry_run };
        let refused = |why| Err(Refused::new(StatusCode::CONFLICT, why));
        let keeps_note = self.replays.keeps_note(&group);
        let needs_no_choice = match given {
            None => keeps_note != Some(true),
            Some(GivenJson::Again) => keeps_note == Some(false),
            Some(GivenJson::Missing) => false,
        };
        if needs_no_choice {
            return self.administer(seek(to, false)).await;
        }
        // If the seek is refused, that must be known before a note is changed.
        let Answer::Sought { to, again, .. } = self.administer(seek(to, true)).await? else {
            return refused("the owner did not say where the group would be".to_owned());
        };
        let seek = seek(SeekTo::Seq(to), false);
        match (given, keeps_note) {
            // Even if the lines wait already: only the destination knows whether they are in its note.
            (Some(GivenJson::Again), _) => Ok(self.replays.replay(&group, to, seek).await?),
            (_, None) => Err(ReplayError::NoProcessor(group.clone()).into()),
            (Some(GivenJson::Missing), Some(false)) => refused(format!(
                "the destination of group {group} keeps no note of the lines that it was given: every line that waits again is \
                 delivered again; leave out --missing"
            )),
            (None, _) if again > 0 => refused(format!(
                "{again} lines from line {to} on would wait again, and the destination of group {group} keeps a note of the lines \
                 that it was given: --again delivers them once more, --missing only those that are not in the note"
            )),
            _ => self.administer(seek).await,
        }
    }
}
