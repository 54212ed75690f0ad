//! The net below all bounds: a test that runs longer than any may ends the whole run, which names it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::bounded;

/// The slowest test takes one to two minutes, and waits of a minute each may add up where it fails.
const TEST_MAX: Duration = Duration::from_secs(10 * 60);

/// The tests that run, by a number, and since when.
type Running = Mutex<BTreeMap<u64, (String, Instant)>>;

fn running() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(Duration::from_secs(1));
                if let Some(why) = too_long(&running().lock().unwrap(), Instant::now()) {
                    bounded::abort(&why);
                }
            }
        });
        Mutex::default()
    })
}

/// What to say of tests that run for too long.
fn too_long(running: &BTreeMap<u64, (String, Instant)>, now: Instant) -> Option<String> {
    let is_late = |since: &Instant| now.saturating_duration_since(*since) > TEST_MAX;
    running.values().any(|(_, since)| is_late(since)).then(|| {
        let of = |(name, since): &(String, Instant)| format!("  {name} ({:.0?})\n", now - *since);
        let names: String = running.values().map(of).collect();
        format!("\na test has run for more than {TEST_MAX:?}; all is ended. These ran:\n{names}")
    })
}

/// Notes that this thread's test runs, until the thread ends: each test has a thread with its name.
pub fn this_test() {
    thread_local!(static NOTED: Cell<Option<Noted>> = const { Cell::new(None) });
    NOTED.with(|noted| {
        let kept = noted.take().or_else(Noted::new);
        noted.set(kept);
    });
}

struct Noted(u64);

impl Noted {
    /// Threads without a name are helpers of a test. With `--test-threads=1` all tests are on the main thread, and a
    /// bound for one of them would be one for all: then there is none.
    fn new() -> Option<Noted> {
        let name = thread::current().name().filter(|name| *name != "main")?.to_owned();
        let mut running = running().lock().unwrap();
        let number = running.keys().next_back().map_or(0, |last| last + 1);
        running.insert(number, (name, Instant::now()));
        Some(Noted(number))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        running().lock().unwrap().remove(&self.0);
    }
}

#[test]
fn a_test_that_hangs_is_named_with_those_beside_it_and_one_that_is_over_is_not() {
    let now = Instant::now() + 2 * TEST_MAX;
    let since = |ago: Duration| now.checked_sub(ago).unwrap();
    let mut running = BTreeMap::from([(3, ("quick".to_owned(), since(TEST_MAX)))]);
    assert_eq!(too_long(&running, now), None);
    running.insert(7, ("slow".to_owned(), since(TEST_MAX + Duration::from_secs(1))));
    let why = too_long(&running, now).unwrap();
    assert!(why.contains("  slow (601s)\n") && why.contains("  quick (600s)\n"), "{why}");

    let is_noted = || {
        let running = super::watch::running().lock().unwrap();
        running.values().any(|(name, _)| name == "noted")
    };
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let body = move || {
        this_test();
        this_test();
        wait.recv().unwrap_err();
    };
    let test = thread::Builder::new().name("noted".to_owned()).spawn(body).unwrap();
    super::wait_for(|| is_noted().then_some(())).expect("it is noted");
    drop(go);
    test.join().unwrap();
    assert!(!is_noted());
}
