//! Turns finished track files into a rendition: the head of its progressive file, its index, its figures.

use std::path::Path;

use anyhow::Context;
use domain::task::{OutputFile, RenditionOutput};
use domain::{Layout, ObjectFile, RenditionIndex, RenditionName, Size};
use ffmpeg_next::format;

use crate::progressive;
use crate::track_index::TrackFile;

/// What a rendition is made of. The files lie in the output folder.
pub struct RenditionParts {
    pub name: RenditionName,
    /// As shown.
    pub size: Size,
    pub video: ObjectFile,
    pub audio: Option<ObjectFile>,
    /// How the pictures came to be, for a person who wonders later.
    pub made_by: String,
}

/// A rendition with all its files, not yet verified.
pub struct Rendition {
    pub output: RenditionOutput,
    pub video: TrackFile,
    pub audio: Option<TrackFile>,
    pub progressive: Layout,
}

/// Writes head and index of a rendition whose track files are finished.
pub fn package(parts: &RenditionParts, folder: &Path) -> anyhow::Result<Rendition> {
    let head = ObjectFile::Head(parts.name);
    let names: Vec<String> = [Some(parts.video), parts.audio, Some(head)]
        .into_iter()
        .flatten()
        .map(|file| file.to_string())
        .collect();
    let video = TrackFile::read(&folder.join(&names[0]), 0)?;
    let audio = parts.audio.map(|_| TrackFile::read(&folder.join(&names[1]), 1)).transpose()?;
    let head_file = (names.len() - 1) as u16;
    let tracks: Vec<&TrackFile> = [Some(&video), audio.as_ref()].into_iter().flatten().collect();
    let progressive = progressive::write_head(&tracks, &folder.join(head.to_string()), head_file)
        .with_context(|| format!("write the head of {}", parts.name))?;

    let index = RenditionIndex {
        version: RenditionIndex::VERSION,
        files: names.clone(),
        video: video.index.clone(),
        audio: audio.as_ref().map(|audio| audio.index.clone()),
        progressive: progressive.clone(),
    };
    let index_name = ObjectFile::Index(parts.name).to_string();
    let json = serde_json::to_vec(&index).context("write the index")?;
    std::fs::write(folder.join(&index_name), json).context("write the index")?;

    let files = names.into_iter().chain([index_name]).map(|name| output_file(folder, name));
    let files = files.collect::<anyhow::Result<Vec<_>>>()?;
    let output = figures(parts, &video, audio.as_ref(), &progressive, files);
    Ok(Rendition { output, video, audio, progressive })
}

impl Rendition {
    /// Film time in seconds at which the longer track ends.
    pub fn end_s(&self) -> f64 {
        end_s(&self.video, self.audio.as_ref())
    }
}

fn end_s(video: &TrackFile, audio: Option<&TrackFile>) -> f64 {
    let audio_end_s = audio.map_or(0.0, |audio| audio.seconds(audio.end()));
    video.seconds(video.end()).max(audio_end_s)
}

fn figures(
    parts: &RenditionParts,
    video: &TrackFile,
    audio: Option<&TrackFile>,
    progressive: &Layout,
    files: Vec<OutputFile>,
) -> RenditionOutput {
    let duration_s = end_s(video, audio);
    let shown_s = video.seconds(video.end() - video.start());
    let frames = video.samples.len() as u64;
    let sample_bytes = video.sample_bytes() + audio.map_or(0, TrackFile::sample_bytes);
    let codecs = [Some(video), audio].into_iter().flatten().map(|track| track.index.codec.as_str());
    RenditionOutput {
        name: parts.name,
        size: parts.size,
        frame_rate: frames as f64 / shown_s.max(f64::MIN_POSITIVE),
        frames,
        duration_s,
        size_bytes: progressive.bytes(),
        bitrate_bps: (sample_bytes as f64 * 8.0 / duration_s.max(f64::MIN_POSITIVE)) as u64,
        codecs: codecs.collect::<Vec<_>>().join(","),
        files,
        engine: format!("{}; {}", engine(), parts.made_by),
    }
}

/// Our version and that of the muxer.
fn engine() -> String {
    let version = format::version();
    let [major, minor, micro] = [version >> 16, (version >> 8) & 0xff, version & 0xff];
    format!("sluice-transcoder {}; libavformat {major}.{minor}.{micro}", env!("CARGO_PKG_VERSION"))
}

fn output_file(folder: &Path, name: String) -> anyhow::Result<OutputFile> {
    let bytes = std::fs::metadata(folder.join(&name)).with_context(|| format!("measure {name}"))?.len();
    Ok(OutputFile { name, bytes })
}
