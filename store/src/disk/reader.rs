//! Ranged reads: hot blocks straight from the page cache, cold ones on the blocking pool.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};

use super::blocking;
use crate::{ByteStream, READ_BLOCK_BYTES_MAX, StoreError};

/// The bytes of `range` from an open file, one block at a time: what a slow reader holds is one block. The kernel
/// is told about the block after it, so that the disk works while the network does.
pub fn file_blocks(file: Arc<File>, range: Range<u64>) -> ByteStream {
    stream::try_unfold(range, move |rest| {
        let file = file.clone();
        async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let bytes = (rest.end - rest.start).min(READ_BLOCK_BYTES_MAX as u64);
            let block = read_block(file, rest.start, bytes as usize).await?;
            let next = rest.start + block.len() as u64;
            Ok(Some((block, next..rest.end)))
        }
    })
    .boxed()
}

/// At least one and at most `bytes` bytes from `offset`.
async fn read_block(file: Arc<File>, offset: u64, bytes: usize) -> Result<Bytes, StoreError> {
    let mut block = BytesMut::zeroed(bytes);
    if let Some(read) = read_cached(&file, offset, &mut block) {
        block.truncate(read);
        return Ok(block.freeze());
    }
    blocking(move || {
        let read = read_cold(&file, offset, &mut block)?;
        block.truncate(read);
        Ok(block.freeze())
    })
    .await
}

/// What the page cache has, without waiting; `None` where a thread that may wait is needed.
fn read_cached(file: &File, offset: u64, block: &mut [u8]) -> Option<usize> {
    let slices = &mut [IoSliceMut::new(block)];
    rustix::io::preadv2(file, slices, offset, ReadWriteFlags::NOWAIT).ok().filter(|read| *read > 0)
}

fn read_cold(file: &File, offset: u64, block: &mut [u8]) -> Result<usize, StoreError> {
    loop {
        match rustix::io::pread(file, &mut *block, offset) {
            Ok(0) => {
                let cause = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(StoreError::Permanent(cause.into()));
            }
            Ok(read) => {
                // Only advice.
                let ahead = NonZeroU64::new(READ_BLOCK_BYTES_MAX as u64);
                let _ = rustix::fs::fadvise(file, offset + read as u64, ahead, Advice::WillNeed);
                return Ok(read);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
