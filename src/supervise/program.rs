//! Whether the program of a command can be run, as far as its file shows: before it is run, and while no line waits.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The program of a command, and what it needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// A path if it has a slash; otherwise it is searched in PATH.
    pub program: String,
    /// The PATH of the command; `None` means that of this process.
    pub path: Option<String>,
    /// The folder that it runs in.
    pub cwd: PathBuf,
}

impl ProgramFile {
    /// Why it cannot be run; `None` if it can, or if only running it would show. May block as long as the file systems of
    /// the program and its folder do.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let cwd = self.cwd.display();
        match fs::metadata(&self.cwd) {
            Err(error) => return Some(format!("cannot enter {cwd}: {error}")),
            Ok(found) if !found.is_dir() => return Some(format!("cannot enter {cwd}: it is not a folder")),
            Ok(_) => {}
        }
        let program = &self.program;
        if program.contains('/') {
            return why_not(Path::new(program));
        }
        let path = self.path.as_ref().map(Into::into).or_else(|| env::var_os("PATH")).unwrap_or_default();
        let files: Vec<PathBuf> = env::split_paths(&path).map(|folder| folder.join(program)).collect();
        if files.iter().any(|file| why_not(file).is_none()) {
            return None;
        }
        let there = files.iter().find(|file| file.exists()).and_then(|file| why_not(file));
        Some(there.unwrap_or_else(|| format!("{program} is in no folder of PATH ({})", path.display())))
    }
}

fn why_not(file: &Path) -> Option<String> {
    let shown = file.display();
    match fs::metadata(file) {
        Err(error) => Some(format!("{shown}: {error}")),
        Ok(found) if found.is_dir() => Some(format!("{shown} is a folder")),
        Ok(_) => access(file, Access::EXEC_OK)
            .err()
            .map(|_| format!("{shown} is not executable for this user (chmod +x)")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn missing(program: &str, path: Option<&str>) -> Option<String> {
        ProgramFile { program: program.to_owned(), path: path.map(str::to_owned), cwd: PathBuf::from("/") }
            .missing()
    }

    #[test]
    fn a_folder_that_cannot_be_entered_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let in_folder =
            |cwd: &Path| ProgramFile { program: "sh".to_owned(), path: None, cwd: cwd.to_owned() }.missing();
        assert_eq!(in_folder(dir.path()), None);
        let gone = in_folder(&dir.path().join("gone")).unwrap();
        assert!(gone.starts_with("cannot enter ") && gone.contains("No such file"), "{gone}");
        assert!(in_folder(&file).unwrap().ends_with("file: it is not a folder"));
    }

    #[test]
    fn a_program_that_cannot_be_run_is_reported_with_the_reason() {
        assert_eq!(missing("sh", None), None);
        assert_eq!(missing("/bin/sh", None), None);
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().to_str().unwrap(), dir.path().join("process"));
        let path = file.to_str().unwrap();
        let why = |program: &str| missing(program, Some(folder)).unwrap_or_default();
        assert_eq!(why("process"), format!("process is in no folder of PATH ({folder})"));
        assert!(why(path).contains("No such file or directory"), "{}", why(path));
        assert!(why(folder).ends_with("is a folder"), "{}", why(folder));
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        for program in ["process", path] {
            assert!(why(program).ends_with("is not executable for this user (chmod +x)"), "{}", why(program));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["process", path] {
            assert_eq!(missing(program, Some(folder)), None);
        }
    }
}
