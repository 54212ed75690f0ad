//! Hostile clients: malformed requests to the socket and to an address of TCP, and to those of consumers; and clients that send their request so
//! slowly that it never ends. The service never answers 5xx, or hangs up; it always serves the next client, changes nothing,
//! and releases memory and descriptors.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::campaign::{Setup, Tally};
use crate::consumers;
use crate::request::{End, Request};
use crate::service::{PATIENCE, Service, wait_for};
use crate::trouble::{During, Result, Trouble};
use crate::words::counted;

/// Slow clients: one for this many malformed requests, in batches larger than the number of connections of the socket.
const ONE_SLOW_IN: u64 = 20;
const SLOW_BATCH: u64 = 96;
/// Malformed requests between two that are sound, which must be answered.
const SOUND_ONE_IN: u64 = 100;
/// Longer than the head of a request may be.
const LARGE_BYTES: usize = 40_000;
/// Descriptors that may be open at the end and were not before: a connection that is ending, a temporary file.
const DESCRIPTORS_MORE: u64 = 4;

/// A client of either listener.
enum Client {
    Socket(UnixStream),
    Address(TcpStream),
}

/// Runs the campaign: every malformed or slow request is a case.
pub fn run(setup: &Setup, tally: &mut Tally) {
    let name = format!("http-{}", setup.seed);
    match setup.folder(&name).and_then(|folder| Ok((one(setup, &folder)?, folder))) {
        Ok(((said, cases), folder)) => {
            println!("seed {}, {said}", setup.seed);
            tally.pass(cases);
            // Nothing is left to inspect.
            let _ = fs::remove_dir_all(folder);
        }
        Err(trouble) => {
            let repeat = format!("http --count {} --seed {}", setup.count, setup.seed);
            tally.fail(&trouble, &setup.work.join(name), &repeat);
        }
    }
}

fn one(setup: &Setup, folder: &Path) -> Result<(String, u64)> {
    let mut rng = fastrand::Rng::with_seed(setup.seed);
    let config = folder.join("spillq.toml");
    let log = folder.join("app.log");
    fs::write(&log, "one\ntwo\n").during("write a followed file")?;
    let text = format!(
        "[[follow]]\ninclude = [{:?}]\n[[group]]\nname = \"default\"\n[http]\n\
         listen = [\"unix\", \"127.0.0.1:0\"]\n{}",
        log.display().to_string(),
        consumers::SECTIONS
    );
    fs::write(folder.join("first.token"), consumers::TOKEN).during("write a token")?;
    fs::write(folder.join("second.token"), consumers::FOREIGN).during("write a token")?;
    fs::write(&config, text).during("write the configuration")?;
    let data_dir = folder.join("q");
    let mut command = setup.program.command(&["run", "--config"]);
    command.arg(&config).arg("--data-dir").arg(&data_dir);
    let messages = folder.join("messages");
    let mut service = Service::start(command, &data_dir, &messages)?;
    let address = wait_for(|| {
        let printed = fs::read_to_string(&messages).ok()?;
        let (address, _) = printed.split_once("/v1/doctor on http://")?.1.split_once('\n')?;
        Some(address.trim().to_owned())
    });
    let address = address.ok_or_else(|| Trouble::new("it does not print its address"))?;
    let of_consumers = wait_for(|| {
        let printed = fs::read_to_string(&messages).ok()?;
        let (address, _) = printed.split_once("serving consumers on http://")?.1.split_once('\n')?;
        Some(address.trim().to_owned())
    });
    let of_consumers =
        of_consumers.ok_or_else(|| Trouble::new("it does not print the address of consumers"))?;
    service.wait("both lines are ingested", |status| status.log.next_seq == 3)?;
    let connect = |is_socket: bool| match is_socket {
        true => socket(&data_dir).map(Client::Socket),
        false => TcpStream::connect(&address).map(Client::Address),
    };
    for is_socket in [true, false, true, false] {
        sound(connect(is_socket).during("connect")?)?;
    }
    let consume = |is_socket: bool| match is_socket {
        true => UnixStream::connect(folder.join("c.sock")).map(Client::Socket),
        false => TcpStream::connect(&of_consumers).map(Client::Address),
    };
    for is_socket in [true, false] {
        sound_consumer(consume(is_socket).during("connect as a consumer")?)?;
    }
    let before = (service.descriptors(), service.wait("it answers", |_| true)?.log.commits);

    let mut statuses = std::collections::BTreeMap::<u16, u64>::new();
    for nth in 0..setup.count {
        let is_socket = rng.bool();
        let request = malformed(&mut rng);
        let said = connect(is_socket).during("connect")?.ask(&request);
        let told = |what: String| Trouble::new(format!("request {nth}, {}: {what}", request.kind));
        let status = said.map_err(|error| told(error.to_string()))?;
        *statuses.entry(status.unwrap_or_default()).or_default() += 1;
        if status.is_some_and(|status| status >= 500) {
            return Err(told(format!("was answered {status:?}")));
        }
        let request = consumers::malformed(&mut rng);
        let said = consume(is_socket).during("connect as a consumer")?.ask(&request);
        let told =
            |what: String| Trouble::new(format!("request {nth} of a consumer, {}: {what}", request.kind));
        let status = said.map_err(|error| told(error.to_string()))?;
        *statuses.entry(status.unwrap_or_default()).or_default() += 1;
        if status.is_some_and(|status| !(400..500).contains(&status)) {
            return Err(told(format!(
                "was answered {status:?}: {}",
                String::from_utf8_lossy(&request.bytes)
            )));
        }
        if nth % SOUND_ONE_IN == 0 {
            sound(connect(!is_socket).during("connect")?)?;
            sound_consumer(consume(!is_socket).during("connect as a consumer")?)?;
        }
    }
    let slow = slow(setup.count / ONE_SLOW_IN, &mut rng, &connect)?;
    for is_socket in [true, false] {
        sound_consumer(consume(is_socket).during("connect as a consumer")?)?;
    }

    let status = service.wait("it answers afterwards", |_| true)?;
    if status.log.commits != before.1 || status.log.next_seq != 3 {
        return Err(Trouble::new(format!("something changed: {} commits, {:?}", before.1, status.log)));
    }
    let most = before.0.unwrap_or_default() + DESCRIPTORS_MORE;
    let back = wait_for(|| service.descriptors().filter(|open| *open <= most));
    let open = back
        .ok_or_else(|| Trouble::new(format!("I8 {:?} descriptors, {most} at most", service.descriptors())))?;
    let memory = service.proc_kib("VmHWM").ok_or_else(|| Trouble::new("no memory in /proc"))? / 1_024;
    if memory > setup.program.memory_mib {
        return Err(Trouble::new(format!("I8 {memory} MiB resident, {} may be", setup.program.memory_mib)));
    }
    match service.stop()? {
        0 => {}
        code => return Err(Trouble::new(format!("it stopped with status {code}"))),
    }
    let statuses: Vec<String> = statuses.iter().map(|(status, times)| format!("{status}: {times}")).collect();
    let said = format!(
        "{} (status: times {}; 0 means no answer), {}, {memory} MiB, {}",
        counted(2 * setup.count, "malformed request"),
        statuses.join(", "),
        counted(slow, "slow one"),
        counted(open, "descriptor")
    );
    Ok((said, 2 * setup.count + slow))
}

