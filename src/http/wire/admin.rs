//! The JSON of requests of an operator, and of their answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use spillq_storage::{Seq, SeqRange};

use super::line::DeadLetterJson;
use crate::queue::{Admin, Answer, SeekTo};

/// A request of an operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum AdminJson {
    AddGroup {
        name: String,
        from_beginning: bool,
    },
    RemoveGroup {
        name: String,
        #[serde(default)]
        discard_lines: bool,
    },
    Pause {
        name: String,
        paused: bool,
    },
    DeadLetters {
        group: String,
        from: u64,
    },
    Retry {
        group: String,
        seqs: Option<Vec<(u64, u64)>>,
    },
    Discard {
        group: String,
        seqs: Option<Vec<(u64, u64)>>,
        #[serde(default)]
        discard_lines: bool,
    },
    Park {
        group: String,
        seqs: Vec<(u64, u64)>,
    },
    RetryNow {
        name: String,
    },
    Hold {
        token: Option<u64>,
    },
    LetGo {
        token: u64,
    },
    Seek {
        group: String,
        to: SeekToJson,
        #[serde(default)]
        discard_lines: bool,
        #[serde(default)]
        given: Option<GivenJson>,
    },
}

/// What happens to lines that wait again and are in the note of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenJson {
    /// They are delivered again.
    Again,
    /// They are not: only the lines that are not in the note are stored.
    Missing,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeekToJson {
    Seq(u64),
    /// Milliseconds since 1970.
    TimeMs(u64),
    Beginning,
    End,
}

impl From<SeekToJson> for SeekTo {
    fn from(json: SeekToJson) -> SeekTo {
        match json {
            SeekToJson::Seq(seq) => SeekTo::Seq(Seq(seq)),
            SeekToJson::TimeMs(ms) => SeekTo::Time(ms),
            SeekToJson::Beginning => SeekTo::Beginning,
            SeekToJson::End => SeekTo::End,
        }
    }
}

/// The position of a group after a seek.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoughtJson {
    /// The first line that waits now, if there is one so far.
    pub to: u64,
    pub again: u64,
    pub skipped: u64,
}

/// The answer to an operator's request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AnswerJson {
    pub lines: u64,
    /// There are more of the requested lines: repeat the request.
    #[serde(default)]
    pub more: bool,
    pub dead_letters: Vec<DeadLetterJson>,
    /// The token of a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
    /// A snapshot, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sought: Option<SoughtJson>,
}

impl From<Answer> for AnswerJson {
    fn from(answer: Answer) -> AnswerJson {
        match answer {
            Answer::Done => AnswerJson::default(),
            Answer::Lines(lines) => AnswerJson { lines, ..AnswerJson::default() },
            Answer::Parked { lines, more } => AnswerJson { lines, more, ..AnswerJson::default() },
            Answer::DeadLetters(letters) => AnswerJson {
                lines: letters.len() as u64,
                dead_letters: letters.iter().map(Into::into).collect(),
                ..AnswerJson::default()
            },
            Answer::Held { token, snapshot } => AnswerJson {
                hold: Some(token),
                // A state that is too large to encode is too large for a journal, too.
                manifest: snapshot
                    .and_then(|snapshot| snapshot.encode().ok())
                    .map(|bytes| STANDARD.encode(bytes)),
                ..AnswerJson::default()
            },
            Answer::Sought { to, again, skipped } => AnswerJson {
                lines: again + skipped,
                sought: Some(SoughtJson { to: to.0, again, skipped }),
                ..AnswerJson::default()
            },
        }
    }
}

impl From<AdminJson> for Admin {
    fn from(json: AdminJson) -> Admin {
        let ranges = |seqs: Option<Vec<(u64, u64)>>| {
            seqs.map(|seqs| {
                seqs.into_iter().filter_map(|(first, last)| SeqRange::new(Seq(first), Seq(last))).collect()
            })
        };
        match json {
            AdminJson::AddGroup { name, from_beginning } => Admin::AddGroup { name, from_beginning },
            AdminJson::RemoveGroup { name, discard_lines } => Admin::RemoveGroup { name, discard_lines },
            AdminJson::Pause { name, paused } => Admin::Pause { name, paused },
            AdminJson::DeadLetters { group, from } => Admin::DeadLetters { group, from: Seq(from) },
            AdminJson::Retry { group, seqs } => Admin::Retry { group, seqs: ranges(seqs) },
            AdminJson::Discard { group, seqs, discard_lines } => {
                Admin::Discard { group, seqs: ranges(seqs), discard_lines }
            }
            AdminJson::Hold { token } => Admin::Hold { token },
            AdminJson::LetGo { token } => Admin::ReleaseHold { token },
            AdminJson::Seek { group, to, discard_lines, .. } => {
                Admin::Seek { group, to: to.into(), discard_lines, dry_run: false }
            }
            AdminJson::RetryNow { name } => Admin::RetryNow(name),
            AdminJson::Park { group, seqs } => {
                Admin::Park { group, seqs: ranges(Some(seqs)).unwrap_or_default() }
            }
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorJson {
    pub error: String,
}
