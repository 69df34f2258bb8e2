use domain::task::{Boundaries, ChunkSpan, EncodeSettingsPlanned, Expected};
use domain::{RenditionIndex, RenditionName, Size};

use super::*;
use crate::test_clips::{complaints, make, materialise, numbers, picture_digests, probe};

const TIMESCALE: u32 = 12_800;
/// What the chunks say of themselves.
const MACHINE: &str = "engine-A";
const TIMES: &str = "-movie_timescale 12800 -video_track_timescale 12800";

/// Three chunks of 2 s in two rungs, and sound.
struct Chunked {
    folder: tempfile::TempDir,
    chunks: Vec<Vec<PathBuf>>,
    audio: PathBuf,
    plan: Plan,
}

impl Chunked {
    fn new() -> Chunked {
        let folder = tempfile::tempdir().unwrap();
        let rung = |name, width, height| {
            let rung = Rung { name, size: Size { width, height }, crf: 30.0, bitrate_bps_max: 500_000 };
            let chunk = |number| chunk(folder.path(), &rung, number, "-bf 3");
            ((0..3).map(chunk).collect::<Vec<_>>(), rung.clone())
        };
        let (medium, low) = (rung(RenditionName::Medium, 320, 180), rung(RenditionName::Low, 160, 90));
        let sound =
            "-f lavfi -i sine=frequency=500:sample_rate=48000:duration=6 -c:a aac -movie_timescale 48000";
        Chunked {
            audio: make(folder.path(), "chunk.audio.mp4", sound),
            chunks: vec![medium.0, low.0],
            plan: plan(vec![medium.1, low.1]),
            folder,
        }
    }

    fn assemble(&self) -> Result<Vec<RenditionOutput>, String> {
        let (output, silent) = (self.folder.path(), Progress::silent());
        let result = assemble(&self.chunks, Some(&self.audio), output, &self.plan, &silent);
        result.map_err(|error| error.to_string())
    }

    /// What has to be encoded again.
    fn unsound(&self) -> Vec<Part> {
        let (output, silent) = (self.folder.path(), Progress::silent());
        match assemble(&self.chunks, Some(&self.audio), output, &self.plan, &silent) {
            Err(TaskError::Failed(error)) => crate::error::unsound(&error),
            other => panic!("{other:?}"),
        }
    }

    fn index(&self, name: RenditionName) -> RenditionIndex {
        let json = std::fs::read(self.folder.path().join(ObjectFile::Index(name).to_string())).unwrap();
        serde_json::from_slice(&json).unwrap()
    }
}

/// A good rendition with sound, and what it is held against. The folder lives as long as it is kept.
pub fn good_rendition() -> (tempfile::TempDir, rendition::Rendition, Plan) {
    let chunked = Chunked::new();
    chunked.assemble().unwrap();
    let rendition = {
        let rung = &chunked.plan.rungs[0];
        let video = ObjectFile::Track(rung.name, TrackKind::Video);
        rendition::package(
            &parts(rung, String::new()),
            video,
            Some(ObjectFile::SharedAudio),
            chunked.folder.path(),
        )
    };
    (chunked.folder, rendition.unwrap(), chunked.plan)
}

/// The film from 2 s times `number` on, 50 frames, at its place in the film.
fn chunk(folder: &Path, rung: &Rung, number: u32, options: &str) -> PathBuf {
    let Size { width, height } = rung.size;
    let (start, end) = (number * 2, number * 2 + 2);
    let ticks = i64::from(end) * i64::from(TIMESCALE);
    let note = format!("{{\"frames\":50,\"damaged\":0,\"end\":{ticks},\"engine\":\"{MACHINE}\"}}");
    let line = format!(
        "-f lavfi -i testsrc2=size={width}x{height}:rate=25:duration=6 -vf trim=start={start}:end={end} \
         -fps_mode passthrough -copyts -c:v libx264 -preset ultrafast -g 50 -sc_threshold 0 {options} {TIMES} -metadata comment={note}"
    );
    make(folder, &ObjectFile::Chunk(rung.name, number).to_string(), &line)
}

