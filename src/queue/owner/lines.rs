//! The lines of a commit: appends, joined, and how to take them apart again.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use spillq_storage::{Commit, NewBlock, SourceId};

use crate::queue::command::{Append, Appended};

/// The lines.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) blocks: Vec<NewBlock>,
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

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    pub(super) fn add(&mut self, append: Append, reply: SyncSender<Appended>) {
        let Append { blocks, checkpoints, forget } = append;
        self.appends.push(Gathered {
            reply,
            lines: blocks.iter().map(|block| u64::from(block.lines())).sum(),
            blocks: blocks.len(),
            checkpoints: checkpoints.len(),
            forget: forget.len(),
        });
        self.blocks.extend(blocks);
        self.checkpoints.extend(checkpoints);
        self.forget.extend(forget);
    }

    pub(super) fn move_into(&mut self, commit: &mut Commit) {
        commit.blocks.append(&mut self.blocks);
        commit.checkpoints.append(&mut self.checkpoints);
        commit.forget.append(&mut self.forget);
    }

    /// Takes them back. Nothing else in a commit has blocks, checkpoints and sources to forget.
    pub(super) fn move_out_of(&mut self, commit: &mut Commit) {
        self.blocks = std::mem::take(&mut commit.blocks);
        self.checkpoints = std::mem::take(&mut commit.checkpoints);
        self.forget = std::mem::take(&mut commit.forget);
    }

    /// The appends, each as it was.
    pub(super) fn into_appends(self) -> VecDeque<(Append, SyncSender<Appended>)> {
        let Lines { blocks, checkpoints, forget, appends } = self;
        let (mut blocks, mut checkpoints) = (blocks.into_iter(), checkpoints.into_iter());
        let mut forget = forget.into_iter();
        let apart = appends.into_iter().map(|gathered| {
            let append = Append {
                blocks: blocks.by_ref().take(gathered.blocks).collect(),
                checkpoints: checkpoints.by_ref().take(gathered.checkpoints).collect(),
                forget: forget.by_ref().take(gathered.forget).collect(),
            };
            (append, gathered.reply)
        });
        apart.collect()
    }

    /// Who waits for them, each with the number of its lines.
    pub(super) fn replies(self) -> impl Iterator<Item = (SyncSender<Appended>, u64)> {
        self.appends.into_iter().map(|gathered| (gathered.reply, gathered.lines))
    }
}
