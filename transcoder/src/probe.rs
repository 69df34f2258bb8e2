//! Measures a source: every packet is read once, the first pictures are decoded. What a container declares about
//! duration, frame rate and count is believed nowhere.

use domain::task::MediaLimits;
use domain::{MediaProblem, Size};
use ffmpeg_next::codec::Id;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::{Error, Rational};

use crate::decode::Decoder;
use crate::ffi::StreamHeader;
use crate::film_clock::{FilmClock, SourceTime, timescale_of};
use crate::frame_times::VideoTimes;
use crate::orientation::Orientation;
use crate::reading::{AudioRead, Picture, Reading, read_all};
use crate::source::{AudioFacts, Chosen, SourceFacts, VideoFacts};
use crate::source_packets::SourcePacket;
use crate::source_reader::Blank;
use crate::{TaskError, judge};

/// For the uploader.
pub const DAMAGED: &str = "Some pictures are damaged; the video may show errors.";

/// AAC that is copied into the rungs, at most, in bit/s a channel.
const AAC_BPS_MAX: u64 = 80_000;
const PROFILE_AAC_LC: i32 = 1;
/// A header may promise this much more than there is, in seconds: players differ by as much.
const DECLARED_SLACK_S: f64 = 0.5;

/// What was measured, and the packets where they lie in the file as they are.
pub type Measured = (SourceFacts, Option<Vec<SourcePacket>>);

/// Reads `input`, which stands at its start, to its end; `samples` that nobody looks at are left out.
pub fn measure(
    input: &mut Input,
    chosen: &Chosen,
    limits: &MediaLimits,
    samples: Option<&Blank>,
) -> Result<Measured, TaskError> {
    let mut warnings = chosen.warnings.clone();
    let (index, header) = &chosen.video;
    let declared_s = declared_duration_s(input, *index);
    let (sound, ear) = usable_audio(input, chosen, &mut warnings)?.unzip();
    let read = read_all(input, *index, sound.as_ref().map(|(index, _)| *index).zip(ear), limits, samples)?;
    let sound = sound.and_then(|sound| heard(input, sound, &read.audio, &mut warnings));

    let picture = read.look.first.as_ref().ok_or_else(|| no_picture(&read, declared_s))?;
    let (time_base, declared_end) = (time_base_of(input, *index), declared_end(input, *index));
    let times = VideoTimes::new(&read.video, &read.look.timestamps, read.look.interlaced, declared_end);
    let first_shown = *times.shown.first().ok_or_else(|| no_picture(&read, declared_s))?;
    let film_start = earlier(SourceTime { ticks: first_shown, time_base }, sound.as_ref());

    let clock = FilmClock::new(time_base, timescale_of(time_base), film_start);
    let video = video_facts(*index, header, picture, clock, &times, &read);
    judge::pixels(video.size.width, video.size.height, limits.pixels_max)?;
    let audio = sound.map(|sound| audio_facts(&sound, film_start, &read.audio));

    let whole_until_s = whole_until_s(&video, audio.as_ref(), read.cut, declared_s);
    let audio = audio.filter(|audio| is_in_time(audio, whole_until_s, &mut warnings));
    let duration_s = film_duration_s(&video, audio.as_ref(), whole_until_s);
    judge::duration(duration_s, limits)?;
    if let Some(whole_s) = whole_until_s {
        warnings.push(cut_off(whole_s, declared_s));
    }
    if read.look.damaged {
        warnings.push(DAMAGED.to_owned());
    }
    let container = input.format().name().to_owned();
    let facts = SourceFacts { container, video, audio, film_start, duration_s, warnings, whole_until_s };
    Ok((facts, read.packets.into_list()))
}

/// A sound track of which something was decoded.
struct Sound {
    index: usize,
    header: StreamHeader,
    /// First sample that is heard.
    start: SourceTime,
}

fn no_picture(read: &Reading, declared_s: Option<f64>) -> TaskError {
    if read.video.is_empty() {
        let promise = declared_s.map_or(String::new(), |s| format!(" of the {s:.1} s its header promises"));
        let detail = format!("The file ends before its first picture{promise}.");
        return TaskError::rejected(MediaProblem::Truncated, detail);
    }
    let detail = format!("None of its {} pictures can be decoded and shown.", read.video.len());
    TaskError::rejected(MediaProblem::Unreadable, detail)
}

