//! A [`Layout`] as a stream of bytes over the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use domain::{Layout, ObjectKey, Piece};
use futures::stream::{self, StreamExt, TryStreamExt};
use store::{ByteStream, StoreError};

use crate::blocks::Lookup;
use crate::objects::{Objects, Use};

/// Neighbouring small pieces are sent as one frame of about this size: samples by reference come in pieces of a
/// few hundred bytes, and each frame costs the connection a slot.
const GATHER_BYTES: usize = 64 * 1024;

/// Sound between pictures is a few hundred bytes in a file whose packets take turns; asking a store again costs more.
const GAP_BYTES_MAX: u64 = 64 * 1024;

/// The objects that a layout's extents point into, by [`Piece::Extent`]'s file number.
pub type Files = Arc<[ObjectKey]>;

/// A stream that flows waits this long for a store that has gone away, and goes on where it was.
const PAUSE_MAX: Duration = Duration::from_secs(15);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Opens the first piece at once, so that a missing object is an error before anything is sent; the others as the
/// reader comes to them. Holds one block at a time. With it whether what was opened was kept here ([`Objects::read`]).
pub async fn open(
    objects: Objects,
    files: Files,
    layout: Layout,
) -> Result<(ByteStream, Option<Lookup>), StoreError> {
    let pieces = layout.pieces.into_iter().filter(|piece| piece.bytes() > 0).collect();
    let mut cursor = Cursor { objects, files, pieces, current: None, pause: None };
    cursor.open_next().await?;
    let lookup = cursor.current.as_ref().and_then(|run| run.lookup);
    let blocks = stream::try_unfold(cursor, |mut cursor| async move {
        let frame = cursor.next_frame().await?;
        Ok(frame.map(|frame| (frame, cursor)))
    });
    Ok((blocks.boxed(), lookup))
}

struct Cursor {
    objects: Objects,
    files: Files,
    /// Not yet sent; none is empty.
    pieces: VecDeque<Piece>,
    current: Option<Run>,
    /// When the store began to fail, until it gives something again.
    pause: Option<Instant>,
}

/// Extents of one object that lie close together, read in one go; what lies between them is thrown away.
struct Run {
    bytes: ByteStream,
    lookup: Option<Lookup>,
    /// The end of a long piece, too, is bytes that nobody should read.
    wanted: Use,
    file: u16,
    /// Offset in the object of what comes next.
    at: u64,
    end: u64,
    /// Read, and not yet asked for.
    block: Bytes,
}

impl Cursor {
    async fn next_frame(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some((block, joins)) = self.next_block().await? else { return Ok(None) };
        if !joins || is_long(block.len() as u64) {
            return Ok(Some(block));
        }
        let mut gathered = BytesMut::from(block);
        while gathered.len() < GATHER_BYTES && self.next_is_small(GATHER_BYTES - gathered.len()) {
            match self.next_block().await? {
                Some((block, _)) => gathered.extend_from_slice(&block),
                None => break,
            }
        }
        Ok(Some(gathered.freeze()))
    }

    /// Whether what comes next fits into so much room whole.
    fn next_is_small(&self, room: usize) -> bool {
        self.pieces.front().is_some_and(|piece| piece.bytes() <= room as u64)
    }