fn plan(rungs: Vec<Rung>) -> Plan {
    let starts: Vec<i64> = (0..3).map(|n| n * 2 * i64::from(TIMESCALE)).collect();
    let spans = starts.iter().zip(starts.iter().skip(1).map(|end| Some(*end)).chain([None]));
    Plan {
        rungs,
        first: None,
        audio: true,
        settings: EncodeSettingsPlanned {
            x264_preset: "ultrafast".to_owned(),
            gop_s_max: 2.0,
            ..Default::default()
        },
        chunks: spans.map(|(start, end)| ChunkSpan { start: *start, end }).collect(),
        boundaries: Boundaries { timescale: TIMESCALE, starts },
        expected: Expected {
            frames: Some(150),
            duration_s: 6.0,
            frame_duration_s: 0.04,
            audio_offset_s: Some(0.0),
        },
    }
}

#[test]
fn chunks_become_renditions_without_a_lost_or_doubled_frame() {
    let chunked = Chunked::new();
    let renditions = chunked.assemble().unwrap();
    assert_eq!(
        renditions.iter().map(|r| r.name).collect::<Vec<_>>(),
        [RenditionName::Medium, RenditionName::Low]
    );
    for (rendition, chunks) in renditions.iter().zip(&chunked.chunks) {
        let index = chunked.index(rendition.name);
        let progressive = materialise(&index.progressive, &index, chunked.folder.path(), "progressive.mp4");
        let pictures: Vec<String> = chunks.iter().flat_map(|chunk| picture_digests(chunk)).collect();
        assert_eq!(picture_digests(&progressive), pictures);
        assert_eq!(complaints(&progressive), "");
        let level = if rendition.name == RenditionName::Medium { "0c" } else { "0b" };
        assert_eq!(rendition.codecs, format!("avc1.4d40{level},mp4a.40.2"));
        assert_eq!(rendition.frames, 150);
        let mut shown =
            numbers(&probe(&progressive, "-select_streams v -show_entries packet=pts_time"), "pts_time");
        shown.sort_by(f64::total_cmp);
        let expected: Vec<f64> = (0..150).map(|n| f64::from(n) / 25.0).collect();
        assert_eq!(shown, expected);
        let starts: Vec<i64> = index.video.fragments.iter().map(|fragment| fragment.start).collect();
        assert_eq!(starts, chunked.plan.boundaries.starts);
        let counts: Vec<usize> = frames_by_fragment(&chunked, rendition.name);
        assert_eq!(counts, [50, 50, 50], "closed groups at the asked places");
        assert!(rendition.files.iter().any(|file| file.name == "shared.audio.mp4"));
        for words in ["sluice-transcoder", "libavformat", "crf 30", "; 3 chunks (plan "] {
            assert!(rendition.engine.contains(words), "{}", rendition.engine);
        }
    }
}

fn frames_by_fragment(chunked: &Chunked, name: RenditionName) -> Vec<usize> {
    let file = ObjectFile::Track(name, TrackKind::Video).to_string();
    let track = crate::track_index::TrackFile::read(&chunked.folder.path().join(file), 0).unwrap();
    (0..track.index.fragments.len()).map(|number| track.samples_of(number).len()).collect()
}

#[test]
fn what_does_not_match_the_plan_is_refused_with_the_figures() {
    let good = Chunked::new();
    type Change = fn(&mut Chunked);
    let cases: [(Change, &str); 9] = [
        (|c| c.chunks[1].swap(1, 2), "no keyframe at"),
        (|c| c.chunks[0][1] = c.chunks[0][0].clone(), "no keyframe at"),
        (|c| c.chunks[1].truncate(2), "2 chunks of low for a plan of 3"),
        (|c| c.chunks[0][2] = c.chunks[1][2].clone(), "was encoded otherwise"),
        (|c| c.plan.audio = false, "sound is planned: false, given: true"),
        (|c| c.plan.expected.frames = Some(151), "150 frames, expected 151, of which 0 were damaged"),
        (|c| c.plan.expected.duration_s = 6.1, "expected 6.100 s"),
        (|c| c.plan.expected.audio_offset_s = Some(0.05), "expected 0.050 s"),
        (|c| c.plan.boundaries.starts.insert(1, 512 * 13), "no keyframe at"),
    ];
    for (number, (change, complaint)) in cases.into_iter().enumerate() {
        let mut changed = Chunked {
            folder: tempfile::tempdir().unwrap(),
            chunks: good.chunks.clone(),
            audio: good.audio.clone(),
            plan: good.plan.clone(),
        };
        change(&mut changed);
        let error = changed.assemble().unwrap_err();
        assert!(error.contains(complaint), "case {number}: {error}");
    }
}

