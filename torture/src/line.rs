//! Lines that identify themselves: run, source, number, the file and offset where they begin, and a CRC of all that.
//!
//! `t1 w0 42 3.11500 fine LETTERS 0badc0de`: run 1, source w0, its line 42, which begins at byte 11,500 of its
//! file 3. So a line alone shows whether it is whole, whose it is, and whether the offset that spillq gives
//! for it is right.

use std::io::Write;

/// The place of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the campaign: lines of another run do not belong.
    pub run: u64,
    /// Which writer.
    pub source: u32,
    /// Which of its lines, from 0, over all its files.
    pub number: u64,
    /// Which of its files, from 0.
    pub file: u64,
    /// Where it begins in that file.
    pub offset: u64,
    /// Some receivers cannot process it.
    pub poison: bool,
}

/// Appends the line with `letters` of filling and its newline.
pub fn write(out: &mut Vec<u8>, place: &Place, letters: &str) {
    let start = out.len();
    let word = if place.poison { "POISON" } else { "fine" };
    let Place { run, source, number, file, offset, .. } = place;
    // Writing to memory does not fail.
    let _ = write!(out, "t{run} w{source} {number} {file}.{offset} {word} {letters}");
    let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
    let _ = writeln!(out, " {crc:08x}");
}

/// Reads a line without its newline; the error is what is wrong with it.
pub fn parse(text: &str) -> Result<Place, String> {
    let wrong = |what: &str| format!("{what}: {:?}", text.chars().take(120).collect::<String>());
    let (body, crc) = text.rsplit_once(' ').ok_or_else(|| wrong("not one of ours"))?;
    let sound = u32::from_str_radix(crc, 16).is_ok_and(|crc| crc == crc32c::crc32c(body.as_bytes()));
    if !sound {
        return Err(wrong("its CRC is wrong"));
    }
    let place = || {
        let mut words = body.split(' ');
        let run = words.next()?.strip_prefix('t')?.parse().ok()?;
        let source = words.next()?.strip_prefix('w')?.parse().ok()?;
        let number = words.next()?.parse().ok()?;
        let (file, offset) = words.next()?.split_once('.')?;
        let poison = words.next()? == "POISON";
        Some(Place { run, source, number, file: file.parse().ok()?, offset: offset.parse().ok()?, poison })
    };
    place().ok_or_else(|| wrong("it does not contain its place"))
}

/// How many bytes at the beginning of a file are whole lines that belong there, and which file it is by these lines.
pub fn whole(bytes: &[u8]) -> (u64, Option<u64>) {
    let (mut end, mut file) = (0, None);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        match text.strip_suffix('\n').map(parse) {
            Some(Ok(place)) if place.offset == end => file = Some(place.file),
            _ => break,
        }
        end += line.len() as u64;
    }
    (end, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_it_belongs_and_a_changed_one_is_found_out() {
        let place = Place { run: 7, source: 2, number: 42, file: 3, offset: 11_500, poison: true };
        let mut out = b"before\n".to_vec();
        write(&mut out, &place, "abc");
        let text = String::from_utf8(out).unwrap_or_default();
        let line = text.lines().nth(1).unwrap_or_default();
        assert_eq!(parse(line), Ok(place));
        assert!(parse(&line.replace("42", "43")).is_err());
        assert!(parse(line.get(..line.len() - 1).unwrap_or_default()).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn whole_lines_end_where_a_file_is_torn_or_is_another() {
        let mut out = Vec::new();
        for number in 0..3 {
            let offset = out.len() as u64;
            write(&mut out, &Place { run: 1, source: 0, number, file: 4, offset, poison: false }, "abc");
        }
        let len = out.len() as u64;
        assert_eq!(whole(&out), (len, Some(4)));
        assert_eq!(whole(&[]), (0, None));
        assert_eq!(whole(out.get(1..).unwrap_or_default()), (0, None));
        let two: usize = out.split_inclusive(|byte| *byte == b'\n').take(2).map(<[u8]>::len).sum();
        assert_eq!(whole(out.get(..out.len() - 1).unwrap_or_default()), (two as u64, Some(4)));
        out.extend([0; 100]);
        assert_eq!(whole(&out), (len, Some(4)));
    }
}
