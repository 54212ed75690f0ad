//! What is decided about followed files, as functions over the [`Book`](book::Book).

pub(crate) mod book;
pub(crate) mod checked;
pub(crate) mod compressed;
pub(crate) mod ending;
pub(crate) mod identify;
pub(crate) mod inactive;
pub(crate) mod index;
pub(crate) mod order;
pub(crate) mod own_path;
pub(crate) mod resume;
pub(crate) mod slot;
pub(crate) mod unfollowed;

pub(crate) use book::Book;
pub(crate) use checked::may_have_rest;
pub(crate) use identify::{Identify, Unidentified, look_at_unwritten};
pub(crate) use index::Index;
pub(crate) use order::{Families, is_rotation_of};
pub(crate) use resume::{Begin, Opened, ResumeAt, attach, new_source};
pub(crate) use slot::{Job, Slot};
pub(crate) use unfollowed::Unfollowed;
