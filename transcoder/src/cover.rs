//! The cover: the frame the user asked for, else the best of a dozen spread over the film.

use std::path::Path;

use domain::MediaProblem;
use domain::task::Covers;
use ffmpeg_next::Error;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::decode::Decoder;
use crate::film_clock::rescale;
use crate::filters::{Filters, Look};
use crate::picture;
use crate::source::{self, SourceFacts};

const CANDIDATES: i64 = 12;
/// Pixels decoded at most between keyframes in search of candidates: about two seconds of 720p.
const PIXELS_MAX: u64 = 64_000_000;
/// Frames decoded at most on the way from a keyframe to one instant.
const FORWARD_FRAMES_MAX: u64 = 1_000;

/// What was made, and whether damaged pictures were met on the way.
pub struct CoversTaken {
    pub covers: Covers,
    pub damaged: bool,
}

/// `at_s` in film time.
pub fn take(
    input: &Path,
    source: &SourceFacts,
    output: &Path,
    at_s: Option<f64>,
) -> Result<CoversTaken, TaskError> {
    let mut hunt = Hunt::open(input, source)?;
    let found = match at_s {
        Some(at_s) => hunt.at(at_s)?,
        None => hunt.best()?,
    };
    let picture = match found {
        Some(picture) => picture,
        // Where seeking led nowhere, the first picture is still good.
        None => Hunt::open(input, source)?.forward(i64::MIN, FORWARD_FRAMES_MAX)?.ok_or_else(|| {
            TaskError::rejected(MediaProblem::Unreadable, "No picture of the video can be decoded.")
        })?,
    };
    let covers = picture::write_covers(&picture, source.video.size, output)?;
    Ok(CoversTaken { covers, damaged: hunt.decoder.damaged > 0 })
}

/// Moves through the film and brings back single pictures.
struct Hunt<'a> {
    source: &'a SourceFacts,
    input: Input,
    decoder: Decoder,
    filters: Filters,
    /// Film time of the last frame decoded; `None` where the decoder has to start at a keyframe.
    position: Option<i64>,
    pixels_left: u64,
}

impl<'a> Hunt<'a> {
    fn open(path: &Path, source: &'a SourceFacts) -> Result<Self, TaskError> {
        let input = source::reopen(path, source)?;
        let stream = input.stream(source.video.stream_index).ok_or(Error::StreamNotFound)?;
        let decoder = Decoder::open(&stream, 1, source.video.coded_size.pixels())?;
        let look = Look {
            sizes: vec![picture::cover_size(source.video.size)],
            orientation: source.video.orientation,
            interlaced: source.video.interlaced,
            pixel: "rgb24",
        };
        let filters = Filters::new(look, source.video.clock.timescale);
        // The input stands at the start, which is as good as a keyframe.
        let position = Some(i64::MIN);
        Ok(Hunt { source, input, decoder, filters, position, pixels_left: PIXELS_MAX })
    }

    fn best(&mut self) -> Result<Option<Video>, TaskError> {
        let video = &self.source.video;
        let first = video.frame_times[0];
        let length = video.end() - first;
        let pixels = video.coded_size.pixels().max(1);
        let mut best: Option<(f64, Video)> = None;
        let mut last_keyframe = None;
        for n in 0..CANDIDATES {
            let target = first + length * (2 * n + 1) / (2 * CANDIDATES);
            let near = self.keyframe_near(target, length / (2 * CANDIDATES));
            let found = match near {
                Some(keyframe) if last_keyframe == Some(keyframe) => None,
                Some(keyframe) => {
                    last_keyframe = near;
                    self.keyframe(keyframe)?
                }
                None => {
                    let frames = self.pixels_left / (CANDIDATES - n) as u64 / pixels;
                    self.forward_from_keyframe(target, frames.max(1))?
                }
            };
            if let Some(picture) = found {
                let score = picture::score(&picture)?;
                if best.as_ref().is_none_or(|(other, _)| score > *other) {
                    best = Some((score, picture));
                }
            }
        }
        Ok(best.map(|(_, picture)| picture))
    }

