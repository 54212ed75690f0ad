//! Sizes and durations as people write them, in the configuration and on the command line.

use std::time::Duration;

use bytesize::ByteSize;

/// One kibibyte.
pub const KIB: u64 = 1024;
/// One mebibyte.
pub const MIB: u64 = 1024 * KIB;
/// One gibibyte.
pub const GIB: u64 = 1024 * MIB;

/// The bytes of `50GiB`, `1.5MiB`, `64kB` or `4096`; `None` if it is not a size.
///
/// KiB, MiB, GiB are powers of 1,024; kB, MB, GB powers of 1,000.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// The shortest exact form that [`parse_size`] reads back.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

/// The time of `200ms`, `30s` or `1h 30m`; `None` if it is not a duration.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// A form that [`parse_duration`] reads back.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_exactly() {
        for bytes in [0, 1, 1023, KIB, 4 * MIB, 50 * GIB, GIB + 1, 3 * KIB + 1] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes), "{bytes}");
        }
        assert_eq!(parse_size("64kB"), Some(64_000));
        assert_eq!(parse_size(" 1.5 MiB "), Some(MIB + MIB / 2));
        for invalid in ["", "12 parsecs", "-1", "MiB", "NaN", "1e3"] {
            assert_eq!(parse_size(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn durations_are_read_and_written_exactly() {
        for ms in [0, 1, 200, 30_000, 90_000, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&duration_text(duration)), Some(duration), "{ms}");
        }
        for invalid in ["", "5 parsecs", "5", "-1s"] {
            assert_eq!(parse_duration(invalid), None, "{invalid}");
        }
    }
}
