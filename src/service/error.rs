//! Why the service did not do its job.

use std::fmt;

use spillq_storage::Error;

/// Why the service did not do its job.
#[derive(Debug)]
pub enum ServiceError {
    /// The store could not be opened, or failed.
    Store(Error),
    /// A part could not be started, or a setting does not fit the store; with the next step.
    Start(String, Option<String>),
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> ServiceError {
        ServiceError::Store(error)
    }
}

/// On one line, without the next step.
impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Store(error) => error.fmt(f),
            ServiceError::Start(what, _) => f.write_str(what),
        }
    }
}
