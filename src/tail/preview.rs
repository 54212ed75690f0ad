//! What globs would follow now, without following it: for `config check`.

use std::path::PathBuf;

use super::discover::Discover;
use super::error::TailError;
use super::{Follow, shown};
use crate::plain::counted;

/// Of one glob: what it matches now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The glob.
    pub include: String,
    /// Files that it matches.
    pub files: u64,
    /// What cannot be followed, and why, in words.
    pub refused: Vec<String>,
}

/// Walks the folders of each glob. `never`: what is never followed.
///
/// # Errors
/// When a glob does not make sense.
pub fn preview(follows: &[Follow], never: &[PathBuf]) -> Result<Vec<Preview>, TailError> {
    let mut found = Vec::new();
    for follow in follows {
        for include in &follow.include {
            let one = std::iter::once((
                std::slice::from_ref(include),
                follow.exclude.as_slice(),
                follow.symlinks.as_deref(),
            ));
            let mut files = 0;
            let walked = Discover::new(one, never)?.walk(&|_| false, &mut |_| files += 1);
            files += walked.fifos.len() as u64;
            let named = walked.refused.named().map(|(path, why)| format!("{}: {why}", shown(path)));
            let more = Some(walked.refused.unnamed() as u64).filter(|more| *more > 0);
            let more = more.map(|more| format!("{} more cannot be followed", counted(more, "file")));
            let refused = named.chain(more);
            found.push(Preview { include: include.clone(), files, refused: refused.collect() });
        }
    }
    Ok(found)
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
        let refused: Vec<usize> = found.iter().map(|one| one.refused.len()).collect();
        assert_eq!(refused, [0, 0, 1, 0], "{found:?}");
        assert!(found[2].refused[0].contains("a folder"), "{found:?}");
        let relative = Follow::new(vec!["logs/*".to_owned()]);
        assert!(preview(&[relative], &[]).is_err());
    }
}
