//! Small records as bytes: bincode, framed by a version, a length and a CRC.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | version of this record type |
//! | 1 | 4 | length of the record |
//! | 5 | 4 | CRC32C of the record |
//! | 9 | | the record, bincode 2 standard configuration |
//!
//! Each type of record has a version ([`Versioned`]), so that its layout can change while the others stay. Line bytes are
//! not encoded here. Decoding allocates at most [`RECORD_BYTES_MAX`], and for an older version twice that.

use bincode::{Decode, Encode};
use bytes::BufMut;

use crate::bytes_le::Get;

const FRAME_BYTES: usize = 9;
/// The largest record is a manifest with 50,000 sources of a kilobyte each.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

fn config() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<RECORD_BYTES_MAX>,
> {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// A type of record: its name, and which layouts of it there are.
pub(crate) trait Versioned: Sized {
    /// What an error calls it.
    const NAME: &'static str;
    /// The version that is written.
    const VERSION: u8;
    /// The oldest version that is read.
    const OLDEST: u8 = Self::VERSION;

    /// Decodes a body of `version`, which is at least [`Versioned::OLDEST`] and older than [`Versioned::VERSION`].
    ///
    /// # Errors
    /// What does not match.
    fn decode_older(version: u8, _body: &[u8]) -> Result<Self, String> {
        Err(unknown::<Self>(version))
    }
}

fn unknown<T: Versioned>(version: u8) -> String {
    let reads = match (T::OLDEST, T::VERSION) {
        (oldest, newest) if oldest == newest => format!("version {newest}"),
        (oldest, newest) => format!("versions {oldest} to {newest}"),
    };
    format!("{} has record version {version}, this program reads {reads}", T::NAME)
}

/// The framed record.
///
/// # Errors
/// If the record is larger than a reader takes.
pub(crate) fn encode<T: Versioned + Encode>(record: &T) -> Result<Vec<u8>, String> {
    let body = bincode::encode_to_vec(record, config())
        .map_err(|error| format!("{} does not encode: {error}", T::NAME))?;
    if body.len() > RECORD_BYTES_MAX {
        return Err(format!("{} of {} bytes, at most {RECORD_BYTES_MAX} are read back", T::NAME, body.len()));
    }
    let mut out = Vec::with_capacity(FRAME_BYTES + body.len());
    out.put_u8(T::VERSION);
    out.put_u32_le(body.len() as u32);
    out.put_u32_le(crc32c::crc32c(&body));
    out.extend_from_slice(&body);
    Ok(out)
}

/// Decodes the framed record at the start of `bytes`; also returns what follows it.
///
/// # Errors
/// What does not match.
pub(crate) fn decode<T: Versioned + Decode<()>>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    let (frame, rest) = bytes
        .split_at_checked(FRAME_BYTES)
        .ok_or_else(|| format!("{} bytes where {} needs {FRAME_BYTES}", bytes.len(), T::NAME))?;
    let mut get = Get::new(frame);
    let (version, len, crc) = (get.u8(), get.u32() as usize, get.u32());
    if !(T::OLDEST..=T::VERSION).contains(&version) {
        return Err(unknown::<T>(version));
    }
    let (body, rest) = rest
        .split_at_checked(len)
        .ok_or_else(|| format!("{} bytes where {} has {len}", rest.len(), T::NAME))?;
    let found = crc32c::crc32c(body);
    if found != crc {
        return Err(format!("{}: checksum {found:#010x} does not match {crc:#010x}", T::NAME));
    }
    let record = if version == T::VERSION { decode_body(body) } else { T::decode_older(version, body) };
    Ok((record.map_err(|what| format!("{}: {what}", T::NAME))?, rest))
}

/// Decodes the body of a record, which must be all of `body`.
///
/// # Errors
/// What does not match.
pub(crate) fn decode_body<T: Decode<()>>(body: &[u8]) -> Result<T, String> {
    let (record, used) =
        bincode::decode_from_slice(body, config()).map_err(|error| format!("does not decode: {error}"))?;
    if used != body.len() {
        return Err(format!("{} bytes behind a record of {used}", body.len() - used));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record whose first version had only a number.
    type Pair = (u64, String);

    impl Versioned for Pair {
        const NAME: &'static str = "a pair";
        const VERSION: u8 = 3;
        const OLDEST: u8 = 2;

        fn decode_older(_: u8, body: &[u8]) -> Result<Pair, String> {
            decode_body::<u64>(body).map(|number| (number, "older".to_owned()))
        }
    }

    /// A record that never had another version.
    impl Versioned for u16 {
        const NAME: &'static str = "a number";
        const VERSION: u8 = 1;
    }

    fn seven() -> Vec<u8> {
        encode(&(7u64, "seven".to_owned())).unwrap()
    }

    fn framed(version: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![version];
        out.put_u32_le(body.len() as u32);
        out.put_u32_le(crc32c::crc32c(body));
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_record_is_decoded_and_what_follows_it_is_returned() {
        let out = [seven(), b"blocks".to_vec()].concat();
        assert_eq!(out[0], 3);
        assert_eq!(decode::<Pair>(&out).unwrap(), ((7, "seven".to_owned()), &b"blocks"[..]));
    }

    #[test]
    fn an_older_version_is_converted_and_an_unknown_one_named_with_the_type_of_the_record() {
        assert_eq!(decode::<Pair>(&framed(2, &[7])).unwrap(), ((7, "older".to_owned()), &[][..]));
        assert_eq!(decode::<Pair>(&framed(2, &[7, 7])).unwrap_err(), "a pair: 1 bytes behind a record of 1");
        for version in [0, 1, 4, 255] {
            let expected = format!("a pair has record version {version}, this program reads versions 2 to 3");
            assert_eq!(decode::<Pair>(&framed(version, &[7])).unwrap_err(), expected);
        }
        let two = decode::<u16>(&framed(2, &[7])).unwrap_err();
        assert_eq!(two, "a number has record version 2, this program reads version 1");
        assert_eq!(decode::<u16>(&framed(1, &[7])).unwrap(), (7, &[][..]));
    }

    #[test]
    fn flips_cuts_and_trailing_bytes_are_refused() {
        let out = seven();
        // The checksum does not cover the version: a flip can make it one that is read, which then does not match.
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Pair>(&bad).is_err(), "bit {bit}");
        }
        for len in 0..out.len() {
            assert!(decode::<Pair>(&out[..len]).is_err(), "{len} bytes");
        }
        assert!(decode::<Pair>(&framed(3, &[7, 0, 1])).unwrap_err().contains("behind a record"));
    }
}
