//! Sources of many kinds through measuring, planning and encoding, judged by `ffprobe` and by their own times.

use std::path::{Path, PathBuf};

use domain::task::{EncodeSettings, EncodeSettingsPlanned, MediaLimits, Plan};
use domain::{LadderSettings, MediaProblem};
use ffmpeg_next::format::context::Input;

use crate::chunk_file::ChunkNote;
use crate::encode_audio::encode_audio;
use crate::encode_video::encode_video;
use crate::progress::Progress;
use crate::schedule::Schedule;
use crate::source::{self, SourceFacts};
use crate::source_reader::SourceReader;
use crate::test_clips::{make, numbers, probe};
use crate::{TaskError, cover, facts_file, ffi, judge, plan};

const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

struct Scene {
    folder: tempfile::TempDir,
    clip: PathBuf,
    facts: SourceFacts,
}

impl Scene {
    fn new(name: &str, line: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clip = make(folder.path(), name, line);
        Scene::of(folder, clip)
    }

    fn of(folder: tempfile::TempDir, clip: PathBuf) -> Self {
        let facts = source::open(&clip, &limits()).unwrap().facts;
        Scene { folder, clip, facts }
    }

    /// As an encode does: with the facts that ingest wrote.
    fn opened(&self) -> source::Opened {
        let facts = facts_file::write(&self.facts, self.folder.path()).unwrap();
        source::open_judged(&self.clip, Some(&self.folder.path().join(facts.name))).unwrap()
    }

    fn plan(&self, chunk_s: Option<f64>) -> Plan {
        let ladder = LadderSettings { crf: 30.0, ..Default::default() };
        let planned = EncodeSettingsPlanned {
            x264_preset: "ultrafast".to_owned(),
            gop_s_max: 2.0,
            ..Default::default()
        };
        let settings = EncodeSettings { ladder, planned, chunk_s };
        plan::plan(&self.facts, &settings, judge::copyable(&self.facts))
    }

    /// Encodes every chunk; returns all presentation times and keyframes of each rung, and the notes.
    fn encode(&self, plan: &Plan) -> Vec<Encoded> {
        let mut rungs: Vec<Encoded> = plan.rungs.iter().map(|_| Encoded::default()).collect();
        for chunk in 0..plan.chunks.len() as u32 {
            let output = self.folder.path();
            let files =
                encode_video(self.opened(), &self.clip, output, plan, chunk, &Progress::silent()).unwrap();
            for (rung, file) in rungs.iter_mut().zip(files) {
                rung.read(&output.join(file.name));
            }
        }
        rungs
    }

    fn sound(&self) -> PathBuf {
        let files = encode_audio(self.opened(), &self.clip, self.folder.path(), &Progress::silent()).unwrap();
        self.folder.path().join(&files[0].name)
    }
}

#[derive(Default)]
struct Encoded {
    path: PathBuf,
    times: Vec<i64>,
    keys: Vec<i64>,
    notes: Vec<ChunkNote>,
}

impl Encoded {
    fn read(&mut self, path: &Path) {
        let mut input = open(path);
        self.notes.push(ChunkNote::read(&input).unwrap());
        let mut times = Vec::new();
        for (_, packet) in input.packets() {
            times.push(packet.pts().unwrap());
            if packet.is_key() {
                self.keys.push(packet.pts().unwrap());
            }
        }
        times.sort_unstable();
        self.times.extend(times);
        self.path = path.to_owned();
    }
}

fn open(path: &Path) -> Input {
    ffi::open_header(SourceReader::open(path).unwrap(), "mov", Default::default()).unwrap()
}

fn limits() -> MediaLimits {
    MediaLimits { duration_s_max: 60.0, pixels_max: 35_389_440, streams_max: 16 }
}

fn refused(clip: &Path, limits: &MediaLimits) -> (MediaProblem, String) {
    match source::open(clip, limits).map(|opened| opened.facts) {
        Err(TaskError::Rejected { problem, detail }) => (problem, detail),
        other => panic!("{other:?}"),
    }
}

