//! A folder with a configuration, a store and files to follow, which most tests begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use spillq::http::{DoctorJson, StatusJson};

use super::{Bounded, Service, spillq, write_config};

/// Removed when the test ends. Test modules add what they need in `impl` blocks.
pub struct Stage {
    folder: tempfile::TempDir,
    /// The store: `q` in the folder, unless the test puts it elsewhere.
    pub data_dir: PathBuf,
}

impl Stage {
    pub fn new() -> Stage {
        Stage::of(tempfile::tempdir().unwrap())
    }

    /// In a folder whose path must be quoted in a shell.
    pub fn at_a_path_to_be_quoted() -> Stage {
        Stage::of(tempfile::Builder::new().prefix("it's staged ").tempdir().unwrap())
    }

    fn of(folder: tempfile::TempDir) -> Stage {
        let data_dir = folder.path().join("q");
        Stage { folder, data_dir }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.path("spillq.toml")
    }

    /// Writes the configuration.
    pub fn configure(&self, text: &str) {
        write_config(self.folder.path(), text);
    }

    pub fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Starts the service with the configuration.
    pub fn start(&self) -> Service {
        Service::start(&self.data_dir, &["--config", self.config().to_str().unwrap()])
    }

    /// Runs a command of the program on the store.
    pub fn spillq(&self, args: &[&str]) -> Output {
        let mut command = spillq(args);
        command.arg("--data-dir").arg(&self.data_dir).current_dir(self.folder.path()).finished()
    }

    /// What `status` prints, also without a service.
    pub fn status(&self) -> StatusJson {
        serde_json::from_slice(&self.spillq(&["status", "--json"]).stdout).unwrap()
    }

    /// What doctor prints, and its exit status.
    pub fn doctor(&self) -> Option<(DoctorJson, i32)> {
        let output = self.spillq(&["doctor", "--json"]);
        Some((serde_json::from_slice(&output.stdout).ok()?, output.status.code()?))
    }
}
