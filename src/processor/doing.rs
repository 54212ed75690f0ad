//! What a process that hangs is doing, as far as `/proc` shows it: its state, its system call, where in the kernel it
//! waits, and the addresses that it is connected to.
//!
//! Used when a batch is cut off. Details that cannot be read, because permission is missing or the process has ended, are left
//! out. At most [`TABLE_BYTES_MAX`] of a table of sockets and [`FDS_MAX`] descriptors are read. Only the main
//! thread is looked at.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::procs::Proc;

/// About 25,000 sockets.
const TABLE_BYTES_MAX: u64 = 4 << 20;
/// How many descriptors are read.
const FDS_MAX: usize = 1_024;
/// How many connections are named.
const PEERS_NAMED_MAX: usize = 4;

/// System calls that can block, by number.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, &str)] = &[
    (0, "read"),
    (1, "write"),
    (7, "poll"),
    (17, "pread64"),
    (18, "pwrite64"),
    (19, "readv"),
    (20, "writev"),
    (23, "select"),
    (34, "pause"),
    (35, "nanosleep"),
    (42, "connect"),
    (43, "accept"),
    (44, "sendto"),
    (45, "recvfrom"),
    (46, "sendmsg"),
    (47, "recvmsg"),
    (61, "wait4"),
    (72, "fcntl"),
    (73, "flock"),
    (74, "fsync"),
    (75, "fdatasync"),
    (128, "rt_sigtimedwait"),
    (130, "rt_sigsuspend"),
    (202, "futex"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (247, "waitid"),
    (257, "openat"),
    (270, "pselect6"),
    (271, "ppoll"),
    (281, "epoll_pwait"),
    (288, "accept4"),
    (426, "io_uring_enter"),
    (441, "epoll_pwait2"),
];
#[cfg(target_arch = "aarch64")]
const CALLS: &[(u32, &str)] = &[
    (22, "epoll_pwait"),
    (25, "fcntl"),
    (32, "flock"),
    (56, "openat"),
    (63, "read"),
    (64, "write"),
    (65, "readv"),
    (66, "writev"),
    (67, "pread64"),
    (68, "pwrite64"),
    (72, "pselect6"),
    (73, "ppoll"),
    (82, "fsync"),
    (83, "fdatasync"),
    (95, "waitid"),
    (98, "futex"),
    (101, "nanosleep"),
    (115, "clock_nanosleep"),
    (133, "rt_sigsuspend"),
    (137, "rt_sigtimedwait"),
    (202, "accept"),
    (203, "connect"),
    (206, "sendto"),
    (207, "recvfrom"),
    (211, "sendmsg"),
    (212, "recvmsg"),
    (242, "accept4"),
    (260, "wait4"),
    (426, "io_uring_enter"),
    (441, "epoll_pwait2"),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CALLS: &[(u32, &str)] = &[];

/// `S, in poll at do_poll, connected to 10.0.0.5:5432`.
pub(super) fn doing(proc: &Proc) -> String {
    let pid = proc.pid.as_raw_pid();
    let mut text = proc.state.to_string();
    if let Some(call) =
        fs::read_to_string(format!("/proc/{pid}/syscall")).ok().and_then(|syscall| call_in(&syscall))
    {
        text.push_str(&format!(", in {call}"));
        if let Some(place) = proc.waits_in() {
            text.push_str(&format!(" at {place}"));
        }
    } else if let Some(place) = proc.waits_in() {
        text.push_str(&format!(", in {place}"));
    }
    for peer in peers(pid) {
        text.push_str(&format!(", {peer}"));
    }
    text
}

/// The name of the system call, or its number; `None` if the process is in none.
fn call_in(text: &str) -> Option<String> {
    let number: u32 = text.split_ascii_whitespace().next()?.parse().ok()?;
    let name = CALLS.iter().find(|(known, _)| *known == number);
    Some(name.map_or_else(|| format!("system call {number}"), |(_, name)| (*name).to_owned()))
}

/// The addresses that it is connected to by TCP.
fn peers(pid: i32) -> Vec<String> {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inodes: BTreeSet<u64> = fds
        .take(FDS_MAX)
        .filter_map(|fd| {
            let link = fs::read_link(fd.ok()?.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut peers = Vec::new();
    for table in ["tcp", "tcp6"] {
        // In the network namespace of the process.
        let mut text = String::new();
        let read = File::open(format!("/proc/{pid}/net/{table}"))
            .and_then(|file| file.take(TABLE_BYTES_MAX).read_to_string(&mut text));
        if read.is_ok() {
            peers.extend(text.lines().filter_map(|line| peer_in(line, &inodes)));
        }
    }
    if let Some(more) = peers.len().checked_sub(PEERS_NAMED_MAX).filter(|more| *more > 0) {
        peers.truncate(PEERS_NAMED_MAX);
        peers.push(format!("and {more} more"));
    }
    peers
}

/// A line of `/proc/net/tcp`, as in proc(5): `sl local remote state queues timer retransmits uid timeout inode`.
fn peer_in(line: &str, inodes: &BTreeSet<u64>) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (remote, state) = (fields.get(2)?, fields.get(3)?);
    if !inodes.contains(&fields.get(9)?.parse().ok()?) {
        return None;
    }
    let remote = address(remote)?;
    match *state {
        "01" => Some(format!("connected to {remote}")),
        "02" => Some(format!("connecting to {remote}")),
        "08" => Some(format!("left by {remote}")),
        _ => None,
    }
}

/// An address in hexadecimal, its 32-bit words in the byte order of the host.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_if_it_is_known() {
        let sleep = CALLS.iter().find(|(_, name)| *name == "clock_nanosleep").unwrap().0;
        assert_eq!(call_in(&format!("{sleep} 0x1 0x0 0x7ffe\n")).unwrap(), "clock_nanosleep");
        assert_eq!(call_in("9999 0x1").unwrap(), "system call 9999");
        for none in ["running\n", "-1 0x7ffe 0x7f", "", "\n"] {
            assert_eq!(call_in(none), None, "{none:?}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_peer_is_found_by_the_inode_of_its_socket() {
        let line = |remote: &str, state: &str| {
            format!(
                "   0: 0100007F:9C40 {remote} {state} 00000000:00000000 00:00000000 00000000  0  0 77 1 0 20\n"
            )
        };
        let own = BTreeSet::from([77]);
        let found = |remote, state| peer_in(&line(remote, state), &own);
        assert_eq!(found("0500000A:1538", "01").unwrap(), "connected to 10.0.0.5:5432");
        assert_eq!(found("0500000A:1538", "02").unwrap(), "connecting to 10.0.0.5:5432");
        let v6 = "B80D0120000000000000000001000000:01BB";
        assert_eq!(found(v6, "08").unwrap(), "left by [2001:db8::1]:443");
        assert_eq!(
            found("0000000000000000FFFF00000500000A:1538", "01").unwrap(),
            "connected to 10.0.0.5:5432"
        );
        assert_eq!(found("00000000:0000", "0A"), None, "a socket that listens is not connected");
        assert_eq!(peer_in(&line("0500000A:1538", "01"), &BTreeSet::from([78])), None);
        for torn in ["", "0: a b", "sl local_address rem_address st", &line("05000:99999", "01")] {
            assert_eq!(peer_in(torn, &own), None, "{torn}");
        }
    }
}
