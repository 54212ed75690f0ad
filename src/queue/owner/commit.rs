//! One commit: gather appends into it, make it durable, answer.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use spillq_storage::{Commit, Error, Full, NewBlock, Seq};

use super::{GATHERED_BYTES_MAX, Owner, Pending};
use crate::queue::command::{Append, Appended};
use crate::queue::group::Group;
use crate::queue::phase::WhyFull;

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
        loop {
            match self.commit_once()? {
                Left::Nothing => return Ok(()),
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

    /// One commit with one sync, if there is anything to commit.
    fn commit_once(&mut self) -> Result<Left, Error> {
        let mut commit = std::mem::take(&mut self.commit);
        let mut appends = Vec::new();
        let mut no_space = None;
        if !self.appends.is_empty() {
            no_space = self.log.refusal()?;
            if no_space.is_none() {
                match self.held_by_lag() {
                    Some(held) => self.note_full(Some(held)),
                    None => appends = self.gather_appends(&mut commit),
                }
            }
        }
        let mut first = self.log.state().next_seq();
        if !commit.is_empty() {
            match self.write(&commit) {
                Ok(committed) => first = committed,
                Err(Error::Full(full)) => {
                    no_space = Some(full);
                    self.take_back(&mut commit, std::mem::take(&mut appends));
                    if !commit.is_empty() {
                        first = self.log.commit(&commit)?.first;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if !appends.is_empty() {
            self.note_full(None);
        }
        let appended =
            appends.into_iter().map(|Gathered { reply, lines, .. }| Pending::Appended { reply, lines });
        self.answers.extend(appended);
        self.groups.values_mut().for_each(Group::made_durable);
        self.answers.drain(..).fold(first, |seq, answer| answer.send(seq));
        Ok(match no_space {
            Some(full) => Left::Space(full),
            None if self.full.is_none() && !self.appends.is_empty() => Left::Appends,
            None => Left::Nothing,
        })
    }

    /// Moves waiting appends into the commit, up to [`GATHERED_BYTES_MAX`].
    fn gather_appends(&mut self, commit: &mut Commit) -> Vec<Gathered> {
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        while bytes < GATHERED_BYTES_MAX {
            let Some((append, reply)) = self.appends.pop_front() else { break };
            bytes += append.disk_bytes();
            let Append { blocks, checkpoints, forget } = append;
            gathered.push(Gathered {
                reply,
                lines: blocks.iter().map(|block| u64::from(block.lines())).sum(),
                blocks: blocks.len(),
                checkpoints: checkpoints.len(),
                forget: forget.len(),
            });
            commit.blocks.extend(blocks);
            commit.checkpoints.extend(checkpoints);
            commit.forget.extend(forget);
        }
        gathered
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
    fn take_back(&mut self, commit: &mut Commit, appends: Vec<Gathered>) {
        let mut blocks = std::mem::take(&mut commit.blocks).into_iter();
        let mut checkpoints = std::mem::take(&mut commit.checkpoints).into_iter();
        let mut forget = std::mem::take(&mut commit.forget).into_iter();
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
