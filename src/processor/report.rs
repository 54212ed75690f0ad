//! The shim's report to the service: one short line, which distinguishes an exit status of 137 from a SIGKILL.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The longest report that is read.
pub(super) const REPORT_BYTES_MAX: u64 = 4 * 1024;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The command has ended, and none of its processes is alive.
    Ended {
        /// As wait(2) returns it.
        status: i32,
        /// How many processes it had left behind, which were sent a signal to end.
        left_behind: usize,
    },
    /// The shim could not run the command.
    Broken(String),
}

impl Report {
    /// Writes it.
    pub(super) fn send(&self, mut to: impl Write) -> io::Result<()> {
        let line = match self {
            Report::Ended { status, left_behind } => format!("ended {status} {left_behind}\n"),
            Report::Broken(why) => format!("broken {}\n", why.replace('\n', " ")),
        };
        to.write_all(line.as_bytes())
    }

    /// Parses it; `None` if it is missing or incomplete.
    pub(super) fn parse(text: &[u8]) -> Option<Report> {
        let line = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let (word, rest) = line.split_once(' ')?;
        match word {
            "ended" => {
                let (status, left_behind) = rest.split_once(' ')?;
                Some(Report::Ended { status: status.parse().ok()?, left_behind: left_behind.parse().ok()? })
            }
            "broken" => Some(Report::Broken(rest.to_owned())),
            _ => None,
        }
    }
}

/// `ended with exit status 3`, `was killed by signal 9 (SIGKILL)`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        (None, None) => format!("ended in an unknown way, status {}", status.into_raw()),
    }
}

/// The names of the signals that end programs in practice. The numbers are those of x86-64 and arm64.
pub(super) fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_read() {
        for report in
            [Report::Ended { status: 137 << 8, left_behind: 2 }, Report::Broken("no memory".to_owned())]
        {
            let mut sent = Vec::new();
            report.send(&mut sent).unwrap();
            assert_eq!(Report::parse(&sent), Some(report));
            for len in 0..sent.len() {
                assert_eq!(Report::parse(&sent[..len]), None, "part of a report is not a report");
            }
        }
    }

    #[test]
    fn a_status_and_a_signal_are_described_differently() {
        assert_eq!(describe(ExitStatus::from_raw(137 << 8)), "ended with exit status 137");
        assert_eq!(describe(ExitStatus::from_raw(9)), "was killed by signal 9 (SIGKILL)");
    }
}
