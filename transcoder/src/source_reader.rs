//! The uploaded file, as demuxers read it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::demand;

/// Reads where it stands. What is not here yet is waited for.
pub struct SourceReader {
    file: File,
    bytes: u64,
    position: u64,
    is_on_demand: bool,
    blank: Blank,
}

/// Once it is said, nothing is read any more, and there are zeros everywhere: a demuxer that has its index goes on with
/// times, sizes and places as fast as memory.
#[derive(Debug, Clone, Default)]
pub struct Blank(Arc<AtomicBool>);

impl Blank {
    pub fn go_blank(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SourceReader {
    pub fn open(path: &Path) -> io::Result<SourceReader> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let is_on_demand = demand::is_for(path);
        Ok(SourceReader { file, bytes, position: 0, is_on_demand, blank: Blank::default() })
    }

    /// For whoever goes through all of it.
    pub fn wait_for_all(&self) -> io::Result<()> {
        self.wait_for(0..self.bytes)
    }

    pub fn blank(&self) -> Blank {
        self.blank.clone()
    }

    fn wait_for(&self, range: Range<u64>) -> io::Result<()> {
        if self.is_on_demand { demand::wait_for(range, self.bytes) } else { Ok(()) }
    }
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(self.position);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let read = if self.blank.0.load(Ordering::Relaxed) {
            buffer.fill(0);
            wanted
        } else {
            self.wait_for(self.position..self.position + wanted as u64)?;
            self.file.read_at(buffer, self.position)?
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for SourceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_bytes_are_as_many_as_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film");
        std::fs::write(&path, b"0123456789").unwrap();
        let mut reader = SourceReader::open(&path).unwrap();
        let mut bytes = [9; 4];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"0123");
        reader.blank().go_blank();
        reader.seek(SeekFrom::Start(7)).unwrap();
        let mut rest = Vec::new();
        assert_eq!((reader.read_to_end(&mut rest).unwrap(), rest), (3, vec![0; 3]));
        assert_eq!(reader.seek(SeekFrom::End(5)).unwrap(), 15);
        assert_eq!(reader.read(&mut bytes).unwrap(), 0, "beyond the end");
    }
}
