//! The uploader's file: opened with one pinned demuxer, streams chosen, timeline measured.

use std::io::{Read, Seek};
use std::path::Path;

use domain::task::MediaLimits;
use domain::{MediaProblem, Size};
use ffmpeg_next::codec::Id;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::format::stream::Disposition;
use ffmpeg_next::{Dictionary, Error, Rational, Stream, media};
use serde::{Deserialize, Serialize};

use crate::ffi::{self, StreamHeader};
use crate::film_clock::{FilmClock, SourceTime};
use crate::orientation::Orientation;
use crate::sniff::{Demuxer, SNIFF_BYTES, sniff};
use crate::source_packets::SourcePacket;
use crate::source_reader::{Blank, SourceReader};
use crate::{TaskError, codecs, decode, error, facts_file, ffi_mux, judge, probe, sample_index};

/// Streams the demuxer may make at all; the limit of the settings is judged below it, with its own words.
const STREAMS_MAX: &str = "64";

/// The header of a container alone takes more.
const FILE_BYTES_MIN: usize = 128;

/// An open source and what was measured of it. The input stands at its first packet.
pub struct Opened {
    pub input: Input,
    pub facts: SourceFacts,
}

/// What was measured by reading every packet once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceFacts {
    /// As FFmpeg names the demuxer, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    pub video: VideoFacts,
    pub audio: Option<AudioFacts>,
    /// t = 0 of the film: the earlier of the first picture and the first sound.
    pub film_start: SourceTime,
    /// From `film_start` to the end of the longer track, of what is whole.
    pub duration_s: f64,
    /// One sentence each, for the uploader.
    pub warnings: Vec<String>,
    /// Set where the file was cut off: film time in seconds up to which the pictures are whole. Sound that
    /// starts later is left out.
    pub whole_until_s: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VideoFacts {
    pub stream_index: usize,
    /// Not in `facts.json`: only ingest asks.
    #[serde(skip, default = "unknown_codec")]
    pub codec: Id,
    /// Film time of this stream; its timescale is that of `Boundaries` and of the chunk files.
    pub clock: FilmClock,
    pub coded_size: Size,
    /// As shown: rotation and sample aspect ratio applied.
    pub size: Size,
    pub orientation: Orientation,
    /// 1/1 where the file says nothing.
    #[serde(with = "facts_file::rational")]
    pub sar: Rational,
    /// Frames a second, on average over the timestamps.
    pub frame_rate: f64,
    pub constant_rate: bool,
    /// Presentation times of the frames that can be shown, in film ticks, ascending and without doubles.
    #[serde(with = "facts_file::times")]
    pub frame_times: Vec<i64>,
    /// Film ticks that the last frame is shown.
    pub last_frame_duration: i64,
    /// Presentation times of keyframes at which decoding can start with nothing lost, ascending, in film ticks;
    /// keyframes with leading pictures (open GOPs) are not among them, but for the first.
    #[serde(with = "facts_file::times")]
    pub keyframes: Vec<i64>,
    /// Presentation times of all keyframes: at some of them pictures are shown before that refer to the group before.
    #[serde(with = "facts_file::times")]
    pub entries: Vec<i64>,
    /// Some packets carry no presentation time (AVI): frame n of the decoder is shown at `frame_times[n]`.
    pub ranked: bool,
    /// Frames cut away by an edit list: in the stream, but not in `frame_times`.
    pub hidden_frames: u64,
    /// Frames that share their time with another one; `frame_times` has it once.
    pub doubled_frames: u64,
    pub interlaced: bool,
    /// Not in `facts.json`: only ingest asks.
    #[serde(skip, default = "unknown_pixel")]
    pub pixel: Pixel,
    /// PQ or HLG. Not in `facts.json`: encodes look at each picture.
    #[serde(skip)]
    pub hdr: bool,
    /// The average of the packets, in bit/s.
    pub bitrate_bps: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AudioFacts {
    pub stream_index: usize,
    /// Not in `facts.json`: only ingest asks.
    #[serde(skip, default = "unknown_codec")]
    pub codec: Id,
    /// Film time of this stream in samples: its timescale is the sample rate.
    pub clock: FilmClock,
    /// First sample that is heard (priming excluded), in film ticks of `clock`.
    pub start: i64,
    /// End of the last packet, in film ticks of `clock`.
    pub end: i64,
    pub channels: u32,
    pub sample_rate: u32,
    pub bitrate_bps: u64,
    /// AAC-LC, at most stereo, 44.1 or 48 kHz, of modest bit rate: copied into the rungs, not encoded again.
    pub fits_as_is: bool,
}

/// The streams that go on.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub video: (usize, StreamHeader),
    pub audio: Option<(usize, StreamHeader)>,
    pub warnings: Vec<String>,
}

