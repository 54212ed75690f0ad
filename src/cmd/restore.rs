//! `spillq restore`: makes a store from a backup. Names in an archive are never used as paths.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use spillq_storage::backup::{Restore, Snapshot};

use super::output::print;
use super::{Exit, Failure};
use crate::cli::RestoreArgs;
use crate::plain::escape_path;

/// Restores and verifies; status 1 when the backup is damaged.
///
/// # Errors
/// When the data dir is not empty, or the backup is not one.
pub fn run(args: &RestoreArgs) -> Result<Exit, Failure> {
    let refused = |error: spillq_storage::Error| Failure::could_not_run(error.to_string());
    let mut restore = Restore::begin(&args.data_dir).map_err(refused)?;
    let cannot = |error: io::Error| {
        Failure::could_not_run(format!("cannot read the backup {}", args.from.display())).because(error)
    };
    let is_folder = fs::metadata(&args.from).map_err(cannot)?.is_dir();
    if is_folder {
        for (name, file, bytes) in folder(&args.from).map_err(cannot)? {
            restore.take(&name, bytes, &mut BufReader::new(file)).map_err(refused)?;
        }
    } else {
        let mut archive = tar::Archive::new(BufReader::new(File::open(&args.from).map_err(cannot)?));
        for entry in archive.entries().map_err(cannot)? {
            let mut entry = entry.map_err(cannot)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !entry.header().entry_type().is_file() {
                return Err(Failure::could_not_run(format!("{name} in the backup is not a file")));
            }
            let bytes = entry.size();
            restore.take(&name, bytes, &mut entry).map_err(refused)?;
        }
    }
    let findings = restore.finish().map_err(refused)?;
    let exit = print(|out| {
        out.line(format!("restored to {}", escape_path(&args.data_dir)))?;
        findings.iter().try_for_each(|finding| out.line(format!("  found    {finding}")))
    })?;
    Ok(if findings.is_empty() { exit } else { Exit::No })
}

/// The files of a backup folder with their sizes, the manifest first.
fn folder(from: &Path) -> io::Result<Vec<(String, File, u64)>> {
    let mut names = vec![Snapshot::MANIFEST.to_owned()];
    for folder in ["segments", "kept"] {
        for entry in fs::read_dir(from.join(folder))? {
            names.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    names
        .into_iter()
        .map(|name| {
            let file = File::open(from.join(&name))?;
            let bytes = file.metadata()?.len();
            Ok((name, file, bytes))
        })
        .collect()
}
