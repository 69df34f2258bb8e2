//! What each task does, from its files to its outcome.

use std::path::Path;
use std::thread;

use domain::RenditionName;
use domain::task::{
    EncodeSettings, Ingested, MediaLimits, Outcome, Plan, RenditionOutput, SandboxReport, SourceInfo, Task,
};

use ffmpeg_next::format::context::Input;

use crate::error::joined;
use crate::progress::Progress;
use crate::source::{self, Opened, SourceFacts};
use crate::source_packets::SourcePacket;
use crate::{
    TaskError, assemble, cover, encode_audio, encode_video, facts_file, judge, original, plan, probe, rates,
    reference, storyboard,
};

pub fn run(task: &Task, progress: &Progress) -> Result<Outcome, TaskError> {
    match task {
        // Done before any task is run.
        Task::Sandbox => Ok(Outcome::Sandbox(SandboxReport::default())),
        Task::Ingest { input, on_demand: _, output, limits, settings, cover_at_s } => {
            ingest(input, output, limits, settings, *cover_at_s, progress)
        }
        Task::ChooseRate { input, facts, plan } => {
            Ok(Outcome::Rate { crf: rates::choose(input, facts.as_deref(), plan, progress)? })
        }
        Task::EncodeVideo { input, facts, output, plan, chunk } => {
            let opened = source::open_judged(input, facts.as_deref())?;
            let files = encode_video::encode_video(opened, input, output, plan, *chunk, progress)?;
            Ok(Outcome::Encode { files })
        }
        Task::EncodeAudio { input, facts, output, plan: _ } => {
            let opened = source::open_judged(input, facts.as_deref())?;
            Ok(Outcome::Encode { files: encode_audio::encode_audio(opened, input, output, progress)? })
        }
        Task::Assemble { chunks, audio, output, plan } => {
            let renditions = assemble::assemble(chunks, audio.as_deref(), output, plan, progress)?;
            Ok(Outcome::Assemble { renditions })
        }
        Task::Cover { input, on_demand: _, output, limits, at_s } => {
            let facts = source::open(input, limits)?.facts;
            Ok(Outcome::Cover(cover::take(input, &facts, output, *at_s)?.covers))
        }
        Task::Storyboard { input, on_demand: _, output, limits, starts_at_s, duration_s, sprite_url } => {
            let facts = source::open(input, limits)?.facts;
            let times_s = (*starts_at_s, *duration_s);
            let files = storyboard::make(input, &facts, output, times_s, sprite_url, progress)?;
            Ok(Outcome::Storyboard { files })
        }
    }
}

fn ingest(
    input: &Path,
    output: &Path,
    limits: &MediaLimits,
    settings: &EncodeSettings,
    cover_at_s: Option<f64>,
    progress: &Progress,
) -> Result<Outcome, TaskError> {
    progress.report(0.0);
    let (Opened { input: source, facts }, packets) = source::measure(input, limits)?;
    // Nothing playable waits behind the covers: both are made at once.
    let (originals, taken) = thread::scope(|scope| {
        let covers = scope.spawn(|| cover::take(input, &facts, output, cover_at_s));
        let by_reference = packets.as_deref().map(|packets| (packets, &source));
        let original = original_and_plan(&facts, by_reference, input, output, settings, progress);
        let taken = joined(covers, "taking covers");
        (original, taken)
    });
    let ((original, plan), taken) = (originals?, taken?);
    let written = (!plan.rungs.is_empty()).then(|| facts_file::write(&facts, output)).transpose()?;
    let source = info(facts, taken.damaged);
    Ok(Outcome::Ingest(Ingested { source, original, covers: taken.covers, plan, facts: written }))
}

/// The original is copied where browsers can play it. Streams that look sound and are not fail the check of the
/// copy; they are encoded instead.
fn original_and_plan(
    facts: &SourceFacts,
    by_reference: Option<(&[SourcePacket], &Input)>,
    input: &Path,
    output: &Path,
    settings: &EncodeSettings,
    progress: &Progress,
) -> Result<(Option<RenditionOutput>, Plan), TaskError> {
    if judge::copyable(facts) {
        let plan = plan::plan(facts, settings, true);
        if let Some((packets, source)) = by_reference {
            match reference::make(facts, packets, source, input, output, &plan).map_err(TaskError::from) {
                Ok(original) => return Ok((Some(original), plan)),
                Err(error) if error.is_of_the_machine() => return Err(error),
                Err(error) => eprintln!("the samples cannot stay where they are and are copied: {error}"),
            }
        }
        match original::copy(facts, input, output, &plan, progress) {
            Ok(original) => return Ok((Some(original), plan)),
            Err(error @ TaskError::Rejected { .. }) => return Err(error),
            Err(error) if error.is_of_the_machine() => return Err(error),
            Err(error) => eprintln!("the streams cannot be copied and will be encoded: {error}"),
        }
        remove_original(output)?;
    }
    Ok((None, plan::plan(facts, settings, false)))
}

/// What a copy left behind.
fn remove_original(output: &Path) -> Result<(), TaskError> {
    for entry in std::fs::read_dir(output)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(RenditionName::Original.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn info(facts: SourceFacts, damaged: bool) -> SourceInfo {
    let mut warnings = facts.warnings;
    if damaged && warnings.is_empty() {
        warnings.push(probe::DAMAGED.to_owned());
    }
    SourceInfo {
        container: facts.container,
        video_codec: facts.video.codec.name().to_owned(),
        audio_codec: facts.audio.map(|audio| audio.codec.name().to_owned()),
        size: facts.video.size,
        frame_rate: facts.video.frame_rate,
        duration_s: facts.duration_s,
        warnings,
    }
}
