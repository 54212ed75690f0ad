//! The one place where small records become bytes: bincode, framed by a version, a length and a CRC.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 4 | length of the record |
//! | 5 | 4 | CRC32C of the record |
//! | 9 | | the record, bincode 2 standard configuration |
//!
//! Line bytes never pass through here. Decoding allocates at most [`RECORD_BYTES_MAX`].

use bincode::{Decode, Encode};

use crate::bytes_le::{Get, Put};

const VERSION: u8 = 1;
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

/// Appends the framed record to `out`.
///
/// # Errors
/// When the record is larger than a reader would take.
pub(crate) fn encode<T: Encode>(record: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let body = bincode::encode_to_vec(record, config())
        .map_err(|error| format!("record does not encode: {error}"))?;
    if body.len() > RECORD_BYTES_MAX {
        return Err(format!("record of {} bytes, at most {RECORD_BYTES_MAX} are read back", body.len()));
    }
    out.put_u8(VERSION);
    out.put_u32(body.len() as u32);
    out.put_u32(crc32c::crc32c(&body));
    out.extend_from_slice(&body);
    Ok(())
}

/// Decodes the framed record at the start of `bytes`; also gives what is behind it.
///
/// # Errors
/// Says what does not match.
pub(crate) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    let (frame, rest) = bytes
        .split_at_checked(FRAME_BYTES)
        .ok_or_else(|| format!("{} bytes where a record needs {FRAME_BYTES}", bytes.len()))?;
    let mut get = Get::new(frame);
    let (version, len, crc) = (get.u8(), get.u32() as usize, get.u32());
    if version != VERSION {
        return Err(format!("record version {version}, this program reads version {VERSION}"));
    }
    let (body, rest) =
        rest.split_at_checked(len).ok_or_else(|| format!("{} bytes where a record has {len}", rest.len()))?;
    let found = crc32c::crc32c(body);
    if found != crc {
        return Err(format!("record checksum {found:#010x} does not match {crc:#010x}"));
    }
    let (record, used) = bincode::decode_from_slice(body, config())
        .map_err(|error| format!("record does not decode: {error}"))?;
    if used != body.len() {
        return Err(format!("{} bytes behind a record of {used}", body.len() - used));
    }
    Ok((record, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_with_what_follows_it() {
        let mut out = Vec::new();
        encode(&(7u64, "seven".to_owned()), &mut out).unwrap();
        out.extend_from_slice(b"blocks");
        assert_eq!(decode::<(u64, String)>(&out).unwrap(), ((7, "seven".to_owned()), &b"blocks"[..]));
    }

    #[test]
    fn flips_cuts_and_trailing_bytes_are_refused() {
        let mut out = Vec::new();
        encode(&(7u64, "seven".to_owned()), &mut out).unwrap();
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(u64, String)>(&bad).is_err(), "bit {bit}");
        }
        for len in 0..out.len() {
            assert!(decode::<(u64, String)>(&out[..len]).is_err(), "{len} bytes");
        }
        let mut longer = Vec::new();
        encode(&(7u64, "seven".to_owned(), 1u8), &mut longer).unwrap();
        assert!(decode::<(u64, String)>(&longer).unwrap_err().contains("behind a record"));
    }
}
