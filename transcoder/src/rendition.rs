//! Turns finished track files into a rendition: the head of its progressive file, its index, its figures.

use std::path::{Path, PathBuf};

use anyhow::Context;
use domain::task::{OutputFile, RenditionOutput};
use domain::{Layout, ObjectFile, RenditionIndex, RenditionName, Size};

use crate::engine;
use crate::progressive::{self, Turn};
use crate::track::TrackSpec;
use crate::track_index::TrackFile;

/// What a rendition is called and how it was made.
pub struct RenditionParts {
    pub name: RenditionName,
    /// As shown.
    pub size: Size,
    /// How the pictures came to be, for a person who wonders later.
    pub made_by: String,
}

/// A rendition with all its files, not yet verified.
pub struct Rendition {
    pub output: RenditionOutput,
    pub video: TrackFile,
    pub audio: Option<TrackFile>,
    pub progressive: Layout,
    /// Where the files lie that layouts name, by number.
    pub paths: Vec<PathBuf>,
}

/// The tracks of a rendition, and what its head is made from.
pub struct Tracks {
    pub video: TrackFile,
    pub audio: Option<TrackFile>,
    /// Of each track.
    pub specs: Vec<TrackSpec>,
    /// How the samples follow each other in the progressive file.
    pub turns: Vec<Turn>,
    /// Names and places of the files that the samples lie in, as the tracks number them.
    pub files: Vec<(ObjectFile, PathBuf)>,
}

/// Writes head and index of a rendition whose track files lie finished in `folder`.
pub fn package(
    parts: &RenditionParts,
    video: ObjectFile,
    audio: Option<ObjectFile>,
    folder: &Path,
) -> anyhow::Result<Rendition> {
    let files: Vec<(ObjectFile, PathBuf)> = [Some(video), audio]
        .into_iter()
        .flatten()
        .map(|file| (file, folder.join(file.to_string())))
        .collect();
    let video = TrackFile::read(&files[0].1, 0)?;
    let audio = audio.map(|_| TrackFile::read(&files[1].1, 1)).transpose()?;
    let tracks: Vec<&TrackFile> = [Some(&video), audio.as_ref()].into_iter().flatten().collect();
    let specs = tracks.iter().zip(&files).map(|(track, (_, path))| TrackSpec::read(path, track));
    let (specs, turns) = (specs.collect::<anyhow::Result<_>>()?, progressive::turns(&tracks));
    finish(parts, Tracks { video, audio, specs, turns, files }, folder)
}

/// Writes head and index of a rendition into `folder`.
pub fn finish(parts: &RenditionParts, tracks: Tracks, folder: &Path) -> anyhow::Result<Rendition> {
    let Tracks { video, audio, specs, turns, mut files } = tracks;
    let head = ObjectFile::Head(parts.name);
    let head_path = folder.join(head.to_string());
    let head_file = u16::try_from(files.len()).context("too many files")?;
    let both: Vec<&TrackFile> = [Some(&video), audio.as_ref()].into_iter().flatten().collect();
    let progressive = progressive::write_head(&both, &specs, &turns, &head_path, head_file)
        .with_context(|| format!("write the head of {}", parts.name))?;
    files.push((head, head_path));

    let index = RenditionIndex {
        version: RenditionIndex::VERSION,
        files: files.iter().map(|(file, _)| file.to_string()).collect(),
        video: video.index.clone(),
        audio: audio.as_ref().map(|audio| audio.index.clone()),
        progressive: progressive.clone(),
    };
    let index_file = ObjectFile::Index(parts.name);
    let index_path = folder.join(index_file.to_string());
    let json = serde_json::to_vec(&index).context("write the index")?;
    std::fs::write(&index_path, json).context("write the index")?;

    // The uploaded file is in the store already.
    let named = files.iter().cloned().chain([(index_file, index_path)]);
    let made = named.filter(|(file, _)| *file != ObjectFile::Source);
    let made = made.map(|(file, path)| output_file(file, &path)).collect::<anyhow::Result<Vec<_>>>()?;
    let output = figures(parts, &video, audio.as_ref(), &progressive, made);
    let paths = files.into_iter().map(|(_, path)| path).collect();
    Ok(Rendition { output, video, audio, progressive, paths })
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
        engine: format!("{}; {}", engine::packager(), parts.made_by),
    }
}

fn output_file(file: ObjectFile, path: &Path) -> anyhow::Result<OutputFile> {
    let bytes = std::fs::metadata(path).with_context(|| format!("measure {file}"))?.len();
    Ok(OutputFile { name: file.to_string(), bytes })
}
