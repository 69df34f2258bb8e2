//! Which factor a film needs for the quality that is asked for: a few moments of it, encoded at two factors at the smallest
//! rung and judged beside what went in. The rungs of a film differ by less than the moments do, so one stands for all.
//! Nothing is written.

use std::path::Path;

use anyhow::Context;
use domain::task::{ChunkSpan, Plan};
use domain::{CHOSEN_CRF_MAX, CHOSEN_CRF_MIN, RenditionName, Rung, VideoCodec};
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::frame::Video;
use ffmpeg_next::util::error::EAGAIN;
use ffmpeg_next::{Error, codec, picture};

use crate::chunk_reader::ChunkReader;
use crate::encoder::Recipe;
use crate::filters::{Filters, Look};
use crate::plane::Plane;
use crate::progress::Progress;
use crate::quality::Reference;
use crate::schedule::{FRAME_RATE_MAX, Schedule};
use crate::source::{self, Opened, SourceFacts, VideoFacts};
use crate::{TaskError, ffi, pulse};

/// One moment in so many seconds of film, so that looking costs little beside encoding.
const FILM_S_PER_MOMENT: f64 = 10.0;
const MOMENTS_MIN: usize = 4;
const MOMENTS_MAX: usize = 12;
/// Of a moment: as far as x264 looks ahead, twice.
const PICTURES: usize = 20;
/// The first are better than those that follow, and the last x264 neglects.
const JUDGED: std::ops::Range<usize> = 3..16;
/// A keyframe is decoded to the moment at most so long, in seconds.
const LEAD_S_MAX: f64 = 1.0;
/// Quality falls nearly in a straight line between them, and there most films find theirs.
const CRFS_TRIED: [f64; 2] = [21.0, 27.0];
/// Beyond them it falls faster.
const BEND: f64 = 0.8;
/// Of the cap, on average: what comes near it is held down in places.
const CAP_SHARE: f64 = 0.85;
/// What is lost adds up until the next keyframe, and a moment ends before: in the later half of a group VMAF lies so much
/// lower than among the pictures that are judged. The median of the corpus at CRF 23, by `bench/rates.py`.
const FALL: f64 = 1.5;
/// So many deviations below the mean of the worst pictures of moments lie those of a film; never below the worst of them.
const DEVIATIONS: f64 = 1.5;

/// What came of the moments at each of [`CRFS_TRIED`].
#[derive(Debug, Clone, Default, PartialEq)]
struct Tried {
    /// Of the worst picture of each moment.
    scores: [Vec<f64>; CRFS_TRIED.len()],
    /// In bit/s.
    rates_bps: [Vec<f64>; CRFS_TRIED.len()],
}

/// The largest factor, in x264's measure, at which the film has the quality that the plan asks for, as well as it can be
/// told. `None`: there is nothing to tell it by.
pub fn choose(
    input: &Path,
    facts: Option<&Path>,
    plan: &Plan,
    progress: &Progress,
) -> Result<Option<f64>, TaskError> {
    let Some(quality) = plan.settings.quality else { return Ok(None) };
    let Some(rung) = plan.rungs.iter().rfind(|rung| is_looked_at(rung)) else { return Ok(None) };
    let source = source::open_judged(input, facts)?.facts;
    let mut tried = Tried::default();
    let spans = moments(&source.video);
    for (number, &span) in spans.iter().enumerate() {
        let pictures = read(input, &source, plan, span, rung)?;
        tried.take(rung, &pictures, plan, &source.video)?;
        progress.report((number + 1) as f64 / spans.len() as f64);
    }
    let fall = if group_pictures(plan, &source.video) > PICTURES as f64 { FALL } else { 0.0 };
    Ok(tried.crf(quality + fall, rung.bitrate_bps_max as f64))
}

/// From one keyframe to the next, at most.
fn group_pictures(plan: &Plan, video: &VideoFacts) -> f64 {
    (plan.settings.gop_s_max * video.frame_rate.min(FRAME_RATE_MAX)).max(1.0)
}

