//! A [`Layout`] as a stream of bytes over the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use domain::{Layout, ObjectKey, Piece};
use futures::stream::{self, StreamExt, TryStreamExt};
use store::{ByteStream, Store, StoreError};

/// Neighbouring small pieces are sent as one frame of about this size: samples by reference come in pieces of a
/// few hundred bytes, and each frame costs the connection a slot.
const GATHER_BYTES: usize = 64 * 1024;

/// The objects that a layout's extents point into, by [`Piece::Extent`]'s file number.
pub type Files = Arc<[ObjectKey]>;

/// A stream that flows waits this long for a store that has gone away, and goes on where it was.
const PAUSE_MAX: Duration = Duration::from_secs(15);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Opens the first piece at once, so that a missing object is an error before anything is sent; the others one
/// after the other, as the reader comes to them. Holds one block at a time.
pub async fn open(store: Arc<dyn Store>, files: Files, layout: Layout) -> Result<ByteStream, StoreError> {
    let pieces = layout.pieces.into_iter().filter(|piece| piece.bytes() > 0).collect();
    let mut cursor = Cursor { store, files, pieces, current: None, pause: None };
    cursor.open_next().await?;
    let blocks = stream::try_unfold(cursor, |mut cursor| async move {
        let frame = cursor.next_frame().await?;
        Ok(frame.map(|frame| (frame, cursor)))
    });
    Ok(blocks.boxed())
}

struct Cursor {
    store: Arc<dyn Store>,
    files: Files,
    /// Not yet opened; none is empty.
    pieces: VecDeque<Piece>,
    current: Option<OpenPiece>,
    /// When the store began to fail, until it gives something again.
    pause: Option<Instant>,
}

struct OpenPiece {
    bytes: ByteStream,
    /// Not yet read. An object that turns out shorter must not pass for a whole answer.
    rest: Piece,
}

impl Cursor {
    async fn next_frame(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(block) = self.next_block().await? else { return Ok(None) };
        if block.len() >= GATHER_BYTES / 2 || !self.piece_is_done() {
            return Ok(Some(block));
        }
        let mut gathered = BytesMut::from(block);
        while gathered.len() < GATHER_BYTES && self.next_is_small(GATHER_BYTES - gathered.len()) {
            match self.next_block().await? {
                Some(block) => gathered.extend_from_slice(&block),
                None => break,
            }
        }
        Ok(Some(gathered.freeze()))
    }

    fn piece_is_done(&self) -> bool {
        self.current.is_none()
    }

    /// Whether what comes next fits into so much room whole.
    fn next_is_small(&self, room: usize) -> bool {
        let next = self.current.as_ref().map(|piece| &piece.rest).or(self.pieces.front()).map(Piece::bytes);
        next.is_some_and(|bytes| bytes <= room as u64)
    }

