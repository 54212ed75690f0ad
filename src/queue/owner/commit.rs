//! One commit: gather appends into it, make it durable, answer.
//!
//! Many lines take two steps: the log writes and syncs them in a thread of its own, then it records them. While one commit
//! is recorded, the lines of the next are written already.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use bytes::Bytes;
use spillq_storage::{Commit, Error, Full, NewBlock, Seq, SourceId};

use super::{GATHERED_BYTES_MAX, Owner, Pending};
use crate::queue::command::{Append, Appended};
use crate::queue::group::Group;
use crate::queue::phase::WhyFull;

/// The lines of a commit.
#[derive(Default)]
pub(super) struct Lines {
    blocks: Vec<NewBlock>,
    checkpoints: Vec<(SourceId, Bytes)>,
    forget: Vec<SourceId>,
    appends: Vec<Gathered>,
}

/// An append whose parts are in a commit.
struct Gathered {
    reply: SyncSender<Appended>,
    lines: u64,
    /// How much of the commit belongs to it.
    blocks: usize,
    checkpoints: usize,
    forget: usize,
}

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
            self.go_ahead()?;
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
        if !lines.appends.is_empty() {
            self.note_full(None);
        }
        let appended =
            lines.appends.into_iter().map(|Gathered { reply, lines, .. }| Pending::Appended { reply, lines });
        self.answers.extend(appended);
        self.groups.values_mut().for_each(Group::made_durable);
        self.answers.drain(..).fold(first, |seq, answer| answer.send(seq));
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
        let lines = self.gather_appends();
        match self.log.stage(&lines.blocks) {
            Ok(_) => Ok(Ok(lines)),
            Err(Error::Full(full)) => {
                self.put_back(lines);
                Ok(Err(full))
            }
            Err(error) => Err(error),
        }
    }

    /// Begins to write the lines of the commit after this one, if they are many. If that is not possible now, it is tried
    /// again, and said, when it is their turn.
    fn go_ahead(&mut self) -> Result<(), Error> {
        if self.appends.is_empty() || self.held_by_lag().is_some() {
            return Ok(());
        }
        let lines = self.gather_appends();
        match self.log.stage(&lines.blocks) {
            Ok(true) => self.ahead = Some(lines),
            Ok(false) | Err(Error::Full(_)) => self.put_back(lines),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Moves waiting appends into a commit, up to [`GATHERED_BYTES_MAX`].
    fn gather_appends(&mut self) -> Lines {
        let (mut lines, mut bytes) = (Lines::default(), 0);
        while bytes < GATHERED_BYTES_MAX {
            let Some((append, reply)) = self.appends.pop_front() else { break };
            bytes += append.disk_bytes();
            let Append { blocks, checkpoints, forget } = append;
            lines.appends.push(Gathered {
                reply,
                lines: blocks.iter().map(|block| u64::from(block.lines())).sum(),
                blocks: blocks.len(),
                checkpoints: checkpoints.len(),
                forget: forget.len(),
            });
            lines.blocks.extend(blocks);
            lines.checkpoints.extend(checkpoints);
            lines.forget.extend(forget);
        }
        lines
    }

    /// Commits to the log; returns the seq of the first line.
    fn write(&mut self, commit: &Commit) -> Result<Seq, Error> {
        let bytes = commit.blocks.iter().map(NewBlock::disk_bytes).sum();
        self.largest_commit = self.largest_commit.max(bytes);
        let began = Instant::now();
        let committed = self.log.commit(commit);
        self.commit_time += began.elapsed();
        let committed = committed?;
        committed.blocks.into_iter().for_each(|block| self.window.push(block));
        Ok(committed.first)
    }

    /// Puts appends that the log refused back to the front, each as it was.
    fn put_back(&mut self, lines: Lines) {
        let Lines { blocks, checkpoints, forget, appends } = lines;
        let (mut blocks, mut checkpoints) = (blocks.into_iter(), checkpoints.into_iter());
        let mut forget = forget.into_iter();
        let mut back = VecDeque::with_capacity(appends.len());
        for gathered in appends {
            let append = Append {
                blocks: blocks.by_ref().take(gathered.blocks).collect(),
                checkpoints: checkpoints.by_ref().take(gathered.checkpoints).collect(),
                forget: forget.by_ref().take(gathered.forget).collect(),
            };
            back.push_back((append, gathered.reply));
        }
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

impl Lines {
    fn move_into(&mut self, commit: &mut Commit) {
        commit.blocks.append(&mut self.blocks);
        commit.checkpoints.append(&mut self.checkpoints);
        commit.forget.append(&mut self.forget);
    }

    /// Only lines have blocks, checkpoints and sources to forget in a commit.
    fn move_out_of(&mut self, commit: &mut Commit) {
        self.blocks = std::mem::take(&mut commit.blocks);
        self.checkpoints = std::mem::take(&mut commit.checkpoints);
        self.forget = std::mem::take(&mut commit.forget);
    }
}
