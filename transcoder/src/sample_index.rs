//! Films whose index tells all that there is to know of a sample: times, size, place, and whether decoding can start there.
//! They are measured without reading the samples, so that a gigabyte is judged as soon as a megabyte.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use ffmpeg_next::codec::Id;

use crate::boxes;
use crate::source::Chosen;
use crate::source_packets::SourcePacket;
use crate::source_reader::SourceReader;

/// Samples by which an index is put to the test, spread over the film.
const TESTED: usize = 12;
/// Read of each: parameter sets, messages, and the first words of the picture.
const TESTED_BYTES_MAX: u64 = 64 * 1024;

/// Not where samples are described between them.
pub fn is_there(path: &Path) -> io::Result<bool> {
    let mut reader = SourceReader::open(path)?;
    Ok(boxes::top_level(&mut reader).is_ok_and(|boxes| boxes.iter().all(|span| &span.kind != b"moof")))
}

/// Samples of other codecs are looked into by FFmpeg to find their times.
pub fn tells_all(chosen: &Chosen) -> bool {
    let (_, pictures) = &chosen.video;
    matches!(pictures.codec, Id::H264 | Id::HEVC)
        && chosen.audio.as_ref().is_none_or(|(_, sound)| sound.codec == Id::AAC)
}

/// Whether decoding can start where the index says so, by what lies there. One without a list of these samples calls every
/// sample one. `header` is that of the decoder: `avcC` or `hvcC`.
pub fn is_true(path: &Path, codec: Id, header: &[u8], packets: &[SourcePacket]) -> io::Result<bool> {
    let Some(length_bytes) = length_bytes(codec, header) else { return Ok(false) };
    let keys: Vec<&SourcePacket> = packets.iter().filter(|packet| packet.is_key).collect();
    let mut reader = SourceReader::open(path)?;
    for number in 0..TESTED.min(keys.len()) {
        let key = keys[(2 * number + 1) * keys.len() / (2 * TESTED.min(keys.len()))];
        reader.seek(SeekFrom::Start(key.offset))?;
        let mut sample = Vec::new();
        reader.by_ref().take(TESTED_BYTES_MAX.min(key.bytes.into())).read_to_end(&mut sample)?;
        if !starts_decoding(codec, length_bytes, &sample) {
            return Ok(false);
        }
    }
    Ok(!keys.is_empty())
}

/// Of the length in front of each NAL unit (ISO/IEC 14496-15 §5.3.3.1 and §8.3.3.1).
fn length_bytes(codec: Id, header: &[u8]) -> Option<usize> {
    let position = if codec == Id::HEVC { 21 } else { 4 };
    (header.first() == Some(&1)).then(|| header.get(position).map(|byte| usize::from(byte & 3) + 1))?
}

/// Whether the first picture of a sample needs none before it: an IDR picture or a recovery point of H.264 (§7.4.1, §D.2.8),
/// any random access point of HEVC (§7.4.2.2).
fn starts_decoding(codec: Id, length_bytes: usize, mut sample: &[u8]) -> bool {
    while let Some((length, rest)) = sample.split_at_checked(length_bytes) {
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let unit = &rest[..length.min(rest.len())];
        let Some(&first) = unit.first() else { return false };
        match (codec, first & 0x1f, first >> 1 & 0x3f) {
            (Id::H264, 5, _) | (Id::HEVC, _, 16..=21) => return true,
            (Id::H264, 6, _) if is_recovery_point(unit) => return true,
            (Id::H264, 1..=4, _) | (Id::HEVC, _, 0..=15) => return false,
            _ => sample = rest.get(length..).unwrap_or_default(),
        }
    }
    false
}

/// Among the messages of a unit is one of number 6.
fn is_recovery_point(unit: &[u8]) -> bool {
    let mut rest = unit[1..].iter();
    loop {
        let (Some(kind), Some(bytes)) = (number(&mut rest), number(&mut rest)) else { return false };
        if kind == 6 {
            return true;
        }
        rest = rest.as_slice().get(bytes..).unwrap_or_default().iter();
    }
}

/// The sum of the bytes up to the first below 255.
fn number(bytes: &mut std::slice::Iter<u8>) -> Option<usize> {
    let mut sum = 0;
    loop {
        let byte = *bytes.next()?;
        sum += usize::from(byte);
        if byte < 255 {
            return Some(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_need_none_before_are_known_by_their_units() {
        let delimiter = [0, 2, 9, 0x10];
        let cases = [
            (Id::H264, &[0, 2, 0x65, 1][..], true),
            (Id::H264, &[0, 2, 0x41, 1], false),
            (Id::H264, &[0, 4, 6, 6, 1, 0x80, 0, 2, 0x41, 1], true),
            (Id::H264, &[0, 4, 6, 5, 1, 0x80, 0, 2, 0x41, 1], false),
            (Id::H264, &[0, 7, 6, 5, 1, 0x80, 6, 1, 0x80, 0, 2, 0x41, 1], true),
            (Id::HEVC, &[0, 3, 38, 1, 0], true),
            (Id::HEVC, &[0, 3, 42, 1, 0], true),
            (Id::HEVC, &[0, 3, 2, 1, 0], false),
            (Id::H264, &[], false),
            (Id::H264, &[255, 255, 9], false),
            (Id::H264, &[0, 0, 0, 2, 0x65, 1], false),
        ];
        for (codec, units, expected) in cases {
            assert_eq!(starts_decoding(codec, 2, units), expected, "{codec:?} {units:?}");
            if codec == Id::H264 && !units.is_empty() {
                let behind: Vec<u8> = delimiter.iter().chain(units).copied().collect();
                assert_eq!(starts_decoding(codec, 2, &behind), expected, "{behind:?}");
            }
        }
    }
}
