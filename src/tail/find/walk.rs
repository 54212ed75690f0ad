//! Finds the files that globs name, by walking folders.
//!
//! Bounded: 32 folders deep behind `**`, 1,000,000 entries a scan. Never follows a symbolic link unless allowed, and never
//! reports what is in the data dir or is an output, whatever the globs match.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs::{self, DirEntry, FileType, Metadata};
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::tail::bytes::{ctime_ns, kind, leads_below, mtime_ns};
use crate::tail::find::{DEPTH_MAX, Follows, OfSection, RealRoots, Refused};
use crate::tail::known::{Location, SOURCES_MAX};
use crate::unreadable::WhyUnreadable;

/// Entries looked at in one scan: a glob over a whole disk must not take minutes.
const ENTRIES_MAX: usize = 1_000_000;

/// A file that a walk found. Ordered by its path, then by what else is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    /// Which `[[follow]]` names it; `None` for a file that none names, with the inode of a source.
    pub(crate) follow: Option<u16>,
    /// Whether it may become a source: there are no more than 10,000 of them.
    pub(crate) has_place: bool,
    /// Whether the scan before could not read it.
    pub(crate) was_refused: bool,
}

impl Found {
    pub(crate) fn location(&self) -> Location<'_> {
        let Found { path, device, inode, mtime_ns, follow, .. } = self;
        Location { path, device: *device, inode: *inode, mtime_ns: *mtime_ns, follow: *follow }
    }
}

/// What a walk found besides files.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Folders that were listed, with their inodes, for the watch.
    pub(crate) folders: HashMap<PathBuf, u64>,
    /// Folders that could not be listed: whether the files in them are gone is not known.
    pub(crate) unlisted: Vec<PathBuf>,
    /// What cannot be followed, and why.
    pub(crate) refused: Refused,
    /// FIFOs that a glob names by their whole path.
    pub(crate) fifos: Vec<Found>,
    /// Links that are another name of a file that is followed anyway.
    pub(crate) other_names: u64,
    /// A file has other names, by links: what is written through one of them is no event in these folders.
    pub(crate) has_links: bool,
    entries: usize,
}

impl Follows {
    /// Walks all folders. Calls `visit` with each file that a glob names, and with those whose inode `is_known`.
    pub(crate) fn walk(&self, is_known: &dyn Fn(u64) -> bool, visit: &mut dyn FnMut(Found)) -> Walked {
        let mut walk = Walk::begin(self, is_known, visit);
        for of in self.includes() {
            walk.folder(&of.2.root, of, 0);
        }
        walk.walked
    }

    /// Walks for each glob separately. Whether a link is another name is decided by all of them, as in [`Self::walk`].
    /// Returns how many files each names, and the paths of the first of them.
    pub(crate) fn walk_each(&self) -> Vec<(u64, Vec<PathBuf>, Walked)> {
        let walk = |of: OfSection<'_>| {
            let (mut files, mut paths) = (0, Vec::new());
            let mut visit = |found: Found| {
                files += 1;
                if paths.len() < SOURCES_MAX {
                    paths.push(found.path);
                }
            };
            let mut walk = Walk::begin(self, &|_| false, &mut visit);
            walk.folder(&of.2.root, of, 0);
            let walked = walk.walked;
            (files, paths, walked)
        };
        self.includes().map(walk).collect()
    }
}

struct Walk<'a> {
    follows: &'a Follows,
    never: HashSet<(u64, u64)>,
    is_known: &'a dyn Fn(u64) -> bool,
    visit: &'a mut dyn FnMut(Found),
    walked: Walked,
    /// The folder that is listed and those above, so that a link to one of them ends there.
    chain: Vec<(u64, u64)>,
    /// Resolved when a link asks for them.
    roots: OnceCell<RealRoots>,
}

