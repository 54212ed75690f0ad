//! The fields of a JSON object, one by one, as far as its text goes. Pure.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

/// What is looked for among the fields.
pub(super) trait Fields {
    /// Takes the value of `key` from `map`.
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Shows `fields` those of `body`. A body that is not JSON, or is cut off, is read up to there: what was found before it counts.
pub(super) fn read(body: &[u8], fields: &mut impl Fields) {
    let _ = TopLevel(fields).deserialize(&mut serde_json::Deserializer::from_slice(body));
}

struct TopLevel<'a, F>(&'a mut F);

impl<'de, F: Fields> DeserializeSeed<'de> for TopLevel<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de, F: Fields> Visitor<'de> for TopLevel<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.0.field(&key, &mut map)?;
        }
        Ok(())
    }
}
