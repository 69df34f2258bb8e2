//! Sends tasks to the child as the scheduler does: JSON in, JSON lines out, a process for each task.
// Each test program uses a part of this.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use domain::task::{
    Covers, EncodeSettings, EncodeSettingsPlanned, Event, MediaLimits, Outcome, OutputFile, Plan,
    RenditionOutput, SourceInfo, Task,
};
use domain::{LadderSettings, ObjectFile, RenditionName};

#[derive(Debug)]
pub enum Verdict {
    Made(Box<Made>),
    Rejected { problem: String, detail: String },
    Failed(String),
}

/// Everything that came of one source.
#[derive(Debug)]
pub struct Made {
    pub source: SourceInfo,
    pub covers: Covers,
    pub plan: Plan,
    pub copied: Option<RenditionName>,
    pub renditions: Vec<RenditionOutput>,
    /// Of the storyboard.
    pub sprite: PathBuf,
    ingested: PathBuf,
    assembled: PathBuf,
}

impl Made {
    /// Where the files of a rendition lie.
    pub fn folder_of(&self, rendition: &RenditionOutput) -> &Path {
        if self.copied == Some(rendition.name) { &self.ingested } else { &self.assembled }
    }

    /// Everything that may be published: track files, heads, indexes, covers, storyboard.
    pub fn files(&self) -> Vec<PathBuf> {
        let folders = [Some(self.ingested.as_path()), Some(&self.assembled), self.sprite.parent()];
        let entries = folders.into_iter().flatten().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Ingest, every chunk, the sound, assemble, the storyboard.
pub fn whole_way(input: &Path, scratch: &Path) -> Verdict {
    whole_way_with(input, scratch, settings())
}

pub fn whole_way_with(input: &Path, scratch: &Path, settings: EncodeSettings) -> Verdict {
    steps(input, scratch, settings).unwrap_or_else(|verdict| verdict)
}

pub fn limits() -> MediaLimits {
    MediaLimits { duration_s_max: 7200.0, pixels_max: 35_389_440, streams_max: 16 }
}

/// Quick, because what is tested is not x264.
pub fn settings() -> EncodeSettings {
    EncodeSettings {
        ladder: LadderSettings { crf: 23.0, ..Default::default() },
        planned: EncodeSettingsPlanned {
            x264_preset: "ultrafast".to_owned(),
            x265_preset: "ultrafast".to_owned(),
            svtav1_preset: 12,
            gop_s_max: 2.0,
            quality: None,
        },
        chunk_s: None,
    }
}

fn steps(input: &Path, scratch: &Path, settings: EncodeSettings) -> Result<Verdict, Verdict> {
    let folder = |name: &str| {
        let folder = scratch.join(name);
        std::fs::create_dir(&folder).expect("a fresh folder");
        folder
    };
    let (ingested, encoded, assembled) = (folder("ingested"), folder("encoded"), folder("assembled"));
    let input = input.to_owned();
    let ingest = Task::Ingest {
        input: scratch.join("on-demand"),
        on_demand: true,
        output: ingested.clone(),
        limits: limits(),
        settings,
        cover_at_s: None,
    };
    let Outcome::Ingest(ingest) = run_on_demand(&ingest, &input)?.0 else { return Err(unexpected("ingest")) };
    let mut files: Vec<OutputFile> = ingest.covers.files.clone();
    files.extend(ingest.original.iter().flat_map(|original| original.files.clone()));
    files.extend(ingest.facts.clone());
    let facts = || ingest.facts.as_ref().map(|facts| ingested.join(&facts.name));
    present(&ingested, &files)?;

    let plan = ingest.plan;
    let mut renditions: Vec<RenditionOutput> = ingest.original.into_iter().collect();
    let copied = renditions.first().map(|original| original.name);
    if !plan.rungs.is_empty() {
        for chunk in 0..plan.chunks.len() as u32 {
            let (input, output, plan) = (input.clone(), encoded.clone(), plan.clone());
            encode(&Task::EncodeVideo { input, facts: facts(), output, plan, chunk }, &encoded)?;
        }
        if plan.audio {
            let (input, output, plan) = (input.clone(), encoded.clone(), plan.clone());
            encode(&Task::EncodeAudio { input, facts: facts(), output, plan }, &encoded)?;
        }
        let chunk = |name, number| encoded.join(ObjectFile::Chunk(name, number).to_string());
        let numbers = || 0..plan.chunks.len() as u32;
        let assemble = Task::Assemble {
            chunks: plan.rungs.iter().map(|rung| numbers().map(|n| chunk(rung.name, n)).collect()).collect(),
            audio: plan.audio.then(|| encoded.join(ObjectFile::ChunkAudio.to_string())),
            output: assembled.clone(),
            plan: plan.clone(),
        };
        let Outcome::Assemble { renditions: made } = run(&assemble)? else {
            return Err(unexpected("assemble"));
        };
        present(&assembled, &made.iter().flat_map(|rendition| rendition.files.clone()).collect::<Vec<_>>())?;
        renditions.extend(made);
    }
    let rung = plan.rungs.last().map(|rung| assembled.join(format!("{}.video.mp4", rung.name)));
    let sprite = storyboard(rung.unwrap_or(input), folder("storyboard"), &plan)?;
    let (source, covers) = (ingest.source, ingest.covers);
    Ok(Verdict::Made(Box::new(Made {
        source,
        covers,
        plan,
        copied,
        renditions,
        sprite,
        ingested,
        assembled,
    })))
}

fn storyboard(input: PathBuf, output: PathBuf, plan: &Plan) -> Result<PathBuf, Verdict> {
    let task = Task::Storyboard {
        input,
        on_demand: false,
        output: output.clone(),
        limits: limits(),
        starts_at_s: 0.0,
        duration_s: plan.expected.duration_s,
        sprite_url: "storyboard.jpg".to_owned(),
    };
    let Outcome::Storyboard { files } = run(&task)? else { return Err(unexpected("storyboard")) };
    present(&output, &files)?;
    Ok(output.join("storyboard.jpg"))
}

fn encode(task: &Task, folder: &Path) -> Result<(), Verdict> {
    match run(task)? {
        Outcome::Encode { files } => present(folder, &files),
        _ => Err(unexpected("encode")),
    }
}

/// Every file that is reported is there, with the size that is reported, under a name of the contract.
fn present(folder: &Path, files: &[OutputFile]) -> Result<(), Verdict> {
    for file in files {
        let known = file.name.parse::<ObjectFile>().is_ok();
        let bytes = std::fs::metadata(folder.join(&file.name)).map(|found| found.len()).unwrap_or(0);
        if !known || bytes != file.bytes || bytes == 0 {
            return Err(Verdict::Failed(format!("{file:?} has {bytes} bytes")));
        }
    }
    Ok(())
}

fn unexpected(step: &str) -> Verdict {
    Verdict::Failed(format!("{step} answered with another step's outcome"))
}

/// Runs one child to its end.
pub fn run(task: &Task) -> Result<Outcome, Verdict> {
    let source = task.inputs().first().map(|input| input.to_path_buf()).unwrap_or_default();
    Ok(run_on_demand(task, &source)?.0)
}

/// As [`run`], with an input that is filled from `source` as the child asks for it; and how many bytes it asked for.
pub fn run_on_demand(task: &Task, source: &Path) -> Result<(Outcome, u64), Verdict> {
    if task.is_on_demand() {
        let stand_in = File::create(task.inputs()[0]).expect("a fresh file");
        stand_in.set_len(std::fs::metadata(source).expect("a source").len()).expect("a sparse file");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_transcoder"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut json = serde_json::to_vec(task).expect("a task is JSON");
    json.push(b'\n');
    stdin.write_all(&json).expect("the child reads its task");
    let mut stderr = child.stderr.take().expect("a pipe");
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).expect("the child says why");
        String::from_utf8_lossy(&text).into_owned()
    });
    let (mut last, mut asked) = (String::new(), 0);
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("events are text");
        match serde_json::from_str(&line) {
            Ok(Event::Want { from, to }) => {
                copy_range(source, task.inputs()[0], from, to);
                asked += to - from;
                stdin.write_all(b"\n").expect("the child waits");
            }
            Ok(Event::Progress { .. }) => {}
            _ => last = line,
        }
    }
    let (status, complaints) =
        (child.wait().expect("the child ends"), complaints.join().expect("it is read"));
    match serde_json::from_str(&last) {
        Ok(Event::Done { outcome }) => Ok((outcome, asked)),
        Ok(Event::Rejected { problem, detail }) => {
            Err(Verdict::Rejected { problem: problem.to_string(), detail })
        }
        Ok(Event::Failed { detail, .. }) => Err(Verdict::Failed(detail)),
        _ => Err(Verdict::Failed(format!("{status}, last words `{last}`: {complaints}"))),
    }
}

fn copy_range(source: &Path, stand_in: &Path, from: u64, to: u64) {
    let mut bytes = vec![0; (to - from) as usize];
    File::open(source).and_then(|file| file.read_exact_at(&mut bytes, from)).expect("bytes that are there");
    let stand_in = File::options().write(true).open(stand_in).expect("the file that stands for it");
    stand_in.write_all_at(&bytes, from).expect("room for them");
}
