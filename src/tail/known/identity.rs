//! The identity of a file: fingerprint, resume points, and the decision table of `docs/explanation/tail.md`. Pure.
//!
//! A fingerprint covers at most 1 KiB, a resume point 256 bytes, and a source has at most 16 of them: it takes less than
//! 500 bytes of memory. Nothing here reads a file, and no decision is based on an inode or a name alone,
//! except for a file of which nothing was read.

use bincode::{Decode, Encode};

/// Bytes that a fingerprint covers at most: enough to distinguish logs with the same header, one page to read.
pub(crate) const FINGERPRINT_BYTES: usize = 1_024;
/// Bytes before an offset that are compared.
pub(crate) const RESUME_POINT_BYTES: usize = 256;
/// Resume points of a source: over a terabyte that is a factor of eight from one to the next.
pub(crate) const RESUME_POINTS_MAX: usize = 16;
/// Below this distance from the offset resume points need not be closer to each other.
const RESUME_POINT_SPACING: u64 = 1_024;
/// Bytes that must be equal before another inode at the same path is taken for the same file: more than a header line,
/// since a wrong yes loses lines and a wrong no repeats them.
pub(crate) const SAME_PATH_BYTES: u64 = 256;

/// A file that changed within this time may be a copy under way: copy-truncate truncates right after the last write.
pub(crate) const COPY_WAIT_MS: u64 = 2_000;

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Fingerprint {
    /// How many bytes it covers, at most [`FINGERPRINT_BYTES`]; 0 if the file was empty.
    pub(crate) len: u16,
    hash: u64,
}

impl Fingerprint {
    /// Of a file that begins with `start`.
    pub(crate) fn of(start: &[u8]) -> Fingerprint {
        let start = start.get(..FINGERPRINT_BYTES).unwrap_or(start);
        Fingerprint { len: start.len() as u16, hash: fnv1a(start) }
    }

    /// Of a source that was read up to `offset` of a file that begins with `start`: the bytes behind that may still change.
    /// If nothing was read, it covers what there is to read.
    pub(crate) fn of_read(start: &[u8], offset: u64) -> Fingerprint {
        let read = usize::try_from(offset).unwrap_or(usize::MAX);
        let read = if read == 0 { start.len() } else { read.min(start.len()) };
        Fingerprint::of(start.get(..read).unwrap_or_default())
    }

    /// Covers the bytes behind it, too.
    pub(crate) fn widened(self, behind: &[u8]) -> Fingerprint {
        let more = behind.iter().take(FINGERPRINT_BYTES.saturating_sub(usize::from(self.len)));
        let start = Fingerprint { hash: if self.len == 0 { FNV_OFFSET } else { self.hash }, ..self };
        more.fold(start, |print, byte| Fingerprint {
            len: print.len + 1,
            hash: (print.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME),
        })
    }

    /// How a file that begins with `start` compares; `start` is all of the file or at least
    /// [`FINGERPRINT_BYTES`] of it.
    pub(crate) fn compare(self, start: &[u8]) -> Likeness {
        match start.get(..usize::from(self.len)) {
            None => Likeness::Unknown,
            Some(_) if self.len == 0 => Likeness::Unknown,
            Some(start) if fnv1a(start) == self.hash => Likeness::Equal,
            Some(_) => Likeness::Differs,
        }
    }

    /// The fingerprints that `start` has at every length, to look up known ones.
    pub(crate) fn prefixes(start: &[u8]) -> impl Iterator<Item = Fingerprint> + '_ {
        let mut hash = FNV_OFFSET;
        start.iter().take(FINGERPRINT_BYTES).enumerate().map(move |(at, byte)| {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
            Fingerprint { len: at as u16 + 1, hash }
        })
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits: stable over releases, and prefixes cost nothing extra. It need not resist an adversary: a program that
/// can forge the beginning of a file can write lines.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// How the beginning of a file compares with a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Likeness {
    Equal,
    Differs,
    /// The file is shorter than the fingerprint, or there is none.
    Unknown,
}

/// The bytes before one offset. Twelve bytes in memory, hence packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(4))]
struct ResumePoint {
    offset: u64,
    crc: u32,
}

/// The bytes before some offsets of a source; the newest is its offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResumePoints(Vec<ResumePoint>);

