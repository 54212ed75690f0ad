//! The routes of the API.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::body::Sending;
use super::error::ApiError;
#[cfg(test)]
use super::error::ErrorJson;
use super::request::{
    Asker, LEASE, LINES_TYPE, Peer, between, body, connection, form, name, token, with_body,
};
use super::wire::{
    ExtendJson, ExtendedJson, GroupConsumersJson, LeaseRequestJson, LeftJson, SettleJson, SettledJson,
};
use crate::consumers::{Ask, Claim, Coordinator, Form, Leased, Refusal};

/// How long a request waits for lines.
const WAIT_MS: u64 = 20_000;
const WAIT_MS_MAX: u64 = 60_000;
/// On the socket in the data dir, which cuts requests off after 30 s.
const OWNER_WAIT_MS_MAX: u64 = 25_000;
const LEASE_MS_MIN: u64 = 100;
/// As long as the visibility of SQS: what takes longer extends its lease.
const LEASE_MS_MAX: u64 = 12 * 60 * 60 * 1_000;

const NDJSON_TYPE: &str = "application/x-ndjson";

const EPOCH: HeaderName = HeaderName::from_static("spillq-epoch");
const FIRST_SEQ: HeaderName = HeaderName::from_static("spillq-first-seq");
const LAST_SEQ: HeaderName = HeaderName::from_static("spillq-last-seq");
const LINES: HeaderName = HeaderName::from_static("spillq-lines");
const ATTEMPT: HeaderName = HeaderName::from_static("spillq-attempt");
const EXPIRES_MS: HeaderName = HeaderName::from_static("spillq-expires-ms");
const WHY: HeaderName = HeaderName::from_static("spillq-why");

const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// The routes. Each request must have a [`Peer`] as extension.
pub(in crate::http) fn router(coordinator: Arc<Coordinator>) -> Router {
    Router::new()
        .route("/v1/groups/{group}", get(group))
        .route("/v1/groups/{group}/lease", post(lease))
        .route("/v1/groups/{group}/consumers/{name}/leave", post(leave))
        .route("/v1/leases/settle", post(settle))
        .route("/v1/leases/extend", post(extend))
        .route("/v1/openapi.json", get(openapi))
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(with_body))
        .with_state(coordinator)
}

/// What an unknown path gets, on the sockets that serve nothing else.
pub(super) async fn no_route() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no-route",
        "there is no such path",
        "GET /v1/openapi.json lists the paths",
    )
}

async fn no_method() -> ApiError {
    let next = "GET /v1/openapi.json lists the methods of each path";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", "this path has no such method", next)
}

/// This description.
#[cfg_attr(test, utoipa::path(get, path = "/v1/openapi.json", responses(
        (status = 200, description = "This description, OpenAPI 3.1.", body = serde_json::Value),
        (status = 403, description = "On an address: the Host header names another service.", body = ErrorJson),
    )))]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

/// Leases the next lines of a group, as soon as there are some.
#[cfg_attr(test, utoipa::path(post, path = "/v1/groups/{group}/lease", request_body = LeaseRequestJson,
    params(
        ("group" = String, Path, description = "The name of the group.", pattern = "^[a-z0-9_-]{1,64}$"),
        ("Accept" = Option<String>, Header,
            description = "`application/vnd.spillq.lines` for the bytes as they were in the files; objects otherwise."),
        ("Spillq-Bind" = Option<String>, Header,
            description = "`connection`, on a unix socket: the lease ends with the connection, as a failed delivery."),
    ),
    responses(
        (status = 200, description = "Lines, leased.",
            content(
                (String = "application/x-ndjson"),
                (String = "application/vnd.spillq.lines"),
            ),
            headers(
                ("Spillq-Lease" = String, description = "The token of the lease."),
                ("Spillq-Epoch" = String, description = "What the seqs belong to."),
                ("Spillq-First-Seq" = u64, description = "The first line."),
                ("Spillq-Last-Seq" = u64, description = "The last line."),
                ("Spillq-Lines" = u64, description = "How many lines the body has."),
                ("Spillq-Attempt" = u32, description = "How often they were delivered, this time included."),
                ("Spillq-Expires-Ms" = u64, description = "The time until the lease expires."),
            )),
        (status = 204, description = "No lines within `wait_ms`.", headers(
            ("Spillq-Why" = String, description = "`empty`, `busy`, `paused`, `rate`, `backoff 12 s`, `refused 12 s`, `held-by w2 18 s`, \
                                                   `blocked line 17`, `blocked ack-window 10-40`, `blocked dead-letters`, \
                                                   `blocked damage`."))),
        (status = 400, description = "The request is not understood; nothing was changed.", body = ErrorJson),
        (status = 401, description = "No valid bearer token.", body = ErrorJson),
        (status = 403, description = "On an address: the Host header names another service.", body = ErrorJson),
        (status = 404, description = "No such group.", body = ErrorJson),
        (status = 408, description = "The body did not arrive in time.", body = ErrorJson),
        (status = 413, description = "The body is too long.", body = ErrorJson),
        (status = 409, description = "A processor gets the batches of this group; or of a repeated `request` parts are acked, and objects are needed.", body = ErrorJson),
        (status = 410, description = "The lease of a repeated `request` has ended.", body = ErrorJson),
        (status = 429, description = "Too many requests wait.", body = ErrorJson),
        (status = 503, description = "The service stops, or has no memory for another answer.", body = ErrorJson),
    ), security(("bearer" = []))))]
