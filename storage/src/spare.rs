//! SPARE: a copy of the newest journal's manifest, which nothing reads but `repair`.
//!
//! A bit that flips in a journal's manifest would otherwise take the checkpoint of every source with it. Written
//! beside the owner after MARK names the journal; where it is missing or older, only repair has less to go by.

use crate::codec;
use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::manifest::State;

const PATH: &str = "SPARE";
const TEMPORARY: &str = ".tmp-SPARE";

/// Its bytes; `None` where the state is larger than a record may be, which the journal refused before.
pub(crate) fn encode(state: &State) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    codec::encode(state, &mut bytes).ok().map(|()| bytes)
}

/// Replaces it, durably.
pub(crate) fn write(disk: &dyn Disk, bytes: &[u8]) -> Result<()> {
    let file = disk.create(TEMPORARY).during("create", TEMPORARY)?;
    file.write_at(bytes, 0).during("write to", TEMPORARY)?;
    file.sync().during("sync", TEMPORARY)?;
    disk.rename(TEMPORARY, PATH).during("rename", TEMPORARY)?;
    disk.sync_dir("").during("sync", "the data dir")
}

/// What it says, or why it says nothing.
pub(crate) fn read(disk: &dyn Disk) -> Result<std::result::Result<State, String>> {
    if !disk.exists(PATH).during("look for", PATH)? {
        return Ok(Err("SPARE is missing".to_owned()));
    }
    let bytes = disk.open(PATH, false).and_then(|file| file.read_all()).during("read", PATH)?;
    let decoded = codec::decode::<State>(&bytes);
    Ok(decoded.map(|(state, _)| state).map_err(|what| format!("SPARE: {what}")))
}
