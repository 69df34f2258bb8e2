//! Whether bytes of a file are in the page cache: a thread that serves many must not wait for a disk.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::fs::Advice;

/// What is looked after as one.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Chunks in use are the last that the kernel takes out of its cache, so it is asked about each of them once a second.
const ASK_EVERY_S: u32 = 1;
const READ_BYTES: usize = 128 * 1024;
/// No page is smaller.
const PAGE_BYTES_MIN: usize = 4096;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When each chunk was last seen in the page cache, in seconds since the first question; 0: never.
pub(crate) struct Residency(Box<[AtomicU32]>);

impl Residency {
    pub fn new(length: usize) -> Residency {
        Residency((0..length.div_ceil(CHUNK_BYTES)).map(|_| AtomicU32::new(0)).collect())
    }

    /// Of a range within one chunk.
    pub fn is_warm(&self, memory: &[u8], range: &Range<usize>) -> bool {
        let Some(seen) = self.0.get(range.start / CHUNK_BYTES) else { return true };
        let now = now_s();
        let last = seen.load(Ordering::Relaxed);
        if last > 0 && now.saturating_sub(last) < ASK_EVERY_S {
            return true;
        }
        if is_resident(&memory[chunk_around(range.start, memory.len())]) {
            seen.store(now, Ordering::Relaxed);
            return true;
        }
        memory.get(range.clone()).is_some_and(is_resident)
    }

    pub fn warm(&self, file: &File, range: &Range<usize>) -> io::Result<()> {
        let ahead = NonZeroU64::new(CHUNK_BYTES as u64);
        // Only advice.
        let _ = rustix::fs::fadvise(file, range.end as u64, ahead, Advice::WillNeed);
        let mut scratch = [0; READ_BYTES];
        let mut at = range.start;
        while at < range.end {
            let wanted = (range.end - at).min(READ_BYTES);
            match rustix::io::pread(file, &mut scratch[..wanted], at as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => at += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn chunk_around(offset: usize, length: usize) -> Range<usize> {
    let start = offset / CHUNK_BYTES * CHUNK_BYTES;
    start..(start + CHUNK_BYTES).min(length)
}

/// The first second is 1.
fn now_s() -> u32 {
    u32::try_from(BEGAN.elapsed().as_secs()).unwrap_or(u32::MAX - 1) + 1
}

/// At most [`CHUNK_BYTES`] of a mapping. Where the kernel does not say, it is taken for granted.
fn is_resident(slice: &[u8]) -> bool {
    const PAGES_MAX: usize = CHUNK_BYTES / PAGE_BYTES_MIN + 1;
    let page = page_bytes();
    let skipped = slice.as_ptr().addr() % page;
    let start = slice.as_ptr().wrapping_sub(skipped);
    let pages = (skipped + slice.len()).div_ceil(page);
    let mut seen = [0_u8; PAGES_MAX];
    if pages > PAGES_MAX {
        return false;
    }
    #[allow(unsafe_code, reason = "no safe wrapper has this call")]
    // SAFETY: it reads no memory but its numbers, and writes a byte for each page, for which `seen` has room. `start`
    // lies in the page that the slice begins in.
    let answer = unsafe { libc::mincore(start.cast_mut().cast(), skipped + slice.len(), seen.as_mut_ptr()) };
    answer != 0 || seen[..pages].iter().all(|page| page & 1 == 1)
}

fn page_bytes() -> usize {
    static PAGE_BYTES: LazyLock<usize> = LazyLock::new(rustix::param::page_size);
    *PAGE_BYTES
}