pub(super) async fn lease(
    State(coordinator): State<Arc<Coordinator>>,
    asker: Asker,
    Path(group): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    coordinator.check_group(&group, asker.caller())?;
    asker.is_known();
    let form = form(request.headers());
    let connection = connection(request.headers(), &asker.peer)?;
    let asked: LeaseRequestJson = body(request).await?;
    let wait_ms_max = if matches!(asker.peer, Peer::Owner) { OWNER_WAIT_MS_MAX } else { WAIT_MS_MAX };
    let wait_ms = between("wait_ms", asked.wait_ms, 0, WAIT_MS_MAX)?.unwrap_or(WAIT_MS).min(wait_ms_max);
    let ask = Ask {
        consumer: name("consumer", asked.consumer)?,
        max_lines: between("max_lines", asked.max_lines, 1, u64::MAX)?,
        max_bytes: between("max_bytes", asked.max_bytes, 1, u64::MAX)?,
        wait: Duration::from_millis(wait_ms),
        lease_ms: between("lease_ms", asked.lease_ms, LEASE_MS_MIN, LEASE_MS_MAX)?,
        request: asked.request.map(|request| name("request", request)).transpose()?,
        form,
        connection,
    };
    match coordinator.lease(&group, asker.caller(), ask).await {
        Ok(leased) => Ok(answer(leased, form)),
        Err(Refusal::Nothing(why)) => {
            let why = HeaderValue::from_str(&why.to_string()).unwrap_or(HeaderValue::from_static("empty"));
            Ok((StatusCode::NO_CONTENT, [(WHY, why)]).into_response())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

fn answer(leased: Leased, form: Form) -> Response {
    let content_type = match form {
        Form::Lines => LINES_TYPE,
        Form::Ndjson => NDJSON_TYPE,
    };
    let Leased { token, epoch, range, lines, attempt, expires_ms, body } = leased;
    let mut response = Response::new(axum::body::Body::new(Sending::new(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(mut token) = HeaderValue::from_str(&token.text()) {
        token.set_sensitive(true);
        headers.insert(LEASE, token);
    }
    headers.extend(HeaderValue::from_str(&epoch).ok().map(|epoch| (EPOCH, epoch)));
    for (name, number) in [
        (FIRST_SEQ, range.first.0),
        (LAST_SEQ, range.last.0),
        (LINES, lines),
        (ATTEMPT, attempt.into()),
        (EXPIRES_MS, expires_ms),
    ] {
        headers.insert(name, number.into());
    }
    response
}

/// Settles a lease, or a part of it. The answer comes after the sync.
#[cfg_attr(test, utoipa::path(post, path = "/v1/leases/settle", request_body = SettleJson,
    params(("Spillq-Lease" = String, Header, description = "The token of the lease, as its answer had it.")),
    responses(
        (status = 200, description = "It counted, durably.", body = SettledJson),
        (status = 400, description = "The request is not understood; nothing was changed.", body = ErrorJson),
        (status = 401, description = "No valid bearer token.", body = ErrorJson),
        (status = 403, description = "On an address: the Host header names another service.", body = ErrorJson),
        (status = 404, description = "There is no such lease: it was never given out, or it ended long ago.", body = ErrorJson),
        (status = 408, description = "The body did not arrive in time.", body = ErrorJson),
        (status = 413, description = "The body is too long.", body = ErrorJson),
        (status = 409, description = "The acks would leave too many gaps, or too many rejected lines wait; nothing was changed.", body = ErrorJson),
        (status = 410, description = "The lease has ended; nothing was changed.", body = ErrorJson),
        (status = 503, description = "The service stops, or has no memory for another answer.", body = ErrorJson),
    ), security(("bearer" = []))))]
pub(super) async fn settle(
    State(coordinator): State<Arc<Coordinator>>,
    asker: Asker,
    request: Request,
) -> Result<Json<SettledJson>, ApiError> {
    coordinator.check_any(asker.caller())?;
    asker.is_known();
    let token = token(request.headers())?;
    let asked: SettleJson = body(request).await?;
    let range = asked.range();
    let claim = Claim { epoch: asked.epoch.clone(), range: range.clone().unwrap_or_default() };
    let settlement = range.and_then(|_| asked.settlement());
    Ok(Json(coordinator.settle(asker.caller(), token, claim, settlement).await?.into()))
}

/// Sets a new deadline.
#[cfg_attr(test, utoipa::path(post, path = "/v1/leases/extend", request_body = ExtendJson,
    params(("Spillq-Lease" = String, Header, description = "The token of the lease, as its answer had it.")),
    responses(
        (status = 200, description = "The new deadline.", body = ExtendedJson),
        (status = 400, description = "The request is not understood; nothing was changed.", body = ErrorJson),
        (status = 401, description = "No valid bearer token.", body = ErrorJson),
        (status = 403, description = "On an address: the Host header names another service.", body = ErrorJson),
        (status = 404, description = "There is no such lease: it was never given out, or it ended long ago.", body = ErrorJson),
        (status = 408, description = "The body did not arrive in time.", body = ErrorJson),
        (status = 413, description = "The body is too long.", body = ErrorJson),
        (status = 410, description = "The lease has ended.", body = ErrorJson),
        (status = 503, description = "The service stops, or has no memory for another answer.", body = ErrorJson),
    ), security(("bearer" = []))))]
