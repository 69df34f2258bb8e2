//! What there is to encode: rungs, boundaries, chunks, and what assembling checks against.

use domain::Rung;
use domain::task::{Boundaries, ChunkSpan, EncodeSettings, Expected, Plan};

use crate::schedule::{Schedule, at_most_apart, gop_ticks, thinned, within};
use crate::source::{SourceFacts, VideoFacts};

/// `original_is_copied`: its keyframes dictate where fragments can start; else `original` is the largest rung, and the
/// smallest is made before it.
pub fn plan(source: &SourceFacts, settings: &EncodeSettings, original_is_copied: bool) -> Plan {
    let video = &source.video;
    let mut rungs = settings.ladder.rungs(video.size);
    if !original_is_copied {
        rungs.insert(0, Rung::original(video.size));
    }
    let chunks = chunks(video, settings.chunk_s);
    let gop = gop_ticks(video, settings.planned.gop_s_max);
    let starts: Vec<i64> =
        chunks.iter().flat_map(|&span| boundaries(video, span, gop, original_is_copied)).collect();
    let mut plan = Plan {
        audio: source.audio.is_some() && !rungs.is_empty(),
        first: Plan::first_of(&rungs).filter(|_| !original_is_copied),
        rungs,
        settings: settings.planned.clone(),
        expected: expected(source, &[]),
        boundaries: Boundaries { timescale: video.clock.timescale, starts },
        chunks,
    };
    let kept = plan.chunks.iter().flat_map(|&span| Schedule::new(video, &plan, span).kept);
    plan.expected = expected(source, &kept.collect::<Vec<_>>());
    plan
}

/// One chunk, or chunks of at most `chunk_s` that start at keyframes. The pictures that are shown before such a keyframe
/// and come after it in the file belong to the chunk before.
fn chunks(video: &VideoFacts, chunk_s: Option<f64>) -> Vec<ChunkSpan> {
    let starts = match chunk_s {
        // Without timestamps a frame is known by counting from the first one.
        Some(chunk_s) if !video.ranked => {
            at_most_apart(&video.entries, video.end(), gop_ticks(video, chunk_s))
        }
        _ => vec![video.frame_times[0]],
    };
    let ends = starts.iter().skip(1).map(|&end| Some(end)).chain([None]);
    starts.iter().zip(ends).map(|(&start, end)| ChunkSpan { start, end }).collect()
}

/// Where fragments start within a chunk: at keyframes of the source where `original` is copied, else anywhere.
fn boundaries(video: &VideoFacts, span: ChunkSpan, gop: i64, original_is_copied: bool) -> Vec<i64> {
    let end = span.end.unwrap_or_else(|| video.end());
    if original_is_copied {
        at_most_apart(within(&video.keyframes, span.start, span.end), end, gop)
    } else {
        at_most_apart(&thinned(video, within(&video.frame_times, span.start, span.end)), end, gop)
    }
}

