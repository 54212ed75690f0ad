//! What a reply of 2xx says was not accepted. Pure.
//!
//! Some servers answer 200 although they rejected lines: the `_bulk` API of Elasticsearch and OpenSearch with
//! `"errors": true`, a receiver of OTLP with `partialSuccess`. Such a reply must not ack a batch.

use serde::de::{IgnoredAny, MapAccess};
use serde_json::Value;

use super::super::top_level::{Fields, read};
use crate::plain::harmless;

/// The part of the reply that says that not everything was accepted, for people; `None` if nothing says so. A body that is cut
/// off is read up to its end: the fields that count come first.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let mut found = Refusal(None);
    read(body, &mut found);
    found.0
}

struct Refusal(Option<String>);

impl Fields for Refusal {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let said = match key {
            "errors" => {
                (map.next_value::<Value>()? == Value::Bool(true)).then(|| "\"errors\": true".to_owned())
            }
            "partialSuccess" | "partial_success" => partial(&map.next_value()?),
            _ => map.next_value::<IgnoredAny>().map(|_| None)?,
        };
        self.0 = self.0.take().or(said);
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