/// Clients that begin a request and never end it: each is cut off, while others are answered.
fn slow(
    count: u64,
    rng: &mut fastrand::Rng,
    connect: &dyn Fn(bool) -> std::io::Result<Client>,
) -> Result<u64> {
    let mut done = 0;
    while done < count {
        let batch = SLOW_BATCH.min(count - done);
        let mut clients = Vec::new();
        for nth in 0..batch {
            // An address has few places, and those who wait in front of it wait for each other.
            let mut client = connect(nth % 12 > 0).during("connect slowly")?;
            let head = b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\nx: y";
            let begun = head.get(..rng.usize(..head.len())).unwrap_or_default();
            // One that is cut off already has nothing more to say.
            let _ = client.write(begun);
            clients.push(client);
        }
        // After all of them, on both listeners.
        sound(connect(true).during("connect")?)?;
        sound(connect(false).during("connect")?)?;
        for client in &mut clients {
            let status = client.read().during("a slow client waits to be cut off")?;
            if status.is_some_and(|status| status == 200 || status >= 500) {
                return Err(Trouble::new(format!("half a request was answered {status:?}")));
            }
        }
        done += batch;
    }
    Ok(done)
}

fn sound(mut client: Client) -> Result<()> {
    let bytes = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec();
    let status = client.ask(&Request { kind: "sound", bytes, end: End::Waits }).during("a sound request")?;
    if status == Some(200) { Ok(()) } else { Err(Trouble::new(format!("a sound request got {status:?}"))) }
}

fn sound_consumer(mut client: Client) -> Result<()> {
    match client.ask(&consumers::sound()).during("a sound request of a consumer")? {
        Some(200) => Ok(()),
        status => Err(Trouble::new(format!("a sound request of a consumer got {status:?}"))),
    }
}