    /// `None` at the end.
    async fn next_block(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            match self.try_next_block().await {
                Err(error) if error.is_retryable() => self.wait_after(error).await?,
                outcome => {
                    self.pause = None;
                    return outcome;
                }
            }
        }
    }

    /// Lets the store come back. What was open is asked for again from where it broke off.
    async fn wait_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        if let Some(broken) = self.current.take() {
            self.pieces.push_front(broken.rest);
        }
        let began = *self.pause.get_or_insert_with(Instant::now);
        if began.elapsed() > PAUSE_MAX {
            return Err(error);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        Ok(())
    }

    async fn try_next_block(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.current.is_none() && !self.open_next().await? {
            return Ok(None);
        }
        let Some(piece) = &mut self.current else { return Ok(None) };
        let block = piece.bytes.try_next().await?.unwrap_or_default();
        let (bytes, left_bytes) = (block.len() as u64, piece.rest.bytes());
        if bytes == 0 || bytes > left_bytes {
            return Err(StoreError::Permanent("an object is not as long as its layout says".into()));
        }
        if bytes == left_bytes {
            self.current = None;
        } else {
            piece.rest = piece.rest.slice(bytes, left_bytes - bytes);
        }
        Ok(Some(block))
    }

    /// `false` where no piece is left.
    async fn open_next(&mut self) -> Result<bool, StoreError> {
        let Some(piece) = self.pieces.front() else { return Ok(false) };
        let bytes = match piece {
            Piece::Inline(bytes) => stream::iter([Ok(Bytes::from(bytes.clone()))]).boxed(),
            Piece::Extent(file, offset, bytes) => {
                let key = self.files.get(usize::from(*file)).ok_or(StoreError::NotFound)?;
                self.store.read(key, *offset..offset.saturating_add(*bytes)).await?
            }
        };
        self.current = self.pieces.pop_front().map(|rest| OpenPiece { bytes, rest });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{AttemptId, IdParts, ObjectFile, Timestamp, VideoId};
    use proptest::prelude::*;
    use store::Memory;

    fn key(number: u8) -> ObjectKey {
        let parts = IdParts { now: Timestamp::from_unix_ms(1), random: [number; 10] };
        ObjectKey { video: VideoId::from(parts), attempt: AttemptId::from(parts), file: ObjectFile::Source }
    }

    fn content(number: u8, bytes: usize) -> Bytes {
        (0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(number)).collect::<Vec<_>>().into()
    }

    async fn store_of(objects: &[Bytes]) -> (Arc<dyn Store>, Files) {
        let store = Memory::new();
        for (number, bytes) in (0..).zip(objects) {
            let mut writer = store.create(&key(number)).await.unwrap();
            writer.write(bytes.clone()).await.unwrap();
            writer.finish().await.unwrap();
        }
        (Arc::new(store), (0..objects.len() as u8).map(key).collect())
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![
            (0u16..2, 0u64..1_000, 0u64..1_000).prop_map(|(f, o, n)| Piece::Extent(f, o, n)),
            (0u16..2, 0u64..1_000, 0u64..600_000).prop_map(|(f, o, n)| Piece::Extent(f, o, n)),
            proptest::collection::vec(any::<u8>(), 0..50).prop_map(Piece::Inline),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn streams_what_the_layout_says(pieces in proptest::collection::vec(piece(), 0..12)) {
            let objects = [content(1, 700_000), content(2, 700_000)];
            let expected: Vec<u8> = pieces.iter().flat_map(|piece| match piece {
                Piece::Inline(bytes) => bytes.clone(),
                Piece::Extent(f, o, n) => objects[usize::from(*f)][*o as usize..(o + n) as usize].to_vec(),
            }).collect();
            let streamed = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
                let (store, files) = store_of(&objects).await;
                let frames: Vec<Bytes> =
                    open(store, files, Layout { pieces }).await.unwrap().try_collect().await.unwrap();
                assert!(frames.iter().all(|frame| !frame.is_empty() && frame.len() <= store::READ_BLOCK_BYTES_MAX));
                frames.concat()
            });
            prop_assert!(streamed == expected);
        }
    }

    #[tokio::test]
    async fn what_is_missing_shows_before_or_while_streaming() {
        let (store, files) = store_of(&[content(1, 10)]).await;
        for first in [Piece::Extent(1, 0, 1), Piece::Extent(0, 5, 6)] {
            let layout = Layout { pieces: vec![first] };
            assert!(open(store.clone(), files.clone(), layout).await.is_err());
        }
        let layout = Layout { pieces: vec![Piece::Extent(0, 0, 10), Piece::Extent(7, 0, 1)] };
        let frames: Result<Vec<Bytes>, _> = open(store, files, layout).await.unwrap().try_collect().await;
        assert!(frames.is_err());
    }

    #[tokio::test]
    async fn small_pieces_travel_together() {
        let (store, files) = store_of(&[content(1, 100_000)]).await;
        let pieces = (0..200).map(|i| Piece::Extent(0, (i * 7919) % 90_000, 500)).collect();
        let stream = open(store, files, Layout { pieces }).await.unwrap();
        let frames: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(frames.iter().map(Bytes::len).sum::<usize>(), 100_000);
        assert!(frames.len() <= 3, "{}", frames.len());
    }
}