impl ResumePoints {
    /// From `(offset, crc)`, rising; `None` if there are too many or they do not rise.
    pub(crate) fn from_pairs(pairs: &[(u64, u32)]) -> Option<ResumePoints> {
        let rises = pairs.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0));
        (rises && pairs.len() <= RESUME_POINTS_MAX)
            .then(|| ResumePoints(pairs.iter().map(|&(offset, crc)| ResumePoint { offset, crc }).collect()))
    }

    /// `(offset, crc)` of every resume point, rising.
    pub(crate) fn pairs(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> + '_ {
        self.0.iter().map(|point| (point.offset, point.crc))
    }

    /// The CRC of the bytes before `offset`, if there is a resume point.
    pub(crate) fn crc_at(&self, offset: u64) -> Option<u32> {
        self.pairs().rev().find(|point| point.0 == offset).map(|point| point.1)
    }

    /// Whether, by a resume point, a content that begins with `start` is that of the source.
    pub(crate) fn is_in(&self, start: &[u8]) -> bool {
        self.pairs().any(|(offset, crc)| {
            let before = usize::try_from(offset).ok().and_then(|offset| start.get(..offset));
            before.is_some_and(|before| crc_before(before) == crc)
        })
    }

    /// Adds a resume point at `offset`; `before` ends there. Thins the others out.
    pub(crate) fn add(&mut self, offset: u64, before: &[u8]) {
        self.set(offset, crc_before(before));
    }

    /// The same, with the CRC of the bytes before `offset`.
    pub(crate) fn set(&mut self, offset: u64, crc: u32) {
        self.cut(offset);
        if self.0.last().is_none_or(|last| last.offset < offset) {
            self.0.push(ResumePoint { offset, crc });
        }
        if self.0.len() > RESUME_POINTS_MAX {
            self.thin_out(offset);
        }
    }

    /// Removes the resume point that is missed least: the distance between its neighbours grows by the smallest factor. The
    /// first and the newest stay.
    fn thin_out(&mut self, offset: u64) {
        let factor = |trio: &[ResumePoint]| match trio {
            [below, _, above] => {
                (offset - below.offset).saturating_mul(16) / (offset - above.offset + RESUME_POINT_SPACING)
            }
            _ => u64::MAX,
        };
        let least = self.0.windows(3).enumerate().min_by_key(|(_, trio)| factor(trio)).map(|(at, _)| at);
        if let Some(at) = least {
            self.0.remove(at + 1);
        }
    }

    /// Removes the resume points beyond `offset`.
    pub(crate) fn cut(&mut self, offset: u64) {
        self.0.retain(|point| point.offset <= offset);
    }
}

/// The CRC of the bytes before an offset: of the last [`RESUME_POINT_BYTES`] of `before`.
pub(crate) fn crc_before(before: &[u8]) -> u32 {
    crc32c::crc32c(before.get(before.len().saturating_sub(RESUME_POINT_BYTES)..).unwrap_or_default())
}

/// What is now at the path of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnPath {
    /// The source itself.
    Here,
    /// Nothing.
    Gone,
    /// Another inode.
    Taken,
    /// The same inode, with another content.
    Truncated,
}

/// How a file compares with the open file of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The source is not open, or nothing was compared.
    No,
    /// They are the same up to here, where the shorter one ends. `read`: the source was read or searched up to there.
    Shares {
        to: u64,
        read: bool,
    },
    Differs,
}

/// What was found out about a file, seen as a possible continuation of one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) same_path: bool,
    pub(crate) same_inode: bool,
    pub(crate) fingerprint: Likeness,
    pub(crate) size: u64,
    /// The offset of the source.
    pub(crate) offset: u64,
    /// The bytes before the offset are there and equal.
    pub(crate) before_offset: bool,
    /// The highest resume point inside the file that matches and that the fingerprint does not contradict.
    pub(crate) point: Option<u64>,
    /// The first look at this source since the start.
    pub(crate) first_look: bool,
    pub(crate) own_path: OwnPath,
    /// The file changed just now and is no longer than the source: it may be a copy under way.
    pub(crate) fresh: bool,
    /// Bytes that the fingerprint and the offset of the source cover.
    pub(crate) compared: u64,
    /// Nothing of the source was read, and its file is no shorter than it was.
    pub(crate) nothing_read: bool,
    pub(crate) held: Held,
    /// Its name is that of the source, followed by a number or a date.
    pub(crate) named: bool,
}

