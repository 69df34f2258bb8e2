//! The sound that the rungs share, encoded once: AAC-LC 48 kHz, stereo 128 kbit/s or mono 64 kbit/s; AAC-LC that
//! fits is copied. The distance to the pictures is kept.

use std::path::Path;

use domain::ObjectFile;
use domain::task::OutputFile;
use ffmpeg_next::codec::packet::Packet;
use ffmpeg_next::codec::{self, Flags};
use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::format::Sample;
use ffmpeg_next::format::sample::Type;
use ffmpeg_next::frame::Audio;
use ffmpeg_next::util::error::EAGAIN;
use ffmpeg_next::{ChannelLayout, Error, Rational};

use crate::TaskError;
use crate::chunk_file::{ChunkWriter, output_file};
use crate::decode::Decoder;
use crate::progress::Progress;
use crate::source::{self, AudioFacts, Opened};

const RATE_HZ: u32 = 48_000;
const FORMAT: Sample = Sample::F32(Type::Planar);
const STEREO_BPS: usize = 128_000;
const MONO_BPS: usize = 64_000;
/// Samples in one AAC frame.
const FRAME_SAMPLES: u32 = 1024;
/// Sound that is missing at a start or an end, in seconds, is put up with below this.
const MISSING_S_MAX: f64 = 0.01;

/// Writes `chunk.audio.mp4` into `output`. `opened` stands at its start; `input` is where it came from.
pub fn encode_audio(
    mut opened: Opened,
    input: &Path,
    output: &Path,
    progress: &Progress,
) -> Result<Vec<OutputFile>, TaskError> {
    let audio = opened.facts.audio.clone().ok_or_else(|| anyhow::anyhow!("the source has no sound"))?;
    let path = output.join(ObjectFile::ChunkAudio.to_string());
    if audio.fits_as_is {
        match copy(&mut opened, &audio, &path, progress) {
            Ok(()) => return Ok(vec![output_file(output, ObjectFile::ChunkAudio)?]),
            Err(error) if error.is_of_the_machine() => return Err(error),
            Err(error) => eprintln!("the sound cannot be copied and will be encoded: {error}"),
        }
        opened.input = source::reopen(input, &opened.facts)?;
    }
    encode(opened, &audio, &path, progress)?;
    Ok(vec![output_file(output, ObjectFile::ChunkAudio)?])
}

fn copy(opened: &mut Opened, audio: &AudioFacts, path: &Path, progress: &Progress) -> Result<(), TaskError> {
    let stream = opened.input.stream(audio.stream_index).ok_or(Error::StreamNotFound)?;
    let mut writer = ChunkWriter::create(path, stream.parameters(), audio.sample_rate)?;
    let mut last_dts = i64::MIN;
    for (_, mut packet) in opened.input.packets() {
        let Some(pts) = packet.pts().filter(|_| packet.stream() == audio.stream_index) else { continue };
        let time = audio.clock.ticks(pts);
        // Rounded timestamps of other containers may repeat; a track's may not.
        if !opened.facts.wanted(&packet) || time <= last_dts {
            continue;
        }
        last_dts = time;
        packet.set_pts(Some(time));
        packet.set_dts(Some(time));
        packet.set_duration(i64::from(FRAME_SAMPLES));
        writer.write(packet)?;
        progress.report(time as f64 / audio.end.max(1) as f64);
    }
    writer.finish(None)
}

fn encode(mut opened: Opened, audio: &AudioFacts, path: &Path, progress: &Progress) -> Result<(), TaskError> {
    let stream = opened.input.stream(audio.stream_index).ok_or(Error::StreamNotFound)?;
    let mut decoder = Decoder::open(&stream, 1, 0)?;
    let start = audio.clock.seconds(audio.start);
    let start = (start * f64::from(RATE_HZ)).round() as i64;
    let encoder = AudioEncoder::open(audio.channels, start, path)?;
    let until = opened.facts.whole_until_s.map(|until_s| (until_s * f64::from(audio.sample_rate)) as i64);
    let mut sound = Sound { audio, until, reached: audio.start, resampler: None, encoder };
    for (_, packet) in opened.input.packets() {
        if packet.stream() != audio.stream_index {
            continue;
        }
        decoder.send(&packet)?;
        sound.receive(&mut decoder)?;
        progress.report(sound.reached as f64 / audio.end.max(1) as f64);
    }
    decoder.send_end()?;
    sound.receive(&mut decoder)?;
    sound.finish()
}

