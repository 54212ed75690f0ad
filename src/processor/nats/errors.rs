//! What an error of NATS means.

use std::error::Error as _;
use std::io;

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::{Error as JetStreamError, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind};
use spillq_storage::Seq;

use crate::processor::trouble::{Fault, Trouble};

/// Why there is no connection.
pub(super) fn connecting(error: &ConnectError) -> Trouble {
    let not_trusted = || {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|source| source.kind() == io::ErrorKind::InvalidData)
    };
    let fault = match error.kind() {
        ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::ServerParse => Fault::Setup,
        // A certificate that is not trusted, or no TLS at all: neither passes by itself.
        ConnectErrorKind::Tls | ConnectErrorKind::Io if not_trusted() => {
            return Trouble::setup(format!("TLS: {error}"));
        }
        _ => Fault::Server,
    };
    Trouble::new(fault, format!("no connection: {error}"))
}

/// Why the stream could not be looked at.
pub(super) fn looking(error: &GetStreamError, stream: &str) -> Trouble {
    match error.kind() {
        GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Trouble::setup(format!(
                "the server has no stream {stream}; docs/how-to/destinations/nats.md has the command that makes it"
            ))
        }
        GetStreamErrorKind::JetStream(why) => Trouble::new(fault(&why), why),
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => Trouble::setup(error),
        // No answer: JetStream is starting, or has no leader.
        GetStreamErrorKind::Request => Trouble::server(error),
    }
}

/// Why a message was not stored.
pub(super) fn publishing(error: &PublishError, line: Option<Seq>) -> Trouble {
    let of_line = line.map_or(Fault::Setup, Fault::Line);
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Trouble::server(
            "the stream has more messages than before: one that was sent earlier arrived late, or somebody else publishes to it",
        ),
        PublishErrorKind::MaxPayloadExceeded => Trouble::new(
            of_line,
            format!("a message of it is larger than the server takes (max_payload): {error}"),
        ),
        PublishErrorKind::Other => {
            let why = error.source().and_then(|source| source.downcast_ref::<JetStreamError>());
            match why {
                Some(why) if is_too_large(why) => Trouble::new(
                    of_line,
                    format!("a message of it is larger than the stream takes (max_msg_size): {why}"),
                ),
                Some(why) => Trouble::new(fault(why), why),
                None => Trouble::server(error),
            }
        }
        // If the stream is gone, the next connection finds that out.
        _ => Trouble::server(error),
    }
}

fn is_too_large(error: &JetStreamError) -> bool {
    matches!(
        error.error_code(),
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
    )
}

/// The server says by a status like that of HTTP whether it may succeed later: it is full, has no leader, is starting.
pub(super) fn fault(error: &JetStreamError) -> Fault {
    match error.code() {
        _ if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Fault::Setup,
        408 | 429 | 500.. => Fault::Server,
        _ => Fault::Setup,
    }
}

/// What the server said on its own: `Permissions Violation for Publish to "lines.fills"`.
pub(super) fn said(text: &str) -> Option<Trouble> {
    let lower = text.to_ascii_lowercase();
    let is_denied = ["permissions violation", "authorization", "authentication"];
    is_denied.iter().any(|word| lower.contains(word)).then(|| Trouble::setup(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jetstream(code: u64, err_code: u64, description: &str) -> JetStreamError {
        let text = format!(r#"{{"code":{code},"err_code":{err_code},"description":"{description}"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_a_size_is_the_fault_of_a_line() {
        for (error, expected) in [
            (jetstream(400, 10054, "message size exceeds maximum allowed"), Fault::Line(Seq(7))),
            (jetstream(400, 10097, "header size exceeds maximum allowed of 64k"), Fault::Line(Seq(7))),
            (jetstream(503, 10077, "maximum bytes exceeded"), Fault::Server),
            (jetstream(503, 10023, "insufficient resources"), Fault::Server),
            (jetstream(503, 10008, "JetStream system temporarily unavailable"), Fault::Server),
            (jetstream(503, 10039, "JetStream not enabled for account"), Fault::Setup),
            (jetstream(400, 10109, "invalid operation on sealed stream"), Fault::Setup),
            (jetstream(400, 10060, "expected stream does not match"), Fault::Setup),
        ] {
            let error = PublishError::with_source(PublishErrorKind::Other, error);
            assert_eq!(publishing(&error, Some(Seq(7))).fault, expected, "{error}");
        }
        for (kind, expected) in [
            (PublishErrorKind::WrongLastSequence, Fault::Server),
            (PublishErrorKind::MaxPayloadExceeded, Fault::Line(Seq(7))),
            (PublishErrorKind::StreamNotFound, Fault::Server),
            (PublishErrorKind::TimedOut, Fault::Server),
            (PublishErrorKind::BrokenPipe, Fault::Server),
        ] {
            assert_eq!(publishing(&PublishError::new(kind), Some(Seq(7))).fault, expected, "{kind}");
        }
        let missing = GetStreamErrorKind::JetStream(jetstream(404, 10059, "stream not found"));
        let trouble = looking(&GetStreamError::new(missing), "LINES");
        assert!(trouble.fault == Fault::Setup && trouble.why.starts_with("the server has no stream LINES"));
        let starting = GetStreamErrorKind::JetStream(jetstream(503, 10008, "temporarily unavailable"));
        assert_eq!(looking(&GetStreamError::new(starting), "LINES").fault, Fault::Server);
        assert_eq!(looking(&GetStreamError::new(GetStreamErrorKind::Request), "LINES").fault, Fault::Server);
    }

    #[test]
    fn a_connection_that_is_refused_for_good_is_told_from_an_outage() {
        for (kind, expected) in [
            (ConnectErrorKind::AuthorizationViolation, Fault::Setup),
            (ConnectErrorKind::Authentication, Fault::Setup),
            (ConnectErrorKind::Io, Fault::Server),
            (ConnectErrorKind::Dns, Fault::Server),
            (ConnectErrorKind::TimedOut, Fault::Server),
            (ConnectErrorKind::Tls, Fault::Server),
        ] {
            assert_eq!(connecting(&ConnectError::new(kind)).fault, expected, "{kind}");
        }
        let untrusted = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
        let error = ConnectError::with_source(ConnectErrorKind::Tls, untrusted);
        assert_eq!(connecting(&error).fault, Fault::Setup);
        let denied = said("Permissions Violation for Publish to \"lines.fills\"").unwrap();
        assert_eq!(denied.fault, Fault::Setup);
        assert_eq!(said("Stale Connection"), None);
    }
}
