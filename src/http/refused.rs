//! Why a request was refused: the status and the reason that the client gets.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::wire::ErrorJson;
use crate::queue::{Closed, ReplayError};

/// The answer to a request that is refused.
pub(super) struct Refused(StatusCode, String);

impl Refused {
    pub(super) fn new(status: StatusCode, why: String) -> Refused {
        Refused(status, why)
    }
}

impl From<Closed> for Refused {
    fn from(closed: Closed) -> Refused {
        Refused(StatusCode::SERVICE_UNAVAILABLE, closed.to_string())
    }
}

impl From<ReplayError> for Refused {
    fn from(error: ReplayError) -> Refused {
        Refused(StatusCode::CONFLICT, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorJson { error: self.1 })).into_response()
    }
}