pub(super) async fn extend(
    State(coordinator): State<Arc<Coordinator>>,
    asker: Asker,
    request: Request,
) -> Result<Json<ExtendedJson>, ApiError> {
    coordinator.check_any(asker.caller())?;
    asker.is_known();
    let token = token(request.headers())?;
    let ExtendJson { lease_ms } = body(request).await?;
    let lease_ms = between("lease_ms", lease_ms, LEASE_MS_MIN, LEASE_MS_MAX)?;
    Ok(Json(ExtendedJson { expires_ms: coordinator.extend(asker.caller(), token, lease_ms).await? }))
}

/// A consumer stops: the lines that it has leased are delivered again at once, and nothing is counted.
#[cfg_attr(test, utoipa::path(post, path = "/v1/groups/{group}/consumers/{name}/leave",
    params(("group" = String, Path, description = "The name of the group.", pattern = "^[a-z0-9_-]{1,64}$"), ("name" = String, Path, description = "The name of the consumer.")),
    responses(
        (status = 200, description = "It has left.", body = LeftJson),
        (status = 400, description = "The request is not understood; nothing was changed.", body = ErrorJson),
        (status = 401, description = "No valid bearer token.", body = ErrorJson),
        (status = 403, description = "On an address: the Host header names another service.", body = ErrorJson),
        (status = 404, description = "No such group.", body = ErrorJson),
    ), security(("bearer" = []))))]
pub(super) async fn leave(
    State(coordinator): State<Arc<Coordinator>>,
    asker: Asker,
    Path((group, consumer)): Path<(String, String)>,
) -> Result<Json<LeftJson>, ApiError> {
    Ok(Json(LeftJson { released: coordinator.leave(&group, asker.caller(), &consumer)? }))
}

/// A group: its state, its lag, why nothing is delivered, and its consumers.
#[cfg_attr(test, utoipa::path(get, path = "/v1/groups/{group}", params(("group" = String, Path, description = "The name of the group.", pattern = "^[a-z0-9_-]{1,64}$")),
    responses(
        (status = 200, description = "The group.", body = GroupConsumersJson),
        (status = 400, description = "The request is not understood; nothing was changed.", body = ErrorJson),
        (status = 401, description = "No valid bearer token.", body = ErrorJson),
        (status = 403, description = "On an address: the Host header names another service.", body = ErrorJson),
        (status = 404, description = "No such group.", body = ErrorJson),
        (status = 503, description = "The service stops, or has no memory for another answer.", body = ErrorJson),
    ), security(("bearer" = []))))]
pub(super) async fn group(
    State(coordinator): State<Arc<Coordinator>>,
    asker: Asker,
    Path(group): Path<String>,
) -> Result<Json<GroupConsumersJson>, ApiError> {
    Ok(Json(coordinator.view(&group, asker.caller()).await?.into()))
}
