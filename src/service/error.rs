//! Why the service did not do its job.

use spillq_storage::Error;

/// Why the service did not do its job. Its text is one line, without the next step.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store could not be opened, or failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// A part could not be started, or a setting does not fit the store; with the next step.
    #[error("{0}")]
    Start(String, Option<String>),
}
