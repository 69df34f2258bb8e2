//! Bytes of the upload that are not here yet. A child has one upload; where it lies elsewhere, whoever started the child
//! brings what is asked for into the file that stands for it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use domain::task::DEMAND_BLOCK_BYTES;

/// Absent where the whole upload is here.
static DEMAND: OnceLock<(PathBuf, Mutex<Demand>)> = OnceLock::new();

type Ask = Box<dyn FnMut(Range<u64>) -> io::Result<()> + Send>;

struct Demand {
    /// By block, what is here.
    brought: Vec<bool>,
    ask: Ask,
}

/// Once in a process: from here on `ask` is called before bytes of the upload at `path` are read. It returns when they are
/// here.
pub fn begin(path: PathBuf, ask: impl FnMut(Range<u64>) -> io::Result<()> + Send + 'static) {
    let demand = Demand { brought: Vec::new(), ask: Box::new(ask) };
    // Nobody begins twice.
    let _ = DEMAND.set((path, Mutex::new(demand)));
}

/// Whether the bytes of this file have to be waited for.
pub fn is_for(path: &Path) -> bool {
    DEMAND.get().is_some_and(|(upload, _)| upload == path)
}

/// Waits for `range` of the upload, which has so many bytes.
pub fn wait_for(range: Range<u64>, file_bytes: u64) -> io::Result<()> {
    let Some((_, demand)) = DEMAND.get() else { return Ok(()) };
    demand.lock().unwrap_or_else(PoisonError::into_inner).bring(range, file_bytes)
}

impl Demand {
    fn bring(&mut self, range: Range<u64>, file_bytes: u64) -> io::Result<()> {
        let first = (range.start / DEMAND_BLOCK_BYTES) as usize;
        let end = range.end.min(file_bytes).div_ceil(DEMAND_BLOCK_BYTES) as usize;
        if self.brought.len() < end {
            self.brought.resize(end, false);
        }
        let Some(blocks) = self.brought.get_mut(first..end) else { return Ok(()) };
        if blocks.iter().all(|&here| here) {
            return Ok(());
        }
        (self.ask)(first as u64 * DEMAND_BLOCK_BYTES..file_bytes.min(end as u64 * DEMAND_BLOCK_BYTES))?;
        blocks.fill(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn every_block_is_asked_for_once() {
        const B: u64 = DEMAND_BLOCK_BYTES;
        let (asked, seen) = mpsc::channel();
        let ask = Box::new(move |range| asked.send(range).map_err(io::Error::other));
        let mut demand = Demand { brought: Vec::new(), ask };
        let bytes = 4 * B + 7;
        for range in [10..20, 0..B, B - 1..B + 1, 4 * B + 1..4 * B + 2, bytes..bytes, 0..bytes, 0..bytes] {
            demand.bring(range, bytes).unwrap();
        }
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0..B, 0..2 * B, 4 * B..bytes, 0..bytes]);
    }
}
