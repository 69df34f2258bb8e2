//! The parts that a container's bytes are made of: boxes, elements, packets, chunks, tags, pages.

use std::ops::Range;

use crate::films::Container;

/// A stretch of bytes that says what it is and how long.
#[derive(Debug, Clone)]
pub struct Part {
    /// All of it.
    pub whole: Range<usize>,
    /// Where it says what it is.
    pub name: Range<usize>,
    /// Where it says how long it is; empty where it does not.
    pub size: Range<usize>,
    pub payload: Range<usize>,
    /// Says how the film is to be read; the others are pictures and sound.
    pub is_head: bool,
    /// The parts around it, by their place in the list.
    pub around: Vec<usize>,
}

pub fn parts_of(container: Container, bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    match container {
        Container::Boxes => boxes(bytes, 0..bytes.len(), &[], &mut parts),
        Container::Elements => elements(bytes, 0..bytes.len(), &[], &mut parts),
        Container::Chunks => chunks(bytes, 0..bytes.len(), &[], &mut parts),
        Container::Packets => packets(bytes, &mut parts),
        Container::Packs => packs(bytes, &mut parts),
        Container::Tags => tags(bytes, &mut parts),
        Container::Pages => pages(bytes, &mut parts),
    }
    parts
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// ISO/IEC 14496-12 §4.2.
fn boxes(bytes: &[u8], within: Range<usize>, around: &[usize], parts: &mut Vec<Part>) {
    const FULL_OF_BOXES: [&[u8]; 12] = [
        b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex", b"udta", b"dinf",
        b"mfra",
    ];
    let mut at = within.start;
    while at + 8 <= within.end {
        let end = at + number(&bytes[at..at + 4]);
        if end < at + 8 || end > within.end {
            return;
        }
        let name = &bytes[at + 4..at + 8];
        let place = parts.len();
        parts.push(Part {
            whole: at..end,
            size: at..at + 4,
            name: at + 4..at + 8,
            payload: at + 8..end,
            is_head: name != b"mdat",
            around: around.to_vec(),
        });
        if FULL_OF_BOXES.contains(&name) {
            boxes(bytes, at + 8..end, &[around, &[place]].concat(), parts);
        }
        at = end;
    }
}

/// RFC 8794.
fn elements(bytes: &[u8], within: Range<usize>, around: &[usize], parts: &mut Vec<Part>) {
    const CLUSTER: usize = 0x1F43_B675;
    const FULL_OF_ELEMENTS: [usize; 15] = [
        0x1A45_DFA3,
        0x1853_8067,
        0x1549_A966,
        0x1654_AE6B,
        0xAE,
        0xE0,
        0xE1,
        0x55B0,
        CLUSTER,
        0xA0,
        0x1C53_BB6B,
        0xBB,
        0xB7,
        0x114D_9B74,
        0x4DBB,
    ];
    let mut at = within.start;
    while at < within.end {
        let name_end = at + bytes[at].leading_zeros() as usize + 1;
        let Some(&first) = bytes.get(name_end) else { return };
        let size_end = name_end + first.leading_zeros() as usize + 1;
        if size_end > within.end || size_end - name_end > 8 {
            return;
        }
        let bits = 7 * (size_end - name_end);
        let length = number(&bytes[name_end..size_end]) & ((1 << bits) - 1);
        let is_unknown = length == (1 << bits) - 1;
        let end = if is_unknown { within.end } else { size_end.saturating_add(length) };
        if end > within.end {
            return;
        }
        let name = number(&bytes[at..name_end]);
        let place = parts.len();
        let is_media = around.iter().any(|&part| number(&bytes[parts[part].name.clone()]) == CLUSTER);
        parts.push(Part {
            whole: at..end,
            name: at..name_end,
            size: name_end..size_end,
            payload: size_end..end,
            is_head: !is_media,
            around: around.to_vec(),
        });
        if FULL_OF_ELEMENTS.contains(&name) {
            elements(bytes, size_end..end, &[around, &[place]].concat(), parts);
        }
        at = end;
    }
}

/// RIFF: a name, a size with its lowest byte first, and room for an even number of bytes.
fn chunks(bytes: &[u8], within: Range<usize>, around: &[usize], parts: &mut Vec<Part>) {
    let mut at = within.start;
    while at + 8 <= within.end {
        let size: Vec<u8> = bytes[at + 4..at + 8].iter().rev().copied().collect();
        let end = at + 8 + number(&size).next_multiple_of(2);
        if end > within.end {
            return;
        }
        let name = &bytes[at..at + 4];
        let is_list = (name == b"RIFF" || name == b"LIST") && at + 12 <= end;
        let place = parts.len();
        let is_media = around.iter().any(|&part| bytes[parts[part].payload.clone()].starts_with(b"movi"));
        parts.push(Part {
            whole: at..end,
            name: at..at + 4,
            size: at + 4..at + 8,
            payload: at + 8..end,
            is_head: !is_media,
            around: around.to_vec(),
        });
        if is_list {
            chunks(bytes, at + 12..end, &[around, &[place]].concat(), parts);
        }
        at = end;
    }
}

/// ISO/IEC 13818-1 §2.4.3.2. Tables come first, and say what the others are.
fn packets(bytes: &[u8], parts: &mut Vec<Part>) {
    const PACKET_BYTES: usize = 188;
    const PID_MAX_OF_TABLES: usize = 0x20;
    const FIRST_PMT: usize = 0x1000;
    for at in (0..bytes.len().saturating_sub(PACKET_BYTES - 1)).step_by(PACKET_BYTES) {
        let pid = number(&bytes[at + 1..at + 3]) & 0x1fff;
        parts.push(Part {
            whole: at..at + PACKET_BYTES,
            name: at + 1..at + 3,
            // Of the adaptation field, where there is one.
            size: at + 3..at + 5,
            payload: at + 4..at + PACKET_BYTES,
            is_head: pid < PID_MAX_OF_TABLES || pid == FIRST_PMT,
            around: Vec::new(),
        });
    }
}

/// ISO/IEC 13818-1 §2.5: what starts with 00 00 01 and a byte that says what it is, as a rule two for its length.
fn packs(bytes: &[u8], parts: &mut Vec<Part>) {
    const FIRST_OF_MEDIA: u8 = 0xC0;
    const SMALLEST_NAME: u8 = 0xB9;
    let starts: Vec<usize> = (0..bytes.len().saturating_sub(6))
        .filter(|&at| bytes[at..].starts_with(&[0, 0, 1]) && bytes[at + 3] >= SMALLEST_NAME)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    for (&at, end) in starts.iter().zip(ends) {
        parts.push(Part {
            whole: at..end,
            name: at + 3..at + 4,
            size: at + 4..at + 6,
            payload: at + 6..end,
            is_head: bytes[at + 3] < FIRST_OF_MEDIA,
            around: Vec::new(),
        });
    }
}

/// After nine bytes of head: what it is, its length in three bytes, times, and the length again in four.
fn tags(bytes: &[u8], parts: &mut Vec<Part>) {
    const SCRIPT: u8 = 18;
    let mut at = 13;
    while at + 11 <= bytes.len() {
        let end = at + 11 + number(&bytes[at + 1..at + 4]) + 4;
        if end > bytes.len() {
            return;
        }
        parts.push(Part {
            whole: at..end,
            name: at..at + 1,
            size: at + 1..at + 4,
            payload: at + 4..end,
            // Behind it follow the two that say how the codecs are set.
            is_head: bytes[at] == SCRIPT || parts.len() < 3,
            around: Vec::new(),
        });
        at = end;
    }
}

/// RFC 3533 §6.
fn pages(bytes: &[u8], parts: &mut Vec<Part>) {
    const HEAD_PAGES: usize = 6;
    let mut at = 0;
    while at + 27 <= bytes.len() && bytes[at..].starts_with(b"OggS") {
        let segments = usize::from(bytes[at + 26]);
        let Some(table) = bytes.get(at + 27..at + 27 + segments) else { return };
        let end = at + 27 + segments + table.iter().map(|&length| usize::from(length)).sum::<usize>();
        if end > bytes.len() {
            return;
        }
        parts.push(Part {
            whole: at..end,
            name: at + 5..at + 6,
            size: at + 26..at + 27 + segments,
            payload: at + 6..end,
            is_head: parts.len() < HEAD_PAGES,
            around: Vec::new(),
        });
        at = end;
    }
}

/// A page whose checksum is wrong is not even looked at.
pub fn mend_pages(bytes: &mut [u8]) {
    let mut parts = Vec::new();
    pages(bytes, &mut parts);
    for part in parts {
        let page = &mut bytes[part.whole];
        page[22..26].fill(0);
        let sum = page.iter().fold(0_u32, |mut sum, &byte| {
            sum ^= u32::from(byte) << 24;
            for _ in 0..8 {
                sum = if sum >> 31 == 1 { sum << 1 ^ 0x04C1_1DB7 } else { sum << 1 };
            }
            sum
        });
        page[22..26].copy_from_slice(&sum.to_le_bytes());
    }
}
