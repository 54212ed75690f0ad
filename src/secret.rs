//! A secret: the configuration says where it is, never what it is.
//!
//! It is read again for each batch or connection, so that a renewed secret is used at once. It is never shown, logged, or
//! part of `Debug`.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Enough for a token or a key: a longer file is the wrong one.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The content of this file, without white space at its ends.
    File(PathBuf),
    /// The value of this environment variable.
    Variable(String),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => write!(f, "file:{}", path.display()),
            Secret::Variable(name) => write!(f, "env:{name}"),
        }
    }
}

impl Secret {
    /// Reads it. The error says where it should be, and nothing of what was found there.
    pub(crate) fn read(&self) -> Result<String, String> {
        match self {
            Secret::File(path) => {
                let fail = |what: String| format!("the secret in {} cannot be read: {what}", path.display());
                let mut text = String::new();
                let is_file = path.metadata().map_err(|error| fail(error.to_string()))?.is_file();
                if !is_file {
                    // Opening a FIFO would block.
                    return Err(fail("it is not a regular file".to_owned()));
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
                    format!("the environment variable {name}, which should hold a secret, is not set, is empty or is not UTF-8")
                })
            }
        }
    }
}
