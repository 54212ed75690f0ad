//! The forms of a body.

/// What the lines of a batch become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One object per line, as in [`Input::Ndjson`].
    #[default]
    Ndjson,
    /// The same objects in one array.
    Json,
    /// The bytes as they were in their files.
    Lines,
    /// Requests of the `_bulk` API of Elasticsearch: each line is created under an id of its own.
    Elasticsearch,
    /// Logs of OpenTelemetry in protobuf.
    Otlp,
    /// Streams of Grafana Loki in JSON.
    Loki,
}

/// What a line is to its receiver. For [`Form::Ndjson`] and [`Form::Json`] it is always a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// A text, with its time, source and offset beside it.
    #[default]
    Message,
    /// A JSON object, which is sent as it is. Other lines are rejected.
    Json,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Lines => "text/plain",
            Form::Ndjson | Form::Elasticsearch => "application/x-ndjson",
            Form::Json | Form::Loki => "application/json",
            Form::Otlp => "application/x-protobuf",
        }
    }
}

impl Coding {
    /// The value of Content-Encoding.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Zstd => Some("zstd"),
        }
    }
}
