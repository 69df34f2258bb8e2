//! The contract with the transcoder child: one [`Task`] as a line of JSON on its standard input, [`Event`]s as JSON
//! lines on its standard output, files in and files out. The child sees no row, no key and no credential.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{LadderSettings, MediaProblem, Phase, RenditionName, Rung, Size, VideoCodec};

/// The argument by which a child works on although its machine cannot lock it in.
pub const UNSAFE_NO_SANDBOX: &str = "--unsafe-no-sandbox";

/// What is asked for by [`Event::Want`] is a multiple of this, but at the end of the file: a picture takes one or two, an
/// index a few.
pub const DEMAND_BLOCK_BYTES: u64 = 512 * 1024;

/// What the child is asked to do. Paths are absolute. Every file it makes is written into `output`, an empty
/// folder, under a name that parses as [`crate::ObjectFile`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Judge the source, make `original` by stream copy where browsers can play it, take covers, plan the encode.
    Ingest {
        input: PathBuf,
        /// `input` is as long as the upload, but empty until bytes of it are asked for by [`Event::Want`].
        on_demand: bool,
        output: PathBuf,
        limits: MediaLimits,
        settings: EncodeSettings,
        cover_at_s: Option<f64>,
    },
    /// Encode a few moments of the film at its smallest rung, and choose the factor at which it has the quality that the
    /// plan asks for.
    ChooseRate { input: PathBuf, facts: Option<PathBuf>, plan: Plan },
    /// Decode one chunk once and encode it at every rung of the plan, which is one phase of the film's:
    /// `<rung>.chunk-<number>.mp4`. `facts` is the file that ingest wrote; without it the source is measured again.
    EncodeVideo { input: PathBuf, facts: Option<PathBuf>, output: PathBuf, plan: Plan, chunk: u32 },
    /// Make the audio that the rungs share: `chunk.audio.mp4`.
    EncodeAudio { input: PathBuf, facts: Option<PathBuf>, output: PathBuf, plan: Plan },
    /// Join the chunks of a phase, package, verify: track files, `shared.audio.mp4`, heads and indexes.
    Assemble {
        /// By rung, as in `plan.rungs`; within a rung by chunk number.
        chunks: Vec<Vec<PathBuf>>,
        audio: Option<PathBuf>,
        output: PathBuf,
        plan: Plan,
    },
    /// Only lock itself in, and tell how.
    Sandbox,
    /// Take the cover anew. `on_demand` as in `Ingest`.
    Cover { input: PathBuf, on_demand: bool, output: PathBuf, limits: MediaLimits, at_s: Option<f64> },
    /// Draw the storyboard: `storyboard.jpg` and `storyboard.vtt`.
    Storyboard {
        /// The film, or one video track of it.
        input: PathBuf,
        /// As in `Ingest`.
        on_demand: bool,
        output: PathBuf,
        limits: MediaLimits,
        /// When the film comes to the first instant of `input`, in seconds.
        starts_at_s: f64,
        /// Of the film.
        duration_s: f64,
        /// As the cues name the sprite.
        sprite_url: String,
    },
}

// Fields are named one by one, so that nobody adds a path and forgets it here: the child reaches no other.
impl Task {
    /// Every file that is read.
    pub fn inputs(&self) -> Vec<&Path> {
        match self {
            Task::Sandbox => Vec::new(),
            Task::Ingest { input, on_demand: _, output: _, limits: _, settings: _, cover_at_s: _ }
            | Task::Cover { input, on_demand: _, output: _, limits: _, at_s: _ }
            | Task::Storyboard {
                input,
                on_demand: _,
                output: _,
                limits: _,
                starts_at_s: _,
                duration_s: _,
                sprite_url: _,
            } => vec![input],
            Task::ChooseRate { input, facts, plan: _ }
            | Task::EncodeVideo { input, facts, output: _, plan: _, chunk: _ }
            | Task::EncodeAudio { input, facts, output: _, plan: _ } => {
                [input].into_iter().chain(facts).map(PathBuf::as_path).collect()
            }
            Task::Assemble { chunks, audio, output: _, plan: _ } => {
                chunks.iter().flatten().chain(audio).map(PathBuf::as_path).collect()
            }
        }
    }