/// Other codecs follow H.264; `original` is to be as good as it can.
fn is_looked_at(rung: &Rung) -> bool {
    rung.name != RenditionName::Original && rung.name.codec() == VideoCodec::H264
}

/// Spread over the film.
fn moments(video: &VideoFacts) -> Vec<ChunkSpan> {
    let (first, end) = (video.frame_times[0], video.end());
    let seconds = |ticks: i64| ticks as f64 / f64::from(video.clock.timescale);
    let count = ((seconds(end - first) / FILM_S_PER_MOMENT) as usize).clamp(MOMENTS_MIN, MOMENTS_MAX);
    let lead_max = (LEAD_S_MAX * f64::from(video.clock.timescale)) as i64;
    let start = |n: usize| {
        let middle = first + (end - first) * (2 * n as i64 + 1) / (2 * count as i64);
        let keys = video.keyframes.partition_point(|&key| key <= middle);
        let key = keys.checked_sub(1).map_or(first, |last| video.keyframes[last]);
        // The times of the frames are what a span begins and ends at.
        video.frame_times.partition_point(|&time| time < middle.min(key + lead_max))
    };
    // Without timestamps a frame is known by counting from the first one.
    let mut starts: Vec<usize> = if video.ranked { vec![0] } else { (0..count).map(start).collect() };
    starts.dedup();
    let step = if video.frame_rate > FRAME_RATE_MAX { 2 } else { 1 };
    let time = |number: usize| video.frame_times.get(number).copied();
    let span = |start: usize| Some(ChunkSpan { start: time(start)?, end: time(start + PICTURES * step) });
    starts.into_iter().filter_map(span).collect()
}

/// The pictures of a moment as the rung shows them.
fn read(
    input: &Path,
    source: &SourceFacts,
    plan: &Plan,
    span: ChunkSpan,
    rung: &Rung,
) -> Result<Vec<Video>, TaskError> {
    let opened = Opened { input: source::reopen_to_decode(input, source)?, facts: source.clone() };
    let video = &source.video;
    let schedule = Schedule::new(video, plan, span);
    let look = Look {
        sizes: vec![rung.size],
        orientation: video.orientation,
        interlaced: video.interlaced,
        pixel: "yuv420p",
    };
    let mut filters = Filters::new(look, video.clock.timescale);
    let mut pictures = Vec::with_capacity(PICTURES);
    let mut keep = |_: usize, picture: Video| {
        pictures.push(picture);
        Ok(())
    };
    let reader = ChunkReader::new(opened, input, span, &schedule, plan.threads());
    reader.decode(&mut |frame| filters.push(&frame, &mut keep))?;
    filters.finish(&mut keep)?;
    Ok(pictures)
}

struct Encoded {
    parameters: codec::Parameters,
    packets: Vec<Packet>,
}

fn encode(recipe: &Recipe, pictures: &[Video]) -> Result<Encoded, TaskError> {
    let mut encoder = recipe.open()?;
    let mut encoded = Encoded { parameters: codec::Parameters::from(&encoder), packets: Vec::new() };
    let mut take = |encoder: &mut codec::encoder::video::Encoder| loop {
        let mut packet = Packet::empty();
        match encoder.receive_packet(&mut packet) {
            Ok(()) => encoded.packets.push(packet),
            Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
            Err(error) => return Err(TaskError::from(error)),
        }
    };
    for (number, picture) in pictures.iter().enumerate() {
        let mut given = ffi::share(picture)?;
        given.set_kind(if number == 0 { picture::Type::I } else { picture::Type::None });
        encoder.send_frame(&given)?;
        take(&mut encoder)?;
        pulse::beat();
    }
    encoder.send_eof()?;
    take(&mut encoder)?;
    Ok(encoded)
}