/// What a file is to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The source itself: continues at its offset.
    Continue,
    /// The source under a new name.
    Renamed,
    /// The source, shorter than it was, since a power cut: continues at this offset.
    RolledBack(u64),
    /// The source's file with another content.
    Truncated,
    /// The source continues in this copy, at its offset.
    Copy,
    /// A copy of nothing but what was read: the source continues at its end.
    CopyRead,
    /// A copy that ends before the offset: the source continues in it, at this offset.
    CopyFrom(u64),
    /// A copy of a source whose file is open, and may be written to: a new source, which begins at this offset.
    Apart(u64),
    /// Perhaps a copy: look again.
    Wait,
    /// Another file.
    Unrelated,
}

/// The table. Rows are numbered as in `docs/explanation/tail.md`.
pub(crate) fn decide(seen: &Evidence) -> Decision {
    let likely = seen.fingerprint == Likeness::Equal;
    let same_content = likely && seen.size >= seen.offset && seen.before_offset;
    let rolled_back = seen.point.filter(|_| seen.first_look);
    match (seen.same_path, seen.same_inode) {
        // 1; if nothing was read of a file, nothing of that can have changed.
        (true, true) if same_content || seen.nothing_read => Decision::Continue,
        (true, true) => rolled_back.map_or(Decision::Truncated, Decision::RolledBack), // 2, 3
        // 4; a file that was looked at in this run and of which nothing was read is known by its inode alone.
        (false, true) if same_content || seen.nothing_read && !seen.first_look => Decision::Renamed,
        // 5; if the source is still at its own path, an equal inode is only that of another device.
        (false, true) if seen.own_path != OwnPath::Here => {
            rolled_back.map_or(Decision::Unrelated, Decision::RolledBack) // 6
        }
        (_, false) if seen.held != Held::No && matches!(seen.own_path, OwnPath::Gone | OwnPath::Taken) => {
            copy_of_open(seen) // 8a
        }
        (true, false) if same_content && seen.compared >= SAME_PATH_BYTES => Decision::Continue, // 10
        (true, false) => shorter_copy(seen),                                                     // 10a
        (false, _) => match seen.own_path {
            OwnPath::Here if seen.fresh && may_become_copy(seen, same_content) => Decision::Wait, // 7
            OwnPath::Here => Decision::Unrelated,                                                 // 11
            _ if same_content => Decision::Copy,                                                  // 8
            OwnPath::Truncated if likely && seen.size < seen.offset && seen.point.is_some() => {
                Decision::CopyRead // 9
            }
            _ => shorter_copy(seen), // 9a, 12
        },
    }
}

/// Whether this many equal bytes prove that a file is a copy: a few may be a header that many files have, unless the file
/// has the name of a copy.
fn is_enough(seen: &Evidence, bytes: u64) -> bool {
    bytes >= SAME_PATH_BYTES || seen.named && !seen.same_path
}

/// The open file of a source has its rest, whatever copies there are. A copy is a source of its own, from where the two
/// differ first: what both have is read from the open file alone.
fn copy_of_open(seen: &Evidence) -> Decision {
    match seen.held {
        // If nothing was read of the source, a few equal bytes prove nothing.
        Held::Shares { to, read }
            if is_enough(seen, to) || !seen.same_path && seen.offset > 0 && to >= seen.offset =>
        {
            if read {
                Decision::Apart(to)
            } else {
                Decision::Wait
            }
        }
        _ => Decision::Unrelated,
    }
}

/// The content of a copy that ends before the offset is known by the highest resume point inside it; behind that it may be
/// another file, unless nothing is there.
fn shorter_copy(seen: &Evidence) -> Decision {
    match seen.point.filter(|point| seen.size < seen.offset && is_enough(seen, *point)) {
        Some(point) if point == seen.size => Decision::CopyRead,
        // If the copy is shorter than the fingerprint, the resume point alone decides.
        Some(point) if seen.fingerprint != Likeness::Differs => Decision::CopyFrom(point),
        _ => Decision::Unrelated,
    }
}