    pub fn inputs_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Task::Sandbox => Vec::new(),
            Task::Ingest { input, on_demand: _, output: _, limits: _, settings: _, cover_at_s: _ }
            | Task::Cover { input, on_demand: _, output: _, limits: _, at_s: _ }
            | Task::Storyboard {
                input,
                on_demand: _,
                output: _,
                limits: _,
                starts_at_s: _,
                duration_s: _,
                sprite_url: _,
            } => vec![input],
            Task::ChooseRate { input, facts, plan: _ }
            | Task::EncodeVideo { input, facts, output: _, plan: _, chunk: _ }
            | Task::EncodeAudio { input, facts, output: _, plan: _ } => {
                [input].into_iter().chain(facts).collect()
            }
            Task::Assemble { chunks, audio, output: _, plan: _ } => {
                chunks.iter_mut().flatten().chain(audio).collect()
            }
        }
    }

    /// Whether the bytes of its input come when they are asked for.
    pub fn is_on_demand(&self) -> bool {
        match self {
            Task::Ingest { on_demand, .. }
            | Task::Cover { on_demand, .. }
            | Task::Storyboard { on_demand, .. } => *on_demand,
            Task::Sandbox
            | Task::ChooseRate { .. }
            | Task::EncodeVideo { .. }
            | Task::EncodeAudio { .. }
            | Task::Assemble { .. } => false,
        }
    }

    /// The one folder that is written into.
    pub fn output(&self) -> Option<&Path> {
        match self {
            Task::Sandbox | Task::ChooseRate { .. } => None,
            Task::Ingest { output, .. }
            | Task::EncodeVideo { output, .. }
            | Task::EncodeAudio { output, .. }
            | Task::Assemble { output, .. }
            | Task::Cover { output, .. }
            | Task::Storyboard { output, .. } => Some(output),
        }
    }

    pub fn output_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Task::Sandbox | Task::ChooseRate { .. } => None,
            Task::Ingest { output, .. }
            | Task::EncodeVideo { output, .. }
            | Task::EncodeAudio { output, .. }
            | Task::Assemble { output, .. }
            | Task::Cover { output, .. }
            | Task::Storyboard { output, .. } => Some(output),
        }
    }
}

/// What a source may be at most.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MediaLimits {
    pub duration_s_max: f64,
    pub pixels_max: u64,
    pub streams_max: u32,
}

/// How rungs are encoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EncodeSettings {
    pub ladder: LadderSettings,
    pub planned: EncodeSettingsPlanned,
    /// Longest chunk, in seconds; a chunk ends at a keyframe of the source. `None`: one chunk for the whole film.
    pub chunk_s: Option<f64>,
}

/// One line on the child's standard output. `Done`, `Rejected` or `Failed` comes once; nothing but progress follows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "one value a process, never many in a row")]
pub enum Event {
    /// Waits until these bytes of the input are there, and a line on its standard input says so.
    Want {
        from: u64,
        to: u64,
    },
    /// Of this task, 0 to 1, never falling; at least one every few seconds while work goes on.
    Progress {
        fraction: f64,
    },
    Done {
        outcome: Outcome,
    },
    /// The fault is in the file: no retry. `detail` is one sentence for the uploader, with the offending value.
    Rejected {
        problem: MediaProblem,
        detail: String,
    },
    /// The fault may be ours: another attempt may succeed. `detail` is for the operator.
    Failed {
        detail: String,
        /// It was refused more memory.
        #[serde(default)]
        out_of_memory: bool,
        /// What the fault points at, where it is in what was encoded before: trying again with that is in vain.
        #[serde(default)]
        unsound: Vec<Part>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "one value a process, never many in a row")]
pub enum Outcome {
    Ingest(Ingested),
    Rate {
        /// For all rungs, in x264's measure. `None`: nothing to choose by, each keeps its own.
        crf: Option<f64>,
    },
    Encode {
        files: Vec<OutputFile>,
    },
    Assemble {
        renditions: Vec<RenditionOutput>,
    },
    Cover(Covers),
    Storyboard {
        files: Vec<OutputFile>,
    },
    Sandbox(SandboxReport),
}

/// How a child is locked in: one text for each layer, for a person who runs the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    pub holds: Vec<String>,
    /// What this machine has not, and why.
    pub missing: Vec<String>,
}

