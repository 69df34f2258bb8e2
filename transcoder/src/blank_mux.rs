//! libavformat is shown samples by size and times alone, and of what it writes only the head is kept: headers come from
//! a muxer that is kept well, and no sample is read for them.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use ffmpeg_next::format;
use ffmpeg_next::format::context::{Output, StreamIo};
use ffmpeg_next::packet::Flags;

use crate::ffi_mux::{self, BlankPacket};
use crate::track_index::Sample;

/// Of the buffer between the muxer and the head, in bytes; samples pass it by.
const BUFFER_BYTES: usize = 64 << 10;

/// A muxer whose file is kept only in its first bytes.
pub struct BlankMux {
    pub output: Output,
    blank: BlankPacket,
    head: Arc<Mutex<Head>>,
}

impl BlankMux {
    /// `head_bytes_max`: so much of the file is kept. `sample_bytes_max`: the largest sample that will be shown.
    pub fn new(head_bytes_max: usize, sample_bytes_max: u32) -> anyhow::Result<BlankMux> {
        let head = Arc::new(Mutex::new(Head { bytes: Vec::new(), bytes_max: head_bytes_max, end: 0 }));
        let sink = HeadSink { head: head.clone(), position: 0 };
        let io = StreamIo::from_write_seek_with_capacity(sink, BUFFER_BYTES).context("make a sink")?;
        let mut output = format::output_to_stream(io, None, Some("mp4")).context("begin a file")?;
        ffi_mux::write_through(&mut output);
        Ok(BlankMux { output, blank: BlankPacket::new(sample_bytes_max as usize), head })
    }

    /// As if the sample were written.
    pub fn show(&mut self, stream: usize, sample: &Sample) -> anyhow::Result<()> {
        let packet = self.blank.sized(sample.bytes as usize);
        packet.set_stream(stream);
        packet.set_pts(Some(sample.pts));
        packet.set_dts(Some(sample.dts));
        packet.set_duration(i64::from(sample.duration));
        packet.set_flags(if sample.is_key { Flags::KEY } else { Flags::empty() });
        packet.write(&mut self.output).context("show the muxer a sample")?;
        Ok(())
    }

    /// What was written, but for the last `left_out_bytes`.
    pub fn into_head(self, left_out_bytes: u64) -> anyhow::Result<Vec<u8>> {
        // The file is closed first: that writes what is left.
        drop(self.output);
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = head.end.checked_sub(left_out_bytes).context("less was written than is left out")?;
        let kept = usize::try_from(kept).context("a head of absurd size")?;
        ensure!(kept <= head.bytes.len(), "a head of {kept} bytes where {} were kept", head.bytes.len());
        head.bytes.truncate(kept);
        Ok(std::mem::take(&mut head.bytes))
    }
}

/// What the muxer has written, without the media data.
struct Head {
    bytes: Vec<u8>,
    /// Bytes from here on are counted, not kept.
    bytes_max: usize,
    /// Length of the whole file so far.
    end: u64,
}

/// A file of which only the beginning is kept. Shared, for the muxer owns its end of it.
struct HeadSink {
    head: Arc<Mutex<Head>>,
    position: u64,
}

impl Write for HeadSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(self.position).unwrap_or(usize::MAX);
        let kept = data.len().min(head.bytes_max.saturating_sub(start));
        if kept > 0 {
            let end = start + kept;
            if head.bytes.len() < end {
                head.bytes.resize(end, 0);
            }
            head.bytes[start..end].copy_from_slice(&data[..kept]);
        }
        self.position += data.len() as u64;
        head.end = head.end.max(self.position);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for HeadSink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.head.lock().unwrap_or_else(PoisonError::into_inner).end;
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
