//! Hostile clients of the API of consumers, for the campaign `http`: wrong, missing and foreign bearer tokens on each route,
//! guessed leases, smuggled lengths and bodies that are none. None of them is answered with success.

use crate::request::{End, Request};

/// What the configuration of the campaign has: two groups with a token each.
pub(crate) const TOKEN: &str = "the token of the first group";
pub(crate) const FOREIGN: &str = "the token of the second group";
pub(crate) const SECTIONS: &str = "[[group]]\nname = \"second\"\ntoken = \"file:second.token\"\n[consumers]\n\
                                   listen = [\"unix:c.sock\", \"127.0.0.1:0\"]\ntoken = \"file:first.token\"\n";

const ROUTES: [(&str, &str); 5] = [
    ("POST", "/v1/groups/default/lease"),
    ("POST", "/v1/leases/settle"),
    ("POST", "/v1/leases/extend"),
    ("POST", "/v1/groups/default/consumers/w1/leave"),
    ("GET", "/v1/groups/default"),
];

/// A request that is not to be answered with success.
pub(crate) fn malformed(rng: &mut fastrand::Rng) -> Request {
    let (method, path) = ROUTES[rng.usize(..ROUTES.len())];
    let guess = format!("{}-{:032x}", rng.u8(1..4), rng.u128(..));
    let head = |bearer: Option<&str>, more: &str| {
        let bearer = bearer.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{bearer}{more}")
    };
    let body = r#"{"consumer":"w1","wait_ms":0}"#;
    let whole = |head: String, body: &[u8]| {
        let head = format!("{head}content-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let settle = |more: &str| {
        format!(
            "POST /v1/leases/settle HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             authorization: Bearer {TOKEN}\r\nspillq-lease: {guess}\r\n{more}"
        )
    };
    let (kind, bytes, end) = match rng.u8(..13) {
        0 => ("no token", whole(head(None, ""), body.as_bytes()), End::Waits),
        1 => {
            let at = rng.usize(..TOKEN.len());
            let wrong: String =
                TOKEN.chars().enumerate().map(|(nth, c)| if nth == at { '~' } else { c }).collect();
            ("a wrong token", whole(head(Some(&wrong), ""), body.as_bytes()), End::Waits)
        }
        2 => {
            // Of routes that name no group, it is a valid one, and there is no such lease.
            let lease = format!("spillq-lease: {guess}\r\n");
            ("a foreign token", whole(head(Some(FOREIGN), &lease), b"{}"), End::Waits)
        }
        3 => ("a guessed lease", whole(settle(""), br#"{"ack":"all"}"#), End::Waits),
        4 => {
            let claim = format!(
                r#"{{"ack":"all","epoch":"{}-{:016x}-0","first":1,"last":{}}}"#,
                rng.u8(..4),
                rng.u64(..),
                rng.u64(..)
            );
            ("a guessed lease with a claim", whole(settle(""), claim.as_bytes()), End::Waits)
        }
        5 => (
            "two lengths",
            format!("{}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}", settle("")).into_bytes(),
            End::Half,
        ),
        6 => {
            let both = "content-length: 2\r\ntransfer-encoding: chunked\r\n";
            ("a length and chunks", format!("{}{both}\r\n0\r\n\r\n{{}}", settle("")).into_bytes(), End::Half)
        }
        7 => {
            let body: Vec<u8> = (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
            let lease = "POST /v1/groups/default/lease HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
            let lease = format!("{lease}authorization: Bearer {TOKEN}\r\n");
            ("a body that is not JSON", whole(lease, &body), End::Waits)
        }
        8 => {
            let lease = "POST /v1/groups/default/lease HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
            let lease =
                format!("{lease}authorization: Bearer {TOKEN}\r\ncontent-length: 500\r\n\r\n{{\"consumer\":");
            ("half a body", lease.into_bytes(), End::Half)
        }
        9 => (
            "a long header",
            head(Some(TOKEN), &format!("x: {}\r\n\r\n", "x".repeat(40_000))).into_bytes(),
            End::Half,
        ),
        10 => ("another method", whole(head(Some(TOKEN), "").replacen(method, "DELETE", 1), b""), End::Waits),
        11 => {
            let admin = format!(
                "POST /v1/admin HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n"
            );
            (
                "a route of others",
                whole(admin, br#"{"do":"pause","name":"default","paused":true}"#),
                End::Waits,
            )
        }
        _ => ("gone before the answer", whole(head(None, ""), body.as_bytes()), End::Gone),
    };
    Request { kind, bytes, end }
}

/// A sound request.
pub(crate) fn sound() -> Request {
    let bytes = format!(
        "GET /v1/groups/default HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    Request { kind: "sound", bytes: bytes.into_bytes(), end: End::Waits }
}