/// A file in the output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Parses as [`crate::ObjectFile`].
    pub name: String,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ingested {
    pub source: SourceInfo,
    /// `None`: browsers cannot play the source; `original` is the largest rung of the plan.
    pub original: Option<RenditionOutput>,
    pub covers: Covers,
    pub plan: Plan,
    /// `facts.json`, where there is something to encode.
    pub facts: Option<OutputFile>,
}

/// What the source turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// As FFmpeg names the demuxer, e.g. `mov,mp4,m4a,3gp,3g2,mj2`.
    pub container: String,
    pub video_codec: String,
    pub audio_codec: Option<String>,
    /// As shown: rotation and sample aspect ratio applied.
    pub size: Size,
    /// Frames a second on average over what was read.
    pub frame_rate: f64,
    /// Of what is whole.
    pub duration_s: f64,
    /// One sentence each, for the uploader, e.g. that the file was cut off.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covers {
    /// `cover-<width>.jpg` and `.webp`.
    pub files: Vec<OutputFile>,
    /// Largest width made, in pixels.
    pub width_max: u32,
    /// At most 30 bytes, base64.
    pub thumbhash: String,
}

/// What there is to encode. Empty `rungs`: nothing; the video is ready once `original` is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Largest first; of one size those in H.264 first.
    pub rungs: Vec<Rung>,
    /// The rung that is made in a phase of its own, before the others. `None`: all are made at once.
    #[serde(default)]
    pub first: Option<RenditionName>,
    /// A shared audio track is to be made.
    pub audio: bool,
    pub settings: EncodeSettingsPlanned,
    /// Where fragments start, so that every rendition can be cut at the same instants.
    pub boundaries: Boundaries,
    /// In display order; together they cover the film without gap or overlap.
    pub chunks: Vec<ChunkSpan>,
    /// What assembling checks against.
    pub expected: Expected,
}

impl Plan {
    /// The rung to begin with where nothing can be watched before rungs are encoded: the smallest one that plays
    /// everywhere, unless it is the only one.
    pub fn first_of(rungs: &[Rung]) -> Option<RenditionName> {
        let plain = rungs.iter().filter(|rung| rung.name.codec() == VideoCodec::H264);
        plain.map(|rung| rung.name).max().filter(|_| rungs.len() > 1)
    }

    pub fn phase_of(&self, rung: RenditionName) -> Phase {
        if self.first == Some(rung) { Phase::First } else { Phase::Last }
    }

    /// Those in which it makes something, in their order.
    pub fn phases(&self) -> impl Iterator<Item = Phase> {
        let makes = |phase: &Phase| self.rungs.iter().any(|rung| self.phase_of(rung.name) == *phase);
        Phase::ALL.iter().copied().filter(makes)
    }

    /// What a phase makes of it.
    pub fn of_phase(&self, phase: Phase) -> Plan {
        let rungs = self.rungs.iter().filter(|rung| self.phase_of(rung.name) == phase).cloned().collect();
        Plan { rungs, ..self.clone() }
    }

    /// Whether it is what the first of two phases makes.
    pub fn is_first_phase(&self) -> bool {
        self.first.is_some() && self.rungs.iter().all(|rung| self.phase_of(rung.name) == Phase::First)
    }

    /// Threads of each codec: 0, as many as it likes, for a film in one piece; else chunks run side by side, which
    /// costs less than threads within a picture.
    pub fn threads(&self) -> usize {
        if self.chunks.len() > 1 { 1 } else { 0 }
    }
}

/// The part of [`EncodeSettings`] that the encode needs; kept in the plan so that a changed setting never
/// mixes two ways of encoding in one video.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EncodeSettingsPlanned {
    pub x264_preset: String,
    /// Of x265; the plans of old know neither this nor the next.
    #[serde(default)]
    pub x265_preset: String,
    #[serde(default)]
    pub svtav1_preset: u32,
    /// Keyframes of the rungs are at most this far apart, in seconds.
    pub gop_s_max: f64,
    /// The VMAF that all but the worst twentieth of the pictures of each rung should have, and no rung needs to have
    /// more. `None`: every film is encoded at the same factor.
    #[serde(default)]
    pub quality: Option<f64>,
}

