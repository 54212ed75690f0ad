//! What a reply of 2xx says was not accepted. Pure.
//!
//! Some servers answer 200 although they rejected lines: the `_bulk` API of Elasticsearch and OpenSearch with
//! `"errors": true`, a receiver of OTLP with `partialSuccess`. Such a reply must not ack a batch.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::plain::harmless;

/// The part of the reply that says that not everything was accepted, for people; `None` if nothing says so. A body that is cut
/// off is read up to its end: the fields that count come first.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let found = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(body);
    // An error is a body that is not JSON or is cut off: what was found before it counts.
    let _ = TopLevel(&found).deserialize(&mut reader);
    found.into_inner()
}

struct TopLevel<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for TopLevel<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TopLevel<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let said = match key.as_str() {
                "errors" => {
                    (map.next_value::<Value>()? == Value::Bool(true)).then(|| "\"errors\": true".to_owned())
                }
                "partialSuccess" | "partial_success" => partial(&map.next_value()?),
                _ => map.next_value::<IgnoredAny>().map(|_| None)?,
            };
            let mut found = self.0.borrow_mut();
            *found = found.take().or(said);
        }
        Ok(())
    }
}

/// An empty `partialSuccess` is a success, and so is one that has only a message.
fn partial(value: &Value) -> Option<String> {
    let is_some = |count: &Value| {
        count.as_u64().or_else(|| count.as_str()?.parse().ok()).is_some_and(|count| count > 0)
    };
    let rejected =
        value.as_object()?.iter().find(|(key, count)| key.starts_with("rejected") && is_some(count));
    let (key, count) = rejected?;
    Some(format!("partialSuccess, {} {}", harmless(key), harmless(&count.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_what_was_not_accepted() {
        let bulk = r#"{"took": 30, "errors": true, "items": [{"index": {"status": 400}}]}"#;
        for (body, says) in [
            (bulk, Some("\"errors\": true")),
            // Cut off after the field that counts.
            (&bulk[..50], Some("\"errors\": true")),
            (r#"{"took": 30, "errors": false, "items": []}"#, None),
            (r#"{"errors": "true"}"#, None),
            (r#"{"items": [{"errors": true}]}"#, None),
            (r#"{"partialSuccess": {}}"#, None),
            (r#"{"partialSuccess": {"rejectedLogRecords": "0", "errorMessage": "slow"}}"#, None),
            (
                r#"{"partialSuccess": {"rejectedLogRecords": "3"}}"#,
                Some("partialSuccess, rejectedLogRecords \"3\""),
            ),
            (
                r#"{"partialSuccess": {"rejectedLogRecords": 3}}"#,
                Some("partialSuccess, rejectedLogRecords 3"),
            ),
            (r#"[{"errors": true}]"#, None),
            ("Ok.", None),
            ("", None),
        ] {
            assert_eq!(refusal(body.as_bytes()).as_deref(), says, "{body}");
        }
    }
}
