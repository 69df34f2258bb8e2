//! `Range` headers (Z1), against a model that asks of each single byte whether it is wanted.

use std::ops::Range;

use crate::range::{RANGES_MAX, Selection, select};

/// The model looks at so many.
const SMALL_TOTAL_MAX: u64 = 60;
const HUGE: u128 = u64::MAX as u128;
/// What headers are made of, so that most are nearly right.
const ALPHABET: &[u8; 16] = b"0123456789--,, x";

/// `input`: how many bytes there are, whether the header is written in [`ALPHABET`], the header.
pub fn run(input: &[u8]) {
    let [total, form, rest @ ..] = input else { return };
    let header = match form {
        b'a' => format!("bytes={}", String::from_utf8_lossy(rest)),
        b'b' => String::from_utf8_lossy(rest).into_owned(),
        _ => {
            let letters: String =
                rest.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 16)])).collect();
            format!("bytes={letters}")
        }
    };
    let small = u64::from(*total) % (SMALL_TOTAL_MAX + 1);
    assert_eq!(select(&header, small), naive(&header, small), "{header:?} of {small}");
    // More than anybody looks at one by one.
    for large in [u64::MAX, u64::MAX - small, u64::from(*total) << 40] {
        if let Selection::Parts(parts) = select(&header, large) {
            lie_apart_within(&parts, large);
        }
    }
}

fn lie_apart_within(parts: &[Range<u64>], total: u64) {
    assert!((1..=RANGES_MAX).contains(&parts.len()));
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|part| part.start);
    assert!(sorted.iter().all(|part| part.start < part.end && part.end <= total), "{parts:?} of {total}");
    assert!(sorted.is_sorted_by(|one, next| one.end <= next.start), "{parts:?}");
}

fn naive(header: &str, total: u64) -> Selection {
    let Some((unit, list)) = header.split_once('=') else { return Selection::Whole };
    let blank = |c: char| c == ' ' || c == '\t';
    let written: Vec<&str> =
        list.split(',').map(|one| one.trim_matches(blank)).filter(|one| !one.is_empty()).collect();
    let specs: Option<Vec<_>> = written.iter().map(|one| ends(one)).collect();
    let (Some(specs), true) = (specs, unit.eq_ignore_ascii_case("bytes")) else {
        return Selection::Whole;
    };
    if written.is_empty() || written.len() > RANGES_MAX {
        return Selection::Whole;
    }
    let wanted = specs.iter().map(|spec| (0..total).filter(|byte| wants(*spec, *byte, total)).collect());
    let wanted: Vec<Vec<u64>> = wanted.filter(|bytes: &Vec<u64>| !bytes.is_empty()).collect();
    if wanted.is_empty() {
        return Selection::Unsatisfiable;
    }
    if (0..total).any(|byte| wanted.iter().filter(|bytes| bytes.contains(&byte)).count() > 1) {
        return Selection::Whole;
    }
    Selection::Parts(wanted.iter().map(|bytes| bytes[0]..bytes[bytes.len() - 1] + 1).collect())
}

/// The two numbers, of which one may be missing; `None` where it is none of the forms.
fn ends(written: &str) -> Option<(Option<u128>, Option<u128>)> {
    let dash = written.find('-')?;
    let (first, last) = (&written[..dash], &written[dash + 1..]);
    if !first.chars().chain(last.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    match (number(first), number(last)) {
        (None, None) => None,
        // Beyond 64 bits all numbers are the same.
        (Some(first), Some(last)) if first.min(HUGE) > last.min(HUGE) => None,
        ends => Some(ends),
    }
}

fn number(digits: &str) -> Option<u128> {
    let add = |number: u128, digit: u8| number.saturating_mul(10).saturating_add(u128::from(digit - b'0'));
    (!digits.is_empty()).then(|| digits.bytes().fold(0, add))
}

fn wants((first, last): (Option<u128>, Option<u128>), byte: u64, total: u64) -> bool {
    let byte = u128::from(byte);
    match (first, last) {
        (Some(first), Some(last)) => first <= byte && byte <= last,
        (Some(first), None) => first <= byte,
        (None, Some(bytes)) => byte.saturating_add(bytes) >= u128::from(total),
        (None, None) => unreachable!("one of them is there"),
    }
}