/// Opens, judges what the header says, measures every packet, judges that, and opens again at the start.
pub fn open(path: &Path, limits: &MediaLimits) -> Result<Opened, TaskError> {
    let (opened, _) = measure(path, limits)?;
    Ok(Opened { input: reopen(path, &opened.facts)?, facts: opened.facts })
}

/// As [`open`], but leaves the input at its end; and the packets, where they lie in the file as they are. Samples that an
/// index tells all about are not read.
pub fn measure(path: &Path, limits: &MediaLimits) -> Result<Measured, TaskError> {
    if let Some(measured) = measure_by_index(path, limits)? {
        return Ok(measured);
    }
    let (mut input, chosen) = open_chosen(path, limits)?;
    SourceReader::open(path)?.wait_for_all()?;
    let (facts, packets) = probe::measure(&mut input, &chosen, limits, None)?;
    Ok((Opened { input, facts }, packets))
}

type Measured = (Opened, Option<Vec<SourcePacket>>);

/// `None` where there is no index, or where it is not enough or not true.
fn measure_by_index(path: &Path, limits: &MediaLimits) -> Result<Option<Measured>, TaskError> {
    if !sample_index::is_there(path)? {
        return Ok(None);
    }
    let Pinned { mut input, samples, .. } = open_pinned(path, limits.pixels_max)?;
    ffi::leave_out_parsers(&mut input);
    let chosen = probe_and_choose(&mut input, path, limits)?;
    if !sample_index::tells_all(&chosen) {
        return Ok(None);
    }
    let (facts, Some(packets)) = probe::measure(&mut input, &chosen, limits, Some(&samples))? else {
        return Ok(None);
    };
    let (index, header) = &chosen.video;
    let stream = input.stream(*index).ok_or(Error::StreamNotFound)?;
    let pictures: Vec<_> = packets.iter().filter(|packet| packet.stream == *index).copied().collect();
    let parameters = stream.parameters();
    let is_true = sample_index::is_true(path, header.codec, ffi_mux::extradata(&parameters), &pictures)?;
    Ok(is_true.then_some((Opened { input, facts }, Some(packets))))
}

/// What ingest judged: measured again only where `facts` are not at hand.
pub fn open_judged(path: &Path, facts: Option<&Path>) -> Result<Opened, TaskError> {
    let Some(facts) = facts else { return open(path, &judge::ALREADY_JUDGED) };
    let facts = facts_file::read(facts)?;
    Ok(Opened { input: reopen(path, &facts)?, facts })
}

fn unknown_codec() -> Id {
    Id::None
}

fn unknown_pixel() -> Pixel {
    Pixel::None
}

/// The same file and streams once more, at the first packet.
pub fn reopen(path: &Path, facts: &SourceFacts) -> Result<Input, TaskError> {
    let pixels_max = facts.video.coded_size.pixels().max(decode::PIXELS_MIN);
    let mut input = open_pinned(path, pixels_max)?.input;
    probe_streams(&mut input, pixels_max, path)?;
    let audio = facts.audio.as_ref().map(|audio| audio.stream_index);
    ffi::discard_all_but(&mut input, &Vec::from_iter([facts.video.stream_index].into_iter().chain(audio)));
    Ok(input)
}

/// As [`reopen`], for decoding pictures and nothing else: where an index declares the streams, none are decoded to guess
/// at what it leaves out.
pub fn reopen_to_decode(path: &Path, facts: &SourceFacts) -> Result<Input, TaskError> {
    let pixels_max = facts.video.coded_size.pixels().max(decode::PIXELS_MIN);
    let Pinned { mut input, demuxer, .. } = open_pinned(path, pixels_max)?;
    if !matches!(demuxer, Demuxer::Mov) {
        probe_streams(&mut input, pixels_max, path)?;
    }
    ffi::discard_all_but(&mut input, &[facts.video.stream_index]);
    Ok(input)
}

fn open_chosen(path: &Path, limits: &MediaLimits) -> Result<(Input, Chosen), TaskError> {
    let mut input = open_pinned(path, limits.pixels_max)?.input;
    let chosen = probe_and_choose(&mut input, path, limits)?;
    Ok((input, chosen))
}

fn probe_and_choose(input: &mut Input, path: &Path, limits: &MediaLimits) -> Result<Chosen, TaskError> {
    probe_streams(input, limits.pixels_max, path)?;
    judge::streams(input.nb_streams(), limits)?;
    let chosen = choose(input)?;
    judge::chosen(&chosen, limits)?;
    let audio = chosen.audio.as_ref().map(|(index, _)| *index);
    ffi::discard_all_but(input, &Vec::from_iter([chosen.video.0].into_iter().chain(audio)));
    Ok(chosen)
}

