//! What operators ask for, carried out on the log.

use spillq_storage::{DeadCause, Error, GroupChange, GroupId, Seq, SeqRange};

use super::{DISCARDED_MAX, Owner};
use crate::plain::counted;
use crate::queue::admin::{
    Admin, Answer, DEAD_LETTERS_SHOWN_MAX, GROUPS_MAX, PARKED_MAX, Refusal, is_group_name,
};
use crate::queue::clock;
use crate::queue::group::{Condemned, Group};
use crate::queue::settings::GroupSettings;
use crate::queue::status::{Discarded, DiscardedBy};

impl Owner {
    pub(super) fn administer(&mut self, admin: Admin) -> Result<Result<Answer, Refusal>, Error> {
        Ok(match admin {
            Admin::AddGroup { name, from_beginning } => self.add_group(&name, from_beginning)?,
            Admin::RemoveGroup { name, discard_lines } => self.remove_group(&name, discard_lines)?,
            Admin::Pause { name, paused } => self.find(&name).map(|id| {
                self.commit.groups.push((id, GroupChange::Pause(paused)));
                Answer::Done
            }),
            Admin::DeadLetters { group, from } => match self.find(&group) {
                Ok(id) => Ok(Answer::DeadLetters(self.log.dead_letters(id, from, DEAD_LETTERS_SHOWN_MAX)?)),
                Err(refusal) => Err(refusal),
            },
            Admin::Retry { group, seqs } => self.end_dead(&group, seqs, true)?,
            Admin::Discard { group, seqs, discard_lines } => match self.would_discard(&group, &seqs) {
                Some(refusal) if !discard_lines => Err(refusal),
                _ => self.end_dead(&group, seqs, false)?,
            },
            Admin::Hold { token } => self.hold(token),
            Admin::LetGo { token } => self.let_go(token),
            Admin::Seek { group, to, discard_lines, only_look } => {
                self.seek(&group, to, discard_lines, only_look)?
            }
            Admin::Park { group, seqs } => self.park(&group, &seqs)?,
            Admin::RetryNow(name) => self.find(&name).map(|id| {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.retry_now(clock::now_ms());
                }
                Answer::Done
            }),
        })
    }

    pub(super) fn find(&self, name: &str) -> Result<GroupId, Refusal> {
        let groups = &self.log.state().groups;
        self.log.state().group(name).map(|(id, _)| id).ok_or_else(|| Refusal::NoGroup {
            name: name.to_owned(),
            there: groups.values().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    fn add_group(&mut self, name: &str, from_beginning: bool) -> Result<Result<Answer, Refusal>, Error> {
        if !is_group_name(name) {
            return Ok(Err(Refusal::GroupName(name.to_owned())));
        }
        if self.find(name).is_ok() {
            return Ok(Err(Refusal::GroupExists(name.to_owned())));
        }
        if self.groups.len() >= GROUPS_MAX {
            return Ok(Err(Refusal::TooManyGroups(self.groups.len())));
        }
        let floor = self.start(from_beginning);
        self.commit.add_groups.push((name.to_owned(), floor));
        self.make_durable()?;
        if let Some((id, state)) = self.log.state().group(name) {
            self.groups.insert(id, Group::new(GroupSettings::named(name), state));
        }
        Ok(Ok(Answer::Done))
    }

    /// Why dead letters are not discarded without a further word: no line was named, and there are some.
    fn would_discard(&self, name: &str, seqs: &Option<Vec<SeqRange>>) -> Option<Refusal> {
        let letters = self.find(name).map_or(0, |id| self.log.dead_count(id)) as u64;
        (seqs.is_none() && letters > 0).then(|| refuse(name, letters, "all its dead letters"))
    }

    /// Logs what an operator has discarded, and keeps it for the supervisor.
    pub(super) fn note_discarded(&mut self, group: &str, lines: u64, by: DiscardedBy) {
        if lines == 0 {
            return;
        }
        tracing::warn!(group, lines, "an operator discarded lines: {by}");
        let number = self.discarded.back().map_or(1, |last| last.number + 1);
        self.discarded.push_back(Discarded { number, group: group.to_owned(), lines, by });
        while self.discarded.len() > DISCARDED_MAX {
            self.discarded.pop_front();
        }
    }

    fn remove_group(&mut self, name: &str, discard_lines: bool) -> Result<Result<Answer, Refusal>, Error> {
        let id = match self.find(name) {
            Ok(id) => id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.groups.len() == 1 {
            return Ok(Err(Refusal::LastGroup(name.to_owned())));
        }
        if self.groups.get(&id).is_some_and(|group| group.out().next().is_some()) {
            return Ok(Err(Refusal::GroupBusy(name.to_owned())));
        }
        let state = self.log.state();
        let waiting = state.groups.get(&id).map_or(0, |group| group.lag_lines(state.next_seq));
        let lines = waiting + self.log.dead_count(id) as u64;
        if lines > 0 && !discard_lines {
            return Ok(Err(refuse(name, lines, "those that wait for it, and its dead letters")));
        }
        self.groups.remove(&id);
        self.parked.retain(|parked| parked.group != id);
        self.commit.remove_groups.push(id);
        self.make_durable()?;
        self.note_discarded(name, lines, DiscardedBy::RemoveGroup);
        Ok(Ok(Answer::Done))
    }

    /// Ends dead letters: to deliver them again, or for good. The commit that puts a line back is durable before
    /// its entry in `kept/` ends, so that a crash between the two leaves it put back.
    fn end_dead(
        &mut self,
        name: &str,
        seqs: Option<Vec<SeqRange>>,
        again: bool,
    ) -> Result<Result<Answer, Refusal>, Error> {
        let id = match self.find(name) {
            Ok(id) => id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let wanted = seqs.clone().unwrap_or_else(|| vec![SeqRange { first: Seq(0), last: Seq(u64::MAX) }]);
        let mut ended = Vec::new();
        for range in wanted {
            ended.extend(self.log.dead_seqs(id, range));
        }
        if ended.is_empty() && seqs.is_some() {
            let seqs =
                seqs.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Ok(Err(Refusal::NoDeadLetter { group: name.to_owned(), seqs }));
        }
        if again {
            self.commit.groups.extend(ended.iter().map(|seq| (id, GroupChange::Revive { seq: *seq })));
            self.make_durable()?;
            if let Some(group) = self.groups.get_mut(&id) {
                ended.iter().for_each(|seq| group.revive(*seq));
            }
        }
        self.log.settle_dead(id, &ended)?;
        if !again {
            self.note_discarded(name, ended.len() as u64, DiscardedBy::DeadLetters);
        }
        Ok(Ok(Answer::Lines(ended.len() as u64)))
    }

    fn park(&mut self, name: &str, seqs: &[SeqRange]) -> Result<Result<Answer, Refusal>, Error> {
        let id = match self.find(name) {
            Ok(id) => id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut lines = self.waiting_in(id, seqs);
        let mut more = lines.len() > PARKED_MAX;
        lines.truncate(PARKED_MAX);
        if lines.is_empty() {
            return Ok(Err(match seqs {
                [range] if range.first == range.last => {
                    Refusal::NotWaiting { group: name.to_owned(), seq: range.first }
                }
                _ => Refusal::NoneWaiting(name.to_owned()),
            }));
        }
        let group = self.groups.get(&id);
        let is_out = |seq: &&Seq| group.is_some_and(|group| group.out().any(|out| out.range.contains(**seq)));
        if let Some(seq) = lines.iter().find(is_out) {
            return Ok(Err(Refusal::Leased(*seq)));
        }
        let mut parked = 0;
        for seq in lines {
            let reason = "parked by an operator".to_owned();
            if self.log.is_dead_full(id) {
                more = true;
                break;
            }
            if !self.set_aside(id, Condemned { seq, cause: DeadCause::Parked, reason })? {
                let what = self.groups.get_mut(&id).and_then(|group| group.unreadable.take());
                let what = what.map(|what| what.to_string()).unwrap_or_default();
                return Ok(Err(Refusal::Unreadable { seq, what }));
            }
            parked += 1;
        }
        Ok(if parked > 0 {
            tracing::info!(group = name, lines = parked, "an operator moved lines to the dead letters");
            Ok(Answer::Parked { lines: parked, more })
        } else {
            Err(Refusal::DeadLettersFull(name.to_owned()))
        })
    }

    /// The first lines of these that wait for a group, in order: one more than are parked at a time.
    fn waiting_in(&self, id: GroupId, seqs: &[SeqRange]) -> Vec<Seq> {
        let state = self.log.state();
        let (Some(group), Some(all)) =
            (state.groups.get(&id), SeqRange::new(Seq::FIRST, state.next_seq.prev()))
        else {
            return Vec::new();
        };
        let within = seqs.iter().filter_map(|range| range.intersection(all));
        let mut lines = std::collections::BTreeSet::new();
        for range in within {
            let never = group.acks.gaps(range).flat_map(|gap| (gap.first.0..=gap.last.0).map(Seq));
            lines.extend(never.take(PARKED_MAX + 1));
            lines.extend(group.revived.range(range.first..=range.last).copied().take(PARKED_MAX + 1));
        }
        lines.into_iter().take(PARKED_MAX + 1).collect()
    }
}

pub(super) fn refuse(group: &str, lines: u64, what: &'static str) -> Refusal {
    Refusal::WouldDiscard { group: group.to_owned(), lines: counted(lines, "line"), what }
}