/// A copy under way has the beginning of a source that is still there.
fn may_become_copy(seen: &Evidence, same_content: bool) -> bool {
    let is_beginning = matches!(seen.held, Held::Shares { to, .. } if to == seen.size);
    is_beginning || same_content || seen.fingerprint == Likeness::Equal && seen.size < seen.offset
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is the source in every respect.
    const SAME: Evidence = Evidence {
        same_path: true,
        same_inode: true,
        fingerprint: Likeness::Equal,
        size: 2_000,
        offset: 1_500,
        before_offset: true,
        point: Some(1_500),
        first_look: true,
        own_path: OwnPath::Here,
        fresh: false,
        compared: 1_500,
        nothing_read: false,
        held: Held::No,
        named: false,
    };
    const OTHER_CONTENT: Evidence =
        Evidence { fingerprint: Likeness::Differs, before_offset: false, point: None, ..SAME };

    #[track_caller]
    fn check(seen: Evidence, expected: Decision) {
        assert_eq!(decide(&seen), expected, "{seen:?}");
    }

    #[test]
    fn row_1_the_same_file_continues() {
        check(SAME, Decision::Continue);
        check(Evidence { first_look: false, ..SAME }, Decision::Continue);
        check(Evidence { size: 1_500, ..SAME }, Decision::Continue);
    }

    #[test]
    fn row_2_a_file_that_lost_its_end_over_a_restart_is_rolled_back() {
        let seen = Evidence { size: 1_400, before_offset: false, point: Some(1_000), ..SAME };
        check(seen, Decision::RolledBack(1_000));
        check(Evidence { size: 3_000, ..seen }, Decision::RolledBack(1_000));
    }

    #[test]
    fn row_3_a_file_with_another_content_was_truncated() {
        check(OTHER_CONTENT, Decision::Truncated);
        check(Evidence { size: 0, fingerprint: Likeness::Unknown, ..OTHER_CONTENT }, Decision::Truncated);
        // While we run nothing rolls back: a shorter file was truncated.
        let seen = Evidence { size: 1_400, before_offset: false, first_look: false, ..SAME };
        check(seen, Decision::Truncated);
    }

    #[test]
    fn row_4_the_same_inode_and_content_elsewhere_was_renamed() {
        for own_path in [OwnPath::Gone, OwnPath::Taken, OwnPath::Here] {
            check(Evidence { same_path: false, own_path, ..SAME }, Decision::Renamed);
        }
    }

    #[test]
    fn row_5_a_renamed_file_can_be_rolled_back_too() {
        let seen = Evidence {
            same_path: false,
            own_path: OwnPath::Taken,
            size: 1_400,
            before_offset: false,
            point: Some(1_000),
            ..SAME
        };
        check(seen, Decision::RolledBack(1_000));
    }

    #[test]
    fn row_6_a_reused_inode_is_a_new_file() {
        for own_path in [OwnPath::Gone, OwnPath::Taken, OwnPath::Here, OwnPath::Truncated] {
            check(Evidence { same_path: false, own_path, ..OTHER_CONTENT }, Decision::Unrelated);
        }
    }

    #[test]
    fn row_7_a_fresh_copy_of_a_living_source_waits() {
        let seen = Evidence { same_path: false, same_inode: false, fresh: true, ..SAME };
        check(seen, Decision::Wait);
        check(Evidence { size: 1_200, before_offset: false, ..seen }, Decision::Wait);
        // The same header, and another line behind it.
        check(Evidence { before_offset: false, ..seen }, Decision::Unrelated);
    }

    #[test]
    fn row_8_a_copy_continues_a_source_that_is_not_at_its_path() {
        for own_path in [OwnPath::Gone, OwnPath::Taken, OwnPath::Truncated] {
            let seen = Evidence { same_path: false, same_inode: false, own_path, ..SAME };
            check(seen, Decision::Copy);
            check(Evidence { before_offset: false, ..seen }, Decision::Unrelated);
        }
    }

    #[test]
    fn row_9_a_copy_that_ends_before_the_offset_was_read() {
        let seen = Evidence {
            same_path: false,
            same_inode: false,
            own_path: OwnPath::Truncated,
            size: 1_200,
            before_offset: false,
            point: Some(1_000),
            ..SAME
        };
        check(seen, Decision::CopyRead);
        check(Evidence { point: None, ..seen }, Decision::Unrelated);
    }

    #[test]
    fn rows_9a_and_10a_a_copy_that_ends_before_the_offset_resumes_at_what_is_known_of_it() {
        for own_path in [OwnPath::Gone, OwnPath::Taken] {
            for same_path in [false, true] {
                let seen = Evidence {
                    same_path,
                    same_inode: false,
                    own_path,
                    size: 1_200,
                    before_offset: false,
                    point: Some(1_000),
                    ..SAME
                };
                check(seen, Decision::CopyFrom(1_000));
                check(Evidence { point: Some(1_200), ..seen }, Decision::CopyRead);
                check(Evidence { point: None, ..seen }, Decision::Unrelated);
                // Shorter than the fingerprint.
                let short = Evidence { fingerprint: Likeness::Unknown, size: 900, point: Some(900), ..seen };
                check(short, Decision::CopyRead);
                check(Evidence { point: Some(800), ..short }, Decision::CopyFrom(800));
                check(Evidence { fingerprint: Likeness::Differs, ..seen }, Decision::Unrelated);
                // A header may be all that two files share, unless one is named as a rotation of the other.
                let header = Evidence { size: 40, point: Some(40), ..short };
                check(header, Decision::Unrelated);
                let expected = if same_path { Decision::Unrelated } else { Decision::CopyRead };
                check(Evidence { named: true, ..header }, expected);
            }
        }
    }

    #[test]
    fn row_8a_a_copy_of_an_open_file_is_a_source_from_where_they_part() {
        for own_path in [OwnPath::Gone, OwnPath::Taken] {
            for same_path in [false, true] {
                let held = Held::Shares { to: 1_500, read: true };
                let seen = Evidence { same_path, same_inode: false, own_path, held, ..SAME };
                check(seen, Decision::Apart(1_500));
                let unread = Held::Shares { to: 1_500, read: false };
                check(Evidence { held: unread, ..seen }, Decision::Wait);
                check(Evidence { held: Held::Differs, ..seen }, Decision::Unrelated);
                let header = Held::Shares { to: 40, read: true };
                check(Evidence { held: header, size: 40, ..seen }, Decision::Unrelated);
                check(Evidence { held: header, offset: 0, compared: 40, ..seen }, Decision::Unrelated);
            }
        }
    }

    #[test]
    fn row_10_a_restored_file_continues_and_a_header_alone_does_not() {
        let seen = Evidence { same_inode: false, own_path: OwnPath::Taken, ..SAME };
        check(seen, Decision::Continue);
        check(Evidence { compared: 40, ..seen }, Decision::Unrelated);
        check(Evidence { before_offset: false, ..seen }, Decision::Unrelated);
    }

    #[test]
    fn row_11_a_file_like_a_living_source_is_new() {
        check(Evidence { same_path: false, same_inode: false, ..SAME }, Decision::Unrelated);
    }

    #[test]
    fn row_12_anything_else_is_new() {
        let seen = Evidence { same_path: false, same_inode: false, own_path: OwnPath::Gone, ..OTHER_CONTENT };
        check(seen, Decision::Unrelated);
    }

    #[test]
    fn a_fingerprint_compares_over_its_own_length() {
        let print = Fingerprint::of(b"header\n");
        assert_eq!(print.compare(b"header\nand more"), Likeness::Equal);
        assert_eq!(print.compare(b"Header\nand more"), Likeness::Differs);
        assert_eq!(print.compare(b"head"), Likeness::Unknown);
        assert_eq!(Fingerprint::of(b"").compare(b"x"), Likeness::Unknown);
        assert!(Fingerprint::prefixes(b"header\nand").any(|prefix| prefix == print));
        assert_eq!(Fingerprint::of(&[7; 5_000]).len, 1_024);
        let pieces = Fingerprint::default().widened(b"head").widened(b"er\n");
        assert_eq!((pieces, Fingerprint::of_read(b"header\nand", 7)), (print, print));
        assert_eq!(print.widened(&[7; 5_000]).len, 1_024);
        assert_eq!(Fingerprint::of_read(b"header\n", 0), print);
    }

    #[test]
    fn a_list_of_resume_points_stays_short_and_reaches_back() {
        let mut resume_points = ResumePoints::default();
        let mut offset = 0;
        for step in 0..20_000_u64 {
            offset += 1 + step * 37 % 9_000;
            resume_points.add(offset, &step.to_le_bytes());
            let points: Vec<_> = resume_points.pairs().map(|point| point.0).collect();
            assert!(points.len() <= RESUME_POINTS_MAX && points.is_sorted());
            assert_eq!(points.last(), Some(&offset));
            // What was lost is read again a few times over, no more; the slack is the distance of two steps.
            for pair in points.windows(2) {
                assert!((offset - pair[0]) <= 4 * (offset - pair[1]) + 20_000, "{points:?}");
            }
        }
        assert!(resume_points.pairs().count() >= 8);
        resume_points.cut(offset - 1);
        assert!(resume_points.crc_at(offset).is_none());
    }
}
