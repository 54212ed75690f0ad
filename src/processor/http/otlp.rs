//! Logs of OpenTelemetry over HTTP, in protobuf: a request, and what a reply rejects. Pure.
//!
//! The messages are those of opentelemetry-proto 1.x (`opentelemetry/proto/logs/v1/logs.proto`), as far as lines fill them.

use prost::{Message, Oneof};
use serde_json::Value as Json;
use spillq_storage::Line;

use super::super::input::{Appended, Origin};
use super::elasticsearch::SAID_BYTES_MAX;
use super::form::Content;
use super::loki::time_ns;
use crate::plain::{beginning, harmless};

/// Names of labels have no dots. This attribute is the one that every receiver asks for.
const SERVICE: &str = "service.name";
const SERVICE_LABEL: &str = "service_name";

/// Records of one source that are in memory at once.
const RECORDS_MAX: usize = 1_000;

/// Lines of one source one after the other. A request is the messages of several, joined: that is how protobuf adds to a list.
#[derive(Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceLogs>,
}

#[derive(Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeLogs>,
}

#[derive(Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Message)]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    records: Vec<LogRecord>,
}

#[derive(Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_ns: u64,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "11")]
    observed_ns: u64,
}

#[derive(Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 6, 7")]
    value: Option<Value>,
}

#[derive(Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(Array),
    #[prost(message, tag = "6")]
    Object(Object),
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Message)]
struct Array {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Message)]
struct Object {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

#[derive(Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial: Option<Partial>,
}

#[derive(Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

impl Request {
    /// Without any line yet. The labels of the source are attributes of the resource.
    pub(super) fn of(origin: &Origin) -> Request {
        let labels = origin.labels.iter().map(|(name, value)| {
            let name = if name == SERVICE_LABEL { SERVICE } else { name };
            attribute(name, Value::Text(value.clone()))
        });
        let scope = Scope { name: "spillq".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        Request {
            resources: vec![ResourceLogs {
                resource: Some(Resource { attributes: labels.collect() }),
                scopes: vec![ScopeLogs { scope: Some(scope), records: Vec::new() }],
            }],
        }
    }

    /// Whether it has so many records that another one is begun: a record is larger in memory than its line.
    pub(super) fn is_full(&self) -> bool {
        self.resources
            .iter()
            .flat_map(|resource| &resource.scopes)
            .any(|scope| scope.records.len() >= RECORDS_MAX)
    }

    pub(super) fn add(
        &mut self,
        line: &Line<'_>,
        (origin, appended): (&Origin, &Appended),
        content: Content,
    ) {
        let bytes = line.bytes.strip_suffix(b"\n").unwrap_or(line.bytes);
        let object = match content {
            Content::Json => serde_json::from_slice::<Json>(bytes).ok(),
            Content::Message => None,
        };
        let text = || std::str::from_utf8(bytes).map(str::to_owned);
        let body = match object {
            Some(object) => any(object),
            None => {
                text().map_or_else(|_| Some(Value::Bytes(bytes.to_owned())), |text| Some(Value::Text(text)))
            }
        };
        let mut attributes = vec![
            attribute("log.file.path", Value::Text(origin.source.text())),
            attribute("spillq.seq", Value::Int(line.seq.0.cast_signed())),
            attribute("spillq.offset", Value::Int(line.offset.cast_signed())),
        ];
        attributes
            .extend(line.flags.part().map(|part| attribute("spillq.part", Value::Text(part.to_owned()))));
        let time_ns = time_ns(line, appended);
        let body = Some(AnyValue { value: body });
        let record = LogRecord { time_ns, observed_ns: time_ns, body, attributes };
        if let Some(scope) = self.resources.last_mut().and_then(|resource| resource.scopes.last_mut()) {
            scope.records.push(record);
        }
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

/// An empty value for null, as the specification says.
fn any(json: Json) -> Option<Value> {
    let value = |json| AnyValue { value: any(json) };
    Some(match json {
        Json::Null => return None,
        Json::Bool(bool) => Value::Bool(bool),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Double(number),
            (None, None) => Value::Text(number.to_string()),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(values) => Value::Array(Array { values: values.into_iter().map(value).collect() }),
        Json::Object(fields) => {
            let field = |(key, json)| KeyValue { key, value: Some(value(json)) };
            Value::Object(Object { values: fields.into_iter().map(field).collect() })
        }
    })
}

/// What a reply of 2xx says was rejected, for people; `None` if nothing was. Which records these were it does not say.
///
/// # Errors
/// If it is not such a reply.
pub(super) fn rejected(reply: &[u8]) -> Result<Option<String>, String> {
    let response = Response::decode(reply).map_err(|error| format!("is not a reply of OTLP: {error}"))?;
    // A message alone is a warning.
    let partial = response.partial.filter(|partial| partial.rejected > 0);
    Ok(partial.map(|Partial { rejected, message }| {
        format!("rejects {rejected} of the lines: {}", beginning(harmless(&message), SAID_BYTES_MAX))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_how_many_lines_it_rejects() {
        let reply = |rejected, message: &str| {
            let partial = Partial { rejected, message: message.to_owned() };
            Response { partial: Some(partial) }.encode_to_vec()
        };
        assert_eq!(rejected(b""), Ok(None));
        assert_eq!(rejected(&reply(0, "slow down")), Ok(None));
        assert_eq!(
            rejected(&reply(3, "too old\u{1b}")),
            Ok(Some("rejects 3 of the lines: too old?".to_owned()))
        );
        let cut = reply(3, "too old");
        assert!(rejected(&cut[..cut.len() - 1]).unwrap_err().starts_with("is not a reply of OTLP"));
        assert!(rejected(b"<html>").is_err());
    }

    #[test]
    fn json_keeps_its_structure() {
        let json = serde_json::json!({"a": [1, -2.5, true, null, "x"], "b": {"c": u64::MAX}});
        let Some(Value::Object(object)) = any(json) else { panic!() };
        let Some(Value::Array(array)) =
            object.values[0].value.as_ref().and_then(|value| value.value.as_ref())
        else {
            panic!()
        };
        let shown: Vec<String> = array.values.iter().map(|value| format!("{:?}", value.value)).collect();
        assert_eq!(
            shown,
            ["Some(Int(1))", "Some(Double(-2.5))", "Some(Bool(true))", "None", "Some(Text(\"x\"))"]
        );
    }
}
