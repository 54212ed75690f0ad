//! Random steps of a writer, a rotation and a restart, against what must be read.
//!
//! Every complete line that was in a followed file when the tail looked again is in the log exactly once, with its
//! offset, and the lines of one writer are in order. Lines are unique, so nothing is undecidable.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::support::Rig;

#[derive(Clone, Debug)]
enum Action {
    /// So many lines, the last of them perhaps without its end.
    Write {
        file: usize,
        lines: usize,
        partial: bool,
    },
    RotateRename {
        file: usize,
    },
    RotateCopy {
        file: usize,
    },
    RenameOutside {
        file: usize,
    },
    Delete {
        file: usize,
    },
    Look,
    /// One round, in the middle of which everything else may happen.
    Step,
    LetPass,
    FillLog(bool),
    Restart,
}

const FILES: [&str; 3] = ["a.log", "b.log", "sub/c.log"];

fn action() -> impl Strategy<Value = Action> {
    let file = 0..FILES.len();
    prop_oneof![
        6 => (file.clone(), 1..6_usize, any::<bool>()).prop_map(|(file, lines, partial)| Action::Write { file, lines, partial }),
        2 => file.clone().prop_map(|file| Action::RotateRename { file }),
        2 => file.clone().prop_map(|file| Action::RotateCopy { file }),
        1 => file.clone().prop_map(|file| Action::RenameOutside { file }),
        1 => file.prop_map(|file| Action::Delete { file }),
        4 => Just(Action::Look),
        3 => Just(Action::Step),
        1 => Just(Action::LetPass),
        1 => any::<bool>().prop_map(Action::FillLog),
        2 => Just(Action::Restart),
    ]
}

/// What a file holds, complete lines and a rest.
#[derive(Clone, Debug, Default)]
struct Content {
    lines: Vec<Vec<u8>>,
    partial: Vec<u8>,
}

struct Model {
    rig: Rig,
    /// What stands in each current file.
    now: BTreeMap<&'static str, Content>,
    /// Rotated files inside the globs: name, content.
    rotated: Vec<(String, Content)>,
    /// Lines that must be in the log in the end, and those that may be: destroyed before anybody looked.
    written: HashMap<Vec<u8>, bool>,
    next_line: u64,
    next_name: u64,
    clock: u64,
}

impl Model {
    fn new() -> Model {
        let mut rig = Rig::with(&["**/*.log*"], |settings| {
            settings.follows[0].exclude = vec!["*.out".to_owned()];
            settings.follows[0].max_line_bytes = 300;
        });
        rig.read_in_bits(100, 250);
        Model {
            rig,
            now: BTreeMap::new(),
            rotated: Vec::new(),
            written: HashMap::new(),
            next_line: 0,
            next_name: 0,
            clock: 0,
        }
    }

    fn rotated_name(&mut self, file: &str, suffix: &str) -> String {
        self.next_name += 1;
        format!("{file}.{}{suffix}", self.next_name)
    }

    fn run(&mut self, action: &Action) {
        match *action {
            Action::Write { file, lines, partial } => self.write(FILES[file], lines, partial),
            Action::RotateRename { file } => {
                let name = self.rotated_name(FILES[file], "");
                if let Some(content) = self.now.remove(FILES[file]) {
                    self.rig.rename(FILES[file], &name);
                    self.rotated.push((name, content));
                }
            }
            Action::RotateCopy { file } => {
                let name = self.rotated_name(FILES[file], "");
                if let Some(content) = self.now.get_mut(FILES[file]).map(std::mem::take) {
                    self.rig.copy(FILES[file], &name);
                    self.stamp(&name);
                    self.rig.truncate(FILES[file], 0);
                    self.rotated.push((name, content));
                }
            }
            Action::RenameOutside { file } => {
                let name = self.rotated_name(FILES[file], ".out");
                if self.now.remove(FILES[file]).is_some() {
                    // Looked at before, its inode is known and it is read under any name; otherwise it is nobody's.
                    // With a line stored: an older file with an incomplete end may hold it up for `rotate_wait`.
                    self.rig.is_full = false;
                    self.look();
                    self.rig.pass(Duration::from_secs(120));
                    self.look();
                    self.rig.rename(FILES[file], &name);
                }
            }
            Action::Delete { file } => {
                if let Some(content) = self.now.remove(FILES[file]) {
                    self.rig.remove(FILES[file]);
                    for line in content.lines {
                        self.written.insert(line, false);
                    }
                }
            }
            Action::Look => self.look(),
            Action::Step => {
                self.rig.worker.sweep_wanted = true;
                self.rig.step();
            }
            Action::LetPass => self.rig.pass(Duration::from_secs(5)),
            Action::FillLog(full) => self.rig.is_full = full,
            Action::Restart => self.rig.restart(),
        }
    }

