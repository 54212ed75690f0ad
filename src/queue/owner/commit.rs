//! One commit: gather appends into it, make it durable, answer.
//!
//! Many lines take two steps: the log writes and syncs them in a thread of its own, then it records them. While one commit
//! is recorded, the lines of the next are written already.

use std::time::Instant;

use spillq_storage::{Commit, Error, Full, NewBlock, Seq};

use super::lines::Lines;
use super::{GATHERED_BYTES_MAX, Owner, Pending};
use crate::queue::group::Group;
use crate::queue::lag::Room;
use crate::queue::phase::WhyFull;

/// What a commit has left to do.
enum Left {
    Nothing,
    /// More lines wait than one commit takes.
    Appends,
    /// Appends wait, and the log has no space for them.
    Space(Full),
}

impl Owner {
    /// Makes everything durable that was gathered, and the waiting appends as far as the log has space; then answers.
    pub(super) fn make_durable(&mut self) -> Result<(), Error> {
        self.make_durable_with(false)
    }

    /// The same, but while the lines are written to disk, commands are gathered, and the lines behind them begin to be
    /// written. These may still be on their way when it returns: [`Owner::is_ahead`].
    pub(super) fn make_durable_ahead(&mut self) -> Result<(), Error> {
        self.make_durable_with(true)
    }

    /// Whether lines are on their way to disk.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    fn make_durable_with(&mut self, goes_ahead: bool) -> Result<(), Error> {
        loop {
            match self.commit_once(goes_ahead)? {
                Left::Nothing => return Ok(()),
                // The loop of the owner comes back, with other work in between.
                Left::Appends if goes_ahead && self.is_ahead() => return Ok(()),
                Left::Appends => {}
                Left::Space(full) => {
                    if !self.drop_oldest(&full)? {
                        self.note_full(Some(WhyFull::Disk(full)));
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One commit, if there is anything to commit.
    fn commit_once(&mut self, goes_ahead: bool) -> Result<Left, Error> {
        let mut no_space = None;
        let mut lines = match self.ahead.take() {
            Some(lines) => lines,
            None => match self.next_lines()? {
                Ok(lines) => lines,
                Err(full) => {
                    no_space = Some(full);
                    Lines::default()
                }
            },
        };
        if self.log.has_staged() && goes_ahead {
            self.log.wait_staged();
            self.gather_meanwhile()?;
            self.go_ahead(&lines)?;
        }
        if !self.commit.is_empty() || !lines.is_empty() {
            self.settle_passed();
        }
        let mut commit = std::mem::take(&mut self.commit);
        lines.move_into(&mut commit);
        let mut first = self.log.state().next_seq();
        if !commit.is_empty() {
            match self.write(&commit) {
                Ok(committed) => first = committed,
                Err(Error::Full(full)) => {
                    no_space = Some(full);
                    lines.move_out_of(&mut commit);
                    let ahead = self.ahead.take();
                    ahead.into_iter().for_each(|ahead| self.put_back(ahead));
                    self.put_back(std::mem::take(&mut lines));
                    if !commit.is_empty() {
                        first = self.log.commit(&commit)?.first;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if !lines.is_empty() {
            self.note_full(None);
        }
        self.answers.extend(lines.replies().map(|(reply, lines)| Pending::Appended { reply, lines }));
        self.groups.values_mut().for_each(Group::made_durable);
        let state = self.log.state();
        self.answers.drain(..).fold(first, |seq, answer| answer.send(seq, state));
        Ok(match no_space {
            Some(full) => Left::Space(full),
            None if self.full.is_none() && (self.is_ahead() || !self.appends.is_empty()) => Left::Appends,
            None => Left::Nothing,
        })
    }

    /// The appends that wait, as far as the log has space and no group holds them. Large ones begin to be written.
    fn next_lines(&mut self) -> Result<Result<Lines, Full>, Error> {
        if self.appends.is_empty() {
            return Ok(Ok(Lines::default()));
        }
        if let Some(full) = self.log.refusal()? {
            return Ok(Err(full));
        }
        if let Some(held) = self.held_by_lag() {
            self.note_full(Some(held));
            return Ok(Ok(Lines::default()));
        }
        let lines = self.gather_appends(self.lag_room());
        match self.log.stage(&lines.blocks) {
            Ok(_) => Ok(Ok(lines)),
            Err(Error::Full(full)) => {
                self.put_back(lines);
                Ok(Err(full))
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to write the lines of the commit after `committing`, if they are many. If that is not possible now, it is
    /// tried again, and said, when it is their turn.
    fn go_ahead(&mut self, committing: &Lines) -> Result<(), Error> {
        if self.appends.is_empty() || self.held_by_lag().is_some() {
            return Ok(());
        }
        let mut room = self.lag_room();
        committing.blocks.iter().for_each(|block| room.take(block));
        let lines = self.gather_appends(room);
        match self.log.stage(&lines.blocks) {
            Ok(true) => self.ahead = Some(lines),
            Ok(false) | Err(Error::Full(_)) => self.put_back(lines),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Moves waiting appends into a commit, up to [`GATHERED_BYTES_MAX`], and until a group has reached its `max_lag`.
    fn gather_appends(&mut self, mut room: Room) -> Lines {
        let (mut lines, mut bytes) = (Lines::default(), 0);
        while bytes < GATHERED_BYTES_MAX && !room.is_used_up() {
            let Some((append, reply)) = self.appends.pop_front() else { break };
            bytes += append.disk_bytes();
            append.blocks.iter().for_each(|block| room.take(block));
            lines.add(append, reply);
        }
        lines
    }

    /// Commits to the log; returns the seq of the first line.
    fn write(&mut self, commit: &Commit) -> Result<Seq, Error> {
        let bytes = commit.blocks.iter().map(NewBlock::disk_bytes).sum();
        self.largest_commit = self.largest_commit.max(bytes);
        self.learn_sources(commit);
        let began = Instant::now();
        let committed = self.log.commit(commit);
        self.commit_time += began.elapsed();
        let committed = committed?;
        self.forget_sources(commit);
        for block in committed.blocks {
            self.note_appended(&block);
            self.window.push(block);
        }
        Ok(committed.first)
    }

    /// Puts appends that the log refused back to the front.
    fn put_back(&mut self, lines: Lines) {
        let mut back = lines.into_appends();
        back.append(&mut self.appends);
        self.appends = back;
    }

    /// Notes why ingestion pauses, or that it does not, and logs a change.
    fn note_full(&mut self, full: Option<WhyFull>) {
        match (&self.full, &full) {
            (None, Some(why @ WhyFull::Disk(_))) => {
                tracing::warn!("ingestion paused: {why}; it resumes when space is freed")
            }
            (None, Some(why)) => {
                tracing::warn!("ingestion paused: {why}; it resumes when the group has caught up")
            }
            (Some(_), None) => tracing::info!("ingestion resumed"),
            _ => {}
        }
        self.full = full;
    }
}