    /// The next bytes, and whether they may be put together with those that follow. `None` at the end.
    async fn next_block(&mut self) -> Result<Option<(Bytes, bool)>, StoreError> {
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
        self.current = None;
        let began = *self.pause.get_or_insert_with(Instant::now);
        if began.elapsed() > PAUSE_MAX {
            return Err(error);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        Ok(())
    }

    async fn try_next_block(&mut self) -> Result<Option<(Bytes, bool)>, StoreError> {
        self.open_next().await?;
        let Some(piece) = self.pieces.pop_front() else { return Ok(None) };
        let (file, offset, bytes) = match piece {
            Piece::Inline(bytes) => return Ok(Some((Bytes::from(bytes), true))),
            Piece::Extent(file, offset, bytes) => (file, offset, bytes),
        };
        // Where the store fails, the piece is still to be sent.
        self.pieces.push_front(Piece::Extent(file, offset, bytes));
        let Some(run) = &mut self.current else { return Err(StoreError::NotFound) };
        let (block, wanted) = (run.next(offset, bytes).await?, run.wanted);
        self.pieces.pop_front();
        let rest = bytes - block.len() as u64;
        if rest > 0 {
            self.pieces.push_front(Piece::Extent(file, offset + block.len() as u64, rest));
        }
        Ok(Some((block, rest == 0 && wanted == Use::Read)))
    }

    /// Makes sure that the next extent can be read.
    async fn open_next(&mut self) -> Result<(), StoreError> {
        let extent = self.pieces.iter().find_map(|piece| match piece {
            Piece::Extent(file, offset, bytes) => Some((*file, *offset, *bytes)),
            Piece::Inline(_) => None,
        });
        let Some((file, offset, bytes)) = extent else { return Ok(()) };
        if self.current.as_ref().is_some_and(|run| run.holds(file, offset, bytes)) {
            return Ok(());
        }
        let key = self.files.get(usize::from(file)).ok_or(StoreError::NotFound)?;
        let end = run_end(&self.pieces);
        let wanted = if is_long(bytes) { Use::Sent } else { Use::Read };
        let (bytes, lookup) = self.objects.read(key, offset..end, wanted).await?;
        self.current = Some(Run { bytes, lookup, wanted, file, at: offset, end, block: Bytes::new() });
        Ok(())
    }
}

impl Run {
    fn holds(&self, file: u16, offset: u64, bytes: u64) -> bool {
        self.file == file && self.at <= offset && offset.saturating_add(bytes) <= self.end
    }

    /// At most `bytes` bytes, at least one, from `offset` on, which lies within the run and not before what was read.
    async fn next(&mut self, offset: u64, bytes: u64) -> Result<Bytes, StoreError> {
        loop {
            let skipped = (offset - self.at).min(self.block.len() as u64);
            self.block.advance(skipped as usize);
            self.at += skipped;
            if !self.block.is_empty() {
                let taken = self.block.split_to(bytes.min(self.block.len() as u64) as usize);
                self.at += taken.len() as u64;
                return Ok(taken);
            }
            self.block = self.bytes.try_next().await?.unwrap_or_default();
            if self.block.is_empty() || self.block.len() as u64 > self.end - self.at {
                return Err(StoreError::Permanent("an object is not as long as its layout says".into()));
            }
        }
    }
}

/// Sent as it is. Shorter ones may travel with their neighbours, and are put together for that.
fn is_long(bytes: u64) -> bool {
    bytes >= GATHER_BYTES as u64 / 2
}

/// Where the run ends that begins with the first of `pieces`: before something of another object or of another kind, a
/// step back, or a gap that costs more to read than to ask again.
fn run_end(pieces: &VecDeque<Piece>) -> u64 {
    let mut run: Option<(u16, u64)> = None;
    let mut long = false;
    for piece in pieces {
        match (piece, &mut run) {
            // A few bytes between, such as the head of a fragment, come from memory.
            (Piece::Inline(_), _) => {}
            (Piece::Extent(file, offset, bytes), None) => {
                run = Some((*file, offset.saturating_add(*bytes)));
                long = is_long(*bytes);
            }
            (Piece::Extent(file, offset, bytes), Some((last_file, end)))
                if file == last_file
                    && is_long(*bytes) == long
                    && *offset >= *end
                    && *offset - *end <= GAP_BYTES_MAX =>
            {
                *end = offset.saturating_add(*bytes);
            }
            _ => break,
        }
    }
    run.map_or(0, |(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BLOCK_BYTES;
    use domain::{AttemptId, IdParts, ObjectFile, Timestamp, VideoId};

    use proptest::prelude::*;
    use store::{Disk, Memory, Store};

    const CACHED_BYTES_MAX: u64 = 1 << 30;

    fn key(number: u8) -> ObjectKey {
        let parts = IdParts { now: Timestamp::from_unix_ms(1), random: [number; 10] };
        ObjectKey { video: VideoId::from(parts), attempt: AttemptId::from(parts), file: ObjectFile::Source }
    }

    fn content(number: u8, bytes: usize) -> Bytes {
        (0..bytes).map(|i| (i as u8).wrapping_mul(31).wrapping_add(number)).collect::<Vec<_>>().into()
    }

    async fn store_of(objects: &[Bytes]) -> (Memory, Files) {
        let store = Memory::new();
        let files = fill(&store, objects).await;
        (store, files)
    }

    async fn fill(store: &dyn Store, objects: &[Bytes]) -> Files {
        for (number, bytes) in (0..).zip(objects) {
            let mut writer = store.create(&key(number)).await.unwrap();
            writer.write(bytes.clone()).await.unwrap();
            writer.finish().await.unwrap();
        }
        (0..objects.len() as u8).map(key).collect()
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
            let folder = tempfile::tempdir().unwrap();
            let streamed = |on_disk: bool| tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
                let store: Arc<dyn Store> = match on_disk {
                    true => Arc::new(Disk::open(folder.path()).unwrap()),
                    false => Arc::new(Memory::new()),
                };
                let files = fill(&*store, &objects).await;
                let store = Objects::new(store, CACHED_BYTES_MAX);
                let frames: Vec<Bytes> =
                    open(store, files, Layout { pieces: pieces.clone() }).await.unwrap().0.try_collect().await.unwrap();
                assert!(frames.iter().all(|frame| !frame.is_empty() && frame.len() as u64 <= BLOCK_BYTES));
                frames.concat()
            });
            prop_assert!(streamed(false) == expected);
            prop_assert!(streamed(true) == expected);
        }
    }