/// However long its path.
fn socket(data_dir: &Path) -> std::io::Result<UnixStream> {
    let folder = File::open(data_dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/spillq.sock", folder.as_raw_fd()))
}

fn malformed(rng: &mut fastrand::Rng) -> Request {
    let noise = |rng: &mut fastrand::Rng, len: usize| -> Vec<u8> { (0..len).map(|_| rng.u8(..)).collect() };
    let path = [
        "/healthz",
        "/metrics",
        "/v1/status",
        "/v1/doctor",
        "/v1/lines",
        "/v1/line",
        "/v1/admin",
        "/v1/reload",
    ][rng.usize(..8)];
    let get = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
    let post = "POST /v1/admin HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let (kind, bytes, end) = match rng.u8(..18) {
        0 => {
            let len = rng.usize(1..600);
            ("noise", noise(rng, len), End::Half)
        }
        1 => ("no version", format!("GET {path}\r\n\r\n").into_bytes(), End::Half),
        2 => (
            "a version to come",
            format!("GET {path} HTTP/9.9\r\nhost: localhost\r\n\r\n").into_bytes(),
            End::Half,
        ),
        3 => ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), End::Half),
        4 => (
            "a long path",
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(LARGE_BYTES)).into_bytes(),
            End::Half,
        ),
        5 => {
            ("a long header", format!("{get}x: {}\r\n\r\n", "x".repeat(LARGE_BYTES)).into_bytes(), End::Half)
        }
        6 => {
            let many: String = (0..200).map(|nth| format!("x{nth}: y\r\n")).collect();
            ("many headers", format!("{get}{many}\r\n").into_bytes(), End::Half)
        }
        7 => (
            "a body that never comes",
            format!("{post}content-length: 99999\r\n\r\n{{").into_bytes(),
            End::Half,
        ),
        8 => {
            ("a length that is none", format!("{post}content-length: -1\r\n\r\n{{}}").into_bytes(), End::Half)
        }
        9 => {
            let lengths = "content-length: 2\r\ncontent-length: 3\r\n";
            ("two lengths", format!("{post}{lengths}\r\n{{}}").into_bytes(), End::Half)
        }
        10 => {
            let both = "content-length: 2\r\ntransfer-encoding: chunked\r\n";
            ("a length and chunks", format!("{post}{both}\r\n0\r\n\r\n{{}}").into_bytes(), End::Half)
        }
        11 => {
            let chunks = "transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\nzz\r\n";
            ("chunks that are none", format!("{post}{chunks}").into_bytes(), End::Half)
        }
        12 => {
            let len = rng.usize(..400);
            let body = noise(rng, len);
            let head = format!("{post}content-length: {}\r\n\r\n", body.len());
            ("a body that is not JSON", [head.into_bytes(), body].concat(), End::Waits)
        }
        13 => ("several at once", format!("{get}\r\n").repeat(5).into_bytes(), End::Waits),
        14 => (
            "another host",
            format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n").into_bytes(),
            End::Waits,
        ),
        15 => {
            let at = rng.usize(..get.len());
            let mut bytes = format!("{get}\r\n").into_bytes();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.u8(..);
            }
            ("one byte another", bytes, End::Half)
        }
        16 => {
            let len = rng.usize(..get.len());
            ("half of it", get.as_bytes().get(..len).unwrap_or_default().to_vec(), End::Gone)
        }
        _ => ("gone before the answer", format!("{get}\r\n").into_bytes(), End::Gone),
    };
    Request { kind, bytes, end }
}

impl Client {
    /// The status of the answer; `None` where there is none.
    fn ask(&mut self, request: &Request) -> std::io::Result<Option<u16>> {
        match self.write(&request.bytes) {
            // What is malformed may be refused before all of it was said.
            Err(error) if request.end == End::Waits => return Err(error),
            _ => {}
        }
        match request.end {
            End::Gone => return Ok(None),
            // Where the service has hung up there is nothing to be said.
            End::Half => drop(match self {
                Client::Socket(stream) => stream.shutdown(Shutdown::Write),
                Client::Address(stream) => stream.shutdown(Shutdown::Write),
            }),
            End::Waits => {}
        }
        let status = self.read()?;
        match (status, request.end) {
            (None, End::Waits) => Err(std::io::Error::other("a whole request got no answer")),
            _ => Ok(status),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Client::Socket(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(bytes)
            }
            Client::Address(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(bytes)
            }
        }
    }

    /// All that comes until the other side hangs up, of which the status counts. A reset is as good as an end.
    fn read(&mut self) -> std::io::Result<Option<u16>> {
        let wait: Option<Duration> = Some(PATIENCE);
        let mut answer = Vec::new();
        let read = match self {
            Client::Socket(stream) => {
                stream.set_read_timeout(wait).and_then(|()| stream.read_to_end(&mut answer))
            }
            Client::Address(stream) => {
                stream.set_read_timeout(wait).and_then(|()| stream.read_to_end(&mut answer))
            }
        };
        match read {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            Err(error) => return Err(error),
        }
        if answer.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&answer);
        let status =
            text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        match status {
            Some(status) => Ok(Some(status)),
            None => Err(std::io::Error::other(format!("an answer that is none: {text:.80}"))),
        }
    }
}
