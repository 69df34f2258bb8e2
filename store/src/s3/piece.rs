//! Bytes of a local file on their way to S3, with the digests by which their arrival is checked.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream as SdkByteStream, SdkBody};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use md5::{Digest, Md5};

use crate::disk::file_blocks;
use crate::{ByteStream, Crc64Nvme, READ_BLOCK_BYTES_MAX, StoreError};

/// What one PUT sends: an object or a part of one.
#[derive(Clone)]
pub(super) struct Piece {
    file: Arc<File>,
    range: Range<u64>,
    md5: [u8; 16],
    pub crc: Crc64Nvme,
}

impl Piece {
    /// Bytes that were run through the digests on their way into the file.
    pub fn new(file: Arc<File>, range: Range<u64>, md5: Md5, crc: Crc64Nvme) -> Piece {
        Piece { file, range, md5: md5.finalize().into(), crc }
    }

    /// Reads the range once, for its digests. Blocks.
    pub fn digest(file: Arc<File>, range: Range<u64>) -> io::Result<Piece> {
        let (mut md5, mut crc) = (Md5::new(), Crc64Nvme::default());
        let mut block = vec![0; READ_BLOCK_BYTES_MAX];
        let mut rest = range.clone();
        while !rest.is_empty() {
            let bytes = (rest.end - rest.start).min(READ_BLOCK_BYTES_MAX as u64) as usize;
            let read =
                rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut block[..bytes], rest.start))?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            md5.update(&block[..read]);
            crc.update(&block[..read]);
            rest.start += read as u64;
        }
        Ok(Piece::new(file, range, md5, crc))
    }

    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub fn md5(&self) -> [u8; 16] {
        self.md5
    }

    /// Of the sum and a text together: a name that differs wherever one of them does.
    pub fn md5_with(&self, text: &str) -> [u8; 16] {
        let mut md5 = Md5::new_with_prefix(self.md5);
        md5.update(text);
        md5.finalize().into()
    }

    /// As the `Content-MD5` header wants it.
    pub fn content_md5(&self) -> String {
        BASE64_STANDARD.encode(self.md5)
    }

    /// The bytes, from the start each time that they are sent.
    pub fn body(&self) -> SdkByteStream {
        let piece = self.clone();
        SdkByteStream::new(SdkBody::retryable(move || SdkBody::from_body_1_x(PieceBody::new(&piece))))
    }
}

/// Reads the piece block by block, and fails rather than send other bytes than were digested: the file may have
/// been changed since, or its disk be broken.
struct PieceBody {
    /// Never contended: a body is polled by one. The mutex is what makes it `Sync`, as the library asks.
    blocks: Mutex<ByteStream>,
    left: u64,
    running: Crc64Nvme,
    crc: u64,
}

impl PieceBody {
    fn new(piece: &Piece) -> PieceBody {
        PieceBody {
            blocks: Mutex::new(file_blocks(piece.file.clone(), piece.range.clone())),
            left: piece.bytes(),
            running: Crc64Nvme::default(),
            crc: piece.crc.value(),
        }
    }
}

impl http_body::Body for PieceBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        let blocks = self.blocks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(block) = ready!(blocks.as_mut().poll_next(context)) else { return Poll::Ready(None) };
        let block = block?;
        self.running.update(&block);
        self.left -= block.len() as u64;
        if self.left == 0 && self.running.value() != self.crc {
            return Poll::Ready(Some(Err(StoreError::permanent("the file was changed while it was sent"))));
        }
        Poll::Ready(Some(Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
