//! Carries out what operators request: groups, dead letters, the hold of a backup.

use std::collections::BTreeSet;

use spillq_storage::{DeadCause, GroupChange, GroupId, Seq, SeqRange};

use super::{DISCARDED_MAX, Owner};
use crate::plain::counted;
use crate::queue::admin::{
    Admin, AdminError, Answer, DEAD_LETTERS_SHOWN_MAX, GROUPS_MAX, PARKED_MAX, Refusal,
};
use crate::queue::clock;
use crate::queue::group::{Condemned, Group};
use crate::queue::group_name;
use crate::queue::settings::GroupSettings;
use crate::queue::status::{Discarded, DiscardedBy};

impl Owner {
    pub(super) fn administer(&mut self, admin: Admin) -> Result<Answer, AdminError> {
        Ok(match admin {
            Admin::AddGroup { name, from_beginning } => self.add_group(&name, from_beginning)?,
            Admin::RemoveGroup { name, discard_lines } => self.remove_group(&name, discard_lines)?,
            Admin::Pause { name, paused } => {
                let id = self.find(&name)?;
                self.commit.groups.push((id, GroupChange::Pause(paused)));
                Answer::Done
            }
            Admin::DeadLetters { group, from } => {
                let id = self.find(&group)?;
                Answer::DeadLetters(self.log.dead_letters(id, from, DEAD_LETTERS_SHOWN_MAX)?)
            }
            Admin::Retry { group, seqs } => self.retry_dead(&group, seqs)?,
            Admin::Discard { group, seqs, discard_lines } => {
                self.discard_dead(&group, seqs, discard_lines)?
            }
            Admin::Hold { token } => self.hold(token)?,
            Admin::ReleaseHold { token } => {
                if self.hold.end(token) {
                    self.log.hold_removal(false);
                }
                Answer::Done
            }
            Admin::Seek { group, to, discard_lines, dry_run } => {
                self.seek(&group, to, discard_lines, dry_run)?
            }
            Admin::Park { group, seqs } => self.park(&group, &seqs)?,
            Admin::RetryNow(name) => {
                let id = self.find(&name)?;
                if let Some(group) = self.groups.get_mut(&id) {
                    group.retry_now(clock::now_ms());
                }
                Answer::Done
            }
        })
    }

    pub(super) fn find(&self, name: &str) -> Result<GroupId, Refusal> {
        let groups = self.log.state().groups();
        self.log.state().group(name).map(|(id, _)| id).ok_or_else(|| Refusal::NoGroup {
            name: name.to_owned(),
            there: groups.values().map(|group| group.name()).collect::<Vec<_>>().join(", "),
        })
    }

    fn add_group(&mut self, name: &str, from_beginning: bool) -> Result<Answer, AdminError> {
        if let Err(expected) = group_name(name) {
            return Err(Refusal::GroupName(format!("{name:?}: {expected}")).into());
        }
        if self.find(name).is_ok() {
            return Err(Refusal::GroupExists(name.to_owned()).into());
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(Refusal::TooManyGroups(self.groups.len()).into());
        }
        let floor = self.first_floor(from_beginning);
        self.commit.add_groups.push((name.to_owned(), floor));
        self.make_durable()?;
        if let Some((id, state)) = self.log.state().group(name) {
            self.groups.insert(id, Group::new(GroupSettings::named(name), state));
        }
        Ok(Answer::Done)
    }

    fn remove_group(&mut self, name: &str, discard_lines: bool) -> Result<Answer, AdminError> {
        let id = self.find(name)?;
        if self.groups.len() == 1 {
            return Err(Refusal::LastGroup(name.to_owned()).into());
        }
        if self.groups.get(&id).is_some_and(|group| group.leases().next().is_some()) {
            return Err(Refusal::GroupBusy(name.to_owned()).into());
        }
        let waiting = self.lag(id).map_or(0, |(_, lag)| lag.lines);
        let lines = waiting + self.log.dead_count(id) as u64;
        if lines > 0 && !discard_lines {
            return Err(refuse(name, lines, "those that wait for it, and its dead letters").into());
        }
        self.groups.remove(&id);
        self.asked.retain(|asked| asked.group != id);
        self.commit.remove_groups.push(id);
        self.make_durable()?;
        self.note_discarded(name, lines, DiscardedBy::RemoveGroup);
        Ok(Answer::Done)
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

    /// Delivers dead letters again. The commit that revives a line is durable before its entry in `kept/` ends, so that a
    /// crash between the two leaves the line revived.
    fn retry_dead(&mut self, name: &str, seqs: Option<Vec<SeqRange>>) -> Result<Answer, AdminError> {
        let id = self.find(name)?;
        let dead = self.dead_among(id, name, seqs)?;
        self.commit.groups.extend(dead.iter().map(|seq| (id, GroupChange::Revive { seq: *seq })));
        self.make_durable()?;
        if let Some(group) = self.groups.get_mut(&id) {
            dead.iter().for_each(|seq| group.revive(*seq));
        }
        self.log.settle_dead(id, &dead)?;
        Ok(Answer::Lines(dead.len() as u64))
    }

    /// Ends dead letters for good.
    fn discard_dead(
        &mut self,
        name: &str,
        seqs: Option<Vec<SeqRange>>,
        discard_lines: bool,
    ) -> Result<Answer, AdminError> {
        let id = self.find(name)?;
        let all = self.log.dead_count(id) as u64;
        if seqs.is_none() && all > 0 && !discard_lines {
            return Err(refuse(name, all, "all its dead letters").into());
        }
        let dead = self.dead_among(id, name, seqs)?;
        self.log.settle_dead(id, &dead)?;
        self.note_discarded(name, dead.len() as u64, DiscardedBy::DeadLetters);
        Ok(Answer::Lines(dead.len() as u64))
    }

    /// The dead letters of a group among `seqs`, or all.
    fn dead_among(&self, id: GroupId, name: &str, seqs: Option<Vec<SeqRange>>) -> Result<Vec<Seq>, Refusal> {
        let Some(seqs) = seqs else {
            return Ok(self.log.dead_seqs(id, SeqRange { first: Seq(0), last: Seq(u64::MAX) }));
        };
        let dead: Vec<Seq> = seqs.iter().flat_map(|range| self.log.dead_seqs(id, *range)).collect();
        if dead.is_empty() {
            let seqs = seqs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Refusal::NoDeadLetter { group: name.to_owned(), seqs });
        }
        Ok(dead)
    }