/// A part of the encode that is made by a job of its own; as JSON, the payload of that job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// By its number in the plan; all rungs of it.
    Chunk(u32),
    /// The audio that the rungs share.
    Audio,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Chunk(number) => write!(f, "chunk {number}"),
            Part::Audio => f.write_str("the sound"),
        }
    }
}

/// Instants at which every rendition has a keyframe and starts a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundaries {
    /// Ticks a second.
    pub timescale: u32,
    /// Presentation times in ticks from the start of the film, ascending. The first is that of the first frame.
    pub starts: Vec<i64>,
}

/// Frames with `start <= presentation time < end`, in ticks of [`Boundaries::timescale`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSpan {
    pub start: i64,
    /// `None` in the last chunk: to the end.
    pub end: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Frames of the source that can be shown; encoded renditions of constant rate have as many.
    pub frames: Option<u64>,
    pub duration_s: f64,
    /// The longest time one frame is shown, in seconds.
    pub frame_duration_s: f64,
    /// Start of the audio minus start of the video, in seconds.
    pub audio_offset_s: Option<f64>,
}

/// One finished rendition: verified, with all its files in the output folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenditionOutput {
    pub name: RenditionName,
    /// As shown.
    pub size: Size,
    pub frame_rate: f64,
    pub frames: u64,
    pub duration_s: f64,
    /// Of the progressive file, in bytes.
    pub size_bytes: u64,
    /// Average of video and audio together, in bit/s.
    pub bitrate_bps: u64,
    /// RFC 6381, video first, e.g. `avc1.64001f,mp4a.40.2`.
    pub codecs: String,
    /// Track files, head and index. A shared audio track is named by each rendition that uses it.
    pub files: Vec<OutputFile>,
    /// Versions, settings and chunks that made it, for a person who wonders later.
    pub engine: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LadderSettings, RungSettings};

    fn plan(size: Size, codecs: &[VideoCodec]) -> Plan {
        let ladder = LadderSettings { crf: 23.0, rungs: RungSettings::default(), codecs: codecs.to_vec() };
        let rungs: Vec<Rung> = [Rung::original(size)].into_iter().chain(ladder.rungs(size)).collect();
        Plan {
            first: Plan::first_of(&rungs),
            rungs,
            audio: true,
            settings: EncodeSettingsPlanned::default(),
            boundaries: Boundaries { timescale: 1000, starts: vec![0] },
            chunks: vec![ChunkSpan { start: 0, end: None }],
            expected: Expected {
                frames: None,
                duration_s: 1.0,
                frame_duration_s: 0.03,
                audio_offset_s: None,
            },
        }
    }

    #[test]
    fn the_smallest_rung_that_plays_everywhere_comes_first() {
        let plan = plan(Size { width: 1280, height: 720 }, &[VideoCodec::Av1]);
        let of = |phase| -> Vec<&str> {
            let rungs = plan.rungs.iter().filter(|rung| plan.phase_of(rung.name) == phase);
            rungs.map(|rung| rung.name.as_str()).collect()
        };
        assert_eq!(of(Phase::First), ["low"]);
        assert_eq!(of(Phase::Last), ["original", "medium", "medium-av1", "low-av1"]);
        assert_eq!(plan.phases().collect::<Vec<_>>(), Phase::ALL);
        assert_eq!(
            Phase::ALL.iter().map(|&phase| plan.of_phase(phase).is_first_phase()).collect::<Vec<_>>(),
            [true, false]
        );
        let both = Phase::ALL.iter().map(|&phase| plan.of_phase(phase).rungs.len());
        assert_eq!(both.sum::<usize>(), plan.rungs.len());
    }

    #[test]
    fn what_is_made_of_one_rung_or_was_planned_before_has_one_phase() {
        let small = plan(Size { width: 320, height: 240 }, &[]);
        assert_eq!((small.first, small.phases().collect::<Vec<_>>()), (None, vec![Phase::Last]));
        let mut json = serde_json::to_value(plan(Size { width: 1280, height: 720 }, &[])).unwrap();
        json.as_object_mut().unwrap().remove("first");
        let old: Plan = serde_json::from_value(json).unwrap();
        assert_eq!((old.of_phase(Phase::Last), old.first), (old.clone(), None));
    }
}
