//! Files as memory that nobody reads: an answer's body names bytes of a file by their address, and the connection, which
//! recognises the address, has the kernel send them from the page cache (`sendfile`).
//!
//! A [`FileMap`] is a read-only mapping of a whole file; its [`Bytes`] are cut and passed on like any others, at no cost,
//! and whoever does read them reads what the file holds. [`find`] tells which bytes of which file a slice is.
//!
//! **Invariant:** a slice that [`find`] recognises is memory of the mapping: while it is borrowed the mapping stays, and
//! while that stays no other memory has its addresses.

mod registry;
mod residency;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

pub use residency::CHUNK_BYTES;
use residency::Residency;

/// Bytes that left by `sendfile` since the process began.
static SENT_BYTES: AtomicU64 = AtomicU64::new(0);

/// A file that is never written to again, and its bytes. Cheap to clone; the mapping ends with the last clone and the last
/// of its bytes.
#[derive(Clone)]
pub struct FileMap {
    mapped: Arc<Mapped>,
    bytes: Bytes,
}

struct Mapped {
    file: Arc<File>,
    /// `None`: the file is empty.
    memory: Option<Mmap>,
    residency: Residency,
}

/// Keeps its mapping, and says that it is there.
struct Registered(Arc<Mapped>);

impl FileMap {
    /// Maps the whole file.
    ///
    /// **Its content must not change and its length must not shrink** as long as anybody has bytes of it. What is
    /// unlinked stays until then.
    ///
    /// # Errors
    /// Of `mmap`: too many mappings, no address space, a file system that has no such thing.
    pub fn new(file: File) -> io::Result<FileMap> {
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let memory = (length > 0).then(|| map(&file, length)).transpose()?;
        let residency = Residency::new(length);
        let mapped = Arc::new(Mapped { file: Arc::new(file), memory, residency });
        let bytes = Bytes::from_owner(Registered::new(mapped.clone()));
        Ok(FileMap { mapped, bytes })
    }

    pub fn file(&self) -> &Arc<File> {
        &self.mapped.file
    }

    /// All of them; cutting them costs nothing.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

fn map(file: &File, length: usize) -> io::Result<Mmap> {
    #[allow(unsafe_code, reason = "a mapping is only as constant as its file")]
    // SAFETY: `FileMap::new` demands that the file does not change; an object of the store is written once, has a mode
    // without the right to write, and is unlinked, never shortened.
    unsafe {
        MmapOptions::new().len(length).map(file)
    }
}

impl Registered {
    fn new(mapped: Arc<Mapped>) -> Registered {
        if let Some(memory) = &mapped.memory {
            registry::add(memory, &mapped);
        }
        Registered(mapped)
    }
}

impl AsRef<[u8]> for Registered {
    fn as_ref(&self) -> &[u8] {
        self.0.memory.as_deref().unwrap_or_default()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(memory) = &self.0.memory {
            registry::remove(memory);
        }
    }
}

/// Bytes of a file.
#[derive(Clone)]
pub struct Extent {
    mapped: Arc<Mapped>,
    range: Range<usize>,
}

/// Which bytes of which file these are; `None` for ordinary memory.
pub fn find(slice: &[u8]) -> Option<Extent> {
    registry::find(slice).map(|(mapped, offset)| Extent { mapped, range: offset..offset + slice.len() })
}

/// In one go: a fast reader does not keep a thread from the others.
const SENT_BYTES_MAX: usize = 2 * CHUNK_BYTES;

fn chunk_end(offset: usize) -> usize {
    (offset / CHUNK_BYTES + 1) * CHUNK_BYTES
}

/// Bytes that left by `sendfile` since the process began.
pub fn sent_bytes() -> u64 {
    SENT_BYTES.load(Ordering::Relaxed)
}

impl Extent {
    /// No more of it than can be looked after at once.
    pub fn first_chunk(mut self) -> Extent {
        self.range.end = self.range.end.min(chunk_end(self.range.start));
        self
    }

    /// What of its beginning can be sent in one go without waiting for a disk, as far as that was so a moment ago.
    pub fn warm_part(&self) -> Option<Extent> {
        let end_max = self.range.end.min(self.range.start + SENT_BYTES_MAX);
        let memory = self.mapped.memory.as_deref().unwrap_or_default();
        let mut warm = self.range.start..self.range.start;
        while warm.end < end_max {
            let chunk = warm.end..end_max.min(chunk_end(warm.end));
            if !self.mapped.residency.is_warm(memory, &chunk) {
                break;
            }
            warm.end = chunk.end;
        }
        (!warm.is_empty()).then(|| Extent { mapped: self.mapped.clone(), range: warm })
    }

    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// Reads it into the page cache, and asks for what comes after it. Waits for the disk.
    pub fn warm(&self) -> io::Result<()> {
        self.mapped.residency.warm(&self.mapped.file, &self.range)
    }

    /// As much as the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing, `UnexpectedEof` where the file has been shortened.
    pub fn send_to(&self, socket: impl AsFd) -> io::Result<usize> {
        let mut offset = self.range.start as u64;
        let sent = rustix::fs::sendfile(socket, &*self.mapped.file, Some(&mut offset), self.range.len())?;
        if sent == 0 && !self.range.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        SENT_BYTES.fetch_add(sent as u64, Ordering::Relaxed);
        Ok(sent)
    }
}

#[cfg(test)]
mod tests;
