//! Keys and bytes that the tests put.
#![allow(dead_code, reason = "no test needs all of it")]

use bytes::Bytes;
use domain::{AttemptId, IdParts, ObjectFile, ObjectKey, Timestamp, VideoId};
use store::Crc64Nvme;

/// The source of a video of its own.
pub fn key(number: u8) -> ObjectKey {
    let parts = IdParts { now: Timestamp::from_unix_ms(1_790_000_000_000), random: [number; 10] };
    ObjectKey { video: VideoId::from(parts), attempt: AttemptId::from(parts), file: ObjectFile::Source }
}

/// Bytes that differ everywhere, so that a shifted or doubled block shows.
pub fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect::<Vec<u8>>().into()
}

pub fn crc(bytes: &[u8]) -> u64 {
    let mut crc = Crc64Nvme::default();
    crc.update(bytes);
    crc.value()
}
