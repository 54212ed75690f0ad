//! A client of HTTP for tests: one connection that is kept, and sees every header.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::PATIENCE;

trait Duplex: Read + Write + Send {}

impl<S: Read + Write + Send> Duplex for S {}

/// A connection.
pub struct Web {
    stream: BufReader<Box<dyn Duplex>>,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Web {
    pub fn unix(path: &Path) -> Web {
        Web::if_open(path).unwrap()
    }

    /// `None` if nobody listens.
    pub fn if_open(path: &Path) -> Option<Web> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Web {
            stream: BufReader::new(Box::new(stream)),
            headers: vec![("host".into(), "spillq".into())],
        })
    }

    pub fn tcp(port: u16) -> Web {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Web { stream: BufReader::new(Box::new(stream)), headers: vec![("host".into(), "127.0.0.1".into())] }
    }

    /// Sends this header with each request.
    pub fn with(mut self, name: &str, value: &str) -> Web {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").unwrap()
    }

    pub fn post(&mut self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[], body).unwrap()
    }

    /// `None` if the connection ends before the answer does.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        self.send(method, path, headers, body).ok()?;
        self.answer()
    }

    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(headers.iter().copied()) {
            head += &format!("{name}: {value}\r\n");
        }
        self.stream.get_mut().write_all(format!("{head}\r\n{body}").as_bytes())
    }

    /// The status of the next answer, of which the rest stays unread.
    pub fn status(&mut self) -> Option<u16> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        line.split(' ').nth(1)?.parse().ok()
    }

    pub fn answer(&mut self) -> Option<Answer> {
        let mut line = || {
            let mut line = String::new();
            let read = self.stream.read_line(&mut line).ok()?;
            (read > 0).then(|| line.trim_end().to_owned())
        };
        let status = line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        answer.body = vec![0; answer.header("content-length").parse().unwrap_or(0)];
        self.stream.read_exact(&mut answer.body).ok()?;
        Some(answer)
    }
}

impl Answer {
    /// Empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The seqs of the objects in it.
    #[track_caller]
    pub fn seqs(&self) -> Vec<u64> {
        let objects = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        objects.map(|line| serde_json::from_slice::<Value>(line).unwrap()["seq"].as_u64().unwrap()).collect()
    }
}
