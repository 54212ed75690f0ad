//! Where a reading command looks: at the store in a folder, or at a service by its URL.

use std::fmt;
use std::path::PathBuf;

use super::Failure;
use crate::cli::StoreArgs;
use crate::http::Client;
use crate::plain::{escape, escape_path};

/// Where to look.
pub(super) enum Place {
    /// A folder; the service on it where one runs.
    DataDir(PathBuf),
    /// An address of a service.
    Url(String),
}

impl Place {
    /// The URL where one is named, otherwise the data dir as [`super::store_dir`] finds it.
    pub(super) fn new(store: &StoreArgs, url: Option<&str>) -> Result<Place, Failure> {
        Ok(match url {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::DataDir(super::store_dir(store)?),
        })
    }

    /// The service there; `None` where none runs on the folder.
    pub(super) fn service(&self) -> Result<Option<Client>, Failure> {
        match self {
            Place::DataDir(folder) => Ok(Client::connect(folder)),
            Place::Url(url) => Ok(Some(Client::at(url)?)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::DataDir(folder) => f.write_str(&escape_path(folder)),
            Place::Url(url) => f.write_str(&escape(url)),
        }
    }
}
