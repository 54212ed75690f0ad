//! What the screen shows: the last answer, and the figures of the last minutes. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::asks::Heard;
use crate::http::{AdminJson, AnswerJson, DoctorJson, GroupJson, StatusJson, VerdictJson};
use crate::plain::counted;
use crate::supervise::State;

/// Answers that are remembered: five minutes, at one per second.
pub(super) const HISTORY_MAX: usize = 300;

/// Time after which a missing answer is shown.
const LATE: Duration = Duration::from_secs(5);

/// One answer, in figures.
#[derive(Clone, Debug, Default)]
struct Sample {
    at: Duration,
    pid: u32,
    next_seq: u64,
    disk_bytes: u64,
    resident_bytes: u64,
    /// Acked lines and waiting lines, by group.
    groups: BTreeMap<String, (u64, u64)>,
}

/// The state of the screen.
pub(super) struct Model {
    pub(super) place: String,
    pub(super) colour: bool,
    pub(super) now: Option<Box<(StatusJson, DoctorJson)>>,
    /// Why the service does not answer, and since when.
    pub(super) lost: Option<(String, Duration)>,
    /// Now, since the start.
    pub(super) at: Duration,
    /// When the last answer came.
    heard_at: Duration,
    samples: VecDeque<Sample>,
    chosen: usize,
    /// The result of the last request, until the next key.
    pub(super) notice: Vec<String>,
    /// The group that is paused if the next key is y.
    pub(super) to_pause: Option<String>,
}

impl Model {
    pub(super) fn new(place: String, colour: bool) -> Model {
        Model {
            place,
            colour,
            now: None,
            lost: None,
            at: Duration::ZERO,
            heard_at: Duration::ZERO,
            samples: VecDeque::with_capacity(HISTORY_MAX),
            chosen: 0,
            notice: Vec::new(),
            to_pause: None,
        }
    }

    /// Adds an answer that came `at` after the start.
    pub(super) fn take(&mut self, heard: Heard, at: Duration) {
        (self.at, self.heard_at) = (at, at);
        let heard = match heard {
            Ok(heard) => heard,
            Err(why) => {
                let since = self.lost.as_ref().map_or(at, |(_, since)| *since);
                self.lost = Some((why, since));
                return;
            }
        };
        self.lost = None;
        if self.samples.len() >= HISTORY_MAX {
            self.samples.pop_front();
        }
        let status = &heard.0;
        self.samples.push_back(Sample {
            at,
            pid: status.pid,
            next_seq: status.log.next_seq,
            disk_bytes: status.log.disk_bytes,
            resident_bytes: status.process.resident_bytes.unwrap_or_default(),
            groups: status
                .groups
                .iter()
                .map(|group| (group.group.clone(), (group.acked_lines, group.lag_lines)))
                .collect(),
        });
        self.now = Some(heard);
        self.choose(0);
    }

    /// Shows the result of a request.
    pub(super) fn done(&mut self, request: &AdminJson, done: Result<AnswerJson, String>) {
        let answer = match done {
            Ok(answer) => answer,
            Err(why) => {
                self.notice = vec![format!("! failed: {why}")];
                return;
            }
        };
        self.notice = match request {
            AdminJson::Pause { name, paused: true } => {
                vec![format!("group {name} is paused; r resumes it")]
            }
            AdminJson::Pause { name, .. } => vec![format!("group {name} resumes")],
            AdminJson::DeadLetters { group, .. } if answer.dead_letters.is_empty() => {
                vec![format!("group {group} has no dead letters")]
            }
            AdminJson::DeadLetters { group, .. } => {
                let more = format!("dead letters of {group}; `spillq dead-letter show` prints a line");
                let letters = answer.dead_letters.iter().map(|letter| {
                    let attempts = counted(u64::from(letter.attempts), "attempt");
                    format!("  line {}, {attempts}, {}: {}", letter.seq, letter.time, letter.reason)
                });
                std::iter::once(more).chain(letters).collect()
            }
            _ => Vec::new(),
        };
    }

