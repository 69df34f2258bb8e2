//! One chunk, decoded once and encoded at every rung. Decoder, filters and each encoder have a thread of their own
//! with queues of a few frames between them, so that all cores stay busy and memory stays flat.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use domain::task::{OutputFile, Plan};
use domain::{ObjectFile, Rung};
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::chunk_file::{ChunkNote, output_file};
use crate::chunk_reader::ChunkReader;
use crate::encoder::VideoEncoder;
use crate::error::joined;
use crate::filters::{Filters, Look};
use crate::progress::Progress;
use crate::schedule::Schedule;
use crate::source::{Opened, SourceFacts};

/// As its end by a panic is told.
const A_THREAD: &str = "a thread of the encode";
/// Frames between two threads.
const QUEUE_FRAMES: usize = 4;

/// Writes `<rung>.chunk-<number>.mp4` for every rung of the plan into `output`. `opened` stands at its start; `input`
/// is where it came from.
pub fn encode_video(
    opened: Opened,
    input: &Path,
    output: &Path,
    plan: &Plan,
    chunk: u32,
    progress: &Progress,
) -> Result<Vec<OutputFile>, TaskError> {
    let span =
        *plan.chunks.get(chunk as usize).ok_or_else(|| anyhow::anyhow!("the plan has no chunk {chunk}"))?;
    let schedule = Schedule::new(&opened.facts.video, plan, span);
    let files: Vec<ObjectFile> = plan.rungs.iter().map(|rung| ObjectFile::Chunk(rung.name, chunk)).collect();
    let encoders = open_encoders(&opened.facts, &files, output, plan)?;
    let filters = Filters::new(look(&opened.facts, plan), opened.facts.video.clock.timescale);
    let reader = ChunkReader::new(opened, input, span, &schedule, plan.threads());
    let (encoders, damaged) = run(reader, filters, encoders, &schedule, progress)?;
    for encoder in encoders {
        finish(encoder, &schedule, damaged)?;
    }
    files.iter().map(|file| output_file(output, file)).collect()
}

fn open_encoders(
    source: &SourceFacts,
    files: &[ObjectFile],
    output: &Path,
    plan: &Plan,
) -> Result<Vec<VideoEncoder>, TaskError> {
    let open = |(rung, file): (&Rung, &ObjectFile)| {
        VideoEncoder::open(rung, &output.join(file.to_string()), plan, source.video.frame_rate)
    };
    plan.rungs.iter().zip(files).map(open).collect()
}

fn look(source: &SourceFacts, plan: &Plan) -> Look {
    Look {
        sizes: plan.rungs.iter().map(|rung| rung.size).collect(),
        orientation: source.video.orientation,
        interlaced: source.video.interlaced,
        pixel: "yuv420p",
    }
}

fn finish(encoder: VideoEncoder, schedule: &Schedule, damaged: u64) -> Result<(), TaskError> {
    let (frames, kept) = (encoder.frames(), schedule.kept.len() as u64);
    if frames == 0 {
        // Ingest saw pictures, so this is a part of the film where damage left none.
        return Err(anyhow::anyhow!("none of the {kept} pictures of this chunk can be decoded").into());
    }
    let damaged = damaged.max(kept.saturating_sub(frames));
    encoder.finish(ChunkNote { frames, damaged, end: schedule.end })
}

/// Runs the threads to the end; returns the encoders and how many frames were damaged.
fn run(
    reader: ChunkReader<'_>,
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
        let decoding = reader.decode(&mut |frame| decoded.send(frame).map_err(|_| closed()));
        drop(decoded);
        // An encoder's failure is the cause where its neighbours only found their queue closed.
        let encoded: Result<Vec<_>, _> =
            encoding.into_iter().map(|encoding| joined(encoding, A_THREAD)).collect();
        let filtered = joined(filtering, A_THREAD);
        let encoded = encoded?;
        filtered?;
        Ok((encoded, decoding?))
    })
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
