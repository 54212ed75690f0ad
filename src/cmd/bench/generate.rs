//! `spillq bench generate`: lines to measure with, at the speed of memory.
//!
//! Each is a JSON record of a trade, 350 bytes with its newline, with random hexadecimal fields of 40 and 64
//! digits. `zstd -1` makes 3.3 to 4.2 times less of them: figures on more repetitive lines would flatter.
//! Numbers are filled into a template in place; nothing is formatted or allocated per line.

use std::io::{self, Write};

use super::super::output::wrote;
use super::super::{Exit, Failure};
use crate::cli::BenchGenerateArgs;
use crate::plain::{counted, size};

/// The bytes of a line, newline included.
pub(super) const LINE_BYTES: usize = 350;
/// Lines that are written at once: about 256 KiB.
const LINES_PER_WRITE: u64 = 749;

/// `?` stands for a random digit, `#` for a random hexadecimal one, `~` for a digit of a rising number.
const TEMPLATE: &[u8; LINE_BYTES] =
    b"{\"coin\":\"BTC\",\"px\":\"12????.??\",\"sz\":\"0.0????\",\"side\":\"B\",\
\"time\":~~~~~~~~~~~~~,\"startPos\":\"-??.?????\",\"dir\":\"Open Long\",\"pnl\":\"0.00\",\
\"hash\":\"0x################################################################\",\"oid\":19??????????,\
\"crossed\":true,\"fee\":\"0.??????\",\"tid\":5????????????,\
\"user\":\"0x########################################\",\"feeToken\":\"USDC\"}\n";

const COINS: [&[u8; 3]; 8] = [b"BTC", b"ETH", b"SOL", b"XRP", b"BNB", b"ARB", b"SUI", b"TIA"];
/// Milliseconds since 1970 of the first record: 2025-10-07 15:00 UTC.
const FIRST_TIME_MS: u64 = 1_759_849_200_000;

/// Runs `spillq bench generate`.
///
/// # Errors
/// Why standard output could not be written to.
pub(super) fn run(args: &BenchGenerateArgs) -> Result<Exit, Failure> {
    let exit = wrote(write_lines(&mut io::stdout().lock(), args.lines, args.seed))?;
    eprintln!(
        "{} of {LINE_BYTES} bytes, {} in all; zstd -1 makes about 3.7 times less of them",
        counted(args.lines, "line"),
        size(args.lines.saturating_mul(LINE_BYTES as u64))
    );
    Ok(exit)
}

fn write_lines(out: &mut impl Write, lines: u64, seed: u64) -> io::Result<()> {
    let mut records = Records::new(seed);
    let mut buffer = Vec::with_capacity(LINES_PER_WRITE as usize * LINE_BYTES);
    let mut left = lines;
    while left > 0 {
        let now = left.min(LINES_PER_WRITE);
        buffer.clear();
        for _ in 0..now {
            buffer.extend_from_slice(records.next_line());
        }
        out.write_all(&buffer)?;
        left -= now;
    }
    out.flush()
}

/// An endless run of records, the same for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Records {
    line: [u8; LINE_BYTES],
    /// Where the template has `?`, `#` and `~`, and the fields that are picked from a few words.
    digits: Vec<usize>,
    hex: Vec<usize>,
    time: Vec<usize>,
    coin: usize,
    side: usize,
    time_ms: u64,
    random: fastrand::Rng,
}

impl Records {
    /// Records from `seed`.
    pub(super) fn new(seed: u64) -> Records {
        let at = |mark: u8| -> Vec<usize> { memchr::memchr_iter(mark, TEMPLATE).collect() };
        let field = |name: &str| memchr::memmem::find(TEMPLATE, name.as_bytes()).unwrap_or(0) + name.len();
        Records {
            line: *TEMPLATE,
            digits: at(b'?'),
            hex: at(b'#'),
            time: at(b'~'),
            coin: field("\"coin\":\""),
            side: field("\"side\":\""),
            time_ms: FIRST_TIME_MS,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The next line.
    pub(super) fn next_line(&mut self) -> &[u8; LINE_BYTES] {
        for places in self.hex.chunks(16) {
            let mut random = self.random.u64(..);
            for &place in places {
                self.line[place] = b"0123456789abcdef"[(random & 15) as usize];
                random >>= 4;
            }
        }
        for places in self.digits.chunks(4) {
            let mut random = self.random.u64(..);
            for &place in places {
                self.line[place] = b'0' + (((random & 0xffff) * 10) >> 16) as u8;
                random >>= 16;
            }
        }
        let random = self.random.u64(..);
        let coin = COINS[(random & 7) as usize];
        self.line[self.coin..self.coin + coin.len()].copy_from_slice(coin);
        self.line[self.side] = b'A' + (random >> 3 & 1) as u8;
        self.time_ms += random >> 4 & 3;
        let mut time = self.time_ms;
        for &place in self.time.iter().rev() {
            self.line[place] = b'0' + (time % 10) as u8;
            time /= 10;
        }
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(lines: u64, seed: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_lines(&mut out, lines, seed).unwrap();
        out
    }

    #[test]
    fn every_line_is_json_of_350_bytes() {
        let out = generated(2_000, 1);
        let mut lines = 0;
        let mut last_time = 0;
        for line in out.split_inclusive(|&byte| byte == b'\n') {
            assert_eq!(line.len(), LINE_BYTES);
            let record: serde_json::Value = serde_json::from_slice(line).unwrap();
            let hex = |field: &str| record[field].as_str().unwrap()[2..].len();
            assert_eq!((hex("hash"), hex("user")), (64, 40));
            let time = record["time"].as_u64().unwrap();
            assert!(time >= last_time);
            last_time = time;
            lines += 1;
        }
        assert_eq!(lines, 2_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_lines() {
        assert_eq!(generated(1_000, 7), generated(1_000, 7));
        assert_ne!(generated(1_000, 7), generated(1_000, 8));
    }

    #[test]
    fn zstd_makes_3_3_to_4_2_times_less_of_a_mebibyte() {
        for seed in 0..3 {
            let out = generated((1 << 20) / LINE_BYTES as u64, seed);
            for size in [1 << 20, 256 * 1024] {
                let piece = &out[..out.len().min(size)];
                let stored = zstd::bulk::compress(piece, 1).unwrap();
                let ratio = piece.len() as f64 / stored.len() as f64;
                println!("{ratio:.2}");
                assert!((3.3..=4.2).contains(&ratio), "{ratio:.2} with seed {seed}");
            }
        }
    }
}