/// A stream's index and what its header says.
type Track = (usize, StreamHeader);

/// The audio track, and its decoder. A described track that no decoder takes is damage to refuse; one that
/// describes nothing is left out.
fn usable_audio(
    input: &Input,
    chosen: &Chosen,
    warnings: &mut Vec<String>,
) -> Result<Option<(Track, Decoder)>, TaskError> {
    let Some((index, header)) = chosen.audio.clone() else { return Ok(None) };
    if header.sample_rate == 0 || header.channels == 0 {
        warnings.push("The sound was left out: its track names no sample rate or no channels.".to_owned());
        return Ok(None);
    }
    let stream = input.stream(index).ok_or(Error::StreamNotFound)?;
    let decoder = Decoder::open(&stream, 1, 0).map_err(|error| {
        let detail = format!("The sound ({}) cannot be decoded: {error}.", header.codec.name());
        TaskError::rejected(MediaProblem::Unreadable, detail)
    })?;
    Ok(Some(((index, header), decoder)))
}

/// FFmpeg leaves priming out of a stream's start time.
fn heard(
    input: &Input,
    (index, header): Track,
    read: &AudioRead,
    warnings: &mut Vec<String>,
) -> Option<Sound> {
    let Some(first_packet) = read.start.filter(|_| read.heard) else {
        warnings.push("The sound was left out: nothing of it can be decoded.".to_owned());
        return None;
    };
    let declared = input.stream(index).map(|stream| stream.start_time());
    let ticks = declared.filter(|&start| start >= first_packet).unwrap_or(first_packet);
    Some(Sound { index, header, start: SourceTime { ticks, time_base: time_base_of(input, index) } })
}

/// Of a film that was cut off, sound that begins later is not heard.
fn is_in_time(audio: &AudioFacts, whole_until_s: Option<f64>, warnings: &mut Vec<String>) -> bool {
    let is_heard = whole_until_s.is_none_or(|until_s| audio.clock.seconds(audio.start) < until_s);
    if !is_heard {
        warnings.push("The sound was left out: it begins after the last picture that is there.".to_owned());
    }
    is_heard
}

fn earlier(video: SourceTime, sound: Option<&Sound>) -> SourceTime {
    match sound {
        Some(sound) if sound.start.seconds() < video.seconds() => sound.start,
        _ => video,
    }
}

fn video_facts(
    stream_index: usize,
    header: &StreamHeader,
    first: &Picture,
    clock: FilmClock,
    times: &VideoTimes,
    read: &Reading,
) -> VideoFacts {
    let orientation = header.display_matrix.as_ref().map(Orientation::from_matrix).unwrap_or_default();
    let stated = header.sar.numerator() != header.sar.denominator();
    let sar = if stated || first.sar.numerator() <= 0 { header.sar } else { first.sar };
    let mut frame_times: Vec<i64> = times.shown.iter().map(|&time| clock.ticks(time)).collect();
    frame_times.dedup();
    let last_frame_duration = clock.length(times.last_duration).max(1);
    let shown = frame_times[frame_times.len() - 1] - frame_times[0];
    let shown_s = clock.seconds(shown + last_frame_duration).max(f64::MIN_POSITIVE);
    let frame_rate = match frame_times.len() {
        1 => 1.0 / clock.seconds(last_frame_duration),
        frames => (frames - 1) as f64 / clock.seconds(shown),
    };
    let first_time = frame_times[0];
    // Decoding starts with the first picture, whatever it is.
    let from_the_first = |times: &[i64]| {
        let later = times.iter().map(|&time| clock.ticks(time)).filter(|&time| time > first_time);
        std::iter::once(first_time).chain(later).collect()
    };
    VideoFacts {
        stream_index,
        codec: header.codec,
        clock,
        coded_size: first.size,
        size: shown_size(first.size, sar, orientation),
        orientation,
        sar,
        frame_rate,
        constant_rate: times.constant_rate,
        frame_times,
        last_frame_duration,
        keyframes: from_the_first(&times.clean_keyframes),
        entries: from_the_first(&times.entries),
        ranked: times.ranked,
        hidden_frames: times.hidden,
        doubled_frames: times.doubled,
        interlaced: read.look.interlaced,
        pixel: first.pixel,
        hdr: first.hdr,
        bitrate_bps: (read.video_bytes as f64 * 8.0 / shown_s) as u64,
    }
}

