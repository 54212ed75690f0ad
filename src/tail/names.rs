//! Paths as text. Of a path any bytes are shown, and can be read back from what is shown.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::plain::acts;

/// A path as text. What is UTF-8 and can be seen stands as it is, any other byte as `\xNN`, and a backslash doubled, so
/// that no two paths are shown alike, none adds a line, and a terminal acts on none.
#[must_use]
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str(r"\\"),
                c if acts(c) => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| number(&mut text, byte)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| number(&mut text, *byte));
    }
    text
}

fn number(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, r"\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    /// The bytes that were shown.
    fn read_back(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, more @ ..] = rest {
            rest = more;
            match (first, more) {
                (b'\\', [b'\\', more @ ..]) => {
                    bytes.push(b'\\');
                    rest = more;
                }
                (b'\\', [b'x', high, low, more @ ..]) => {
                    let digits = [*high, *low];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    rest = more;
                }
                (b'\\', _) => panic!("a lone backslash in {text}"),
                _ => bytes.push(*first),
            }
        }
        bytes
    }

    #[test]
    fn a_path_is_shown_as_it_is_and_other_bytes_as_numbers() {
        assert_eq!(shown(Path::new("/var/log/ä.log")), "/var/log/ä.log");
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"/a\xff\\b"))), r"/a\xff\\b");
        assert_eq!(shown(Path::new(r"/a\xff")), r"/a\\xff");
        assert_eq!(shown(Path::new("/a\x1b[2J\n\u{9b}\u{202e}")), r"/a\x1b[2J\x0a\xc2\x9b\xe2\x80\xae");
    }

    proptest::proptest! {
        #[test]
        fn any_path_can_be_told_back(bytes in proptest::collection::vec(0_u8.., 0..40)) {
            proptest::prop_assert_eq!(read_back(&shown(Path::new(OsStr::from_bytes(&bytes)))), bytes);
        }
    }
}
