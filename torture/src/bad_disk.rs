//! A disk with bad sectors: an image file behind NBD, whose reads, writes or flushes fail on demand.
//!
//! qemu's `blkdebug` does the same, but its rules cannot be changed while it runs, and it reports hits late and at most once
//! a second. Here the rules are in this process. They change between two requests, and each hit is counted before its answer
//! is sent, so that a fault that was not hit is never taken for one that was survived.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::trouble::{During, Result};

/// The protocol's numbers, as its document calls them (NetworkBlockDevice/nbd, doc/proto.md).
const INIT: &[u8] = b"NBDMAGICIHAVEOPT";
const FIXED_NEWSTYLE_NO_ZEROES: u16 = 3;
const OPT_GO: u32 = 7;
const OPT_REPLY: u64 = 0x0003_e889_0455_65a9;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const HAS_FLAGS_SEND_FLUSH: u16 = 5;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const EIO: u32 = 5;
/// More than any client asks for at once.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request {
    Read,
    Write,
    Flush,
}

/// What is wrong with the disk.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which requests fail.
    pub request: Request,
    /// Where, in bytes; for a flush it does not matter.
    pub places: Vec<Range<u64>>,
    /// How often: a disk may have a bad moment.
    pub times: u64,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    hits: u64,
}

impl State {
    /// The first byte that a request does not get, if it fails.
    fn meets(&mut self, request: Request, asked: &Range<u64>) -> Option<u64> {
        let fault = self.fault.as_mut().filter(|fault| fault.request == request && fault.times > 0)?;
        let of = |place: &Range<u64>| {
            (place.start < asked.end && asked.start < place.end).then(|| place.start.max(asked.start))
        };
        let first = match request {
            Request::Flush => asked.start,
            _ => fault.places.iter().filter_map(of).min()?,
        };
        fault.times -= 1;
        self.hits += 1;
        Some(first)
    }
}

/// The disk; its server lives as long as its one client.
pub struct BadDisk {
    state: Arc<Mutex<State>>,
}

impl BadDisk {
    /// Serves `image` on a unix socket.
    pub fn serve(image: &Path, socket: &Path) -> Result<BadDisk> {
        let image = File::options().read(true).write(true).open(image).during("open the image")?;
        let listener = UnixListener::bind(socket).during("listen for the disk's client")?;
        let disk = BadDisk { state: Arc::default() };
        let state = Arc::clone(&disk.state);
        // A client that leaves ends it with an error, as it should; without it all I/O of the client fails.
        thread::spawn(move || {
            listener.accept().and_then(|(client, _)| Server { client, image, state }.run())
        });
        Ok(disk)
    }

    /// From now on this fails, and nothing else; hits are counted anew.
    pub fn fails(&self, fault: Fault) {
        *lock(&self.state) = State { fault: Some(fault), hits: 0 };
    }

    /// Nothing fails any more. Hits are kept.
    pub fn heal(&self) {
        lock(&self.state).fault = None;
    }

    /// Requests that have failed since [`BadDisk::fails`].
    pub fn hits(&self) -> u64 {
        lock(&self.state).hits
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Server {
    client: UnixStream,
    image: File,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        self.greet()?;
        loop {
            let _magic_and_flags = self.bytes::<6>()?;
            let kind = u16::from_be_bytes(self.bytes()?);
            let cookie = self.bytes::<8>()?;
            let at = u64::from_be_bytes(self.bytes()?);
            let len = u32::from_be_bytes(self.bytes()?);
            let mut data = vec![0; (len as usize).min(REQUEST_BYTES_MAX)];
            let asked = at..at + u64::from(len);
            let error = match kind {
                0 => {
                    self.meets(Request::Read, &asked).is_some()
                        || self.image.read_exact_at(&mut data, at).is_err()
                }
                1 => {
                    self.client.read_exact(&mut data)?;
                    let bad = self.meets(Request::Write, &asked);
                    // Bytes before the bad sector are written.
                    let good = bad.map_or(data.len(), |bad| (bad - at) as usize);
                    let written = self.image.write_all_at(data.get(..good).unwrap_or_default(), at);
                    bad.is_some() || written.is_err()
                }
                // The page cache below is as good as a disk here: no power fails.
                3 => self.meets(Request::Flush, &asked).is_some(),
                // A disconnect, or a request that was not offered.
                _ => return Ok(()),
            };
            let mut answer = SIMPLE_REPLY.to_be_bytes().to_vec();
            answer.extend(if error { EIO } else { 0 }.to_be_bytes());
            answer.extend(cookie);
            if kind == 0 && !error {
                answer.append(&mut data);
            }
            self.client.write_all(&answer)?;
        }
    }

    /// Offers the only disk, whatever name the client asks for.
    fn greet(&mut self) -> io::Result<()> {
        self.client.write_all(INIT)?;
        self.client.write_all(&FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes())?;
        let _flags = self.bytes::<4>()?;
        loop {
            let _magic = self.bytes::<8>()?;
            let option = u32::from_be_bytes(self.bytes()?);
            let len = u32::from_be_bytes(self.bytes()?);
            io::copy(&mut (&self.client).take(len.into()), &mut io::sink())?;
            if option != OPT_GO {
                self.option_reply(option, REP_ERR_UNSUP, &[])?;
                continue;
            }
            let mut info = vec![0, 0];
            info.extend(self.image.metadata()?.len().to_be_bytes());
            info.extend(HAS_FLAGS_SEND_FLUSH.to_be_bytes());
            self.option_reply(option, REP_INFO, &info)?;
            return self.option_reply(option, REP_ACK, &[]);
        }
    }

    fn option_reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = OPT_REPLY.to_be_bytes().to_vec();
        for word in [option, kind, data.len() as u32] {
            reply.extend(word.to_be_bytes());
        }
        reply.extend(data);
        self.client.write_all(&reply)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.client.read_exact(&mut bytes).map(|()| bytes)
    }

    fn meets(&self, request: Request, asked: &Range<u64>) -> Option<u64> {
        lock(&self.state).meets(request, asked)
    }
}