fn audio_facts(sound: &Sound, film_start: SourceTime, read: &AudioRead) -> AudioFacts {
    let Sound { index, header, start } = sound;
    let clock = FilmClock::new(start.time_base, header.sample_rate, film_start);
    let (start, end) = (clock.ticks(start.ticks), clock.ticks(read.end));
    let heard_s = clock.seconds(end - start).max(0.001);
    let bitrate_bps = (read.bytes as f64 * 8.0 / heard_s) as u64;
    let first_packet = clock.ticks(read.start.unwrap_or(0));
    // Priming is cut off by an edit list at the start of the film, and nowhere else.
    let priming_is_cut = start <= 0 || first_packet >= start;
    AudioFacts {
        stream_index: *index,
        codec: header.codec,
        clock,
        start,
        end,
        channels: header.channels,
        sample_rate: header.sample_rate,
        bitrate_bps,
        fits_as_is: header.codec == Id::AAC
            && header.profile == PROFILE_AAC_LC
            && header.channels <= 2
            && matches!(header.sample_rate, 44_100 | 48_000)
            && bitrate_bps <= AAC_BPS_MAX * u64::from(header.channels)
            && priming_is_cut,
    }
}

/// Sample aspect ratio, then rotation.
fn shown_size(coded: Size, sar: Rational, orientation: Orientation) -> Size {
    let width = (f64::from(coded.width) * f64::from(sar)).round().clamp(1.0, f64::from(u16::MAX)) as u32;
    if orientation.is_sideways() {
        Size { width: coded.height, height: width }
    } else {
        Size { width, height: coded.height }
    }
}

fn film_duration_s(video: &VideoFacts, audio: Option<&AudioFacts>, whole_until_s: Option<f64>) -> f64 {
    let video_end_s = video.clock.seconds(video.end());
    let audio_end_s = audio.map_or(0.0, |audio| audio.clock.seconds(audio.end));
    video_end_s.max(audio_end_s.min(whole_until_s.unwrap_or(f64::INFINITY)))
}

/// Where the pictures end, in film time, if that is not where the file was meant to end.
fn whole_until_s(
    video: &VideoFacts,
    audio: Option<&AudioFacts>,
    read_was_cut: bool,
    declared_s: Option<f64>,
) -> Option<f64> {
    let slack_s = DECLARED_SLACK_S.max(3.0 / video.frame_rate);
    let shown_s = video.clock.seconds(video.end() - video.frame_times[0]);
    let lasting_s = film_duration_s(video, audio, None).max(shown_s);
    let cut = read_was_cut || declared_s.is_some_and(|declared_s| lasting_s + slack_s < declared_s);
    cut.then(|| video.clock.seconds(video.end()))
}

/// What the header promises for the video track, else for the whole.
fn declared_duration_s(input: &Input, video: usize) -> Option<f64> {
    let stream = input.stream(video)?;
    let track_s = stream.duration() as f64 * f64::from(stream.time_base());
    let whole_s = input.duration() as f64 / f64::from(ffmpeg_next::ffi::AV_TIME_BASE);
    [track_s, whole_s].into_iter().find(|&s| s > 0.0 && s.is_finite())
}

/// Where the header says that the video track ends, in its timestamps.
fn declared_end(input: &Input, video: usize) -> Option<i64> {
    let stream = input.stream(video)?;
    let known = stream.duration() > 0 && stream.start_time() != i64::MIN;
    known.then(|| stream.start_time().saturating_add(stream.duration()))
}

fn cut_off(whole_s: f64, declared_s: Option<f64>) -> String {
    match declared_s.filter(|&declared_s| declared_s > whole_s) {
        Some(declared_s) => format!("The file was cut off: {whole_s:.1} s of {declared_s:.1} s are there."),
        None => format!("The file was cut off: {whole_s:.1} s are there."),
    }
}

fn time_base_of(input: &Input, index: usize) -> Rational {
    input.stream(index).map_or(Rational::new(1, 1), |stream| stream.time_base())
}