#[test]
fn chunks_hold_each_frame_once_at_its_time_with_keyframes_where_they_are_due() {
    let line = format!("-f lavfi -i testsrc2=s=852x480:r=25:d=7 {X264} -bf 3 -g 30 -preset veryfast");
    let scene = Scene::new("clip.mp4", &line);
    for chunk_s in [None, Some(2.0)] {
        let plan = scene.plan(chunk_s);
        assert_eq!(plan.chunks.len(), if chunk_s.is_some() { 6 } else { 1 });
        let schedules = plan
            .chunks
            .iter()
            .map(|&span| Schedule::new(&scene.facts.video, &plan, span))
            .collect::<Vec<_>>();
        let keys: Vec<i64> = schedules.iter().flat_map(|schedule| schedule.keys.clone()).collect();
        assert!(plan.boundaries.starts.iter().all(|start| keys.contains(start)));
        for rung in scene.encode(&plan) {
            assert_eq!(rung.times, scene.facts.video.frame_times);
            assert_eq!(rung.keys, keys);
            assert!(rung.notes.iter().all(|note| note.damaged == 0));
            assert_eq!(rung.notes.last().unwrap().end, scene.facts.video.end());
            let engine = crate::chunk_file::engine(&open(&rung.path)).unwrap();
            assert!(engine.starts_with("FFmpeg ") && engine.contains("), x264 - core "), "{engine}");
        }
    }
}

#[test]
fn variable_frame_rates_stay_variable() {
    let line = format!(
        "-f lavfi -i testsrc2=s=640x480:r=30:d=4 -vf select='not(mod(n\\,3))+lt(n\\,20)' -vsync vfr {X264}"
    );
    let scene = Scene::new("clip.mkv", &line);
    assert!(!scene.facts.video.constant_rate);
    let rungs = scene.encode(&scene.plan(None));
    assert_eq!(rungs[0].times, scene.facts.video.frame_times);
}

#[test]
fn fast_sources_are_halved() {
    let line = format!("-f lavfi -i testsrc2=s=640x480:r=120:d=1 {X264}");
    let scene = Scene::new("clip.mp4", &line);
    let plan = scene.plan(None);
    assert_eq!(plan.expected.frames, Some(60));
    assert_eq!(scene.encode(&plan)[0].times.len(), 60);
}

#[test]
fn interlaced_pictures_come_out_progressive_and_as_many() {
    let scene = Scene::new(
        "clip.mpg",
        "-f lavfi -i testsrc2=s=720x576:r=50:d=2 -vf tinterlace=interleave_top -flags +ilme+ildct -c:v mpeg2video",
    );
    assert!(scene.facts.video.interlaced);
    let rungs = scene.encode(&scene.plan(None));
    assert_eq!(rungs[0].times.len(), 50);
    let probed = probe(&rungs[0].path, "-show_entries stream=field_order,color_space,color_range,level");
    assert!(probed.contains("field_order=progressive"), "{probed}");
    assert!(probed.contains("color_space=bt709") && probed.contains("color_range=tv"), "{probed}");
}

#[test]
fn what_is_said_to_be_hdr_is_encoded_even_in_eight_bits() {
    for (transfer, is_copied) in [("bt709", true), ("arib-std-b67", false), ("smpte2084", false)] {
        let line = format!("-f lavfi -i testsrc2=s=640x360:r=25:d=1 {X264} -color_trc {transfer}");
        let scene = Scene::new("clip.mp4", &line);
        assert_eq!(judge::copyable(&scene.facts), is_copied, "{transfer}");
        let rungs = scene.encode(&scene.plan(None));
        let probed = probe(&rungs[0].path, "-show_entries stream=color_transfer");
        assert!(probed.contains("color_transfer=bt709"), "{probed}");
    }
}

