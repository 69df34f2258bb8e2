//! One chunk, decoded once and encoded at every rung. Decoder, filters and each encoder have a thread of their own
//! with queues of a few frames between them, so that all cores stay busy and memory stays flat.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use domain::ObjectFile;
use domain::task::{ChunkSpan, OutputFile, Plan};
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;

use crate::chunk_file::{ChunkNote, output_file};
use crate::decode::Decoder;
use crate::encoder::VideoEncoder;
use crate::filters::{Filters, Look};
use crate::progress::Progress;
use crate::schedule::Schedule;
use crate::source::{self, Opened, SourceFacts};
use crate::{TaskError, judge};

/// Frames between two threads.
const QUEUE_FRAMES: usize = 4;

/// Writes `<rung>.chunk-<number>.mp4` for every rung of the plan into `output`.
pub fn encode_video(
    input: &Path,
    output: &Path,
    plan: &Plan,
    chunk: u32,
    progress: &Progress,
) -> Result<Vec<OutputFile>, TaskError> {
    let span =
        *plan.chunks.get(chunk as usize).ok_or_else(|| anyhow::anyhow!("the plan has no chunk {chunk}"))?;
    let opened = source::open(input, &judge::ALREADY_JUDGED)?;
    let schedule = Schedule::new(&opened.facts.video, plan, span);
    let files: Vec<ObjectFile> = plan.rungs.iter().map(|rung| ObjectFile::Chunk(rung.name, chunk)).collect();
    let encoders = plan
        .rungs
        .iter()
        .zip(&files)
        .map(|(rung, file)| {
            let path = output.join(file.to_string());
            VideoEncoder::open(rung, &path, plan, opened.facts.video.frame_rate)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let look = Look {
        sizes: plan.rungs.iter().map(|rung| rung.size).collect(),
        orientation: opened.facts.video.orientation,
        interlaced: opened.facts.video.interlaced,
        pixel: "yuv420p",
    };
    let filters = Filters::new(look, opened.facts.video.clock.timescale);
    let source = Reader { opened, path: input, span, schedule: &schedule };
    let (writers, damaged) = run(source, filters, encoders, &schedule, progress)?;
    let kept = schedule.kept.len() as u64;
    for writer in writers {
        let frames = writer.frames();
        if frames == 0 {
            return Err(TaskError::rejected(
                domain::MediaProblem::Unreadable,
                format!("None of the {kept} pictures of a part of the video can be decoded."),
            ));
        }
        let damaged = damaged.max(kept.saturating_sub(frames));
        writer.finish(ChunkNote { frames, damaged, end: schedule.end })?;
    }
    files.iter().map(|file| output_file(output, file)).collect()
}

/// Runs the threads to the end; returns the encoders and how many frames were damaged.
fn run(
    source: Reader<'_>,
    filters: Filters,
    encoders: Vec<VideoEncoder>,
    schedule: &Schedule,
    progress: &Progress,
) -> Result<(Vec<VideoEncoder>, u64), TaskError> {
    thread::scope(|scope| {
        let (decoded, to_filter) = sync_channel(QUEUE_FRAMES);
        let mut to_encoders = Vec::new();
        let mut encoding = Vec::new();
        for (rung, encoder) in encoders.into_iter().enumerate() {
            let (filtered, to_encode) = sync_channel(QUEUE_FRAMES);
            to_encoders.push(filtered);
            let progress = (rung == 0).then_some(progress);
            encoding.push(scope.spawn(move || encode(encoder, to_encode, schedule, progress)));
        }
        let filtering = scope.spawn(move || filter(filters, to_filter, to_encoders));
        let decoding = source.decode(decoded);
        // An encoder's failure is the cause where its neighbours only found their queue closed.
        let encoded: Result<Vec<_>, _> = encoding.into_iter().map(joined).collect();
        let filtered = joined(filtering);
        let encoded = encoded?;
        filtered?;
        Ok((encoded, decoding?))
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, TaskError>>) -> Result<T, TaskError> {
    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the encode panicked").into()))
}

/// The next thread has gone; its own error says why.
fn closed() -> TaskError {
    anyhow::anyhow!("a later stage of the encode stopped").into()
}

fn filter(
    mut filters: Filters,
    frames: Receiver<Video>,
    rungs: Vec<SyncSender<Video>>,
) -> Result<(), TaskError> {
    let mut out = |rung: usize, frame: Video| rungs[rung].send(frame).map_err(|_| closed());
    for frame in frames {
        filters.push(&frame, &mut out)?;
    }
    filters.finish(&mut out)
}

fn encode(
    mut encoder: VideoEncoder,
    frames: Receiver<Video>,
    schedule: &Schedule,
    progress: Option<&Progress>,
) -> Result<VideoEncoder, TaskError> {
    let start = schedule.kept.first().copied().unwrap_or(0);
    let length = (schedule.end - start).max(1) as f64;
    for frame in frames {
        let time = frame.pts().unwrap_or(start);
        encoder.encode(frame, schedule)?;
        if let Some(progress) = progress {
            progress.report((time - start) as f64 / length);
        }
    }
    encoder.drain(schedule)?;
    Ok(encoder)
}

/// Reads and decodes one chunk.
struct Reader<'a> {
    opened: Opened,
    path: &'a Path,
    span: ChunkSpan,
    schedule: &'a Schedule,
}

impl Reader<'_> {
    /// Sends the frames of the chunk in display order; returns how many came out damaged or not at all.
    fn decode(mut self, frames: SyncSender<Video>) -> Result<u64, TaskError> {
        let mut pending = self.seek()?;
        let stream = self.opened.facts.video.stream_index;
        let mut decoder = self.open_decoder()?;
        let mut times = FrameClock::new(&self.opened.facts, self.schedule);
        loop {
            let packet = match pending.take() {
                Some(packet) => packet,
                None => match next_packet(&mut self.opened.input, stream) {
                    Some(packet) => packet,
                    None => break,
                },
            };
            if self.is_past_end(&packet) {
                break;
            }
            decoder.send(&packet)?;
            receive(&mut decoder, &mut times, &frames)?;
        }
        decoder.send_end()?;
        receive(&mut decoder, &mut times, &frames)?;
        Ok(decoder.damaged)
    }

    /// To the keyframe the chunk starts with; returns the packet that was read to see it. Demuxers that miss it are
    /// read from the start.
    fn seek(&mut self) -> Result<Option<Packet>, TaskError> {
        let video = &self.opened.facts.video;
        if self.span.start <= video.frame_times[0] {
            return Ok(None);
        }
        let target = video.clock.timestamp(self.span.start);
        let target_us = crate::film_clock::rescale(target, video.clock.time_base, 1_000_000) + 1;
        let (stream, clock) = (video.stream_index, video.clock);
        if self.opened.input.seek(target_us, ..target_us).is_ok()
            && let Some(packet) = next_packet(&mut self.opened.input, stream)
            && packet.is_key()
            && packet.pts().is_some_and(|pts| clock.ticks(pts) <= self.span.start)
        {
            return Ok(Some(packet));
        }
        self.opened.input = source::reopen(self.path, &self.opened.facts)?;
        Ok(None)
    }

    fn open_decoder(&self) -> Result<Decoder, TaskError> {
        let video = &self.opened.facts.video;
        let stream =
            self.opened.input.stream(video.stream_index).ok_or(ffmpeg_next::Error::StreamNotFound)?;
        Ok(Decoder::open(&stream, 0, video.coded_size.pixels())?)
    }

    /// Decoding times never exceed presentation times: from here on nothing belongs to the chunk.
    fn is_past_end(&self, packet: &Packet) -> bool {
        let Some(end) = self.span.end else { return false };
        packet.dts().is_some_and(|dts| self.opened.facts.video.clock.ticks(dts) >= end)
    }
}

fn receive(decoder: &mut Decoder, times: &mut FrameClock, out: &SyncSender<Video>) -> Result<(), TaskError> {
    loop {
        let mut frame = Video::empty();
        if !decoder.receive(&mut frame)? {
            return Ok(());
        }
        if let Some(time) = times.time_of(&frame) {
            frame.set_pts(Some(time));
            out.send(frame).map_err(|_| closed())?;
        }
    }
}

fn next_packet(input: &mut Input, stream: usize) -> Option<Packet> {
    input.packets().map(|(_, packet)| packet).find(|packet| packet.stream() == stream)
}

/// Film times of decoded frames, each given once and ascending.
struct FrameClock<'a> {
    source: &'a SourceFacts,
    schedule: &'a Schedule,
    decoded: usize,
    last: Option<i64>,
}

impl<'a> FrameClock<'a> {
    fn new(source: &'a SourceFacts, schedule: &'a Schedule) -> Self {
        FrameClock { source, schedule, decoded: 0, last: None }
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
        let fresh = self.last.is_none_or(|last| time > last);
        if !fresh || self.schedule.kept.binary_search(&time).is_err() {
            return None;
        }
        self.last = Some(time);
        Some(time)
    }
}
