//! What campaigns share: cases that are counted, folders that stay when one fails, and the last line.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::service::Program;
use crate::trouble::{During, Result};

/// How often the progress is printed on stderr.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The options of every campaign.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program under test.
    pub program: Program,
    /// All folders are made below this one.
    pub work: PathBuf,
    /// How many cases.
    pub count: u64,
    /// The first seed.
    pub seed: u64,
}

impl Setup {
    /// An empty folder for one case.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.work.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).during(format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).during(format!("make {}", folder.display()))?;
        Ok(folder)
    }

    /// Runs all cases, `a_store` of them with each seed: `one` gets an empty folder, the seed, and how many. Returns what
    /// those that passed saw. The folder of one that failed is kept; `command` with that seed repeats it.
    pub fn stores<T>(
        &self,
        command: &str,
        a_store: u64,
        tally: &mut Tally,
        mut one: impl FnMut(&Path, u64, u64) -> Result<T>,
    ) -> Vec<T> {
        let mut seen = Vec::new();
        for (seed, done) in (self.seed..).zip((0..self.count).step_by(a_store as usize)) {
            let cases = a_store.min(self.count - done);
            let name = name(command, seed);
            let result = self.folder(&name).and_then(|folder| one(&folder, seed, cases));
            seen.extend(self.ended(command, (seed, cases), result, tally));
        }
        seen
    }

    /// As [`Setup::stores`], with one case for each store, and several stores at once: for cases that wait most of the time.
    pub fn stores_at_once<T: Send>(
        &self,
        command: &str,
        at_once: usize,
        tally: &mut Tally,
        one: impl Fn(&Path, u64) -> Result<T> + Sync,
    ) -> Vec<T> {
        let next = AtomicU64::new(0);
        let told = Mutex::new((Vec::new(), tally));
        let work = || {
            while let Some(seed) =
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|case| *case < self.count)
            {
                let seed = self.seed + seed;
                let result = self.folder(&name(command, seed)).and_then(|folder| one(&folder, seed));
                // A case that panicked has printed why, and ends the campaign with the scope.
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let (seen, tally) = &mut *told;
                seen.extend(self.ended(command, (seed, 1), result, tally));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(work);
            }
        });
        told.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Counts a store, and removes the folder of one that passed.
    fn ended<T>(
        &self,
        command: &str,
        (seed, cases): (u64, u64),
        result: Result<T>,
        tally: &mut Tally,
    ) -> Option<T> {
        let folder = self.work.join(name(command, seed));
        match result {
            Ok(what) => {
                tally.pass(cases);
                // Nothing is left to inspect.
                let _ = fs::remove_dir_all(folder);
                Some(what)
            }
            Err(trouble) => {
                tally.fail(&trouble, &folder, &format!("{command} --count {cases} --seed {seed}"));
                None
            }
        }
    }
}

/// The name of a store's folder.
fn name(command: &str, seed: u64) -> String {
    let words: Vec<&str> = command.split(' ').filter(|word| *word != "--fs").collect();
    format!("{}-{seed}", words.join("-").replace("---", "-"))
}

/// Cases by their result.
#[derive(Debug)]
pub struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    since: Instant,
    said: Instant,
}

impl Default for Tally {
    fn default() -> Tally {
        let now = Instant::now();
        Tally { passed: 0, failed: 0, skipped: 0, since: now, said: now }
    }
}

impl Tally {
    /// Cases that passed.
    pub fn pass(&mut self, cases: u64) {
        self.passed += cases;
        if self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            eprintln!("{} passed, {} failed so far ({:.0?})", self.passed, self.failed, self.since.elapsed());
        }
    }

    /// A case that failed: why, its folder, and the command that repeats it.
    pub fn fail(&mut self, why: &dyn std::fmt::Display, folder: &Path, repeat: &str) {
        self.failed += 1;
        println!(
            "FAILED: {why}\n  kept: {}\n  again: cargo run --release -p torture -- {repeat}",
            folder.display()
        );
    }

    /// The cases of another tally that failed.
    pub fn add_failed(&mut self, other: &Tally) {
        self.failed += other.failed;
    }

    /// Cases that cannot run here.
    pub fn skip(&mut self, cases: u64, why: &str) {
        self.skipped += cases;
        println!("skipped: {why}");
    }

    /// Prints the last line; returns the exit status. Skipped is not passed, and no case at all is a failure.
    pub fn end(&self) -> u8 {
        let Tally { passed, failed, skipped, since, .. } = self;
        println!("{passed} passed, {failed} failed, {skipped} skipped ({:.0?})", since.elapsed());
        u8::from(*failed > 0 || passed + skipped == 0)
    }
}
