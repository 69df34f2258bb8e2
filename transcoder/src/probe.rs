//! Measures a source: every packet is read once, the first pictures are decoded. What a container declares about
//! duration, frame rate and count is believed nowhere.

use domain::task::MediaLimits;
use domain::{MediaProblem, Size};
use ffmpeg_next::codec::Id;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::frame::{Audio, Video};
use ffmpeg_next::{Error, Rational};

use crate::decode::Decoder;
use crate::ffi::{self, StreamHeader};
use crate::film_clock::{FilmClock, SourceTime, timescale_of};
use crate::frame_times::{VideoPacket, VideoTimes};
use crate::orientation::Orientation;
use crate::source::{AudioFacts, Chosen, SourceFacts, VideoFacts};
use crate::{TaskError, judge};

/// For the uploader.
pub const DAMAGED: &str = "Some pictures are damaged; the video may show errors.";

/// Pictures looked at for size, format and interlacing.
const LOOKED_AT_MAX: usize = 12;
/// Packets tried for them; a stream that starts in the middle of a long GOP shows nothing before.
const TRIED_PACKETS_MAX: usize = 2_000;
const TRIED_SOUND_PACKETS_MAX: usize = 200;
/// Packets of one film: two hours at 240 frames a second and more; only a hostile file has more.
const VIDEO_PACKETS_MAX: usize = 4_000_000;
/// Damaged stretches the demuxer may skip before the rest counts as lost.
const SKIPS_MAX: u32 = 1_000;
/// AAC that is copied into the rungs, at most, in bit/s a channel.
const AAC_BPS_MAX: u64 = 80_000;
const PROFILE_AAC_LC: i32 = 1;
/// A header may promise this much more than there is, in seconds: players differ by as much.
const DECLARED_SLACK_S: f64 = 0.5;

/// Reads `input`, which stands at its start, to its end.
pub fn measure(input: &mut Input, chosen: &Chosen, limits: &MediaLimits) -> Result<SourceFacts, TaskError> {
    let mut warnings = chosen.warnings.clone();
    let (video_index, video_header) = &chosen.video;
    let container = input.format().name().to_owned();
    let declared_s = declared_duration_s(input, *video_index);
    let (audio, ear) = match usable_audio(input, chosen, &mut warnings)? {
        Some((index, header, decoder)) => (Some((index, header)), Some((index, decoder))),
        None => (None, None),
    };
    let read = read_all(input, *video_index, ear, limits)?;
    let first = read.look.first.as_ref().ok_or_else(|| no_picture(&read, declared_s))?;

    let time_base = time_base_of(input, *video_index);
    let declared_end = declared_end(input, *video_index);
    let times = VideoTimes::new(&read.video, &read.look.timestamps, read.look.interlaced, declared_end);
    let first_shown = times.shown.first().copied().ok_or_else(|| no_picture(&read, declared_s))?;
    let video_start = SourceTime { ticks: first_shown, time_base };
    let sound = audio.and_then(|(index, header)| {
        let sound = read.audio.start.filter(|_| read.audio.heard).map(|start| (index, header, start));
        if sound.is_none() {
            warnings.push("The sound was left out: nothing of it can be decoded.".to_owned());
        }
        sound
    });
    let audio_start = sound.as_ref().map(|(index, _, start)| heard_start(input, *index, *start));
    let film_start = match audio_start {
        Some(audio) if audio.seconds() < video_start.seconds() => audio,
        _ => video_start,
    };

    let clock = FilmClock::new(time_base, timescale_of(time_base), film_start);
    let video = video_facts(*video_index, video_header, first, clock, &times, &read);
    judge::pixels(video.size.width, video.size.height, limits.pixels_max)?;
    let audio = sound.zip(audio_start).map(|((index, header, _), start)| {
        audio_facts(index, &header, time_base_of(input, index), film_start, start, &read.audio)
    });

    let video_s = clock.seconds(video.end() - video.frame_times[0]);
    let cut = read.cut
        || declared_s.is_some_and(|declared| {
            lasting_s(&video, audio.as_ref()) + slack_s(&video) < declared
                && video_s + slack_s(&video) < declared
        });
    let whole_until_s = cut.then(|| clock.seconds(video.end()));
    let duration_s = film_duration_s(&video, audio.as_ref(), whole_until_s);
    judge::duration(duration_s, limits)?;
    if cut {
        warnings.push(cut_off(video_s, declared_s));
    }
    if read.look.damaged {
        warnings.push(DAMAGED.to_owned());
    }
    Ok(SourceFacts { container, video, audio, film_start, duration_s, warnings, whole_until_s })
}