/// Decoded samples on their way to the encoder.
struct Sound<'a> {
    audio: &'a AudioFacts,
    /// Where the whole part of the film ends, if not where the sound does.
    until: Option<i64>,
    /// Film time up to which there is sound.
    reached: i64,
    /// Built for the layout, rate and format of the first frame; built anew when they change.
    resampler: Option<(Layout, Graph)>,
    encoder: AudioEncoder,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Layout {
    rate: u32,
    format: Sample,
    channels: ChannelLayout,
}

impl Sound<'_> {
    /// Takes what the decoder has.
    fn receive(&mut self, decoder: &mut Decoder) -> Result<(), TaskError> {
        let mut frame = Audio::empty();
        while decoder.receive(&mut frame)? {
            let Some(time) = frame.timestamp().map(|timestamp| self.audio.clock.ticks(timestamp)) else {
                continue;
            };
            if self.until.is_some_and(|until| time >= until) || frame.rate() == 0 || frame.channels() == 0 {
                continue;
            }
            if frame.channel_layout().bits() == 0 {
                frame.set_channel_layout(ChannelLayout::default(i32::from(frame.channels())));
            }
            let layout =
                Layout { rate: frame.rate(), format: frame.format(), channels: frame.channel_layout() };
            let length =
                i64::from(self.audio.clock.timescale) * frame.samples() as i64 / i64::from(layout.rate);
            self.bridge(layout, time)?;
            frame.set_pts(Some(time));
            // The graph takes the frame and leaves it empty.
            self.push(&frame, layout)?;
            self.reached = time + length;
        }
        Ok(())
    }

    /// Silence up to `time`, where the frames before it could not be decoded: the sound begins and ends where ingest
    /// said. The resampler makes it, between one silent sample and the next; one a second, so that a long gap is made
    /// a little at a time.
    fn bridge(&mut self, layout: Layout, time: i64) -> Result<(), TaskError> {
        let timescale = i64::from(self.audio.clock.timescale);
        let missing_s = self.audio.clock.seconds(time - self.reached);
        let begins = self.resampler.is_none();
        if missing_s <= if begins { MISSING_S_MAX } else { 1.0 } {
            return Ok(());
        }
        let first = if begins { self.reached } else { self.reached + timescale };
        for at in (first..time).step_by(timescale as usize) {
            self.push(&silence(layout, 1, at), layout)?;
        }
        Ok(())
    }

    /// As [`Sound::bridge`], to the end.
    fn bridge_to_end(&mut self) -> Result<(), TaskError> {
        let end = self.until.map_or(self.audio.end, |until| self.audio.end.min(until));
        let Some(layout) = self.resampler.as_ref().map(|(layout, _)| *layout) else { return Ok(()) };
        if self.audio.clock.seconds(end - self.reached) > MISSING_S_MAX {
            self.bridge(layout, end)?;
            self.push(&silence(layout, 1, end - 1), layout)?;
        }
        Ok(())
    }

    fn push(&mut self, frame: &Audio, layout: Layout) -> Result<(), TaskError> {
        if self.resampler.as_ref().is_none_or(|(built, _)| *built != layout) {
            self.flush()?;
            let graph = build(layout, self.audio.clock.timescale, self.encoder.layout)?;
            self.resampler = Some((layout, graph));
        }
        let (_, graph) = self.resampler.as_mut().expect("built just above when there was none");
        context(graph, "in")?.source().add(frame)?;
        self.pull()
    }

    fn flush(&mut self) -> Result<(), TaskError> {
        if let Some((_, graph)) = self.resampler.as_mut() {
            context(graph, "in")?.source().flush()?;
            self.pull()?;
            self.resampler = None;
        }
        Ok(())
    }

    fn pull(&mut self) -> Result<(), TaskError> {
        let Some((_, graph)) = self.resampler.as_mut() else { return Ok(()) };
        let mut sink = context(graph, "out")?;
        loop {
            let mut frame = Audio::empty();
            match sink.sink().frame(&mut frame) {
                Ok(()) => self.encoder.encode(&frame)?,
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn finish(mut self) -> Result<(), TaskError> {
        self.bridge_to_end()?;
        self.flush()?;
        self.encoder.finish()
    }
}

fn silence(layout: Layout, samples: u32, time: i64) -> Audio {
    let mut frame = Audio::new(layout.format, samples as usize, layout.channels);
    frame.set_rate(layout.rate);
    frame.set_pts(Some(time));
    let silence = if matches!(layout.format, Sample::U8(_)) { 0x80 } else { 0 };
    for plane in 0..frame.planes() {
        frame.data_mut(plane).fill(silence);
    }
    frame
}

fn context(graph: &mut Graph, name: &str) -> Result<filter::Context, TaskError> {
    graph.get(name).ok_or_else(|| anyhow::anyhow!("the filter graph has no `{name}`").into())
}

/// Gaps are filled with silence and overlaps cut, so that sample counts and timestamps agree.
fn build(from: Layout, timescale: u32, to: ChannelLayout) -> Result<Graph, TaskError> {
    let find = |name: &str| filter::find(name).ok_or(Error::FilterNotFound);
    let mut graph = Graph::new();
    let arguments = format!(
        "time_base=1/{timescale}:sample_rate={}:sample_fmt={}:channel_layout=0x{:x}",
        from.rate,
        from.format.name(),
        from.channels.bits()
    );
    graph.add(&find("abuffer")?, "in", &arguments)?;
    graph.add(&find("abuffersink")?, "out", "")?;
    let chain = format!(
        "[in]aresample={RATE_HZ}:async=1:min_hard_comp=0.02,\
         aformat=sample_fmts=fltp:sample_rates={RATE_HZ}:channel_layouts=0x{:x},\
         asetnsamples=n={FRAME_SAMPLES}:p=0[out]",
        to.bits()
    );
    graph.output("in", 0)?.input("out", 0)?.parse(&chain)?;
    graph.validate()?;
    Ok(graph)
}

struct AudioEncoder {
    encoder: codec::encoder::audio::Encoder,
    /// First sample that is heard, in film ticks of its rate. What the encoder puts before it is cut by the edit list at the
    /// start of the film; a track that starts later goes without.
    start: i64,
    writer: ChunkWriter,
    layout: ChannelLayout,
    /// Where the frame before ended, in the same ticks. `None`: there was none.
    reached: Option<i64>,
}

impl AudioEncoder {
    fn open(channels: u32, start: i64, path: &Path) -> Result<Self, TaskError> {
        let (layout, bit_rate) =
            if channels == 1 { (ChannelLayout::MONO, MONO_BPS) } else { (ChannelLayout::STEREO, STEREO_BPS) };
        let aac = codec::encoder::find_by_name("aac").ok_or(Error::EncoderNotFound)?;
        let mut audio = codec::Context::new_with_codec(aac).encoder().audio()?;
        audio.set_rate(RATE_HZ as i32);
        audio.set_format(FORMAT);
        audio.set_channel_layout(layout);
        audio.set_bit_rate(bit_rate);
        audio.set_time_base(Rational::new(1, RATE_HZ as i32));
        audio.set_flags(Flags::GLOBAL_HEADER);
        let encoder = audio.open_as(aac)?;
        let writer = ChunkWriter::create(path, codec::Parameters::from(&encoder), RATE_HZ)?;
        Ok(AudioEncoder { encoder, start, writer, layout, reached: None })
    }

    /// `frame` is in ticks of the encoder's rate.
    fn encode(&mut self, frame: &Audio) -> Result<(), TaskError> {
        self.encoder.send_frame(frame)?;
        self.reached = frame.pts().map(|pts| pts + frame.samples() as i64);
        self.write_ready()
    }

    fn finish(mut self) -> Result<(), TaskError> {
        if self.reached.is_none_or(|reached| reached <= self.start) {
            let layout = Layout { rate: RATE_HZ, format: FORMAT, channels: self.layout };
            // Some samples at a low rate, too few to become one of ours, or only what lies before the start: nobody hears
            // them, but a track is not empty.
            self.encode(&silence(layout, FRAME_SAMPLES, self.start))?;
        }
        self.encoder.send_eof()?;
        self.write_ready()?;
        self.writer.finish(None)
    }

    /// The first samples may lie a little before the start, for that is rounded.
    fn is_priming(&self, packet: &Packet) -> bool {
        let middle = packet.pts().map(|pts| pts + i64::from(FRAME_SAMPLES) / 2);
        self.start > 0 && middle.is_some_and(|middle| middle < self.start)
    }

    fn write_ready(&mut self) -> Result<(), TaskError> {
        loop {
            let mut packet = Packet::empty();
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) if self.is_priming(&packet) => {}
                Ok(()) => self.writer.write(packet)?,
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