    fn look(&mut self) {
        self.rig.settle();
    }

    fn write(&mut self, file: &'static str, lines: usize, partial: bool) {
        let content = self.now.entry(file).or_default();
        let mut bytes = Vec::new();
        for nth in 0..lines {
            self.next_line += 1;
            let padding = "x".repeat((self.next_line * 7 % 90) as usize);
            // The number first: a beginning that others share could not be told from growth.
            let line = format!("{}:{file} {padding}\n", self.next_line).into_bytes();
            let cut = if partial && nth + 1 == lines { line.len() / 2 } else { line.len() };
            // A partial line is ended by the next write, whatever that begins with.
            let piece = &line[..cut];
            bytes.extend_from_slice(piece);
            content.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let whole = std::mem::take(&mut content.partial);
                self.written.insert(whole.clone(), true);
                content.lines.push(whole);
            }
        }
        self.rig.write(file, &bytes);
        self.stamp(file);
    }

    /// Files that were never seen are taken in the order of their times, which here are all different.
    fn stamp(&mut self, name: &str) {
        self.clock += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.clock);
        fs::File::options().append(true).open(self.rig.path(name)).unwrap().set_modified(time).unwrap();
    }

    fn check(&mut self) {
        self.rig.is_full = false;
        self.look();
        // Past `rotate_wait`: a rotated file with an incomplete end holds up the one that took its path.
        self.rig.pass(Duration::from_secs(120));
        self.look();
        self.rig.pass(Duration::from_secs(120));
        self.look();
        let mut found: HashMap<&[u8], usize> = HashMap::new();
        for line in &self.rig.log.lines {
            if line.bytes.ends_with(b"\n") && line.flags.part().is_none() {
                *found.entry(&line.bytes).or_default() += 1;
            }
        }
        let show = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        for (line, must) in &self.written {
            let times = found.get(line.as_slice()).copied().unwrap_or(0);
            assert!(times <= 1, "{:?} is in the log {times} times", show(line));
            assert!(times == 1 || !must, "{:?} is not in the log", show(line));
        }
        for line in found.keys() {
            assert!(self.written.contains_key(*line), "{:?} was never written", show(line));
        }
        // Where a line stands in its file, its offset says so.
        for (name, content) in self.rotated.iter().map(|(name, content)| (name.as_str(), content)) {
            let bytes = fs::read(self.rig.path(name)).unwrap();
            for line in &content.lines {
                let stored = self.rig.log.lines.iter().find(|stored| stored.bytes == *line).unwrap();
                let at = stored.offset as usize;
                assert_eq!(&bytes[at..at + line.len()], line.as_slice());
            }
        }
        let mut last: HashMap<_, u64> = HashMap::new();
        for line in &self.rig.log.lines {
            let end = last.entry(line.source).or_default();
            assert!(line.offset >= *end, "the lines of a source are in order");
            *end = line.offset + line.bytes.len() as u64;
        }
        for file in FILES {
            let numbers: Vec<u64> =
                self.rig.log.lines.iter().filter_map(|line| number(&line.bytes, file)).collect();
            assert!(numbers.is_sorted(), "the lines of {file} are in order over its rotations: {numbers:?}");
        }
    }
}

fn number(line: &[u8], file: &str) -> Option<u64> {
    // An unterminated end waits for its file to be finished, and that of a file never seen at its path for longer.
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (number, rest) = line.split_once(':')?;
    rest.strip_prefix(file)?.starts_with(' ').then(|| number.parse().ok())?
}

fn check(actions: &[Action]) {
    let mut model = Model::new();
    for action in actions {
        model.run(action);
    }
    model.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_read_exactly_once(actions in proptest::collection::vec(action(), 1..30)) {
        check(&actions);
    }
}
