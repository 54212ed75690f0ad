//! What a command starts with: its standard input, and the variables of its batch. One message over a socket, from the
//! service to the shim and from there to the process that becomes the command, so that both can wait for it.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Of all variables together: numbers, and the name of a group.
const VARIABLES_BYTES_MAX: u32 = 16 * 1024;

/// The message.
#[derive(Debug)]
pub(super) struct Start {
    stdin: OwnedFd,
    /// `NAME=value`, each with a zero byte behind it.
    variables: Vec<u8>,
}

impl Start {
    pub(super) fn new(stdin: OwnedFd, variables: &[(&str, String)]) -> Start {
        let variables = variables.iter().map(|(name, value)| format!("{name}={value}\0"));
        Start { stdin, variables: variables.collect::<String>().into_bytes() }
    }

    /// Sends it, at once and whole: it fits into the buffer of a socket.
    pub(super) fn send(&self, to: impl AsFd) -> io::Result<()> {
        let fds = [self.stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("a descriptor does not fit into a message"));
        }
        let len = u32::try_from(self.variables.len()).ok().filter(|len| *len <= VARIABLES_BYTES_MAX);
        let len =
            len.ok_or_else(|| io::Error::other("the variables of a command are too long"))?.to_ne_bytes();
        let parts = [IoSlice::new(&len), IoSlice::new(&self.variables)];
        sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for it.
    pub(super) fn receive(mut from: &UnixStream) -> io::Result<Start> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut len = [0; 4];
        let received =
            recvmsg(from, &mut [IoSliceMut::new(&mut len)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let stdin = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(stdin) = stdin.filter(|_| received.bytes == len.len()) else {
            return Err(io::Error::other("the service ended before it sent the batch"));
        };
        let mut variables = vec![0; u32::from_ne_bytes(len).min(VARIABLES_BYTES_MAX) as usize];
        from.read_exact(&mut variables)?;
        Ok(Start { stdin, variables })
    }

    /// The standard input, and the variables.
    pub(super) fn into_parts(self) -> (OwnedFd, Vec<(OsString, OsString)>) {
        let entries = self.variables.split(|byte| *byte == 0);
        let named = entries.filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (entry.get(..at)?, entry.get(at + 1..)?);
            Some((OsStr::from_bytes(name).to_owned(), OsString::from_vec(value.to_owned())))
        });
        let variables = named.collect();
        (self.stdin, variables)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptor_and_a_closed_socket_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stdin = || OwnedFd::from(File::open("/proc/self/comm").unwrap());
        let variables = [("A", "1 = 2".to_owned()), ("B", String::new())];
        Start::new(stdin(), &variables).send(&ours).unwrap();
        let (received, named) = Start::receive(&theirs).unwrap().into_parts();
        assert!(!io::read_to_string(File::from(received)).unwrap().is_empty());
        let expected = [("A", "1 = 2"), ("B", "")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(named, expected);
        let long = [("A", "x".repeat(VARIABLES_BYTES_MAX as usize))];
        assert!(Start::new(stdin(), &long).send(&ours).is_err());
        drop(ours);
        let closed = Start::receive(&theirs).unwrap_err().to_string();
        assert_eq!(closed, "the service ended before it sent the batch");
    }
}
