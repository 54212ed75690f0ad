//! The one compressed file that is decompressed now: a decompressor needs up to 8 MiB.

use spillq_storage::SourceId;

use crate::tail::bytes::{Check, Decompressor};

/// Who decompresses now.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    job: Option<(SourceId, Job)>,
    /// Something was decompressed in this round: it had something to do.
    pub(crate) has_worked: bool,
}

/// What it is decompressed for.
#[derive(Debug)]
pub(crate) enum Job {
    Check(Box<Check>),
    Read(Box<Decompressor>),
}

impl Slot {
    /// The slot is this source's now.
    pub(crate) fn begin(&mut self, id: SourceId, job: Job) {
        self.job = Some((id, job));
    }

    /// The source, if it has the slot, decompresses no more.
    pub(crate) fn release(&mut self, id: SourceId) {
        self.job.take_if(|job| job.0 == id);
    }

    /// Who has the slot, and whether for a check.
    pub(crate) fn holder(&self) -> Option<(SourceId, bool)> {
        self.job.as_ref().map(|(id, job)| (*id, matches!(job, Job::Check(_))))
    }

    /// The check of this source that is under way.
    pub(crate) fn check(&mut self, of: SourceId) -> Option<&mut Check> {
        match &mut self.job {
            Some((id, Job::Check(check))) if *id == of => Some(check),
            _ => None,
        }
    }

    /// The same, to end it: the slot is free then.
    pub(crate) fn take_check(&mut self, of: SourceId) -> Option<Box<Check>> {
        match self.job.take_if(|job| job.0 == of) {
            Some((_, Job::Check(check))) => Some(check),
            _ => None,
        }
    }

    /// The decompressor of this source, if it is read.
    pub(crate) fn decompressor(&mut self, of: SourceId) -> Option<&mut Decompressor> {
        match &mut self.job {
            Some((id, Job::Read(decompressor))) if *id == of => Some(decompressor),
            _ => None,
        }
    }
}