fn decode(encoded: &Encoded) -> Result<Vec<Video>, TaskError> {
    let mut decoder = codec::Context::from_parameters(encoded.parameters.clone())?.decoder().video()?;
    let mut pictures = Vec::new();
    let mut take = |decoder: &mut codec::decoder::Video| {
        let mut picture = Video::empty();
        while decoder.receive_frame(&mut picture).is_ok() {
            pictures.push(std::mem::replace(&mut picture, Video::empty()));
        }
    };
    for packet in &encoded.packets {
        decoder.send_packet(packet)?;
        take(&mut decoder);
    }
    decoder.send_eof()?;
    take(&mut decoder);
    Ok(pictures)
}

/// Of a whole group of so many pictures: one keyframe, and the others as those of the moment are on average.
fn group_bytes(packets: &[Packet], pictures: f64) -> f64 {
    let bytes = |packet: &Packet| packet.size() as f64;
    let key: f64 = packets.first().map_or(0.0, bytes);
    let others = packets.get(1..).unwrap_or_default();
    let mean = others.iter().map(bytes).sum::<f64>() / others.len().max(1) as f64;
    key + mean * (pictures - 1.0)
}

/// The number of the picture that lost most, among those that are judged. `None`: the moment is too short, as at the end of a
/// film.
fn worst(before: &[Plane], after: &[Plane]) -> Option<usize> {
    let loss = |n: usize| {
        let pairs = before[n].values.iter().zip(&after[n].values);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
    };
    let judged = JUDGED.filter(|&n| n + 1 < before.len() && n < after.len());
    judged.max_by(|&a, &b| loss(a).total_cmp(&loss(b)))
}

impl Tried {
    fn take(
        &mut self,
        rung: &Rung,
        pictures: &[Video],
        plan: &Plan,
        video: &VideoFacts,
    ) -> Result<(), TaskError> {
        let group = group_pictures(plan, video);
        let before: Vec<Plane> = pictures.iter().map(Plane::luma).collect();
        let mut judged: Option<(usize, Reference)> = None;
        // The coarse one first: it shows which picture is the worst.
        for (n, crf) in CRFS_TRIED.into_iter().enumerate().rev() {
            let recipe = Recipe::new(&Rung { crf, ..rung.clone() }, plan, video.frame_rate);
            let encoded = encode(&recipe, pictures)?;
            let after: Vec<Plane> = decode(&encoded)?.iter().map(Plane::luma).collect();
            if judged.is_none() {
                let Some(worst) = worst(&before, &after) else { return Ok(()) };
                judged =
                    Some((worst, Reference::new(&before[worst - 1], &before[worst], &before[worst + 1])));
            }
            let (worst, reference) = judged.as_ref().context("it was set just above")?;
            let after = after.get(*worst).context("fewer pictures came out than went in")?;
            self.scores[n].push(reference.score(after));
            self.rates_bps[n].push(8.0 * group_bytes(&encoded.packets, group) / plan.settings.gop_s_max);
            pulse::beat();
        }
        Ok(())
    }

    /// `None`: nothing was judged.
    fn crf(&self, quality: f64, cap_bps: f64) -> Option<f64> {
        let [fine, coarse] = &self.scores;
        let crf = at_quality([low_end(fine)?, low_end(coarse)?], quality);
        let crf = crf.max(at_rate(self.rates_bps.each_ref().map(|rates| mean(rates)), CAP_SHARE * cap_bps));
        Some((crf.clamp(CHOSEN_CRF_MIN, CHOSEN_CRF_MAX) * 10.0).round() / 10.0)
    }
}