#[test]
fn a_fault_of_a_chunk_names_the_chunk() {
    let good = Chunked::new();
    let broken = good.folder.path().join("broken.mp4");
    std::fs::write(&broken, "no film").unwrap();
    let cut = good.folder.path().join("cut.mp4");
    let whole = std::fs::read(&good.chunks[0][1]).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    use Part::{Audio, Chunk};
    type Change<'a> = &'a dyn Fn(&mut Chunked);
    let cases: [(Change<'_>, &[Part]); 9] = [
        (&|c| c.chunks[0][1] = broken.clone(), &[Chunk(1)]),
        (&|c| c.chunks[1][2] = cut.clone(), &[Chunk(2)]),
        (&|c| c.chunks[0][0] = c.chunks[1][0].clone(), &[Chunk(0)]),
        (&|c| c.chunks[0][1] = c.chunks[0][0].clone(), &[Chunk(1)]),
        (&|c| c.plan.expected.frames = Some(151), &[Chunk(0), Chunk(1), Chunk(2)]),
        (&|c| c.plan.expected.duration_s = 6.1, &[Chunk(2), Audio]),
        (&|c| c.plan.expected.audio_offset_s = Some(0.05), &[Audio]),
        (&|c| c.audio = broken.clone(), &[Audio]),
        (&|c| c.plan.audio = false, &[]),
    ];
    for (number, (change, parts)) in cases.into_iter().enumerate() {
        let mut changed = Chunked {
            folder: tempfile::tempdir().unwrap(),
            chunks: good.chunks.clone(),
            audio: good.audio.clone(),
            plan: good.plan.clone(),
        };
        change(&mut changed);
        assert_eq!(changed.unsound(), parts, "case {number}");
    }
}

#[test]
fn the_fingerprint_tells_which_chunks_another_machine_made() {
    let mut chunked = Chunked::new();
    let other = chunked.folder.path().join("other.mp4");
    let made = std::fs::read(&chunked.chunks[0][1]).unwrap();
    let at = made.windows(MACHINE.len()).position(|window| window == MACHINE.as_bytes()).unwrap();
    let signed = [&made[..at], b"engine-B", &made[at + MACHINE.len()..]].concat();
    std::fs::write(&other, signed).unwrap();
    chunked.chunks[0][1] = other;
    let renditions = chunked.assemble().unwrap();
    let engine = &renditions[0].engine;
    assert!(engine.contains("encoded by engine-A [0,2] and engine-B [1]"), "{engine}");
    assert!(renditions[1].engine.ends_with("encoded by engine-A"), "{}", renditions[1].engine);
}

#[test]
fn chunks_with_other_delays_are_joined_in_order() {
    let mut chunked = Chunked::new();
    // The middle chunk of the first rung has no reordered pictures, so its decoding times run ahead of its neighbours'.
    let rung = chunked.plan.rungs[0].clone();
    let other = tempfile::tempdir().unwrap();
    let without = chunk(other.path(), &rung, 1, "-bf 3 -x264-params b-adapt=2:scenecut=0:bframes=3");
    chunked.chunks[0][1] = without;
    match chunked.assemble() {
        Ok(renditions) => assert_eq!(renditions[0].frames, 150),
        // Another header is refused, never mixed.
        Err(error) => assert!(error.contains("was encoded otherwise"), "{error}"),
    }
}