/// A file whose header was read by the one demuxer that its bytes ask for.
struct Pinned {
    input: Input,
    demuxer: Demuxer,
    /// Leaves out what the header does not need.
    samples: Blank,
}

/// Pictures above `pixels_max` are refused before any decoder sees them.
fn open_pinned(path: &Path, pixels_max: u64) -> Result<Pinned, TaskError> {
    let mut reader = SourceReader::open(path)?;
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    reader.by_ref().take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    reader.rewind()?;
    let demuxer = sniff(&head)?;
    if head.len() < FILE_BYTES_MIN {
        let detail = format!("The file has {} bytes, too few to hold a picture.", head.len());
        return Err(TaskError::rejected(MediaProblem::NotMedia, detail));
    }
    let options: Dictionary = [
        ("protocol_whitelist", "file"),
        ("format_whitelist", demuxer.name()),
        ("codec_whitelist", codecs::DECODERS),
        ("max_streams", STREAMS_MAX),
        ("enable_drefs", "0"),
        ("use_absolute_path", "0"),
    ]
    .into_iter()
    .collect();
    let samples = reader.blank();
    let input = ffi::open_header(reader, demuxer.name(), options).map_err(|e| unreadable_header(e, path))?;
    for stream in input.streams().filter(|s| s.parameters().medium() == media::Type::Video) {
        let header = ffi::stream_header(&stream);
        judge::pixels(header.width, header.height, pixels_max)?;
    }
    Ok(Pinned { input, demuxer, samples })
}

/// Fills in what the header left out, by reading and decoding the first packets.
fn probe_streams(input: &mut Input, pixels_max: u64, path: &Path) -> Result<(), TaskError> {
    let pixels_max = pixels_max.min(i32::MAX as u64).to_string();
    // One thread: these decoders live for a few packets.
    let codec_options = [("max_pixels", pixels_max.as_str()), ("threads", "1"), decode::NOT_SHOWN];
    ffi::find_stream_info(input, &codec_options).map_err(|e| error::reading(e, path, "start of the file"))
}

fn unreadable_header(error: Error, path: &Path) -> TaskError {
    match error {
        Error::InvalidData | Error::Eof => TaskError::rejected(
            MediaProblem::Unreadable,
            "The file starts like a video, but its index is missing or damaged: it was never finished, or it was cut off.",
        ),
        error => error::reading(error, path, "header of the file"),
    }
}

/// The first default video track with more than a still, and the first default audio track.
fn choose(input: &Input) -> Result<Chosen, TaskError> {
    let video = preferred(input, media::Type::Video).ok_or_else(|| {
        TaskError::rejected(MediaProblem::NoVideo, "The file has no video track.".to_owned())
    })?;
    let mut warnings = Vec::new();
    let audio = preferred(input, media::Type::Audio).filter(|(_, header)| {
        // A track without a description cannot be anything; one that is described but unknown is judged.
        let described = header.codec != Id::None || !header.tag.is_empty();
        if !described {
            warnings.push("The sound was left out: its track has no description.".to_owned());
        }
        described
    });
    Ok(Chosen { video, audio, warnings })
}

fn preferred(input: &Input, kind: media::Type) -> Option<(usize, StreamHeader)> {
    let candidates: Vec<Stream> = input
        .streams()
        .filter(|stream| stream.parameters().medium() == kind && !is_picture_attachment(stream))
        .collect();
    let moving = |stream: &&Stream| kind != media::Type::Video || stream.frames() != 1;
    let default = |stream: &&Stream| stream.disposition().contains(Disposition::DEFAULT);
    let best = candidates.iter().find(|stream| moving(stream) && default(stream));
    let stream = best.or_else(|| candidates.iter().find(moving)).or_else(|| candidates.first())?;
    Some((stream.index(), ffi::stream_header(stream)))
}

fn is_picture_attachment(stream: &Stream) -> bool {
    stream.disposition().intersects(Disposition::ATTACHED_PIC)
}

impl SourceFacts {
    /// Whether a packet of [`reopen`] belongs to the film: not cut away, not past what is whole.
    pub fn wanted(&self, packet: &Packet) -> bool {
        if packet.stream() == self.video.stream_index {
            return packet.pts().or(packet.dts()).is_some_and(|time| self.shows(time));
        }
        let is_sound = self.audio.as_ref().is_some_and(|audio| audio.stream_index == packet.stream());
        is_sound && packet.pts().is_some_and(|pts| self.sounds(pts, packet.duration()))
    }

