//! Other follows while the tail runs: a source that no follow names any more is inactive, and resumes where it was.

use super::support::Rig;
use std::time::Duration;

use crate::tail::find::follows::Follows;
use crate::tail::rules::inactive;
use crate::tail::settings::Follow;
use crate::tail::status::SourceState;

impl Rig {
    /// Follows other globs from now on, after restarts too.
    fn refollow(&mut self, globs: &[&str]) {
        let include = |glob: &&str| self.path(glob).to_str().unwrap().to_owned();
        self.settings.follows = globs.iter().map(|glob| Follow::new(vec![include(glob)])).collect();
        let follows = Follows::new(self.settings.follows.clone(), &self.settings.never).unwrap();
        inactive::refollow(&mut self.worker.book, follows);
    }

    fn states(&self) -> Vec<SourceState> {
        self.worker.snapshot().sources.iter().map(|source| source.state).collect()
    }
}

#[test]
fn a_source_that_no_follow_names_any_more_is_inactive_and_resumes_where_it_was() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "a1\n");
    rig.write("b.txt", "b1\n");
    rig.check(&["a1\n"]);
    rig.refollow(&["*.txt"]);
    rig.write("a.log", "a2\n");
    rig.check(&["a1\n", "b1\n"]);
    assert_eq!(rig.states(), [SourceState::Inactive, SourceState::CaughtUp]);
    assert_eq!(rig.worker.book.files().len(), 1, "its file is closed");
    // However long it is inactive, it does not end.
    rig.pass(Duration::from_secs(86_400));
    rig.check(&["a1\n", "b1\n"]);
    rig.refollow(&["*.txt", "*.log"]);
    rig.check(&["a1\n", "b1\n", "a2\n"]);
    rig.write("b.txt", "b2\n");
    rig.check(&["a1\n", "b1\n", "a2\n", "b2\n"]);
    assert_eq!(rig.states(), [SourceState::CaughtUp; 2]);
}

#[test]
fn an_inactive_source_stays_over_a_restart() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "a1\n");
    rig.check(&["a1\n"]);
    rig.refollow(&["*.txt"]);
    rig.write("a.log", "a2\n");
    for _ in 0..2 {
        rig.restart();
        rig.pass(Duration::from_secs(3_600));
        rig.check(&["a1\n"]);
        assert_eq!(rig.states(), [SourceState::Inactive]);
    }
    rig.refollow(&["*.log"]);
    rig.check(&["a1\n", "a2\n"]);
}

#[test]
fn a_file_that_was_rotated_while_it_was_inactive_is_identified() {
    let mut rig = Rig::new(&["*.log"]);
    let first = format!("a1 {}\n", "x".repeat(300));
    rig.write("a.log", &first);
    rig.check(&[&first]);
    rig.refollow(&["*.txt"]);
    rig.settle();
    rig.write("a.log", "a2\n");
    rig.rename("a.log", "a.log.1");
    rig.write("a.log", "a3\n");
    rig.check(&[&first]);
    rig.refollow(&["a.log*"]);
    rig.check(&[&first, "a2\n", "a3\n"]);
}

#[test]
fn a_file_moved_to_a_path_that_is_followed_now_resumes_there() {
    let mut rig = Rig::new(&["old/*.log"]);
    rig.write("old/a.log", "a1\n");
    rig.check(&["a1\n"]);
    rig.write("new/b.log", "b1\n");
    rig.refollow(&["new/*.log"]);
    rig.check(&["a1\n", "b1\n"]);
    rig.write("old/a.log", "a2\n");
    rig.rename("old/a.log", "new/a.log");
    rig.check(&["a1\n", "b1\n", "a2\n"]);
}

#[test]
fn a_file_that_was_rotated_out_of_the_globs_is_read_to_its_end() {
    let mut rig = Rig::new(&["a.log"]);
    rig.write("a.log", "a1\n");
    rig.check(&["a1\n"]);
    rig.rename("a.log", "a.log.1");
    rig.check(&["a1\n"]);
    rig.refollow(&["a.log", "b.log"]);
    rig.write("a.log.1", "a2\n");
    rig.check(&["a1\n", "a2\n"]);
    rig.write("a.log", "a3\n");
    rig.check(&["a1\n", "a2\n", "a3\n"]);
    rig.pass(Duration::from_secs(61));
    rig.settle();
    assert_eq!(rig.states().len(), 1, "and ends then: {:?}", rig.worker.snapshot());
}

#[test]
fn lines_are_cut_by_the_limit_of_the_section_that_names_them_now() {
    let mut rig = Rig::new(&["*.log"]);
    rig.write("a.log", "12345678\n");
    rig.check(&["12345678\n"]);
    let glob = rig.path("*.log").to_str().unwrap().to_owned();
    let follow = Follow { max_line_bytes: 4, ..Follow::new(vec![glob]) };
    inactive::refollow(&mut rig.worker.book, Follows::new(vec![follow], &[]).unwrap());
    rig.write("a.log", "12345678\n");
    rig.settle();
    assert_eq!(rig.log.text().len(), 4, "{:?}", rig.log.text());
    assert_eq!(rig.log.text().concat(), "12345678\n12345678\n");
}
