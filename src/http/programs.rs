//! Looks for the programs of commands, for verdicts.
//!
//! A file system that hangs must cost one thread, not one per request: one look runs at a time, and requests that come
//! meanwhile get the result of the previous look.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::supervise::ProgramFile;

/// How long a request waits for a look, which takes less than a millisecond if the disk answers.
const LOOK_WAIT: Duration = Duration::from_millis(500);

/// The result of the latest look. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs(Arc<Looked>);

#[derive(Debug, Default)]
struct Looked {
    /// By group, the reason why its program cannot be run.
    missing: Mutex<BTreeMap<String, String>>,
    is_looking: AtomicBool,
}

impl Programs {
    /// By group, the reason why its program cannot be run.
    pub(super) async fn missing(&self, programs: Vec<(String, ProgramFile)>) -> BTreeMap<String, String> {
        if !self.0.is_looking.swap(true, Ordering::AcqRel) {
            let looked = Arc::clone(&self.0);
            let look = tokio::task::spawn_blocking(move || {
                let missing = |(group, program): (String, ProgramFile)| Some((group, program.missing()?));
                let found = programs.into_iter().filter_map(missing).collect();
                *looked.missing.lock().unwrap_or_else(PoisonError::into_inner) = found;
                looked.is_looking.store(false, Ordering::Release);
            });
            // The next request gets the result of a look that takes longer.
            drop(tokio::time::timeout(LOOK_WAIT, look).await);
        }
        self.0.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn one_look_runs_at_a_time_and_others_get_the_previous_result() {
        let programs = Programs::default();
        let of = |program: &str| {
            let program =
                ProgramFile { program: program.to_owned(), path: None, cwd: Path::new("/").to_owned() };
            vec![("default".to_owned(), program)]
        };
        assert!(programs.missing(of("/nosuch")).await.contains_key("default"));
        assert!(programs.missing(of("/bin/sh")).await.is_empty());
        programs.0.is_looking.store(true, Ordering::Release);
        assert!(programs.missing(of("/nosuch")).await.is_empty(), "the result of the previous look");
    }
}
