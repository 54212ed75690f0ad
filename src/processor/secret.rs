//! A value that is never written down in the configuration: where it is, and not what it is.
//!
//! Read anew for each batch, so that one that was renewed is used at once. Never shown, logged, or part of `Debug`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// A token, a key: longer is a wrong file.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// All of this file, without white space at its ends.
    File(PathBuf),
    /// This variable of the environment.
    Variable(String),
}

impl Secret {
    /// Reads it. The error names where, and nothing of what was there.
    pub(super) fn read(&self) -> Result<String, String> {
        match self {
            Secret::File(path) => {
                let fail = |what: String| format!("the secret in {} cannot be read: {what}", path.display());
                let mut text = String::new();
                let is_file = path.metadata().map_err(|error| fail(error.to_string()))?.is_file();
                if !is_file {
                    // Opening a pipe would wait for ever.
                    return Err(fail("it is no file".to_owned()));
                }
                let file = File::open(path).map_err(|error| fail(error.to_string()))?;
                let mut limited = file.take(SECRET_BYTES_MAX + 1);
                limited.read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
                if text.len() as u64 > SECRET_BYTES_MAX {
                    return Err(fail(format!("it is longer than {SECRET_BYTES_MAX} bytes")));
                }
                match text.trim() {
                    "" => Err(fail("it is empty".to_owned())),
                    secret => Ok(secret.to_owned()),
                }
            }
            Secret::Variable(name) => {
                std::env::var(name).ok().filter(|secret| !secret.is_empty()).ok_or_else(|| {
                    format!("the variable {name}, which is to hold a secret, is not set, empty or not UTF-8")
                })
            }
        }
    }
}
