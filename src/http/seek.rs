//! A seek of a group whose destination notes what it was given: whoever asks says what becomes of those lines.

use axum::http::StatusCode;

use super::refused::Refused;
use super::server::Api;
use super::wire::GivenJson;
use crate::queue::{Admin, Answer, ReplayError, SeekTo};

impl Api {
    /// Moves a group. Where lines would wait again that the destination may have noted, it has to be said what becomes of what
    /// was `given`.
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
        let has_no_say = match given {
            None => keeps_note != Some(true),
            Some(GivenJson::Again) => keeps_note == Some(false),
            Some(GivenJson::Missing) => false,
        };
        if has_no_say {
            return self.administer(seek(to, false)).await;
        }
        // What is refused is refused before a note is changed.
        let Answer::Sought { to, again, .. } = self.administer(seek(to, true)).await? else {
            return refused("the owner did not say where the group would be".to_owned());
        };
        let seek = seek(SeekTo::Seq(to), false);
        match (given, keeps_note) {
            // Also where the lines wait already: whether they are noted only the destination knows.
            (Some(GivenJson::Again), _) => Ok(self.replays.replay(&group, to, seek).await?),
            (_, None) => Err(ReplayError::NoProcessor(group.clone()).into()),
            (Some(GivenJson::Missing), Some(false)) => refused(format!(
                "the destination of group {group} notes nothing: every line that waits again is given again; leave out \
                 --missing"
            )),
            (None, _) if again > 0 => refused(format!(
                "{again} lines from line {to} on would wait again, and the destination of group {group} notes what it was \
                 given: --again gives them to it once more, --missing only those that it has not noted"
            )),
            _ => self.administer(seek).await,
        }
    }
}
