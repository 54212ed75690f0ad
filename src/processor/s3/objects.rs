//! Objects: their keys, what they say of themselves, and which lines make one. Pure.
//!
//! The key begins with the first seq, so that a list is in seq order. An object holds the lines of seqs that follow each other. So of all
//! objects only one can have a line: the last whose first seq is not behind it.

use std::io;

use spillq_storage::{Seq, SeqRange};

use super::super::Piece;
use super::super::input::write_terminated;
use super::super::run::Run;

/// Digits of a seq in a key: enough for every `u64`, so that keys sort as numbers do.
const DIGITS: usize = 20;
/// For archives: up to a third smaller than level 1, for an eighth more time.
const ZSTD_LEVEL: i32 = 3;

/// Where the objects of an owner are, and how their keys end.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The prefix and the owner, with a slash behind them.
    pub(super) folder: String,
    pub(super) suffix: String,
}

impl Keys {
    /// The key of the object that begins with this seq.
    pub(super) fn key(&self, first: Seq) -> String {
        format!("{}{}", self.before(first), self.suffix)
    }

    /// A text that sorts before that key, and behind every key of a smaller seq.
    pub(super) fn before(&self, first: Seq) -> String {
        format!("{}{:0DIGITS$}", self.folder, first.0)
    }

    /// The first seq of an object; `None` if the key is not one of ours. The suffix may have been another one.
    pub(super) fn first(&self, key: &str) -> Option<Seq> {
        let (digits, rest) = key.strip_prefix(self.folder.as_str())?.split_at_checked(DIGITS)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit())
            && !rest.starts_with(|first: char| first.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number).map(Seq)
    }
}

/// What an object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) owner: String,
    /// Which run of the service stored it.
    pub(super) run: Run,
    pub(super) last: Seq,
}

impl About {
    pub(super) const OWNER: &str = "x-amz-meta-spillq-owner";
    pub(super) const RUN: &str = "x-amz-meta-spillq-run";
    pub(super) const LAST: &str = "x-amz-meta-spillq-last-seq";

    /// From the values of these headers; `None` if one is missing or is not what we write.
    pub(super) fn of(header: impl Fn(&str) -> Option<String>) -> Option<About> {
        Some(About {
            owner: header(About::OWNER)?,
            run: header(About::RUN)?.parse().ok()?,
            last: Seq(header(About::LAST)?.parse().ok()?),
        })
    }
}

/// The lines of one object, and the seqs that it is about: from its first line on, also those of lines of other sources between and
/// behind its lines. The first is always a line: lines of other sources before it belong to it in one attempt, and not in another.
pub(super) struct Content {
    pub(super) covers: SeqRange,
    pub(super) pieces: Vec<Piece>,
}

/// Pieces in seq order as objects: each piece joins those before it if its seqs follow theirs.
pub(super) fn contents(pieces: &[Piece]) -> Vec<Content> {
    let mut contents: Vec<Content> = Vec::new();
    for piece in pieces {
        let covers = piece.covers();
        match contents.last_mut() {
            Some(open) if open.covers.last.next() == covers.first => {
                open.covers.last = covers.last;
                open.pieces.push(piece.clone());
            }
            _ => {
                let covers = SeqRange { first: piece.range().first, ..covers };
                contents.push(Content { covers, pieces: vec![piece.clone()] });
            }
        }
    }
    contents
}

/// The lines as one frame of zstd, each with a newline at its end. Takes about a second for 200 MiB.
pub(super) fn compressed(pieces: &[Piece]) -> io::Result<Vec<u8>> {
    let mut out = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    write_terminated(pieces, &mut out)?;
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn keys_sort_as_seqs_do_and_are_read_back() {
        let keys = Keys { folder: "a/1-07-0/".to_owned(), suffix: ".log.zst".to_owned() };
        assert_eq!(keys.key(Seq(7)), "a/1-07-0/00000000000000000007.log.zst");
        assert_eq!(
            keys.first("a/1-07-0/00000000000000000007.ndjson.zst"),
            Some(Seq(7)),
            "it was configured before"
        );
        assert_eq!(
            keys.first("a/1-07-0/00000000000000000007.ndjson.zst"),
            Some(Seq(7)),
            "it was configured before"
        );
        let mut sorted: Vec<String> = Vec::new();
        for seq in [0, 1, 9, 10, 999_999, u64::MAX] {
            sorted.push(keys.before(Seq(seq)));
            sorted.push(keys.key(Seq(seq)));
            assert_eq!(keys.first(&keys.key(Seq(seq))), Some(Seq(seq)));
        }
        assert!(sorted.is_sorted());
        for other in [
            "a/1-07-0/.conditional",
            "a/1-07-0/7.log.zst",
            "a/1-07-0/000000000000000000071.log",
            "a/1-07-0/000000000000000000x7.log.zst",
            "b/1-07-0/00000000000000000007.log.zst",
            "a/1-07-0/99999999999999999999.log.zst",
            "a/1-07-0/+0000000000000000007.log.zst",
        ] {
            assert_eq!(keys.first(other), None, "{other}");
        }
    }

    #[test]
    fn an_object_is_read_back_and_that_of_somebody_else_is_not_one() {
        let run = Run { number: 17, id: "9f".to_owned() };
        let about = About { owner: "1-07-0".to_owned(), run, last: Seq(40) };
        let header = |name: &str| match name {
            About::OWNER => Some(about.owner.clone()),
            About::RUN => Some(about.run.to_string()),
            About::LAST => Some(about.last.0.to_string()),
            _ => None,
        };
        assert_eq!(About::of(header), Some(about.clone()));
        for missing in [About::OWNER, About::RUN, About::LAST] {
            assert_eq!(About::of(|name| header(name).filter(|_| name != missing)), None, "{missing}");
        }
        assert_eq!(About::of(|name| header(name).map(|_| "x".to_owned())), None);
    }

    #[test]
    fn seqs_that_follow_each_other_are_one_object() {
        let block = sample::block(10, &[b"a", b"b", b"c", b"d", b"e"]);
        let mut pieces = sample::pieces(&block, &[(10, 10), (11, 11), (13, 13), (14, 14)], Piece::new);
        let range = |first, last| SeqRange::new(Seq(first), Seq(last)).unwrap();
        let covers = |pieces: &[Piece]| contents(pieces).iter().map(|one| one.covers).collect::<Vec<_>>();
        assert_eq!(covers(&pieces), [range(10, 11), range(13, 14)]);
        // Line 12 is of another source.
        pieces[1] = pieces[1].clone().covering(range(11, 12));
        pieces[0] = pieces[0].clone().covering(range(7, 10));
        let whole = contents(&pieces);
        assert_eq!(whole.iter().map(|one| one.covers).collect::<Vec<_>>(), [range(10, 14)]);
        let body = compressed(&whole[0].pieces).unwrap();
        assert_eq!(zstd::decode_all(&body[..]).unwrap(), b"a\nb\nd\ne\n");
        assert!(contents(&[]).is_empty());
    }
}
