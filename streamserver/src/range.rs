//! `Range` (RFC 9110 §14), as arithmetic: what part of so many bytes is asked for.

use std::ops::Range;

/// More ranges than this in one request are not served one by one.
pub const RANGES_MAX: usize = 8;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// No range is asked for, or the header is one to be ignored: another unit, bad syntax, too many ranges,
    /// ranges that overlap. The answer is the whole, 200.
    Whole,
    /// 206, in the order asked for. Never empty; no two overlap, so an answer is hardly longer than the whole.
    Parts(Vec<Range<u64>>),
    /// Well-formed, and outside of what there is: 416.
    Unsatisfiable,
}

/// One of the header's ranges, as written.
enum Spec {
    From { first: u64, last: Option<u64> },
    Suffix { bytes: u64 },
}

/// Reads the value of a `Range` header for a representation of `total` bytes.
pub fn select(header: &str, total: u64) -> Selection {
    let Some(specs) = parse(header) else { return Selection::Whole };
    let parts: Vec<Range<u64>> = specs.iter().filter_map(|spec| spec.within(total)).collect();
    if parts.is_empty() {
        Selection::Unsatisfiable
    } else if overlap(&parts) {
        Selection::Whole
    } else {
        Selection::Parts(parts)
    }
}

/// `None` where the header is to be ignored.
fn parse(header: &str) -> Option<Vec<Spec>> {
    let (unit, set) = header.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut specs = Vec::new();
    // Empty list elements are allowed and mean nothing (RFC 9110 §5.6.1).
    for written in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(Spec::parse(written)?);
    }
    (!specs.is_empty()).then_some(specs)
}

impl Spec {
    fn parse(written: &str) -> Option<Spec> {
        let (first, last) = written.split_once('-')?;
        match (first, last) {
            ("", bytes) => Some(Spec::Suffix { bytes: number(bytes)? }),
            (first, "") => Some(Spec::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Spec::From { first, last: Some(last) })
            }
        }
    }

    /// `None` where it is unsatisfiable.
    fn within(&self, total: u64) -> Option<Range<u64>> {
        let range = match *self {
            Spec::From { first, last } => first..last.map_or(total, |last| last.saturating_add(1).min(total)),
            Spec::Suffix { bytes } => total.saturating_sub(bytes)..total,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits only; a number too large to hold is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn overlap(parts: &[Range<u64>]) -> bool {
    let mut sorted: Vec<_> = parts.iter().collect();
    sorted.sort_by_key(|part| part.start);
    sorted.windows(2).any(|pair| pair[1].start < pair[0].end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::single_range_in_vec_init, reason = "one part that is a range")]
    fn one(range: Range<u64>) -> Selection {
        Selection::Parts(vec![range])
    }

    #[test]
    fn the_catalogue_of_odd_headers() {
        use Selection::{Unsatisfiable, Whole};
        let huge = "9999999999999999999999999";
        for (header, expected) in [
            ("bytes=0-0", one(0..1)),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-2", Whole),
            ("bytes=0-", one(0..100)),
            ("bytes=-5", one(95..100)),
            ("bytes=-500", one(0..100)),
            ("bytes=90-500", one(90..100)),
            ("bytes=100-", Unsatisfiable),
            (&format!("bytes={huge}-"), Unsatisfiable),
            (&format!("bytes=0-{huge}"), one(0..100)),
            (&format!("bytes=-{huge}"), one(0..100)),
            ("x=0-1", Whole),
            ("BYTES=0-1", one(0..2)),
            ("bytes 0-1", Whole),
            ("bytes =0-1", Whole),
            ("bytes=", Whole),
            ("bytes=,", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=0x10-20", Whole),
            ("bytes=0-1, 5-6,,\t-1", Selection::Parts(vec![0..2, 5..7, 99..100])),
            ("bytes=5-6,0-1", Selection::Parts(vec![5..7, 0..2])),
            ("bytes=0-1,200-", one(0..2)),
            ("bytes=0-10,5-20", Whole),
            ("bytes=0-10,10-20", Whole),
            ("bytes=0-,-1", Whole),
        ] {
            assert_eq!(select(header, 100), expected, "{header}");
        }
        assert_eq!(select("bytes=0-0", 0), Unsatisfiable);
        assert_eq!(select("bytes=-1", 0), Unsatisfiable);
        let many =
            |n: u64| format!("bytes={}", (0..n).map(|i| format!("{0}-{0},", i * 2)).collect::<String>());
        assert!(matches!(select(&many(8), 100), Selection::Parts(parts) if parts.len() == 8));
        assert_eq!(select(&many(9), 100), Whole);
        assert_eq!(select(&many(100_000), 100), Whole);
    }
}
