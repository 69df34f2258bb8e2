//! One thread for each object being written: it takes frames from a bounded queue, checksums and writes them as
//! they are, and starts their way to the disk early, so that the final sync has little left to wait for.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::root::Root;
use crate::{Crc64Nvme, ObjectWriter, StoreError, Stored, WRITE_QUEUE_BYTES_MAX};

/// Frames in one `writev`; the kernel takes 1024.
const FRAMES_PER_WRITE_MAX: usize = 256;
const BYTES_PER_WRITE_MAX: usize = 1024 * 1024;
/// Without an early start the page cache fills first and the final sync waits for all of it: twice the time.
const WRITE_BACK_EVERY_BYTES: u64 = 8 * 1024 * 1024;
/// Allocated ahead of a long file: it comes to lie in few extents, and the kernel has less to do for each page. What
/// is left over goes back at the end.
const ALLOCATE_AHEAD_BYTES: u64 = 64 * 1024 * 1024;
/// The writer's frames are few and shallow.
const THREAD_STACK_BYTES: usize = 256 * 1024;

pub(super) struct DiskWriter {
    queue: mpsc::UnboundedSender<Message>,
    /// Bounds the queue by bytes, whatever the size of the frames.
    room: Arc<Semaphore>,
    outcome: oneshot::Receiver<Result<Stored, StoreError>>,
}

enum Message {
    /// The permit goes back when the frame is written.
    Frame(Bytes, OwnedSemaphorePermit),
    Finish,
}

impl DiskWriter {
    pub(super) fn start(root: Arc<Root>, path: String) -> Result<DiskWriter, StoreError> {
        let (name, file) = root.create_unfinished(&path)?;
        let (queue, messages) = mpsc::unbounded_channel();
        let (report, outcome) = oneshot::channel();
        let room = Arc::new(Semaphore::new(WRITE_QUEUE_BYTES_MAX));
        let mut output = Output {
            root,
            path,
            name,
            file,
            written: 0,
            flushing: 0,
            allocated: 0,
            crc: Crc64Nvme::default(),
        };
        let closes_on_exit = RoomGuard(room.clone());
        std::thread::Builder::new().name("store-writer".into()).stack_size(THREAD_STACK_BYTES).spawn(
            move || {
                let result = output.run(messages);
                output.remove_unfinished();
                // Nobody may be listening any more: then the caller went away, and nothing is to be told.
                let _ = report.send(result);
                drop(closes_on_exit);
            },
        )?;
        Ok(DiskWriter { queue, room, outcome })
    }
}

#[async_trait]
impl ObjectWriter for DiskWriter {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let frame = bytes.split_to(bytes.len().min(BYTES_PER_WRITE_MAX));
            let permits = frame.len() as u32; // at most BYTES_PER_WRITE_MAX
            let Ok(permit) = self.room.clone().acquire_many_owned(permits).await else {
                return Err(self.failure().await);
            };
            if self.queue.send(Message::Frame(frame, permit)).is_err() {
                return Err(self.failure().await);
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, StoreError> {
        // If the thread is gone, its outcome says why.
        let _ = self.queue.send(Message::Finish);
        (&mut self.outcome).await.unwrap_or_else(|_| Err(thread_died()))
    }

    async fn abort(self: Box<Self>) {
        let DiskWriter { queue, outcome, .. } = *self;
        drop(queue);
        let _ = outcome.await;
    }
}

impl DiskWriter {
    /// Why the thread ended before it was told to.
    async fn failure(&mut self) -> StoreError {
        match (&mut self.outcome).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => thread_died(),
        }
    }
}

fn thread_died() -> StoreError {
    StoreError::permanent("the writer has ended")
}

/// Wakes those who wait for room when the thread ends, however it ends.
struct RoomGuard(Arc<Semaphore>);

impl Drop for RoomGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Output {
    root: Arc<Root>,
    path: String,
    /// In the folder of unfinished files.
    name: String,
    file: File,
    written: u64,
    /// Bytes before this are on their way to the disk.
    flushing: u64,
    /// Bytes before this have their place on the disk; 0 until the file is long.
    allocated: u64,
    crc: Crc64Nvme,
}

impl Output {
    fn run(&mut self, mut messages: mpsc::UnboundedReceiver<Message>) -> Result<Stored, StoreError> {
        let mut batch = Vec::new();
        while let Some(message) = messages.blocking_recv() {
            let finish = collect(message, &mut messages, &mut batch);
            self.write(&batch)?;
            batch.clear();
            if finish {
                return self.publish();
            }
        }
        // The writer was dropped or aborted: nobody reads this.
        Err(StoreError::permanent("aborted"))
    }

    fn write(&mut self, batch: &[(Bytes, OwnedSemaphorePermit)]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|(frame, _)| IoSlice::new(frame)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => IoSlice::advance_slices(&mut rest, bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for (frame, _) in batch {
            self.crc.update(frame);
            self.written += frame.len() as u64;
        }
        self.start_write_back();
        Ok(())
    }

    /// Linux answers this advice by starting the write-back of the dirty pages in the range, without waiting. It
    /// keeps pages that are under write-back, so what is written stays in memory for the transcoder.
    fn start_write_back(&mut self) {
        let fresh = self.written - self.flushing;
        if let Some(bytes) = NonZeroU64::new(fresh).filter(|bytes| bytes.get() >= WRITE_BACK_EVERY_BYTES) {
            // Only advice: durability comes from the final sync.
            let _ = rustix::fs::fadvise(&self.file, self.flushing, Some(bytes), Advice::DontNeed);
            self.flushing = self.written;
            self.allocate_ahead();
        }
    }

    /// The length stays what was written. A disk that is full, or has nothing like it, says so when it is written to.
    fn allocate_ahead(&mut self) {
        if self.written + WRITE_BACK_EVERY_BYTES + BYTES_PER_WRITE_MAX as u64 > self.allocated {
            let from = self.allocated.max(self.written);
            if rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, ALLOCATE_AHEAD_BYTES)
                .is_ok()
            {
                self.allocated = from + ALLOCATE_AHEAD_BYTES;
            }
        }
    }

    fn publish(&mut self) -> Result<Stored, StoreError> {
        if self.allocated > self.written {
            self.file.set_len(self.written)?;
        }
        self.root.publish(&self.file, self.root.unfinished(), Path::new(&self.name), &self.path)?;
        Ok(Stored { bytes: self.written, crc64nvme: self.crc.value() })
    }

    fn remove_unfinished(&self) {
        if let Err(error) = self.root.remove_unfinished(&self.name) {
            tracing::warn!(name = %self.name, %error, "an unfinished file stays behind until it is swept");
        }
    }
}

/// Moves what waits in the queue into `batch`, as much as one write should take. Answers whether to finish.
fn collect(
    first: Message,
    messages: &mut mpsc::UnboundedReceiver<Message>,
    batch: &mut Vec<(Bytes, OwnedSemaphorePermit)>,
) -> bool {
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Message::Finish => return true,
            Message::Frame(frame, permit) => {
                bytes += frame.len();
                batch.push((frame, permit));
            }
        }
        let full = bytes >= BYTES_PER_WRITE_MAX || batch.len() >= FRAMES_PER_WRITE_MAX;
        next = if full { None } else { messages.try_recv().ok() };
    }
    false
}
