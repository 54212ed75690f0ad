//! The http processor against servers of plain sockets: what they say decides, and nothing that they do hangs it.

#[path = "../../src/processor/sample.rs"]
mod sample;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use spillq::processor::{Batch, Coding, Destination, Form, HttpPost, Outcome, Piece, Processor, Secret};
use spillq_storage::{GroupId, StoreId};
use tokio::time::timeout;

/// One connection is answered with these bytes, again and again if `endless`; gives the request's text.
fn server(reply: Vec<u8>, endless: bool) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/in?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow",
        listener.local_addr().unwrap()
    );
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"three\"}\n") {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request came whole");
            request.extend(&buffer[..read]);
        }
        while stream.write_all(&reply).is_ok() && endless {}
        String::from_utf8(request).unwrap()
    });
    (url, served)
}

async fn post(url: String, within: Duration) -> Option<Outcome> {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Bearer hidden\n").unwrap();
    let destination = Destination {
        url,
        form: Form::Ndjson(Arc::new(|_| None)),
        coding: Coding::Identity,
        headers: vec![("X-Database".to_owned(), "fills".to_owned())],
        secret_headers: vec![("Authorization".to_owned(), Secret::File(secret.path().to_owned()))],
        ca_file: None,
        store: StoreId(7),
        group: GroupId(1),
    };
    let mut http = HttpPost::new(destination).unwrap();
    let block = sample::block(10, &[b"one", b"two", b"three"]);
    let batch = Batch::new(Arc::from("g"), 1, sample::pieces(&block, &[(10, 12)], Piece::new)).unwrap();
    timeout(within, http.process(&batch)).await.ok()
}

#[tokio::test]
async fn a_reply_decides_and_the_request_carries_key_and_secret() {
    for (reply, expected) in [
        ("200 OK\r\ncontent-length: 0", "Done"),
        ("204 No Content", "Done"),
        ("422 x\r\ncontent-length: 0", "Poison"),
        ("413 x\r\ncontent-length: 0", "TooLarge"),
        ("302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0", "Refused"),
        ("401 x\r\ncontent-length: 0", "Refused"),
        ("503 x\r\nretry-after: 7\r\ncontent-length: 0", "Later(7s"),
        ("500 x\r\ncontent-length: 0", "Failed"),
        ("200 OK\r\ncontent-length: 99", "Failed"),
    ] {
        let (url, served) = server(format!("HTTP/1.1 {reply}\r\n\r\n").into_bytes(), false);
        let outcome = format!("{:?}", post(url, Duration::from_secs(30)).await.unwrap());
        assert!(outcome.starts_with(expected) && !outcome.contains("hidden"), "{reply}: {outcome}");
        let request = served.join().unwrap();
        for part in [
            "POST /in?query=INSERT%20",
            "idempotency-key: g-1-0000000000000007-10-12\r\n",
            "Bearer hidden\r\n",
        ] {
            assert!(request.contains(part), "{request}");
        }
    }
}

#[tokio::test]
async fn a_hostile_server_is_a_failure_and_no_hang() {
    for (reply, endless) in [
        (b"garbage\r\n\r\n".to_vec(), false),
        (b"".to_vec(), false),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "x".repeat(1 << 20)).into_bytes(), false),
        (b"HTTP/1.1 500 x\r\ncontent-length: 99999999999\r\n\r\nHTTP/1.1 500 x\r\n".to_vec(), true),
    ] {
        let (url, _served) = server(reply.clone(), endless);
        let outcome = post(url, Duration::from_secs(30)).await;
        assert!(matches!(outcome, Some(Outcome::Failed(_))), "{outcome:?}");
    }
    let (url, _served) = server(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), true);
    let outcome = post(url, Duration::from_secs(1)).await;
    assert!(
        matches!(outcome, None | Some(Outcome::Failed(_))),
        "a flood ends with the time-out: {outcome:?}"
    );
}