/// `kept`: the times of the frames that the rungs show.
fn expected(source: &SourceFacts, kept: &[i64]) -> Expected {
    let video = &source.video;
    let steps = kept.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = steps.max().unwrap_or(0).max(video.last_frame_duration);
    let audio_start_s = source.audio.as_ref().map(|audio| audio.clock.seconds(audio.start));
    let video_start_s = video.clock.seconds(video.frame_times[0]);
    Expected {
        frames: (!video.ranked).then_some(kept.len() as u64),
        duration_s: source.duration_s,
        frame_duration_s: video.clock.seconds(longest),
        audio_offset_s: audio_start_s.map(|audio_start_s| audio_start_s - video_start_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::film_clock::{FilmClock, SourceTime};
    use domain::task::EncodeSettingsPlanned;
    use domain::{LadderSettings, RenditionName, Size};
    use ffmpeg_next::Rational;

    fn source(frames: i64, step: i64, keyframes: &[i64]) -> SourceFacts {
        let time_base = Rational::new(1, 10_000);
        let film_start = SourceTime { ticks: 0, time_base };
        let size = Size { width: 1280, height: 720 };
        SourceFacts {
            container: "test".to_owned(),
            video: VideoFacts {
                stream_index: 0,
                codec: ffmpeg_next::codec::Id::H264,
                clock: FilmClock::new(time_base, 10_000, film_start),
                coded_size: size,
                size,
                orientation: Default::default(),
                sar: Rational::new(1, 1),
                frame_rate: 10_000.0 / step as f64,
                constant_rate: true,
                frame_times: (0..frames).map(|n| n * step).collect(),
                last_frame_duration: step,
                keyframes: keyframes.to_vec(),
                entries: keyframes.to_vec(),
                ranked: false,
                hidden_frames: 0,
                doubled_frames: 0,
                interlaced: false,
                pixel: ffmpeg_next::format::Pixel::YUV420P,
                hdr: false,
                bitrate_bps: 0,
            },
            audio: None,
            film_start,
            duration_s: (frames * step) as f64 / 10_000.0,
            warnings: Vec::new(),
            whole_until_s: None,
        }
    }

    fn settings(chunk_s: Option<f64>) -> EncodeSettings {
        let planned = EncodeSettingsPlanned { gop_s_max: 2.0, ..Default::default() };
        EncodeSettings { ladder: LadderSettings { crf: 23.0, ..Default::default() }, planned, chunk_s }
    }

    #[test]
    fn a_copied_original_dictates_the_boundaries_and_rungs_add_keyframes() {
        let source = source(300, 400, &[0, 9_600, 19_200, 79_200]);
        let plan = plan(&source, &settings(None), true);
        assert_eq!(plan.boundaries.starts, [0, 19_200, 79_200]);
        assert_eq!(
            plan.rungs.iter().map(|r| r.name).collect::<Vec<_>>(),
            [RenditionName::Medium, RenditionName::Low]
        );
        let schedule = crate::schedule::Schedule::new(&source.video, &plan, plan.chunks[0]);
        assert_eq!(schedule.kept.len(), 300);
        assert_eq!(schedule.keys, [0, 19_200, 39_200, 59_200, 79_200, 99_200, 119_200]);
        assert_eq!(schedule.duration_of(119_600), 400);
        assert_eq!(plan.expected.frames, Some(300));
    }

    #[test]
    fn an_encoded_original_has_boundaries_every_gop_and_comes_after_the_smallest_rung() {
        let plan = plan(&source(100, 400, &[0]), &settings(None), false);
        assert_eq!(plan.boundaries.starts, [0, 20_000]);
        assert_eq!(plan.rungs[0].name, RenditionName::Original);
        assert_eq!(plan.first, Some(RenditionName::Low));
        let copied = super::plan(&source(100, 400, &[0]), &settings(None), true);
        assert_eq!(copied.first, None, "there is something to watch already");
    }

    #[test]
    fn fast_sources_are_halved_from_each_boundary() {
        let source = source(300, 100, &[0, 13_300]);
        let plan = plan(&source, &settings(None), true);
        assert_eq!(plan.boundaries.starts, [0, 13_300]);
        let schedule = crate::schedule::Schedule::new(&source.video, &plan, plan.chunks[0]);
        assert!(schedule.kept.contains(&13_300) && schedule.kept.contains(&13_200));
        assert_eq!(plan.expected.frames, Some(schedule.kept.len() as u64));
        assert_eq!(plan.expected.frame_duration_s, 0.02);
    }

    #[test]
    fn chunks_cover_the_film_without_gap_or_overlap() {
        let keyframes: Vec<i64> = (0..30).map(|n| n * 10_000).collect();
        let source = source(750, 400, &keyframes);
        let plan = plan(&source, &settings(Some(10.0)), true);
        assert_eq!(plan.chunks.len(), 3);
        let frames: usize = plan
            .chunks
            .iter()
            .map(|&span| crate::schedule::Schedule::new(&source.video, &plan, span).kept.len())
            .sum();
        assert_eq!(frames, 750);
    }
}
