//! Reads and decodes one chunk: its frames in display order, each at its time.

use std::path::Path;

use domain::Size;
use domain::task::ChunkSpan;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;

use crate::decode::Decoder;
use crate::film_clock::rescale;
use crate::schedule::Schedule;
use crate::source::{self, Opened, SourceFacts, VideoFacts};
use crate::{TaskError, ffi};

/// Takes the frames; an error ends the reading.
pub type Sink<'a> = &'a mut dyn FnMut(Video) -> Result<(), TaskError>;

pub struct ChunkReader<'a> {
    opened: Opened,
    path: &'a Path,
    span: ChunkSpan,
    schedule: &'a Schedule,
    threads: usize,
}

impl<'a> ChunkReader<'a> {
    /// `opened` stands at its start; `path` is where it came from; `threads` as in [`Decoder::open`].
    pub fn new(
        opened: Opened,
        path: &'a Path,
        span: ChunkSpan,
        schedule: &'a Schedule,
        threads: usize,
    ) -> Self {
        ChunkReader { opened, path, span, schedule, threads }
    }

    /// Sends the frames of the chunk, with their film times; returns how many packets and frames were damaged.
    pub fn decode(mut self, sink: Sink<'_>) -> Result<u64, TaskError> {
        let mut pending = self.seek()?;
        let stream = self.opened.facts.video.stream_index;
        let mut decoder = self.open_decoder()?;
        let mut frames = Frames::new(&self.opened.facts, self.schedule);
        while let Some(packet) = pending.take().or_else(|| next_packet(&mut self.opened.input, stream)) {
            if is_past_end(&self.opened.facts, self.span, &packet) {
                break;
            }
            decoder.send(&packet)?;
            frames.receive(&mut decoder, sink)?;
        }
        decoder.send_end()?;
        frames.receive(&mut decoder, sink)?;
        frames.finish(sink)?;
        Ok(decoder.damaged)
    }

    /// To the keyframe that decoding starts with; returns the packet that was read to see it. Demuxers that miss it are
    /// read from the start.
    fn seek(&mut self) -> Result<Option<Packet>, TaskError> {
        let video = &self.opened.facts.video;
        let start = decoding_start(video, self.span.start);
        if start <= video.frame_times[0] {
            return Ok(None);
        }
        let (stream, clock) = (video.stream_index, video.clock);
        let target_us = rescale(clock.timestamp(start), clock.time_base, 1_000_000) + 1;
        if self.opened.input.seek(target_us, ..target_us).is_ok()
            && let Some(packet) = next_packet(&mut self.opened.input, stream)
            && packet.is_key()
            && packet.pts().is_some_and(|pts| clock.ticks(pts) <= start)
        {
            return Ok(Some(packet));
        }
        self.opened.input = source::reopen(self.path, &self.opened.facts)?;
        // Everything before is passed over, not decoded.
        let input = &mut self.opened.input;
        let starts_here =
            |packet: &Packet| packet.is_key() && packet.pts().is_some_and(|pts| clock.ticks(pts) == start);
        Ok(std::iter::from_fn(|| next_packet(input, stream)).find(starts_here))
    }

    fn open_decoder(&self) -> Result<Decoder, TaskError> {
        let video = &self.opened.facts.video;
        let stream =
            self.opened.input.stream(video.stream_index).ok_or(ffmpeg_next::Error::StreamNotFound)?;
        Ok(Decoder::open(&stream, self.threads, video.coded_size.pixels())?)
    }
}

/// The keyframe the chunk starts with. Where pictures of the chunk may refer to the group before (open GOPs, and
/// recovery points that are none), the one before that.
fn decoding_start(video: &VideoFacts, start: i64) -> i64 {
    if video.keyframes.binary_search(&start).is_ok() {
        return start;
    }
    let before = video.entries.partition_point(|&entry| entry < start);
    before.checked_sub(1).map_or(start, |before| video.entries[before])
}

/// Decoding times never exceed presentation times: from here on nothing belongs to the chunk.
fn is_past_end(source: &SourceFacts, span: ChunkSpan, packet: &Packet) -> bool {
    let Some(end) = span.end else { return false };
    packet.dts().is_some_and(|dts| source.video.clock.ticks(dts) >= end)
}

fn next_packet(input: &mut Input, stream: usize) -> Option<Packet> {
    input.packets().map(|(_, packet)| packet).find(|packet| packet.stream() == stream)
}

fn black(size: Size) -> Video {
    let mut frame = Video::new(Pixel::YUV420P, size.width, size.height);
    for (plane, value) in [(0, 16), (1, 128), (2, 128)] {
        frame.data_mut(plane).fill(value);
    }
    frame
}

/// Gives decoded frames their film times, each once and ascending. Where damage swallowed the frame of a keyframe
/// that is due, the next one takes its place too: fragments start there in every rendition.
struct Frames<'a> {
    source: &'a SourceFacts,
    schedule: &'a Schedule,
    decoded: usize,
    last: Option<(i64, Video)>,
    /// Index into [`Schedule::keys`] of the next keyframe.
    next_key: usize,
}

impl<'a> Frames<'a> {
    fn new(source: &'a SourceFacts, schedule: &'a Schedule) -> Self {
        Frames { source, schedule, decoded: 0, last: None, next_key: 0 }
    }

    fn receive(&mut self, decoder: &mut Decoder, sink: Sink<'_>) -> Result<(), TaskError> {
        loop {
            let mut frame = Video::empty();
            if !decoder.receive(&mut frame)? {
                return Ok(());
            }
            let Some(time) = self.time_of(&frame) else { continue };
            self.fill(time, &frame, sink)?;
            if self.schedule.keys.get(self.next_key) == Some(&time) {
                self.next_key += 1;
            }
            self.last = Some((time, ffi::share(&frame)?));
            frame.set_pts(Some(time));
            sink(frame)?;
        }
    }

    /// When the end of the chunk was swallowed, its last frame stands in; when all of it was, black.
    fn finish(&mut self, sink: Sink<'_>) -> Result<(), TaskError> {
        let frame = match self.last.take() {
            Some((_, frame)) => frame,
            None => black(self.source.video.coded_size),
        };
        self.fill(self.schedule.end, &frame, sink)
    }

    /// `frame` at every keyframe that is due before `time`.
    fn fill(&mut self, time: i64, frame: &Video, sink: Sink<'_>) -> Result<(), TaskError> {
        while let Some(&key) = self.schedule.keys.get(self.next_key).filter(|&&key| key < time) {
            let mut stand_in = ffi::share(frame)?;
            stand_in.set_pts(Some(key));
            sink(stand_in)?;
            self.next_key += 1;
        }
        Ok(())
    }

    /// `None`: the frame is not of this chunk, or it is one that is left out.
    fn time_of(&mut self, frame: &Video) -> Option<i64> {
        let video = &self.source.video;
        let time = if video.ranked {
            video.frame_times.get(self.decoded).copied()
        } else {
            frame.timestamp().map(|timestamp| video.clock.ticks(timestamp))
        }?;
        self.decoded += 1;
        let fresh = self.last.as_ref().is_none_or(|(last, _)| time > *last);
        (fresh && self.schedule.kept.binary_search(&time).is_ok()).then_some(time)
    }
}
