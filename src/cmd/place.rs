//! What a command reads: the store in a folder, or a service at a URL.

use std::fmt;
use std::path::PathBuf;

use super::Failure;
use super::store::Store;
use crate::cli::StoreArgs;
use crate::http::Client;
use crate::plain::{escape, escape_path};

/// One of the two.
pub(super) enum Place {
    /// A data dir; the service on it if one runs.
    DataDir(PathBuf),
    /// The address of a service.
    Url(String),
}

impl Place {
    /// The URL if one is named, otherwise the data dir as [`super::store_dir`] finds it.
    pub(super) fn new(store: &StoreArgs, url: Option<&str>) -> Result<Place, Failure> {
        Ok(match url {
            Some(url) => Place::Url(url.to_owned()),
            None => Place::DataDir(super::store_dir(store)?),
        })
    }

    /// The service; `None` if none runs on the data dir.
    pub(super) fn service(&self) -> Result<Option<Client>, Failure> {
        match self {
            Place::DataDir(folder) => Ok(Client::connect(folder)),
            Place::Url(url) => Ok(Some(Client::at(url)?)),
        }
    }

    /// The service; the files if none runs on the data dir.
    pub(super) fn store(&self) -> Result<Store, Failure> {
        match self {
            Place::DataDir(folder) => Store::of(folder),
            Place::Url(url) => Ok(Store::Service(Client::at(url)?)),
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
