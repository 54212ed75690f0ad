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