/// What all but the worst twentieth of a film have.
fn low_end(scores: &[f64]) -> Option<f64> {
    let lowest = scores.iter().copied().min_by(f64::total_cmp)?;
    let mean = mean(scores);
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / scores.len() as f64;
    Some((mean - DEVIATIONS * variance.sqrt()).max(lowest))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// On the line through the two that were tried.
fn at_quality([fine, coarse]: [f64; 2], quality: f64) -> f64 {
    let [low, high] = CRFS_TRIED;
    // What hardly changes with the factor is black.
    let slope = ((coarse - fine) / (high - low)).min(-0.05);
    let crf = low + (quality - fine) / slope;
    if crf > high { high + (crf - high) * BEND } else { crf }
}

/// Where the film takes so much. A finer factor than the cap has room for takes from later pictures what it gives to earlier
/// ones, and the worst get worse.
fn at_rate([fine, coarse]: [f64; 2], rate_bps: f64) -> f64 {
    let [low, high] = CRFS_TRIED;
    let slope = ((coarse.max(1.0).ln() - fine.max(1.0).ln()) / (high - low)).min(-0.02);
    low + (rate_bps.ln() - fine.max(1.0).ln()) / slope
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM_BPS: f64 = 1e9;

    fn tried(scores: [f64; 2], rates_bps: [f64; 2]) -> Tried {
        Tried { scores: scores.map(|score| vec![score; 3]), rates_bps: rates_bps.map(|rate| vec![rate]) }
    }

    #[test]
    fn the_factor_lies_on_the_line_and_within_its_bounds() {
        let film = tried([90.0, 78.0], [400e3, 200e3]);
        let crf = |quality| film.crf(quality, ROOM_BPS).unwrap();
        assert_eq!([crf(90.0), crf(84.0), crf(78.0)], [21.0, 24.0, 27.0]);
        assert_eq!([crf(99.0), crf(60.0)], [CHOSEN_CRF_MIN, CHOSEN_CRF_MAX]);
        let black = tried([97.4, 97.4], [1e3, 1e3]);
        assert_eq!(black.crf(85.0, ROOM_BPS), Some(CHOSEN_CRF_MAX), "black costs nothing at any factor");
        assert_eq!(Tried::default().crf(85.0, ROOM_BPS), None, "nothing was judged");
    }

    #[test]
    fn a_film_that_the_cap_holds_down_is_not_encoded_finer_than_it_can_be() {
        let noise = tried([80.0, 68.0], [1600e3, 800e3]);
        let crf = |room_bps| noise.crf(85.0, room_bps / CAP_SHARE).unwrap();
        assert_eq!([crf(400e3), crf(800e3), crf(1600e3)], [CHOSEN_CRF_MAX, 27.0, 21.0]);
        assert_eq!(crf(ROOM_BPS), 18.5);
    }

    #[test]
    fn hard_moments_count_and_one_of_them_is_not_all() {
        assert_eq!(low_end(&[80.0, 80.0]), Some(80.0));
        assert_eq!(low_end(&[80.0, 90.0]), Some(80.0));
        let mostly_easy: Vec<f64> = [vec![90.0; 11], vec![60.0]].concat();
        let low = low_end(&mostly_easy).unwrap();
        assert!((70.0..80.0).contains(&low), "{low}");
    }

    proptest! {
        #[test]
        fn more_quality_is_never_coarser(
            fine in 40.0..100.0, fall in 0.0..40.0, rate in 1e3..1e8, wanted in 60.0..98.0, more in 0.0..20.0,
        ) {
            let film = tried([fine, fine - fall], [rate, rate / 2.0]);
            let (crf, finer) = (film.crf(wanted, 1e6).unwrap(), film.crf(wanted + more, 1e6).unwrap());
            prop_assert!(finer <= crf && (CHOSEN_CRF_MIN..=CHOSEN_CRF_MAX).contains(&crf), "{finer} {crf}");
        }

        #[test]
        fn a_better_looking_film_is_never_encoded_finer(
            fine in 40.0..90.0, fall in 0.0..40.0, better in 0.0..10.0, wanted in 60.0..98.0,
        ) {
            let crf = |fine: f64| tried([fine, fine - fall], [4e5, 2e5]).crf(wanted, ROOM_BPS).unwrap();
            prop_assert!(crf(fine + better) >= crf(fine));
        }
    }
}
