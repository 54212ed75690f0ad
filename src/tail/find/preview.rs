//! What globs match now, without following it: for `config check`.

use std::path::PathBuf;

use crate::plain::counted;
use crate::tail::error::TailError;
use crate::tail::find::{Follows, Walked};
use crate::tail::settings::Follow;

/// What a glob matches now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The glob.
    pub include: String,
    /// Files that it matches, and links that are another name of a file that is followed anyway.
    pub files: u64,
    /// The paths of the first of them, at most as many as are followed.
    pub paths: Vec<PathBuf>,
    /// What cannot be followed, and why, in words.
    pub refused: Vec<String>,
}

/// Walks the folders of each glob. `never`: what is never followed.
///
/// # Errors
/// If a glob does not make sense.
pub fn preview(follows: &[Follow], never: &[PathBuf]) -> Result<Vec<Preview>, TailError> {
    let found = Follows::of_globs(follows.to_vec(), never)?.walk_each();
    let includes = follows.iter().flat_map(Follow::globs);
    let found = includes.zip(found);
    Ok(found.map(|(include, (files, paths, walked))| of_glob(include, (files, paths), &walked)).collect())
}

fn of_glob(include: &str, (files, paths): (u64, Vec<PathBuf>), walked: &Walked) -> Preview {
    let named = walked.refused.named().map(|(_, one)| format!("not followed: {one}"));
    let more = Some(walked.refused.unnamed() as u64).filter(|more| *more > 0);
    let more = more.map(|more| format!("{} more cannot be followed", counted(more, "file")));
    Preview {
        include: include.to_owned(),
        paths,
        files: files + walked.fifos.len() as u64 + walked.other_names,
        refused: named.chain(more).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_glob_matches_is_counted_and_a_folder_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("logs/old")).unwrap();
        for file in ["a.log", "b.log", "skip.log"] {
            fs::write(root.join("logs").join(file), "x\n").unwrap();
        }
        let glob = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let include = vec![glob("logs/*.log"), glob("logs/*.txt"), glob("logs"), glob("none/*")];
        let follow = Follow { exclude: vec!["skip*".to_owned()], ..Follow::new(include) };
        let found = preview(&[follow], &[]).unwrap();
        assert_eq!(found.iter().map(|one| one.files).collect::<Vec<_>>(), [2, 0, 0, 0]);
        let paths: Vec<_> = found.iter().map(|one| one.paths.len()).collect();
        assert_eq!(paths, [2, 0, 0, 0]);
        assert!(found[0].paths.contains(&root.join("logs/a.log")), "{found:?}");
        let refused: Vec<usize> = found.iter().map(|one| one.refused.len()).collect();
        assert_eq!(refused, [0, 0, 1, 0], "{found:?}");
        assert!(found[2].refused[0].contains("a folder"), "{found:?}");
        assert!(found[2].refused[0].starts_with("not followed: open "), "{found:?}");
        let relative = Follow::new(vec!["logs/*".to_owned()]);
        assert!(preview(&[relative], &[]).is_err());
    }

    /// Each glob was looked at alone, so that a link to what another glob finds was warned about.
    #[test]
    fn a_link_to_what_another_glob_finds_is_a_match() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join("app-2026.log"), "x\n").unwrap();
        std::os::unix::fs::symlink("app-2026.log", root.join("app.log")).unwrap();
        let section = |name: &str| Follow::new(vec![root.join(name).to_str().unwrap().to_owned()]);
        let two = [section("app.log"), section("app-*.log")];
        let one = Follow::new(two.iter().flat_map(|follow| follow.include.clone()).collect());
        for follows in [vec![one], two.to_vec()] {
            let found = preview(&follows, &[]).unwrap();
            let counts: Vec<_> = found.iter().map(|one| (one.files, one.refused.len())).collect();
            assert_eq!(counts, [(1, 0), (1, 0)], "{found:?}");
        }
        let alone = preview(&two[..1], &[]).unwrap();
        assert_eq!((alone[0].files, alone[0].refused.len()), (0, 1), "{alone:?}");
    }
}