    /// Whether the picture with this timestamp belongs to the film.
    pub fn shows(&self, time: i64) -> bool {
        self.video.frame_times.binary_search(&self.video.clock.ticks(time)).is_ok()
    }

    /// Whether the packet of sound at this timestamp belongs to the film.
    pub fn sounds(&self, pts: i64, duration: i64) -> bool {
        let Some(audio) = &self.audio else { return false };
        let start = audio.clock.ticks(pts);
        let whole = self.whole_until_s.is_none_or(|until_s| audio.clock.seconds(start) < until_s);
        // Priming before the film's start is cut by an edit list; anywhere else it would be heard.
        let heard = audio.start <= 0 || start + audio.clock.length(duration.max(1)) > audio.start;
        whole && heard
    }
}

impl VideoFacts {
    /// Frames that can be shown.
    pub fn frames(&self) -> u64 {
        self.frame_times.len() as u64
    }

    /// Film time at which the last frame ends, in ticks.
    pub fn end(&self) -> i64 {
        self.frame_times.last().map_or(0, |last| last + self.last_frame_duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_clips::make;

    const LIMITS: MediaLimits =
        MediaLimits { duration_s_max: 7200.0, pixels_max: 35_389_440, streams_max: 16 };

    /// What is known of a clip with its samples read or not.
    fn known((opened, packets): Measured) -> (String, String) {
        (serde_json::to_string(&opened.facts).unwrap(), format!("{packets:?}"))
    }

    fn by_reading(clip: &Path) -> Measured {
        let (mut input, chosen) = open_chosen(clip, &LIMITS).unwrap();
        let (facts, packets) = probe::measure(&mut input, &chosen, &LIMITS, None).unwrap();
        (Opened { input, facts }, packets)
    }

    #[test]
    fn an_index_tells_what_the_samples_do() {
        let folder = tempfile::tempdir().unwrap();
        const PICTURES: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=12";
        const SOUND: &str = "-f lavfi -i sine=frequency=500:sample_rate=48000:duration=12";
        let clips = [
            ("bframes.mp4", "-c:v libx264 -preset ultrafast -bf 3 -g 50 -c:a aac"),
            ("open.mp4", "-c:v libx264 -preset ultrafast -bf 3 -g 50 -x264-params open-gop=1 -c:a aac"),
            ("front.mp4", "-c:v libx264 -preset ultrafast -c:a aac -movflags +faststart"),
            ("late.mov", "-c:v libx264 -preset ultrafast -bf 2 -c:a aac -output_ts_offset 1"),
            (
                "hevc.mp4",
                "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25 -tag:v hvc1 -c:a aac",
            ),
            ("silent.mp4", "-an -c:v libx264 -preset ultrafast -vf setpts=PTS+random(1)*0.02/TB"),
            ("intra.mp4", "-an -c:v libx264 -preset ultrafast -g 1"),
        ];
        for (name, codecs) in clips {
            let clip = make(folder.path(), name, &format!("{PICTURES} {SOUND} {codecs} -pix_fmt yuv420p"));
            let by_index = measure_by_index(&clip, &LIMITS).unwrap().expect(name);
            assert_eq!(known(by_index), known(by_reading(&clip)), "{name}");
        }
    }

    #[test]
    fn where_the_index_is_not_enough_or_not_true_the_samples_are_read() {
        let folder = tempfile::tempdir().unwrap();
        const PICTURES: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2";
        let clips = [
            ("fragments.mp4", "-c:v libx264 -movflags +frag_keyframe+empty_moov"),
            ("vp9.mp4", "-c:v libvpx-vp9 -cpu-used 8"),
            ("film.mkv", "-c:v libx264"),
            ("lies.mp4", "-c:v libx264"),
        ];
        for (name, codecs) in clips {
            let clip = make(folder.path(), name, &format!("{PICTURES} {codecs} -pix_fmt yuv420p"));
            if name == "lies.mp4" {
                // Without a list of the samples where decoding can start, every sample is one.
                let mut film = std::fs::read(&clip).unwrap();
                let list = film.windows(4).position(|word| word == b"stss").unwrap();
                film[list..list + 4].copy_from_slice(b"free");
                std::fs::write(&clip, film).unwrap();
            }
            assert!(measure_by_index(&clip, &LIMITS).unwrap().is_none(), "{name}");
            let (opened, _) = measure(&clip, &LIMITS).unwrap();
            assert!(opened.facts.video.entries.len() < 10, "{name}: {:?}", opened.facts.video.entries);
        }
    }
}