/// Everything one pass over the file brings.
struct Read {
    video: Vec<VideoPacket>,
    video_bytes: u64,
    audio: AudioRead,
    look: Look,
    /// Reading ended before the end of the file, or in the middle of a packet.
    cut: bool,
}

#[derive(Default)]
struct AudioRead {
    /// Timestamp of the first packet.
    start: Option<i64>,
    end: i64,
    bytes: u64,
    tried_packets: usize,
    /// Something could be decoded.
    heard: bool,
}

/// What the first decoded pictures show.
struct Look {
    decoder: Decoder,
    tried_packets: usize,
    first: Option<Picture>,
    timestamps: Vec<i64>,
    interlaced: bool,
    damaged: bool,
}

struct Picture {
    size: Size,
    pixel: ffmpeg_next::format::Pixel,
    sar: Rational,
}

fn read_all(
    input: &mut Input,
    video: usize,
    mut ear: Option<(usize, Decoder)>,
    limits: &MediaLimits,
) -> Result<Read, TaskError> {
    let mut read = Read {
        video: Vec::new(),
        video_bytes: 0,
        audio: AudioRead::default(),
        look: Look::open(input, video, limits.pixels_max)?,
        cut: false,
    };
    let mut skips = 0;
    loop {
        let mut packet = Packet::empty();
        match packet.read(input) {
            Ok(()) if packet.stream() == video => read.video_packet(&packet)?,
            Ok(()) => {
                if let Some((_, decoder)) = ear.as_mut().filter(|(audio, _)| *audio == packet.stream()) {
                    read.audio.packet(&packet, decoder)?;
                }
            }
            Err(Error::Eof) => break,
            Err(Error::InvalidData) if skips < SKIPS_MAX => skips += 1,
            Err(Error::Other { errno: ffmpeg_next::util::error::ENOMEM }) => {
                return Err(TaskError::from(Error::Other { errno: ffmpeg_next::util::error::ENOMEM }));
            }
            Err(_) => {
                read.cut = true;
                break;
            }
        }
    }
    read.look.end()?;
    // A picture cut off in the middle is not whole; in the middle of the film the decoder may still show it.
    while read.video.pop_if(|last| last.corrupt).is_some() {
        read.cut = true;
    }
    Ok(read)
}

impl Read {
    fn video_packet(&mut self, packet: &Packet) -> Result<(), TaskError> {
        if self.video.len() >= VIDEO_PACKETS_MAX {
            let detail = format!("The video has more than {VIDEO_PACKETS_MAX} pictures.");
            return Err(TaskError::rejected(MediaProblem::TooLong, detail));
        }
        self.video.push(VideoPacket {
            pts: packet.pts(),
            dts: packet.dts(),
            duration: packet.duration(),
            key: packet.is_key(),
            hidden: ffi::is_hidden(packet),
            corrupt: packet.is_corrupt(),
        });
        self.video_bytes += packet.size() as u64;
        self.look.packet(packet)
    }
}

impl AudioRead {
    fn packet(&mut self, packet: &Packet, decoder: &mut Decoder) -> Result<(), TaskError> {
        if !self.heard && self.tried_packets < TRIED_SOUND_PACKETS_MAX {
            self.tried_packets += 1;
            decoder.send(packet)?;
            let mut samples = Audio::empty();
            while decoder.receive(&mut samples)? {
                self.heard = true;
            }
        }
        let Some(pts) = packet.pts().or(packet.dts()) else { return Ok(()) };
        self.start = Some(self.start.map_or(pts, |start| start.min(pts)));
        self.end = self.end.max(pts.saturating_add(packet.duration().max(0)));
        self.bytes += packet.size() as u64;
        Ok(())
    }
}

impl Look {
    fn open(input: &Input, video: usize, pixels_max: u64) -> Result<Self, TaskError> {
        let stream = input.stream(video).ok_or(Error::StreamNotFound)?;
        let decoder = Decoder::open(&stream, 1, pixels_max).map_err(|error| {
            let detail = format!("The video cannot be decoded: {error}.");
            TaskError::rejected(MediaProblem::Unreadable, detail)
        })?;
        Ok(Look {
            decoder,
            tried_packets: 0,
            first: None,
            timestamps: Vec::new(),
            interlaced: false,
            damaged: false,
        })
    }

