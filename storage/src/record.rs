//! The record of a commit in the journal: the manifest, or what the commit changes.

use bincode::{Decode, Encode};

use crate::commit::Changes;
use crate::manifest::State;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Record {
    /// The first commit of every journal.
    Manifest(Box<State>),
    /// Every other one.
    Changes(Changes),
}

/// A record to be written: the bytes of a [`Record`] without a copy of its content, which may be megabytes.
#[derive(Encode)]
pub(crate) enum RecordRef<'a> {
    Manifest(&'a State),
    Changes(&'a Changes),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::ids::StoreId;

    #[test]
    fn a_borrowed_record_has_the_bytes_of_an_owned_one() {
        let state = State::new(StoreId(7));
        let changes = Changes { forget: vec![crate::SourceId(3)], ..Changes::default() };
        let records = [
            (RecordRef::Manifest(&state), Record::Manifest(Box::new(state.clone()))),
            (RecordRef::Changes(&changes), Record::Changes(changes.clone())),
        ];
        for (borrowed, owned) in records {
            let bytes = codec::encode(&borrowed).unwrap();
            assert_eq!(bytes, codec::encode(&owned).unwrap());
            assert_eq!(codec::decode::<Record>(&bytes).unwrap(), (owned, &[][..]));
        }
    }
}