    /// The picture on the screen at an instant.
    fn at(&mut self, at_s: f64) -> Result<Option<Video>, TaskError> {
        let video = &self.source.video;
        let ticks = (at_s.max(0.0) * f64::from(video.clock.timescale)) as i64;
        let last = video.frame_times[video.frame_times.len() - 1];
        self.forward_from_keyframe(ticks.clamp(video.frame_times[0], last), FORWARD_FRAMES_MAX)
    }

    /// A keyframe alone is enough where one is close; fields of an interlaced picture come in pairs.
    fn keyframe_near(&self, target: i64, distance: i64) -> Option<i64> {
        let video = &self.source.video;
        let usable = !video.interlaced && !video.ranked;
        let nearest = video.keyframes.iter().copied().min_by_key(|keyframe| (keyframe - target).abs())?;
        (usable && (nearest - target).abs() <= distance).then_some(nearest)
    }

    /// Decodes one keyframe and nothing else.
    fn keyframe(&mut self, keyframe: i64) -> Result<Option<Video>, TaskError> {
        self.seek(keyframe)?;
        let Some(packet) = self.next_packet() else { return Ok(None) };
        self.decoder.send(&packet)?;
        self.decoder.send_end()?;
        let mut frame = Video::empty();
        let decoded = self.decoder.receive(&mut frame)?;
        // After its end a decoder takes nothing more until it is flushed, which the next seek does.
        self.position = None;
        if decoded { self.as_cover(frame) } else { Ok(None) }
    }

    fn forward_from_keyframe(&mut self, target: i64, frames_max: u64) -> Result<Option<Video>, TaskError> {
        let keyframes = &self.source.video.keyframes;
        let at = keyframes.partition_point(|&keyframe| keyframe <= target).saturating_sub(1);
        let keyframe = keyframes[at];
        if self.position.is_none_or(|position| keyframe > position.max(self.source.video.frame_times[0])) {
            self.seek(keyframe)?;
        }
        self.forward(target, frames_max)
    }

    /// Decodes on to the picture shown at `target`, or as far as `frames_max` frames lead.
    fn forward(&mut self, target: i64, frames_max: u64) -> Result<Option<Video>, TaskError> {
        let mut shown = None;
        let mut decoded = 0;
        while decoded < frames_max
            && self.position.is_none_or(|position| position < target || shown.is_none())
        {
            let Some(frame) = self.next_frame()? else { break };
            decoded += 1;
            self.position = frame.timestamp().map(|timestamp| self.source.video.clock.ticks(timestamp));
            if shown.is_none() || self.position.is_none_or(|position| position <= target) {
                shown = Some(frame);
            }
        }
        let pixels = decoded * self.source.video.coded_size.pixels();
        self.pixels_left = self.pixels_left.saturating_sub(pixels);
        shown.map_or(Ok(None), |frame| self.as_cover(frame))
    }

    fn next_frame(&mut self) -> Result<Option<Video>, TaskError> {
        let mut frame = Video::empty();
        loop {
            if self.decoder.receive(&mut frame)? {
                return Ok(Some(frame));
            }
            match self.next_packet() {
                Some(packet) => self.decoder.send(&packet)?,
                None => {
                    self.decoder.send_end()?;
                    return Ok(self.decoder.receive(&mut frame)?.then_some(frame));
                }
            }
        }
    }

    fn next_packet(&mut self) -> Option<Packet> {
        let stream = self.source.video.stream_index;
        self.input.packets().map(|(_, packet)| packet).find(|packet| packet.stream() == stream)
    }

    fn seek(&mut self, keyframe: i64) -> Result<(), TaskError> {
        let clock = &self.source.video.clock;
        let target_us = rescale(clock.timestamp(keyframe), clock.time_base, 1_000_000) + 1;
        // A demuxer that cannot seek goes on from where it is: a picture is a picture.
        let _ = self.input.seek(target_us, ..target_us);
        self.decoder.flush();
        self.position = None;
        Ok(())
    }

    fn as_cover(&mut self, mut frame: Video) -> Result<Option<Video>, TaskError> {
        let mut image = None;
        let mut keep = |_: usize, frame: Video| {
            image.get_or_insert(frame);
            Ok(())
        };
        frame.set_pts(Some(0));
        self.filters.push(&frame, &mut keep)?;
        self.filters.finish(&mut keep)?;
        Ok(image)
    }
}