    fn is_done(&self) -> bool {
        self.timestamps.len() >= LOOKED_AT_MAX || self.tried_packets >= TRIED_PACKETS_MAX
    }

    fn packet(&mut self, packet: &Packet) -> Result<(), TaskError> {
        if self.is_done() {
            return Ok(());
        }
        self.tried_packets += 1;
        self.decoder.send(packet)?;
        self.receive()
    }

    fn end(&mut self) -> Result<(), TaskError> {
        if !self.is_done() {
            self.decoder.send_end()?;
            self.receive()?;
        }
        // Streams that begin in the middle of a GOP start with errors; only what follows a picture tells.
        self.damaged = self.decoder.damaged > 0 && self.timestamps.len() < LOOKED_AT_MAX;
        Ok(())
    }

    fn receive(&mut self) -> Result<(), TaskError> {
        let mut frame = Video::empty();
        while self.decoder.receive(&mut frame)? {
            self.interlaced |= frame.is_interlaced();
            self.timestamps.extend(frame.timestamp());
            self.first.get_or_insert_with(|| Picture {
                size: Size { width: frame.width(), height: frame.height() },
                pixel: frame.format(),
                sar: frame.aspect_ratio(),
            });
        }
        Ok(())
    }
}

fn no_picture(read: &Read, declared_s: Option<f64>) -> TaskError {
    if read.video.is_empty() {
        let promise = declared_s.map_or(String::new(), |s| format!(" of the {s:.1} s its header promises"));
        let detail = format!("The file ends before its first picture{promise}.");
        return TaskError::rejected(MediaProblem::Truncated, detail);
    }
    let detail = format!("None of its {} pictures can be decoded and shown.", read.video.len());
    TaskError::rejected(MediaProblem::Unreadable, detail)
}

/// The audio track and its decoder. A described track that no decoder takes is damage to refuse; one that
/// describes nothing is left out.
fn usable_audio(
    input: &Input,
    chosen: &Chosen,
    warnings: &mut Vec<String>,
) -> Result<Option<(usize, StreamHeader, Decoder)>, TaskError> {
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
    Ok(Some((index, header, decoder)))
}

/// First sample heard: FFmpeg leaves priming out of a stream's start time.
fn heard_start(input: &Input, index: usize, first_packet: i64) -> SourceTime {
    let start = input.stream(index).map(|stream| stream.start_time());
    let ticks = start.filter(|&start| start != i64::MIN && start >= first_packet).unwrap_or(first_packet);
    SourceTime { ticks, time_base: time_base_of(input, index) }
}

fn video_facts(
    stream_index: usize,
    header: &StreamHeader,
    first: &Picture,
    clock: FilmClock,
    times: &VideoTimes,
    read: &Read,
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
    let mut keyframes: Vec<i64> = times.clean_keyframes.iter().map(|&time| clock.ticks(time)).collect();
    keyframes.retain(|&time| time > first_time);
    keyframes.insert(0, first_time);
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
        keyframes,
        ranked: times.ranked,
        hidden_frames: times.hidden,
        doubled_frames: times.doubled,
        interlaced: read.look.interlaced,
        pixel: first.pixel,
        bitrate_bps: (read.video_bytes as f64 * 8.0 / shown_s) as u64,
    }
}

fn audio_facts(
    stream_index: usize,
    header: &StreamHeader,
    time_base: Rational,
    film_start: SourceTime,
    start: SourceTime,
    read: &AudioRead,
) -> AudioFacts {
    let clock = FilmClock::new(time_base, header.sample_rate, film_start);
    let (start, end) = (clock.ticks(start.ticks), clock.ticks(read.end));
    let heard_s = clock.seconds(end - start).max(0.001);
    let bitrate_bps = (read.bytes as f64 * 8.0 / heard_s) as u64;
    let first_packet = clock.ticks(read.start.unwrap_or(0));
    // Priming is cut off by an edit list at the start of the film, and nowhere else.
    let priming_is_cut = start <= 0 || first_packet >= start;
    AudioFacts {
        stream_index,
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

/// From the start of the film to the end of the longer track, whole or not.
fn lasting_s(video: &VideoFacts, audio: Option<&AudioFacts>) -> f64 {
    film_duration_s(video, audio, None)
}

fn slack_s(video: &VideoFacts) -> f64 {
    DECLARED_SLACK_S.max(3.0 / video.frame_rate)
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