#[test]
fn a_turned_source_is_upright_in_rungs_and_cover() {
    let line = format!(
        "-f lavfi -i color=red:s=640x480:r=10:d=1 -f lavfi -i color=blue:s=640x480:r=10:d=1 \
         -filter_complex hstack,scale=960:480,setsar=1 {X264}"
    );
    let plain = Scene::new("plain.mp4", &line);
    let turned = make(plain.folder.path(), "turned.mp4", "-i plain.mp4 -c copy -metadata:s:v rotate=90");
    let scene = Scene::of(plain.folder, turned);
    assert_eq!((scene.facts.video.size.width, scene.facts.video.size.height), (480, 960));
    let rungs = scene.encode(&scene.plan(None));
    let probed = probe(&rungs[0].path, "-show_streams");
    assert_eq!((numbers(&probed, "width"), numbers(&probed, "height")), (vec![360.0], vec![720.0]));
    assert!(!probed.contains("rotation"), "{probed}");

    let covers = cover::take(&scene.clip, &scene.facts, scene.folder.path(), Some(0.5)).unwrap().covers;
    assert_eq!(covers.width_max, 480);
    let cover = image::open(scene.folder.path().join("cover-480.jpg")).unwrap().to_rgb8();
    // The program turns pictures by itself when it decodes.
    let upright = make(scene.folder.path(), "upright.png", "-i turned.mp4 -frames:v 1");
    let upright = image::open(upright).unwrap().to_rgb8();
    for (x, y) in [(240, 100), (240, 860)] {
        let (found, expected) = (cover.get_pixel(x, y).0, upright.get_pixel(x, y).0);
        assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 30), "{found:?} {expected:?}");
    }
}

#[test]
fn the_cover_is_not_black_where_there_is_anything_else() {
    let line = format!(
        "-f lavfi -i color=black:s=320x240:r=10:d=3 -f lavfi -i testsrc2=s=320x240:r=10:d=2 \
         -filter_complex concat {X264} -g 1000"
    );
    let scene = Scene::new("clip.mp4", &line);
    let folder = scene.folder.path();
    let covers = cover::take(&scene.clip, &scene.facts, folder, None).unwrap().covers;
    assert_eq!(covers.width_max, 240);
    let cover = image::open(folder.join("cover-240.webp")).unwrap().to_rgb8();
    assert!(cover.pixels().any(|pixel| pixel.0.iter().any(|&value| value > 150)));
}

#[test]
fn sound_keeps_its_distance_to_the_pictures() {
    let line = format!(
        "-f lavfi -i testsrc2=s=640x480:r=25:d=3 -itsoffset 0.5 -f lavfi -i sine=r=44100:d=2 \
         -ac 6 {X264} -c:a ac3"
    );
    let scene = Scene::new("clip.mkv", &line);
    let audio = scene.facts.audio.clone().unwrap();
    assert!((audio.clock.seconds(audio.start) - 0.5).abs() < 0.01);
    assert!(!audio.fits_as_is);
    let probed =
        probe(&scene.sound(), "-show_entries stream=codec_name,profile,sample_rate,channels,start_time");
    assert!(probed.contains("aac|profile=LC|sample_rate=48000|channels=2"), "{probed}");
    assert!((numbers(&probed, "start_time")[0] - audio.clock.seconds(audio.start)).abs() < 0.020, "{probed}");
}

#[test]
fn sound_that_fits_is_copied_packet_by_packet() {
    let line = format!(
        "-f lavfi -i testsrc2=s=640x480:r=25:d=2 -f lavfi -i sine=r=44100:d=2 {X264} -c:a aac -b:a 96k -ac 2"
    );
    let scene = Scene::new("clip.mp4", &line);
    assert!(scene.facts.audio.as_ref().unwrap().fits_as_is);
    let packets = |path: &Path| probe(path, "-select_streams a -show_entries packet=pts,size");
    assert_eq!(packets(&scene.sound()), packets(&scene.clip));
}