impl<'a> Walk<'a> {
    fn begin(
        follows: &'a Follows,
        is_known: &'a dyn Fn(u64) -> bool,
        visit: &'a mut dyn FnMut(Found),
    ) -> Walk<'a> {
        let never = follows.never.iter().filter_map(|path| fs::metadata(path).ok());
        Walk {
            follows,
            never: never.map(|meta| (meta.dev(), meta.ino())).collect(),
            is_known,
            visit,
            walked: Walked::default(),
            chain: Vec::new(),
            roots: OnceCell::new(),
        }
    }

    fn folder(&mut self, folder: &Path, of: OfSection<'_>, depth: usize) {
        let listed = fs::metadata(folder).and_then(|meta| Ok((meta, fs::read_dir(folder)?)));
        let (meta, entries) = match listed {
            Ok(listed) => listed,
            // A fixed folder that is not there yet is normal: each scan looks for it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.walked.unlisted.push(folder.to_owned());
            }
            Err(error) => return self.not_listed(folder, WhyUnreadable::System, error),
        };
        let id = (meta.dev(), meta.ino());
        if self.never.contains(&id) || self.follows.is_never(folder) || self.chain.contains(&id) {
            return;
        }
        self.walked.folders.insert(folder.to_owned(), meta.ino());
        self.chain.push(id);
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.not_listed(folder, WhyUnreadable::System, error);
                    break;
                }
            };
            self.walked.entries += 1;
            if self.walked.entries > ENTRIES_MAX {
                let found = format_args!("more than {ENTRIES_MAX} entries in one scan");
                self.not_listed(folder, WhyUnreadable::TooMany, found);
                break;
            }
            let Ok(file_type) = entry.file_type() else {
                continue;
            };
            self.entry(&entry, file_type, of, depth);
        }
        self.chain.pop();
    }

    /// A folder could not be listed to its end.
    fn not_listed(&mut self, folder: &Path, why: WhyUnreadable, found: impl Display) {
        self.refuse(folder, why, || format!("list {}: {found}", folder.display()));
        self.walked.unlisted.push(folder.to_owned());
    }

    fn entry(&mut self, entry: &DirEntry, file_type: FileType, of: OfSection<'_>, depth: usize) {
        let (number, globs, include) = of;
        let path = &*entry.path();
        // A link is resolved only if that is allowed; then its target decides.
        let target = globs
            .follow
            .symlinks
            .as_deref()
            .filter(|_| file_type.is_symlink())
            .and_then(|root| fs::symlink_metadata(leads_below(root, path)?).ok());
        let found = target.as_ref().map_or(file_type, Metadata::file_type);
        if found.is_dir() {
            if include.descends(depth, path) {
                self.folder(path, of, depth + 1);
            } else if include.is_too_deep(depth) {
                self.too_deep(path);
            } else if include.literal_name && include.whole.is_match(path) && !globs.is_excluded(path) {
                self.refuse(path, WhyUnreadable::NotAFile, || {
                    format!("open {}: a folder, not a regular file", path.display())
                });
            }
            return;
        }
        let named = include.names(depth, path) && !globs.is_excluded(path);
        let known = found.is_file() && (self.is_known)(entry.ino());
        if !(named || known) || self.follows.is_never(path) {
            return;
        }
        let is_fifo = found.is_fifo() && include.literal;
        if !found.is_file() && !is_fifo {
            if found.is_symlink() && self.is_other_name(path) {
                self.walked.other_names += 1;
                return;
            }
            let hint = if found.is_fifo() { "; `include` must name its whole path" } else { "" };
            let why = if found.is_symlink() { WhyUnreadable::Link } else { WhyUnreadable::NotAFile };
            self.refuse(path, why, || {
                format!("open {}: {}, not a regular file{hint}", path.display(), kind(found))
            });
            return;
        }
        // A file that vanished between the listing and the look is normal.
        let Some(meta) = target.or_else(|| entry.metadata().ok()).filter(|meta| meta.file_type() == found)
        else {
            return;
        };
        if self.never.contains(&(meta.dev(), meta.ino())) {
            return;
        }
        let found = Found {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            mtime_ns: mtime_ns(&meta),
            ctime_ns: ctime_ns(&meta),
            follow: named.then_some(number),
            has_place: true,
            was_refused: false,
        };
        self.walked.has_links |= file_type.is_symlink() || meta.nlink() > 1;
        match is_fifo {
            true => self.walked.fifos.push(found),
            false => (self.visit)(found),
        }
    }

    /// Whether a link leads to a file that is followed anyway.
    fn is_other_name(&self, link: &Path) -> bool {
        self.roots.get_or_init(|| RealRoots::of(self.follows)).find_without(link, self.follows)
    }

    /// Once for all in the same folder.
    fn too_deep(&mut self, path: &Path) {
        let folder = path.parent().unwrap_or(path);
        self.refuse(folder, WhyUnreadable::TooDeep, || {
            format!(
                "list {}: deeper than {DEPTH_MAX} folders behind `**`; a glob that names more of the path reaches it",
                path.display()
            )
        });
    }

    fn refuse(&mut self, path: &Path, why: WhyUnreadable, found: impl FnOnce() -> String) {
        self.walked.refused.add(path, why, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::settings::Follow;

    fn found(
        globs: &[&str],
        exclude: &[&str],
        links: Option<&Path>,
        never: &[PathBuf],
    ) -> (Vec<PathBuf>, Walked) {
        let strings = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        let symlinks = links.map(Path::to_owned);
        let follow = Follow { exclude: strings(exclude), symlinks, ..Follow::new(strings(globs)) };
        let follows = Follows::new(vec![follow], never).unwrap();
        let mut files = Vec::new();
        let walked = follows.walk(&|_| false, &mut |found| files.push(found.path));
        files.sort();
        (files, walked)
    }

    fn why(walked: &Walked) -> String {
        walked.refused.named().map(|(_, why)| why.to_string()).collect::<Vec<_>>().join("\n")
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x\n").unwrap();
        }
        dir
    }

    #[track_caller]
    fn check(files: &[&str], glob: &str, exclude: &[&str], expected: &[&str]) {
        let dir = tree(files);
        let glob = dir.path().join(glob);
        let (found, _) = found(&[glob.to_str().unwrap()], exclude, None, &[]);
        let expected: Vec<_> = expected.iter().map(|file| dir.path().join(file)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn globs_name_files_level_by_level() {
        let files = ["a/hourly/1/x", "a/hourly/2/y", "b/hourly/1/z", "b/daily/1/w", "a/hourly/1/deep/v"];
        check(&files, "*/hourly/*/*", &[], &["a/hourly/1/x", "a/hourly/2/y", "b/hourly/1/z"]);
        check(&files, "a/hourly/**", &[], &["a/hourly/1/deep/v", "a/hourly/1/x", "a/hourly/2/y"]);
        check(&files, "**/v", &[], &["a/hourly/1/deep/v"]);
        check(&files, "a/hourly/1/x", &[], &["a/hourly/1/x"]);
        check(&files, "{a/hourly,b/daily}/1/?", &[], &["a/hourly/1/x", "b/daily/1/w"]);
        check(&files, "*/hourly/*/*", &["y", "**/b/**"], &["a/hourly/1/x"]);
    }

    #[test]
    fn links_are_refused_unless_allowed_and_loops_end() {
        let dir = tree(&["real/a.log", "logs/b.log"]);
        let logs = dir.path().join("logs");
        std::os::unix::fs::symlink(dir.path().join("real/a.log"), logs.join("link.log")).unwrap();
        std::os::unix::fs::symlink(&logs, logs.join("loop")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), logs.join("folder")).unwrap();
        let glob = logs.join("**/*.log");
        let (files, walked) = found(&[glob.to_str().unwrap()], &[], None, &[]);
        assert_eq!(files, [logs.join("b.log")]);
        assert!(why(&walked).contains("a symbolic link"));
        let (files, _) = found(&[glob.to_str().unwrap()], &[], Some(dir.path()), &[]);
        assert_eq!(files, [logs.join("b.log"), logs.join("folder/a.log"), logs.join("link.log")]);
        // Both lead out of the folder where links may lead.
        let (files, walked) = found(&[glob.to_str().unwrap()], &[], Some(&logs), &[]);
        assert_eq!(files, [logs.join("b.log")]);
        assert!(walked.refused.named().any(|refused| *refused.0 == logs.join("link.log")));
    }

    #[test]
    fn the_data_dir_and_outputs_are_never_found() {
        let dir = tree(&["a.log", "data/b.log", "out.log"]);
        fs::hard_link(dir.path().join("out.log"), dir.path().join("same.log")).unwrap();
        let glob = dir.path().join("**/*.log");
        let never = [dir.path().join("data"), dir.path().join("out.log")];
        let (files, _) = found(&[glob.to_str().unwrap()], &[], None, &never);
        assert_eq!(files, [dir.path().join("a.log")]);
    }

    #[test]
    fn what_is_no_file_is_refused_with_a_reason() {
        let dir = tree(&["a.log/inside"]);
        let (files, walked) = found(&[dir.path().join("a.log").to_str().unwrap()], &[], None, &[]);
        assert!(files.is_empty());
        assert!(why(&walked).contains("a folder, not a regular file"));
        let (_, walked) = found(&[dir.path().join("a.log").to_str().unwrap()], &["a.log"], None, &[]);
        assert_eq!(walked.refused.files(), 0, "excluded");
        let (_, walked) = found(&["/nowhere-at-all/x*"], &[], None, &[]);
        assert_eq!((walked.refused.files(), walked.unlisted.len()), (0, 1));
    }

    #[test]
    fn a_fifo_is_meant_only_by_a_glob_that_is_its_path() {
        let dir = tree(&["[x]/file"]);
        let path = dir.path().join("[x]/fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let folder = globset::escape(dir.path().join("[x]").to_str().unwrap());
        let (files, walked) = found(&[&format!("{folder}/fifo")], &[], None, &[]);
        assert_eq!((files.len(), walked.fifos.len(), walked.refused.files()), (0, 1, 0));
        assert_eq!((&walked.fifos[0].path, walked.fifos[0].follow), (&path, Some(0)));
        for wild in ["fif?", "f*", "{fifo,file}", "[f]i[f-g]o"] {
            let (_, walked) = found(&[&format!("{folder}/{wild}")], &[], None, &[]);
            assert_eq!(walked.fifos.len(), 0, "{wild}");
            assert!(why(&walked).contains("a FIFO, not a regular file; `include` must name"), "{wild}");
        }
        let (_, walked) = found(&[&format!("{folder}/fifo")], &["fifo"], None, &[]);
        assert_eq!((walked.fifos.len(), walked.refused.files()), (0, 0), "excluded");
    }
}