    /// Asks before a group is paused, and explains the consequence.
    pub(super) fn ask_to_pause(&mut self, name: String) {
        self.notice = vec![
            "No more lines are delivered to it, even after a restart, until r resumes it.".to_owned(),
            "The lines stay stored, and disk use grows with what is written meanwhile.".to_owned(),
        ];
        self.to_pause = Some(name);
    }

    /// Time passes. Returns whether the screen changes.
    pub(super) fn tick(&mut self, at: Duration) -> bool {
        if self.lost.is_none() && at.saturating_sub(self.heard_at) >= LATE {
            self.lost = Some(("waiting for its answer".to_owned(), self.heard_at));
        }
        let before = std::mem::replace(&mut self.at, at);
        self.lost.is_some() && before.as_secs() != at.as_secs()
    }

    /// Moves the choice down by `by` groups, and around at the ends.
    pub(super) fn choose(&mut self, by: isize) {
        let count = self.groups().len();
        self.chosen = match isize::try_from(count) {
            Ok(count) if count > 0 => {
                (self.chosen as isize).saturating_add(by).rem_euclid(count).unsigned_abs()
            }
            _ => 0,
        };
    }

    pub(super) fn groups(&self) -> &[GroupJson] {
        self.now.as_ref().map_or(&[], |now| &now.0.groups)
    }

    /// The index of the chosen group.
    pub(super) fn chosen(&self) -> usize {
        self.chosen
    }

    pub(super) fn chosen_group(&self) -> Option<&GroupJson> {
        self.groups().get(self.chosen)
    }

    /// The paused groups.
    pub(super) fn paused(&self) -> Vec<&str> {
        let is_paused = |group: &&GroupJson| State::of_word(&group.state) == Some(State::Paused);
        self.groups().iter().filter(is_paused).map(|group| group.group.as_str()).collect()
    }

    /// How long ago an answer came; the newest is number 0.
    pub(super) fn age(&self, back: usize) -> Option<Duration> {
        let sample = self.samples.get(self.samples.len().checked_sub(back + 1)?)?;
        Some(self.at.saturating_sub(sample.at))
    }

    /// `disk.limit`.
    pub(super) fn disk_limit(&self) -> Option<u64> {
        self.now.as_ref()?.0.log.limit_bytes
    }

    /// The verdict on a group.
    pub(super) fn verdict(&self, group: &str) -> Option<&VerdictJson> {
        self.now.as_ref()?.1.groups.iter().find(|verdict| verdict.group == group)
    }

    /// The verdicts that are not about a group.
    pub(super) fn findings(&self) -> &[VerdictJson] {
        self.now.as_ref().map_or(&[], |now| &now.1.findings)
    }

    /// Ingested lines per second, oldest first; one fewer than there are answers.
    pub(super) fn lines_in(&self) -> Vec<u64> {
        self.rates(|sample| Some(sample.next_seq))
    }

    /// Lines per second that a group acked.
    pub(super) fn lines_out(&self, group: &str) -> Vec<u64> {
        self.rates(|sample| Some(sample.groups.get(group)?.0))
    }

    /// Waiting lines of a group.
    pub(super) fn lag(&self, group: &str) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.groups.get(group).map_or(0, |group| group.1)).collect()
    }

    pub(super) fn memory(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.resident_bytes).collect()
    }

    pub(super) fn disk(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.disk_bytes).collect()
    }

    fn rates(&self, count: impl Fn(&Sample) -> Option<u64>) -> Vec<u64> {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        pairs
            .map(|(before, after)| {
                let seconds = after.at.saturating_sub(before.at).as_secs_f64();
                let counted = count(after).zip(count(before)).map(|(now, then)| now.saturating_sub(then));
                match counted {
                    // Not across a restart: the rate is not known.
                    Some(counted) if before.pid == after.pid && seconds > 0.0 => {
                        (counted as f64 / seconds).round() as u64
                    }
                    _ => 0,
                }
            })
            .collect()
    }
}
