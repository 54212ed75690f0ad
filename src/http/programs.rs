//! Looks for the programs of commands, for whoever asks what is wrong.
//!
//! A file system that hangs must cost one thread, not one for each question: one look is under way at a time, and who
//! asks meanwhile gets what the look before has found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::supervise::ProgramFile;

/// An answer waits for a look for so long: where disks answer it takes less than a millisecond.
const LOOK_WAIT: Duration = Duration::from_millis(500);

/// What was found last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Programs(Arc<Looked>);

#[derive(Debug, Default)]
struct Looked {
    /// By group, why its program cannot be run.
    missing: Mutex<BTreeMap<String, String>>,
    is_looking: AtomicBool,
}

impl Programs {
    /// Why programs cannot be run, by group.
    pub(super) async fn missing(&self, programs: Vec<(String, ProgramFile)>) -> BTreeMap<String, String> {
        if !self.0.is_looking.swap(true, Ordering::AcqRel) {
            let looked = Arc::clone(&self.0);
            let look = tokio::task::spawn_blocking(move || {
                let missing = |(group, program): (String, ProgramFile)| Some((group, program.missing()?));
                let found = programs.into_iter().filter_map(missing).collect();
                *looked.missing.lock().unwrap_or_else(PoisonError::into_inner) = found;
                looked.is_looking.store(false, Ordering::Release);
            });
            // What takes longer is there for who asks next.
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
    async fn one_look_is_under_way_at_a_time_and_others_get_the_one_before() {
        let programs = Programs::default();
        let of = |program: &str| {
            let program =
                ProgramFile { program: program.to_owned(), path: None, cwd: Path::new("/").to_owned() };
            vec![("default".to_owned(), program)]
        };
        assert!(programs.missing(of("/nosuch")).await.contains_key("default"));
        assert!(programs.missing(of("/bin/sh")).await.is_empty());
        programs.0.is_looking.store(true, Ordering::Release);
        assert!(programs.missing(of("/nosuch")).await.is_empty(), "as of the look before");
    }
}