    #[tokio::test]
    async fn what_is_missing_shows_before_or_while_streaming() {
        let (store, files) = store_of(&[content(1, 10)]).await;
        let store = Objects::new(Arc::new(store), CACHED_BYTES_MAX);
        for first in [Piece::Extent(1, 0, 1), Piece::Extent(0, 5, 6)] {
            let layout = Layout { pieces: vec![first] };
            assert!(open(store.clone(), files.clone(), layout).await.is_err());
        }
        let layout = Layout { pieces: vec![Piece::Extent(0, 0, 10), Piece::Extent(7, 0, 1)] };
        let frames: Result<Vec<Bytes>, _> = open(store, files, layout).await.unwrap().0.try_collect().await;
        assert!(frames.is_err());
    }

    #[test]
    fn what_lies_close_together_is_read_in_one_go() {
        let end = |pieces: &[Piece]| run_end(&pieces.iter().cloned().collect());
        // Pictures with sound between them, which is not asked for.
        let pictures: Vec<Piece> = (0..200).map(|i| Piece::Extent(0, i * 4_400, 4_000)).collect();
        assert_eq!(end(&pictures), 199 * 4_400 + 4_000);
        let with_heads: Vec<Piece> = pictures
            .chunks(50)
            .flat_map(|fragment| [&[Piece::Inline(b"moof".to_vec())], fragment].concat())
            .collect();
        assert_eq!(end(&with_heads), end(&pictures));
        let far = [Piece::Extent(0, 0, 10), Piece::Extent(0, 500_000, 10)];
        assert_eq!(end(&far), 10);
        let back = [Piece::Extent(0, 20, 10), Piece::Extent(0, 0, 10)];
        assert_eq!(end(&back), 30);
        let of_two = [Piece::Extent(0, 0, 10), Piece::Extent(1, 10, 10)];
        assert_eq!(end(&of_two), 10);
        let of_two_kinds = [Piece::Extent(0, 0, 10), Piece::Extent(0, 10, 100_000)];
        assert_eq!(end(&of_two_kinds), 10);
    }

    #[tokio::test]
    async fn small_pieces_travel_together() {
        let (store, files) = store_of(&[content(1, 100_000)]).await;
        let store = Objects::new(Arc::new(store), CACHED_BYTES_MAX);
        let pieces = (0..200).map(|i| Piece::Extent(0, (i * 7919) % 90_000, 500)).collect();
        let (stream, _) = open(store, files, Layout { pieces }).await.unwrap();
        let frames: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(frames.iter().map(Bytes::len).sum::<usize>(), 100_000);
        assert!(frames.len() <= 3, "{}", frames.len());
    }
}