    fn park(&mut self, name: &str, seqs: &[SeqRange]) -> Result<Answer, AdminError> {
        let id = self.find(name)?;
        let mut lines = self.waiting_in(id, seqs);
        let mut more = lines.len() > PARKED_MAX;
        lines.truncate(PARKED_MAX);
        if lines.is_empty() {
            let refusal = match seqs {
                [range] if range.first == range.last => {
                    Refusal::NotWaiting { group: name.to_owned(), seq: range.first }
                }
                _ => Refusal::NoneWaiting(name.to_owned()),
            };
            return Err(refusal.into());
        }
        let group = self.groups.get(&id);
        let is_leased =
            |seq: &&Seq| group.is_some_and(|group| group.leases().any(|lease| lease.range.contains(**seq)));
        if let Some(seq) = lines.iter().find(is_leased) {
            return Err(Refusal::Leased(*seq).into());
        }
        let mut parked = 0;
        for seq in lines {
            let reason = "parked by an operator".to_owned();
            if self.log.is_dead_full(id) {
                more = true;
                break;
            }
            if !self.dead_letter(id, Condemned { seq, cause: DeadCause::Parked, reason })? {
                let what = self.groups.get_mut(&id).and_then(|group| group.unreadable.take());
                let what = what.map(|what| what.to_string()).unwrap_or_default();
                return Err(Refusal::Unreadable { seq, what }.into());
            }
            parked += 1;
        }
        if parked == 0 {
            return Err(Refusal::DeadLettersFull(name.to_owned()).into());
        }
        tracing::info!(group = name, lines = parked, "an operator moved lines to the dead letters");
        Ok(Answer::Parked { lines: parked, more })
    }

    /// The first lines of `seqs` that wait for a group, in order: at most one more than one request parks.
    fn waiting_in(&mut self, id: GroupId, seqs: &[SeqRange]) -> Vec<Seq> {
        let members = self.groups.get(&id).and_then(|group| group.members().cloned());
        let most = PARKED_MAX as u64 + 1;
        let state = self.log.state();
        let (Some(group), Some(all)) =
            (state.groups().get(&id), SeqRange::new(Seq::FIRST, state.next_seq().prev()))
        else {
            return Vec::new();
        };
        let mut lines = BTreeSet::new();
        if let Some(members) = members {
            let mut asked: Vec<SeqRange> = seqs.iter().filter_map(|range| range.intersection(all)).collect();
            asked.sort_unstable();
            let waiting: Vec<SeqRange> = asked.iter().flat_map(|range| group.acks().gaps(*range)).collect();
            for range in asked {
                lines.extend(group.revived().range(range.first..=range.last).copied().take(PARKED_MAX + 1));
            }
            let own = self.find_own(&members, waiting, most).ranges;
            lines.extend(own.iter().flat_map(|own| (own.first.0..=own.last.0).map(Seq)));
            return lines.into_iter().take(PARKED_MAX + 1).collect();
        }
        for range in seqs.iter().filter_map(|range| range.intersection(all)) {
            let never_acked = group.acks().gaps(range).flat_map(|gap| (gap.first.0..=gap.last.0).map(Seq));
            lines.extend(never_acked.take(PARKED_MAX + 1));
            lines.extend(group.revived().range(range.first..=range.last).copied().take(PARKED_MAX + 1));
        }
        lines.into_iter().take(PARKED_MAX + 1).collect()
    }

    /// Begins or renews the hold of a backup. All that was gathered is durable: the snapshot is the state after a commit.
    fn hold(&mut self, token: Option<u64>) -> Result<Answer, Refusal> {
        self.expire_hold();
        let now_ms = clock::now_ms();
        match token {
            None if self.hold.begin(self.next_token, now_ms) => {
                let token = self.next_token;
                self.next_token += 1;
                self.log.hold_removal(true);
                Ok(Answer::Held { token, snapshot: Some(Box::new(self.log.snapshot())) })
            }
            None => Err(Refusal::Hold("a backup is being made already")),
            Some(token) if self.hold.renew(token, now_ms) => Ok(Answer::Held { token, snapshot: None }),
            Some(_) => Err(Refusal::Hold("the backup did not renew its hold in time")),
        }
    }

    /// Removes files again if a backup has died.
    pub(super) fn expire_hold(&mut self) {
        if self.hold.expire(clock::now_ms()) {
            tracing::warn!("a backup stopped renewing its hold; spillq removes segments again");
            self.log.hold_removal(false);
        }
    }
}

pub(super) fn refuse(group: &str, lines: u64, what: &'static str) -> Refusal {
    Refusal::WouldDiscard { group: group.to_owned(), lines: counted(lines, "line"), what }
}