#[test]
fn a_file_that_was_cut_off_is_taken_as_far_as_it_goes() {
    let line = format!(
        "-f lavfi -i testsrc2=s=640x480:r=25:d=6 -f lavfi -i sine=d=6 {X264} -g 25 -c:a aac -movflags +faststart"
    );
    let whole = Scene::new("whole.mp4", &line);
    let bytes = std::fs::read(&whole.clip).unwrap();
    let cut = whole.folder.path().join("cut.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let scene = Scene::of(whole.folder, cut);
    assert!(
        scene.facts.warnings.iter().any(|warning| warning.contains("cut off")),
        "{:?}",
        scene.facts.warnings
    );
    assert!((1.5..5.0).contains(&scene.facts.duration_s), "{}", scene.facts.duration_s);
    let plan = scene.plan(None);
    assert_eq!(scene.encode(&plan)[0].times.len() as u64, plan.expected.frames.unwrap());
    let sound = numbers(&probe(&scene.sound(), "-show_entries packet=pts_time"), "pts_time");
    assert!(sound.iter().all(|&time_s| time_s <= scene.facts.duration_s));
}

#[test]
fn sound_that_begins_where_a_film_was_cut_off_is_left_out() {
    let line = "-f lavfi -i testsrc2=s=320x240:r=25:d=1 -itsoffset 2 -f lavfi -i sine=d=1 -c:v flv -c:a aac";
    let whole = Scene::new("clip.flv", line);
    assert!(whole.facts.audio.is_some());
    // Its header promises a minute.
    let mut bytes = std::fs::read(&whole.clip).unwrap();
    let name = bytes.windows(8).position(|eight| eight == b"duration").unwrap();
    bytes[name + 9..name + 17].copy_from_slice(&60_f64.to_be_bytes());
    let cut = whole.folder.path().join("cut.flv");
    std::fs::write(&cut, bytes).unwrap();
    let facts = Scene::of(whole.folder, cut).facts;
    assert!(facts.audio.is_none() && facts.duration_s < 1.5, "{} s", facts.duration_s);
    assert!(
        facts.warnings.iter().any(|warning| warning.contains("sound was left out")),
        "{:?}",
        facts.warnings
    );
}

#[test]
fn limits_are_named_with_what_exceeded_them() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("-f lavfi -i testsrc2=s=320x240:r=10:d=2 {X264} -map 0 -map 0 -map 0");
    let clip = make(folder.path(), "clip.mp4", &line);
    let (problem, detail) = refused(&clip, &MediaLimits { duration_s_max: 1.5, ..limits() });
    assert_eq!(problem, MediaProblem::TooLong);
    assert!(detail.contains("2 s"), "{detail}");
    let (problem, detail) = refused(&clip, &MediaLimits { pixels_max: 1000, ..limits() });
    assert_eq!(problem, MediaProblem::TooManyPixels);
    assert!(detail.contains("320×240"), "{detail}");
    let wide =
        make(folder.path(), "wide.mkv", &format!("-f lavfi -i testsrc2=s=320x64:d=1 -vf setsar=100 {X264}"));
    let (problem, detail) = refused(&wide, &limits());
    assert_eq!(problem, MediaProblem::TooManyPixels);
    assert!(detail.contains("32000×64"), "{detail}");
    let (problem, detail) = refused(&clip, &MediaLimits { streams_max: 2, ..limits() });
    assert_eq!(problem, MediaProblem::TooLarge);
    assert!(detail.contains("3 tracks"), "{detail}");
    let sound = make(folder.path(), "sound.mp4", "-f lavfi -i sine=d=1 -c:a aac");
    assert_eq!(refused(&sound, &limits()).0, MediaProblem::NoVideo);
    let other = make(folder.path(), "other.avi", "-f lavfi -i testsrc2=s=320x240:r=10:d=1 -c:v huffyuv");
    let (problem, detail) = refused(&other, &limits());
    assert_eq!(problem, MediaProblem::UnsupportedCodec);
    assert!(detail.contains("huffyuv") && detail.contains("H.264"), "{detail}");
}

#[test]
fn fragments_start_where_planned_though_damage_swallowed_the_keyframe() {
    let line = format!("-f lavfi -i testsrc2=s=640x480:r=25:d=6 {X264} -g 50");
    let whole = Scene::new("whole.mp4", &line);
    let probed = probe(&whole.clip, "-select_streams v -show_entries packet=pos,size");
    let (starts, sizes) = (numbers(&probed, "pos"), numbers(&probed, "size"));
    let mut bytes = std::fs::read(&whole.clip).unwrap();
    for frame in 50..53 {
        let start = starts[frame] as usize;
        bytes[start..start + sizes[frame] as usize].fill(0);
    }
    let damaged = whole.folder.path().join("damaged.mp4");
    std::fs::write(&damaged, bytes).unwrap();
    let scene = Scene::of(whole.folder, damaged);
    let plan = scene.plan(None);
    let schedule = Schedule::new(&scene.facts.video, &plan, plan.chunks[0]);
    for rung in scene.encode(&plan) {
        assert_eq!(rung.keys, schedule.keys);
        assert!(rung.times.iter().all(|time| schedule.kept.contains(time)));
        assert!(rung.notes[0].damaged >= 3 && rung.times.len() < schedule.kept.len(), "{:?}", rung.notes);
    }
}
