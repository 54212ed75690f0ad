//! A seek of a group whose destination notes what it was given: whoever asks says what becomes of those lines.

use axum::http::StatusCode;

use super::server::{Api, Refused};
use super::wire::GivenJson;
use crate::queue::{Admin, Answer, ReplayError, SeekTo};

impl Api {
    /// Moves a group. Without a word on what is `given`, lines do not wait again that the destination has noted.
    pub(super) async fn seek(
        &self,
        group: String,
        to: SeekTo,
        discard_lines: bool,
        given: Option<GivenJson>,
    ) -> Result<Answer, Refused> {
        let seek = |to, only_look| Admin::Seek { group: group.clone(), to, discard_lines, only_look };
        let keeps_note = self.replays.keeps_note(&group);
        let is_plain = match given {
            Some(GivenJson::Again) => keeps_note == Some(false),
            Some(GivenJson::Missing) => true,
            None => keeps_note != Some(true),
        };
        if is_plain {
            return self.administer(seek(to, false)).await;
        }
        match self.administer(seek(to, true)).await? {
            Answer::Sought { to, again: 1.., .. } if given.is_some() => {
                Ok(self.replays.replay(&group, to, seek(SeekTo::Seq(to), false)).await?)
            }
            Answer::Sought { to, again: again @ 1.., .. } => Err(Refused::new(
                StatusCode::CONFLICT,
                format!(
                    "{again} lines from line {to} on would wait again, and the destination of group {group} notes what it \
                     was given: --again gives them to it once more, --missing only those that it has not noted"
                ),
            )),
            // Forwards.
            _ => self.administer(seek(to, false)).await,
        }
    }
}

impl From<ReplayError> for Refused {
    fn from(error: ReplayError) -> Refused {
        match error {
            ReplayError::Closed(closed) => closed.into(),
            error => Refused::new(StatusCode::CONFLICT, error.to_string()),
        }
    }
}
