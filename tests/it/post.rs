//! The http processor with servers made of plain sockets: their reply decides, and nothing that they do makes it hang, or
//! acks lines that were not sent to them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use spillq::processor::{Batch, Content, Endpoint, Epoch, Form, HttpPost, Outcome, Piece, Processor, Url};
use spillq::secret::Secret;
use spillq_storage::{GroupId, StoreId};
use tokio::time::timeout;

use crate::sample;
use crate::support::{PATIENCE, needs, run, wait_for, watch};

/// A secret that must be in no message.
const SECRET: &str = "Bearer hidden";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Serves one connection. Returns the URL, and the result of `serve`.
fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (String, JoinHandle<T>) {
    // Some of its connections would never end.
    watch::this_test();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/in?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow&key=hidden",
        listener.local_addr().unwrap()
    );
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // Nothing else is served: a second connection gets nothing.
        drop(listener);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        serve(stream)
    });
    (url, served)
}

/// Reads the head of one request. Returns the length of its body too.
fn head(stream: &mut impl Read) -> Option<(String, usize)> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let length = length.parse().unwrap();
    Some((head, length))
}

/// Reads one request, of the length in its head.
fn request(stream: &mut impl Read) -> Option<String> {
    let (head, length) = head(stream)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

/// Reads one request and sends `reply`.
fn answer(mut stream: TcpStream, reply: &[u8]) -> String {
    let request = request(&mut stream).unwrap();
    stream.write_all(reply).unwrap();
    request
}

/// Reads one request over TLS and says that all is well; `None` if none came.
fn answer_over_tls(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> Option<String> {
    let connection = rustls::ServerConnection::new(config).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let request = request(&mut stream)?;
    stream.write_all(OK).unwrap();
    stream.flush().unwrap();
    Some(request)
}

/// Reads one request, whatever its body is, and sends `reply`.
fn answer_any(mut stream: TcpStream, reply: &[u8]) {
    let (_, length) = head(&mut stream).unwrap();
    stream.read_exact(&mut vec![0; length]).unwrap();
    stream.write_all(reply).unwrap();
}

fn http(url: &str, ca_file: Option<&std::path::Path>) -> (HttpPost, tempfile::NamedTempFile) {
    let ca_file = ca_file.map(ToOwned::to_owned);
    http_with(Endpoint { url: Url::new(url.to_owned()), ca_file, ..Endpoint::default() })
}

fn http_with(endpoint: Endpoint) -> (HttpPost, tempfile::NamedTempFile) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let endpoint = Endpoint {
        headers: vec![
            ("X-Database".to_owned(), "fills".to_owned()),
            ("X-Lines".to_owned(), "{first_seq}-{last_seq}".to_owned()),
        ],
        secret_headers: vec![("Authorization".to_owned(), Secret::File(secret.path().to_owned()))],
        ..endpoint
    };
    let epoch = Epoch { store: StoreId(7), number: 5, group: GroupId(1) };
    (HttpPost::new(&endpoint, Arc::new(|_| None), epoch).unwrap(), secret)
}

fn batch() -> Batch {
    let block = sample::block(10, &[b"one", b"two", b"three"]);
    Batch::new(Arc::from("g"), 1, sample::pieces(&block, &[(10, 12)], Piece::new)).unwrap()
}

/// More than the buffers of two sockets.
const LARGE_BYTES: usize = 16 * 1024 * 1024;

fn large() -> Batch {
    let line = vec![b'x'; LARGE_BYTES / 4];
    let blocks = (10..14).map(|seq| sample::pieces(&sample::block(seq, &[&line]), &[(seq, seq)], Piece::new));
    Batch::new(Arc::from("g"), 1, blocks.flatten().collect()).unwrap()
}

/// The outcome of a batch, as text.
async fn post(url: &str, batch: Batch) -> String {
    let (mut http, _secret) = http(url, None);
    let outcome = timeout(PATIENCE, http.process(&batch)).await.expect("an outcome in time");
    let text = format!("{outcome:?} {http:?} {}", http.name());
    assert!(!text.contains("hidden"), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_decides_and_the_request_carries_key_and_secret() {
    for (reply, expected) in [
        ("200 OK\r\ncontent-length: 0", "Done"),
        ("204 No Content", "Done"),
        // Elasticsearch answers like this when it has rejected lines: they were acked.
        ("200 OK\r\ncontent-length: 30\r\n\r\n{\"took\":3,\"errors\":true,\"x\":1}", "Failed"),
        ("422 x\r\ncontent-length: 0", "Poison"),
        // A list of bad lines, where it may stand: as JSON, with 2xx or 422, and with numbers that the batch has.
        (
            "200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 39\r\n\r\n\
             {\"bad\":[{\"n\":3,\"reason\":\"no\"},{\"n\":1}]}",
            "DoneExcept([Rejected { seq: Seq(10), reason: \"http://127.0.0.1:",
        ),
        (
            "422 x\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":2}]}",
            "DoneExcept([Rejected { seq: Seq(11), ",
        ),
        ("200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"bad\":[]}", "Done "),
        (
            "200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":4}]}",
            "Poison",
        ),
        (
            "200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":0}]}",
            "Poison",
        ),
        ("200 OK\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":2}]}", "Done "),
        ("422 x\r\ncontent-type: text/plain\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":2}]}", "Poison"),
        (
            "400 x\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":2}]}",
            "Poison",
        ),
        (
            "500 x\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"bad\":[{\"n\":2}]}",
            "Down",
        ),
        ("413 x\r\ncontent-length: 0", "TooLarge"),
        ("302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0", "Refused"),
        ("401 x\r\ncontent-length: 0", "Refused"),
        ("503 x\r\nretry-after: 7\r\ncontent-length: 0", "Later(7s"),
        ("500 x\r\ncontent-length: 0", "Down"),
        ("409 x\r\ncontent-length: 0", "Failed"),
    ] {
        let reply = format!("HTTP/1.1 {reply}\r\n\r\n");
        let (url, served) = server(move |stream| answer(stream, reply.as_bytes()));
        let outcome = post(&url, batch()).await;
        assert!(outcome.starts_with(expected), "{expected}: {outcome}");
        let request = served.join().unwrap();
        for part in [
            "POST /in?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow&key=hidden HTTP/1.1\r\n",
            "idempotency-key: g-1-0000000000000007-5-10-12\r\n",
            "authorization: Bearer hidden\r\n",
            "x-database: fills\r\n",
            "x-lines: 10-12\r\n",
            "content-type: application/x-ndjson\r\n",
            "{\"seq\":12,\"source\":3,\"offset\":108,\"time\":\"1970-01-01T00:00:00.000Z\",\"attempt\":1,\"text\":\"three\"}\n",
        ] {
            assert!(request.contains(part), "{part}: {request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_reply_is_a_failure_and_does_not_hang() {
    let long =
        |lines: usize| format!("HTTP/1.1 200 OK\r\n{}", format!("x: {}\r\n", "y".repeat(60)).repeat(lines));
    for (reply, found) in [
        (b"garbage\r\n\r\n".to_vec(), "got no reply"),
        (b"".to_vec(), "got no reply"),
        (b"HTTP/1.1 200 OK\r\n".to_vec(), "got no reply"),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes(), "got no reply"),
        (format!("{}\r\n", long(500)).into_bytes(), "got no reply"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok".to_vec(), "got no reply"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok".to_vec(), "got no reply"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nok".to_vec(), "was answered 200 OK, then cut off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok".to_vec(), "then cut off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok".to_vec(), "then cut off"),
    ] {
        let text = String::from_utf8_lossy(&reply[..reply.len().min(80)]).into_owned();
        let (url, served) = server(move |mut stream| {
            let _ = request(&mut stream).unwrap();
            // It may close before it has read everything.
            let _ = stream.write_all(&reply);
        });
        let outcome = post(&url, batch()).await;
        assert!(outcome.starts_with("Failed") && outcome.contains(found), "{text:?}: {outcome}");
        served.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_of_a_reply_is_a_failure() {
    for said in
        [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"]
    {
        let (url, served) = server(|mut stream| {
            let _ = request(&mut stream).unwrap();
            stream.write_all(said).unwrap();
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        });
        let outcome = post(&url, batch()).await;
        assert!(outcome.starts_with("Failed"), "{said:?}: {outcome}");
        served.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_endless_body_little_is_read_and_the_status_decides() {
    for (status, expected) in [("500 x", "Down"), ("401 x", "Refused")] {
        let (url, served) = server(move |mut stream| {
            let _ = request(&mut stream).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
            let mut said = 0;
            while stream.write_all(&[b'x'; 4096]).is_ok() {
                said += 4096;
            }
            said
        });
        let outcome = post(&url, batch()).await;
        assert!(outcome.starts_with(expected), "{outcome}");
        // Until it noticed that nobody reads: 64 KiB, and the buffers of sockets.
        let said = served.join().unwrap();
        assert!(said < 64 << 20, "{said}");
    }
}

/// How many connections to this port are open on the client's side.
fn open_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|remote| remote.ends_with(&to)) && words.next() == Some("01")
    };
    table.lines().filter(is_open).count()
}

/// Lets the time-out of a batch pass. Returns the evidence.
async fn hang(url: &str, batch: Batch) -> String {
    let (mut http, _secret) = http(url, None);
    // If making the body of a large batch took longer, nothing was sent yet: try with more time.
    for seconds in [1, 5, 25] {
        let outcome = timeout(Duration::from_secs(seconds), http.process(&batch)).await;
        assert!(outcome.is_err(), "{outcome:?}");
        if let Some(seen) = http.interrupted() {
            return seen.summary;
        }
    }
    panic!("no evidence of where it hung");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_slow_server_hangs_is_reported_and_its_connection_closed() {
    // It never answers.
    let (url, served) = server(|mut stream| {
        let _ = request(&mut stream).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    let text = hang(&url, batch()).await;
    assert!(text.starts_with("all was sent, and no reply came within "), "{text}");
    assert_eq!(served.join().unwrap(), 0, "the connection is closed");

    // It sends its reply a few bytes at a time.
    let (url, served) = server(|mut stream| {
        let _ = request(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").unwrap();
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let text = hang(&url, batch()).await;
    assert!(text.starts_with("the reply, 200 OK, had no end after "), "{text}");
    served.join().unwrap();

    // It answers 100 Continue for ever.
    let (url, served) = server(|mut stream| {
        let _ = request(&mut stream).unwrap();
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
    });
    let text = hang(&url, batch()).await;
    assert!(text.starts_with("all was sent, and no reply came within "), "{text}");
    served.join().unwrap();

    // It does not read: what was not sent by then never will be.
    let (go, wait) = std::sync::mpsc::channel();
    let (url, served) = server(move |mut stream| {
        wait.recv().unwrap();
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        read.len()
    });
    let text = hang(&url, large()).await;
    assert!(text.contains(" bytes were still to be sent after "), "{text}");
    // The runtime closes the connection; the server, which reads nothing yet, has no part in it.
    let port: u16 = url.split([':', '/']).nth(4).unwrap().parse().unwrap();
    let closed = tokio::task::spawn_blocking(move || wait_for(|| (open_to(port) == 0).then_some(()))).await;
    assert!(closed.unwrap().is_some(), "the connection is closed");
    go.send(()).unwrap();
    let read = tokio::task::spawn_blocking(|| served.join().unwrap()).await.unwrap();
    assert!(read < LARGE_BYTES, "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_before_all_lines_were_sent_counts_only_if_the_rest_is_read() {
    for (takes_the_rest, expected) in [(true, "Done"), (false, "Failed")] {
        let (url, served) = server(move |mut stream| {
            let (_, length) = head(&mut stream).unwrap();
            stream.write_all(OK).unwrap();
            if takes_the_rest {
                stream.read_exact(&mut vec![0; length]).unwrap();
            }
        });
        let outcome = post(&url, large()).await;
        assert!(outcome.starts_with(expected), "{outcome}");
        served.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_unless_the_server_sent_too_much() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            taken.fetch_add(1, Ordering::Relaxed);
            let mut stream = stream.unwrap();
            thread::spawn(
                move || while request(&mut stream).is_some_and(|_| stream.write_all(OK).is_ok()) {},
            );
        }
    });
    let (mut reused, _secret) = http(&url, None);
    let mut requests = 0;
    // Whether a connection is back in time for the next request depends on the runtime: for some it is.
    while requests <= connections.load(Ordering::Relaxed) {
        assert!(requests < 1_000, "each of them had a separate connection");
        assert_eq!(timeout(PATIENCE, reused.process(&batch())).await.unwrap(), Outcome::Done);
        requests += 1;
    }

    // Two answers to the first batch: the second one is not an answer to the second batch.
    let (url, served) = server(|mut stream| {
        let _ = request(&mut stream).unwrap();
        stream.write_all(&[OK, OK].concat()).unwrap();
        stream.read(&mut [0]).unwrap_or_default()
    });
    let (mut fooled, _secret) = http(&url, None);
    assert_eq!(timeout(PATIENCE, fooled.process(&batch())).await.unwrap(), Outcome::Done);
    let outcome = timeout(PATIENCE, fooled.process(&batch())).await.unwrap();
    assert!(matches!(outcome, Outcome::Down(_)), "nobody took it: {outcome:?}");
    assert_eq!(served.join().unwrap(), 0, "nothing more came on that connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_server_gets_lines_and_secrets() {
    needs!("openssl");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let certificate = |name: &str, more: &[&str]| {
        let (key, cert, subject) =
            (path(&format!("{name}.key")), path(&format!("{name}.pem")), format!("/CN={name}"));
        let new =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        run("openssl", &[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &cert], more].concat());
    };
    certificate("good", &[]);
    certificate("other", &[]);
    let (ca, key) = (path("good.pem"), path("good.key"));
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];
    certificate("leaf", &[&["-CA", &ca, "-CAkey", &key], &leaf[..]].concat());
    let config = || {
        use rustls::pki_types::pem::PemObject;
        let cert = rustls::pki_types::CertificateDer::from_pem_file(path("leaf.pem")).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_file(path("leaf.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![cert], key).unwrap())
    };
    for (ca, host, expected) in [
        ("good.pem", "localhost", "Done"),
        ("other.pem", "localhost", "Down"),
        ("good.pem", "127.0.0.1", "Down"),
    ] {
        let config = config();
        let (url, served) = server(move |stream| answer_over_tls(stream, config));
        let url = url.replace("http://127.0.0.1", &format!("https://{host}"));
        let (mut http, _secret) = http(&url, Some(path(ca).as_ref()));
        let outcome = format!("{:?}", timeout(PATIENCE, http.process(&batch())).await.unwrap());
        assert!(outcome.starts_with(expected), "{ca} {host}: {outcome}");
        let request = served.join().unwrap();
        assert_eq!(request.is_some_and(|text| text.contains(SECRET)), expected == "Done", "{ca} {host}");
    }
}

/// Passes on what comes to a listener of its own, once it was asked to by CONNECT. Returns its URL, and the first line that it got.
fn proxy(answer: &'static [u8]) -> (String, JoinHandle<String>) {
    watch::this_test();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        client.write_all(answer).unwrap();
        let asked = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
        if answer.starts_with(b"HTTP/1.1 200") {
            let to = asked.split(' ').nth(1).unwrap();
            let mut server = TcpStream::connect(to).unwrap();
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let there = thread::spawn(move || std::io::copy(&mut from, &mut back));
            // Until the server has ended; then the client is told.
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(std::net::Shutdown::Both);
            let _ = there.join().unwrap();
        }
        asked
    });
    (url, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_connects_to_servers_and_a_certificate_of_our_own_is_shown_to_them_alone() {
    needs!("openssl");
    let dir = tempfile::tempdir().unwrap();
    crate::chaos::certificates(dir.path());
    let path = |name: &str| dir.path().join(name);
    let config = {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificate = |name: &str| CertificateDer::from_pem_file(path(name)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        );
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
        let key = PrivateKeyDer::from_pem_file(path("leaf.key")).unwrap();
        Arc::new(builder.with_single_cert(vec![certificate("leaf.pem")], key).unwrap())
    };
    for (has_certificate, has_proxy, expected) in
        [(true, true, "Done"), (true, false, "Done"), (false, false, "Failed")]
    {
        let config = Arc::clone(&config);
        let (url, served) = server(move |stream| answer_over_tls(stream, config));
        let url = url.replace("http://127.0.0.1", "https://localhost");
        let proxied = has_proxy.then(|| proxy(b"HTTP/1.1 200 Connection established\r\n\r\n"));
        let (http, _secret) = http_with(Endpoint {
            url: Url::new(url.clone()),
            ca_file: Some(path("ca.pem")),
            cert_file: has_certificate.then(|| path("leaf.pem")),
            key_file: has_certificate.then(|| path("leaf.key")),
            proxy: proxied.as_ref().map(|(proxy, _)| proxy.clone()),
            ..Endpoint::default()
        });
        let mut http = http;
        let outcome = format!("{:?}", timeout(PATIENCE, http.process(&batch())).await.unwrap());
        assert!(outcome.starts_with(expected), "{has_certificate}: {outcome}");
        drop(http);
        assert_eq!(served.join().unwrap().is_some_and(|text| text.contains(SECRET)), expected == "Done");
        if let Some((_, proxied)) = proxied {
            let port = url.split(['/', ':']).nth(4).unwrap();
            assert_eq!(proxied.join().unwrap(), format!("CONNECT localhost:{port} HTTP/1.1"));
        }
    }
    // A proxy that refuses is an outage, with its reason.
    for (answer, why) in [
        (&b"HTTP/1.1 407 x\r\nproxy-authenticate: Basic\r\n\r\n"[..], "proxy authorization required"),
        (&b"HTTP/1.1 403 x\r\n\r\n"[..], "unsuccessful"),
    ] {
        let (url, proxied) = proxy(answer);
        let (mut http, _secret) = http_with(Endpoint {
            url: Url::new("http://logs.invalid/in".to_owned()),
            proxy: Some(url),
            ..Endpoint::default()
        });
        let outcome = timeout(PATIENCE, http.process(&batch())).await.unwrap();
        let Outcome::Down(evidence) = outcome else { panic!("{outcome:?}") };
        assert!(evidence.summary.contains(why), "{evidence:?}");
        assert_eq!(proxied.join().unwrap(), "CONNECT logs.invalid:80 HTTP/1.1");
    }
}

/// What no real server does on demand: a reply that rejects some, that is cut off, that says to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_format_reads_what_its_reply_says_of_the_lines() {
    let reply = |head: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let bulk = |body: &str| reply("200 OK\r\ncontent-type: application/json", body.as_bytes());
    let otlp = |body: &[u8]| reply("200 OK\r\ncontent-type: application/x-protobuf", body);
    let cut = |mut whole: Vec<u8>| {
        whole.truncate(whole.len() - 3);
        whole
    };
    let two_bad = r#"{"took":1,"errors":true,"items":[{"create":{"status":201}},{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"no"}}},{"create":{"status":409}}]}"#;
    let full = r#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":429}},{"create":{"status":400,"error":{"type":"parsing_exception"}}}]}"#;
    let (elastic, loki) = (Form::Elasticsearch, Form::Loki);
    for (form, reply, expected) in [
        (elastic, bulk(r#"{"took":1,"errors":false,"items":[]}"#), "Done "),
        (elastic, bulk(two_bad), "DoneExcept([Rejected { seq: Seq(11), reason: \"http://127.0.0.1:"),
        (elastic, bulk(full), "Down"),
        (elastic, cut(bulk(two_bad)), "Failed"),
        (elastic, bulk(r#"{"bad":[{"n":1}]}"#), "Failed"),
        (elastic, bulk("{}"), "Failed"),
        (elastic, reply("200 OK", b"Welcome"), "Failed"),
        (elastic, reply("429 x\r\nretry-after: 7", b""), "Later(7s"),
        (elastic, reply("404 x", b""), "Refused"),
        (Form::Otlp, otlp(b""), "Done "),
        // Of three lines, one.
        (
            Form::Otlp,
            otlp(b"\x0a\x09\x08\x01\x12\x05stale"),
            "Poison(Evidence { summary: \"POST of lines 10-12",
        ),
        (Form::Otlp, otlp(b"\x0a\x07\x12\x05stale"), "Done "),
        (Form::Otlp, otlp(b"<html>"), "Failed"),
        (Form::Otlp, cut(otlp(b"\x0a\x09\x08\x01\x12\x05stale")), "Failed"),
        (Form::Otlp, bulk(r#"{"partialSuccess":{"rejectedLogRecords":"1"}}"#), "Failed"),
        (Form::Otlp, reply("503 x\r\nretry-after: 7", b""), "Later(7s"),
        (loki, reply("204 No Content", b""), "Done "),
        (loki, reply("400 Bad Request", b"entry too far behind"), "Poison"),
        (loki, reply("429 x", b"ingestion rate limit"), "Down"),
    ] {
        let shown = String::from_utf8_lossy(&reply).into_owned();
        let (url, served) = server(move |stream| answer_any(stream, &reply));
        let (mut http, _secret) = http_with(Endpoint { url: Url::new(url), form, ..Endpoint::default() });
        let outcome = timeout(PATIENCE, http.process(&batch())).await.expect("an outcome in time");
        let outcome = format!("{outcome:?} ");
        assert!(outcome.starts_with(expected), "{form:?} {shown}: {outcome}");
        served.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_no_json_are_rejected_and_not_sent() {
    let block = sample::block(10, &[b"{\"n\":1}", b"no", b"{\"n\":3}", b"[4]"]);
    let batch = |ranges: &[(u64, u64)]| {
        Batch::new(Arc::from("g"), 1, sample::pieces(&block, ranges, Piece::new)).unwrap()
    };
    let bulk = r#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":400,"error":{"type":"parsing_exception"}}}]}"#;
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{bulk}", bulk.len());
    let (url, served) = server(move |stream| answer(stream, reply.as_bytes()));
    let url = Url::new(url + "&token={key}");
    let (form, content) = (Form::Elasticsearch, Content::Json);
    let (mut http, _secret) = http_with(Endpoint { url, form, content, ..Endpoint::default() });
    let seqs = |outcome| match outcome {
        Outcome::DoneExcept(all) => all.iter().map(|rejected| rejected.seq.0).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    // The server rejects the second line that it gets.
    assert_eq!(seqs(http.process(&batch(&[(10, 13)])).await), [11, 12, 13]);
    let request = served.join().unwrap();
    let id = "g-1-0000000000000007-5-10-12";
    assert!(
        request.starts_with("POST /in?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow&key=hidden&token="),
        "{request}"
    );
    assert!(request.contains(&format!("&token={id} HTTP/1.1\r\n")), "{request}");
    let owner = "1-0000000000000007-5";
    let body = format!(
        "{{\"create\":{{\"_id\":\"{owner}-10\"}}}}\n{{\"n\":1}}\n{{\"create\":{{\"_id\":\"{owner}-12\"}}}}\n{{\"n\":3}}\n"
    );
    assert!(request.ends_with(&body), "{request}");
    // Nobody listens any more, and nothing is sent.
    assert_eq!(seqs(http.process(&batch(&[(11, 11), (13, 13)])).await), [11, 13]);
    assert!(matches!(http.process(&batch(&[(10, 11)])).await, Outcome::Down(_)), "nobody took it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_nothing_is_sent() {
    let (url, served) = server(|mut stream| stream.read(&mut [0]).unwrap());
    let (mut http, secret) = http(&url, None);
    for content in [Some(""), Some("two\nlines"), None] {
        match content {
            Some(content) => std::fs::write(secret.path(), content).unwrap(),
            None => std::fs::remove_file(secret.path()).unwrap(),
        }
        let outcome = http.process(&batch()).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{content:?}: {outcome:?}");
    }
    // This is the first connection.
    drop(TcpStream::connect(url.trim_start_matches("http://").split('/').next().unwrap()).unwrap());
    assert_eq!(served.join().unwrap(), 0);
}
