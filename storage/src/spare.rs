//! SPARE: a copy of the manifest of the newest journal, which only a repair reads.
//!
//! Without it, a flipped bit in the manifest of a journal would lose the checkpoint of every source. It is written in the
//! background after MARK names the journal. If it is missing or older, a repair knows less.

use crate::codec;
use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::manifest::State;

const PATH: &str = "SPARE";
const TEMPORARY: &str = ".tmp-SPARE";

/// Its bytes; `None` if the state is larger than a record may be, which the journal would have refused before.
pub(crate) fn encode(state: &State) -> Option<Vec<u8>> {
    codec::encode(state).ok()
}

/// Replaces it, durably.
pub(crate) fn write(disk: &dyn Disk, bytes: &[u8]) -> Result<()> {
    let file = disk.create(TEMPORARY).during("create", TEMPORARY)?;
    file.write_at(bytes, 0).during("write to", TEMPORARY)?;
    file.sync().during("sync", TEMPORARY)?;
    disk.rename(TEMPORARY, PATH).during("rename", TEMPORARY)?;
    disk.sync_dir("").during("sync", "the data dir")
}

/// The manifest in it, or why it cannot be read.
pub(crate) fn read(disk: &dyn Disk) -> Result<std::result::Result<State, String>> {
    if !disk.exists(PATH).during("look for", PATH)? {
        return Ok(Err("SPARE is missing".to_owned()));
    }
    let bytes = disk.open(PATH, false).and_then(|file| file.read_all()).during("read", PATH)?;
    let decoded = codec::decode::<State>(&bytes);
    Ok(decoded.map(|(state, _)| state).map_err(|what| format!("SPARE: {what}")))
}
