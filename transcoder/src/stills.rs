//! Single pictures out of a film: keyframes where one is near, else what is shown at an instant.

use std::path::Path;

use domain::{MediaProblem, Size};
use ffmpeg_next::Error;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::Video;

use crate::TaskError;
use crate::decode::Decoder;
use crate::film_clock::rescale;
use crate::filters::{Filters, Look};
use crate::source::{self, SourceFacts};

/// Frames decoded at most on the way from a keyframe to one instant.
const FORWARD_FRAMES_MAX: u64 = 1_000;

/// Moves through the film and brings back single pictures, as they are decoded.
pub struct Stills<'a> {
    source: &'a SourceFacts,
    path: &'a Path,
    input: Input,
    decoder: Decoder,
    /// Film time of the last frame decoded; `None` where the decoder has to start at a keyframe.
    position: Option<i64>,
    /// Decoded, and shown only after the last instant that was asked for.
    ahead: Option<Video>,
    /// Where the picture that [`Stills::near`] brought last is shown from.
    last_near: Option<i64>,
    /// Pixels that may still be decoded between keyframes.
    pixels_left: u64,
}

impl<'a> Stills<'a> {
    /// `pixels_max` bounds what is decoded where no keyframe is near.
    pub fn open(path: &'a Path, source: &'a SourceFacts, pixels_max: u64) -> Result<Self, TaskError> {
        let input = source::reopen_to_decode(path, source)?;
        let stream = input.stream(source.video.stream_index).ok_or(Error::StreamNotFound)?;
        let decoder = Decoder::open(&stream, 1, source.video.coded_size.pixels())?;
        // The input stands at the start, which is as good as a keyframe.
        let position = Some(i64::MIN);
        let (ahead, last_near, pixels_left) = (None, None, pixels_max);
        Ok(Stills { source, path, input, decoder, position, ahead, last_near, pixels_left })
    }

    /// Where seeking led nowhere, the first picture is still good.
    pub fn first(&self) -> Result<Video, TaskError> {
        let mut stills = Stills::open(self.path, self.source, 0)?;
        stills.forward(i64::MIN, FORWARD_FRAMES_MAX)?.ok_or_else(|| {
            TaskError::rejected(MediaProblem::Unreadable, "No picture of the video can be decoded.")
        })
    }

    /// The picture on the screen at an instant.
    pub fn at(&mut self, target: i64) -> Result<Option<Video>, TaskError> {
        self.forward_from_keyframe(self.within_film(target), FORWARD_FRAMES_MAX)
    }

    /// A keyframe less than `distance` away, else the picture on the screen, or one before it where that costs more than
    /// its share: as many more are to come as `share_of` says. `None`: none, or the one that was brought last.
    pub fn near(&mut self, target: i64, distance: i64, share_of: u64) -> Result<Option<Video>, TaskError> {
        let target = self.within_film(target);
        let keyframe = self.keyframe_near(target, distance);
        let near = Some(keyframe.unwrap_or_else(|| last_until(&self.source.video.frame_times, target)));
        if self.last_near == near {
            return Ok(None);
        }
        self.last_near = near;
        match keyframe {
            Some(keyframe) => self.keyframe(keyframe),
            None => {
                let pixels = self.source.video.coded_size.pixels().max(1);
                let frames = self.pixels_left / share_of.max(1) / pixels;
                self.forward_from_keyframe(target, frames.max(1))
            }
        }
    }

    /// Packets and pictures that were damaged.
    pub fn damaged(&self) -> u64 {
        self.decoder.damaged
    }

    fn within_film(&self, target: i64) -> i64 {
        let times = &self.source.video.frame_times;
        target.clamp(times[0], times[times.len() - 1])
    }

    /// A keyframe alone is enough where one is close; fields of an interlaced picture come in pairs.
    fn keyframe_near(&self, target: i64, distance: i64) -> Option<i64> {
        let video = &self.source.video;
        let usable = !video.interlaced && !video.ranked;
        let nearest = video.keyframes.iter().copied().min_by_key(|keyframe| (keyframe - target).abs())?;
        (usable && (-distance..distance).contains(&(nearest - target))).then_some(nearest)
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
        Ok(decoded.then_some(frame))
    }

    fn forward_from_keyframe(&mut self, target: i64, frames_max: u64) -> Result<Option<Video>, TaskError> {
        let keyframe = last_until(&self.source.video.keyframes, target);
        let first = self.source.video.frame_times[0];
        if self.position.is_none_or(|position| position > target || keyframe > position.max(first)) {
            self.seek(keyframe)?;
        }
        self.forward(target, frames_max)
    }

    /// Decodes on to the picture shown at `target`, or as far as `frames_max` frames lead.
    fn forward(&mut self, target: i64, frames_max: u64) -> Result<Option<Video>, TaskError> {
        let mut shown = None;
        let mut decoded = 0;
        while decoded < frames_max {
            let Some(frame) = self.next_frame()? else { break };
            decoded += 1;
            self.position = frame.timestamp().map(|timestamp| self.source.video.clock.ticks(timestamp));
            if shown.is_some() && self.position.is_some_and(|position| position > target) {
                self.ahead = Some(frame);
                break;
            }
            shown = Some(frame);
            if self.position.is_some_and(|position| position >= target) {
                break;
            }
        }
        let pixels = decoded * self.source.video.coded_size.pixels();
        self.pixels_left = self.pixels_left.saturating_sub(pixels);
        Ok(shown)
    }

    fn next_frame(&mut self) -> Result<Option<Video>, TaskError> {
        if let Some(frame) = self.ahead.take() {
            return Ok(Some(frame));
        }
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
        (self.position, self.ahead) = (None, None);
        Ok(())
    }
}

/// Makes pictures to look at of what was decoded: upright, SDR, RGB, of one size.
pub struct Renderer {
    filters: Filters,
}

impl Renderer {
    pub fn new(source: &SourceFacts, size: Size) -> Self {
        let look = Look {
            sizes: vec![size],
            orientation: source.video.orientation,
            interlaced: source.video.interlaced,
            pixel: "rgb24",
        };
        Renderer { filters: Filters::new(look, source.video.clock.timescale) }
    }

    pub fn render(&mut self, mut frame: Video) -> Result<Video, TaskError> {
        let mut image = None;
        let mut keep = |_: usize, frame: Video| {
            image.get_or_insert(frame);
            Ok(())
        };
        frame.set_pts(Some(0));
        self.filters.push(&frame, &mut keep)?;
        // What waits for the next picture comes out at the end; else the filters are good for the next.
        if image.is_none() {
            self.filters.finish(&mut |_, frame| {
                image.get_or_insert(frame);
                Ok(())
            })?;
        }
        image.ok_or_else(|| anyhow::anyhow!("the filters made no picture of a frame").into())
    }
}

/// The last of the ascending instants that is not after `target`, or the first.
fn last_until(instants: &[i64], target: i64) -> i64 {
    instants[instants.partition_point(|&instant| instant <= target).saturating_sub(1)]
}
