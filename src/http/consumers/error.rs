//! What a request gets that is not done: a status, a code for programs, a sentence for people, and the next step.

use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::wire::pairs;
use crate::consumers::{Denied, Gone, Refusal, SettleRefusal};

/// A refusal.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct ErrorJson {
    /// What is wrong.
    error: String,
    /// The same for programs.
    code: &'static str,
    /// The next step.
    next: &'static str,
    /// Of a token that counts no more: `expired`, `settled`, `restarted`, `revoked`, `left` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    /// Which of the lines from `first` to `last` are acked by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schema(value_type = Option<Vec<super::wire::Pair>>))]
    acked: Option<Vec<[u64; 2]>>,
}

/// A refusal with its status.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    json: ErrorJson,
    retry_after: bool,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        error: impl Into<String>,
        next: &'static str,
    ) -> ApiError {
        let json = ErrorJson { error: error.into(), code, next, why: None, acked: None };
        ApiError { status, json, retry_after: false }
    }

    fn with_retry(self) -> ApiError {
        ApiError { retry_after: true, ..self }
    }

    /// A request that is not understood.
    pub(super) fn bad_request(error: impl Into<String>) -> ApiError {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "request",
            error,
            "GET /v1/openapi.json describes the requests",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError { status, json, retry_after } = self;
        let mut response = (status, Json(json)).into_response();
        let headers = response.headers_mut();
        if retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            // Its place is wanted by others meanwhile.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> ApiError {
        match denied {
            Denied::Token => ApiError::new(
                StatusCode::UNAUTHORIZED,
                "token",
                "the request has no valid bearer token",
                "send `Authorization: Bearer TOKEN`; [consumers] or [[group]] names the file of the token",
            ),
            Denied::NoGroup => ApiError::new(
                StatusCode::NOT_FOUND,
                "no-group",
                "there is no group of that name",
                "add a [[group]] to the configuration and reload; of groups that only the store has (`spillq group list`) consumers get nothing",
            ),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Denied(denied) => denied.into(),
            Refusal::HasProcessor => ApiError::new(
                StatusCode::CONFLICT,
                "has-processor",
                "a [[processor]] gets the batches of this group",
                "lease from another [[group]], or remove the [[processor]]",
            ),
            Refusal::Ended(gone) => ApiError {
                json: ErrorJson {
                    error: "the lease of this request has ended".to_owned(),
                    code: "request-ended",
                    next: "send the next request with another `request`",
                    why: Some(word(gone)),
                    acked: None,
                },
                status: StatusCode::GONE,
                retry_after: false,
            },
            // The route answers 204.
            Refusal::Nothing(why) => {
                ApiError::new(StatusCode::CONFLICT, "nothing", why.to_string(), "ask again")
            }
            Refusal::TooManyWaiting => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-waiting",
                "as many requests as can wait for lines are waiting",
                "try again later, or run fewer consumers",
            )
            .with_retry(),
            Refusal::Busy => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "clients that read slowly hold the memory for answers",
                "try again, or lower batch.bytes",
            )
            .with_retry(),
            Refusal::InParts => ApiError::new(
                StatusCode::CONFLICT,
                "in-parts",
                "parts of the lease are acked, and without objects the remaining lines cannot be separated",
                "repeat the request with Accept: application/x-ndjson",
            ),
            Refusal::Stopping => stopping(),
            Refusal::NoToken(error) => ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "no-token",
                format!("the kernel has no random number for a token: {error}"),
                "try again",
            ),
            Refusal::Form(error) => {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "lines", error.to_string(), "try again")
            }
        }
    }
}

impl From<SettleRefusal> for ApiError {
    fn from(refusal: SettleRefusal) -> ApiError {
        match refusal {
            SettleRefusal::Denied(denied) => denied.into(),
            SettleRefusal::Request(error) => ApiError::bad_request(error),
            SettleRefusal::Gone(gone, acked) => ApiError {
                status: if gone == Gone::Unknown { StatusCode::NOT_FOUND } else { StatusCode::GONE },
                json: ErrorJson {
                    error: format!("the lease is no longer valid: {}", sentence(gone)),
                    code: if gone == Gone::Unknown { "no-lease" } else { "stale" },
                    next: "lines that are not acked are delivered again: lease the next ones",
                    why: Some(word(gone)),
                    acked: acked.map(|acked| pairs(&acked)),
                },
                retry_after: false,
            },
            SettleRefusal::Wrong(wrong) => ApiError::new(
                StatusCode::BAD_REQUEST,
                "settlement",
                wrong.to_string(),
                "nothing was changed: settle the lines of the lease",
            ),
            SettleRefusal::OtherLines(range) => ApiError::new(
                StatusCode::BAD_REQUEST,
                "other-lines",
                format!("this token leases the lines {} to {}", range.first, range.last),
                "send first and last of the lease that the token belongs to",
            ),
            SettleRefusal::NoRoom => ApiError::new(
                StatusCode::CONFLICT,
                "no-room",
                "the acks would leave too many gaps, or too many rejected lines wait already",
                "nothing was changed: settle the whole lease, or lines without gaps; `spillq doctor` shows what waits",
            ),
            SettleRefusal::Stopping => stopping(),
        }
    }
}

fn stopping() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the service stops", "try again").with_retry()
}

fn word(gone: Gone) -> &'static str {
    match gone {
        Gone::Expired => "expired",
        Gone::Settled => "settled",
        Gone::Restarted => "restarted",
        Gone::Revoked => "revoked",
        Gone::Left => "left",
        Gone::Unknown => "unknown",
    }
}

fn sentence(gone: Gone) -> &'static str {
    match gone {
        Gone::Expired => "its time was up before it was settled",
        Gone::Settled => "all of its lines were settled",
        Gone::Restarted => "the service was restarted",
        Gone::Revoked => "an operator moved the group, or its lines were dropped",
        Gone::Left => "its consumer has left, or its connection was closed",
        Gone::Unknown => "it was never given out, or it ended long ago",
    }
}
