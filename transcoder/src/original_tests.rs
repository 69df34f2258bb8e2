use std::path::PathBuf;

use domain::task::{Boundaries, ChunkSpan, EncodeSettingsPlanned, Expected, MediaLimits};
use domain::{Layout, RenditionIndex, TrackIndex};

use super::*;
use crate::reference;
use crate::test_clips::{complaints, make, materialise, numbers, picture_digests, probe};

const LIMITS: MediaLimits = MediaLimits { duration_s_max: 7200.0, pixels_max: 35_389_440, streams_max: 16 };
const PICTURES: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=5";
const SOUND: &str = "-f lavfi -i sine=frequency=500:sample_rate=48000:duration=5";
const AVC: &str =
    "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 3 -g 50 -keyint_min 50 -sc_threshold 0";

/// A clip, copied.
struct Copied {
    folder: tempfile::TempDir,
    source: PathBuf,
    facts: SourceFacts,
    output: RenditionOutput,
    index: RenditionIndex,
}

impl Copied {
    fn of(name: &str, line: &str) -> Copied {
        let folder = tempfile::tempdir().unwrap();
        let source = make(folder.path(), name, line);
        Copied::at(folder, source)
    }

    /// The same clip once more, its samples left where they are.
    fn by_reference(&self) -> anyhow::Result<Copied> {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::copy(&self.source, &source).unwrap();
        let (opened, packets) = source::measure(&source, &LIMITS).unwrap();
        let packets = packets.context("not as they came out")?;
        let (facts, output) = (opened.facts, folder.path());
        let output = reference::make(&facts, &packets, &opened.input, &source, output, &plan(&facts))?;
        let index = std::fs::read(folder.path().join("original.index.json")).unwrap();
        Ok(Copied { source, facts, output, index: serde_json::from_slice(&index).unwrap(), folder })
    }

    fn at(folder: tempfile::TempDir, source: PathBuf) -> Copied {
        let facts = source::open(&source, &LIMITS).unwrap().facts;
        let output = copy(&facts, &source, folder.path(), &plan(&facts), &Progress::silent()).unwrap();
        let index = std::fs::read(folder.path().join("original.index.json")).unwrap();
        Copied { source, facts, output, index: serde_json::from_slice(&index).unwrap(), folder }
    }

    fn file(&self, layout: &Layout, name: &str) -> PathBuf {
        materialise(layout, &self.index, self.folder.path(), name)
    }

    fn progressive(&self) -> PathBuf {
        self.file(&self.index.progressive, "progressive.mp4")
    }

    /// Init and all fragments, as a player of HLS joins them.
    fn joined(&self, track: &TrackIndex, name: &str) -> PathBuf {
        let fragments = track.fragments.iter().map(|fragment| &fragment.layout);
        self.file(&Layout::join(std::iter::once(&track.init).chain(fragments)), name)
    }

    /// What holds for every copy, and for what is not copied.
    fn check(&self) {
        self.check_alone();
        if self.source.extension().is_some_and(|extension| extension != "mp4") {
            return assert!(self.by_reference().is_err(), "only MP4 keeps samples as they are");
        }
        let referenced = self.by_reference().unwrap();
        assert_eq!(referenced.index.files, ["source", "original.head.mp4"]);
        referenced.check_alone();
        let (copied, referenced) = (&self.output, &referenced.output);
        assert_eq!((&copied.codecs, copied.frames), (&referenced.codecs, referenced.frames));
        assert_eq!(copied.duration_s, referenced.duration_s);
    }

    fn check_alone(&self) {
        let progressive = self.progressive();
        let joined = self.joined(&self.index.video, "joined.mp4");
        let pictures = picture_digests(&self.source);
        assert_eq!(picture_digests(&progressive), pictures, "progressive");
        assert_eq!(picture_digests(&joined), pictures, "fragments joined");
        assert_eq!(self.output.frames, pictures.len() as u64);
        for file in [&progressive, &joined] {
            assert_eq!(complaints(file), "", "{}", file.display());
        }
        self.check_plainness(&progressive);
        let clock = self.facts.video.clock;
        for file in [&progressive, &joined] {
            let mut shown =
                numbers(&probe(file, "-select_streams v -show_entries packet=pts_time"), "pts_time");
            shown.sort_by(f64::total_cmp);
            let expected = self.facts.video.frame_times.iter().map(|ticks| clock.seconds(*ticks));
            for (shown, expected) in shown.iter().zip(expected) {
                assert!(
                    (shown - expected).abs() < 0.0011,
                    "{shown} s, expected {expected} s in {}",
                    file.display()
                );
            }
        }
        let duration_s = numbers(&probe(&progressive, "-show_entries format=duration"), "duration")[0];
        assert!(
            (duration_s - self.facts.duration_s).abs() < 0.05,
            "{duration_s} s, expected {}",
            self.facts.duration_s
        );
        if let Some(audio) = &self.index.audio {
            assert_eq!(complaints(&self.joined(audio, "joined.m4a")), "");
        }
    }

    /// Not fragmented, tables in front, nothing between that wastes bytes, no word about who made it.
    fn check_plainness(&self, progressive: &std::path::Path) {
        let spans = crate::boxes::top_level(&mut std::fs::File::open(progressive).unwrap()).unwrap();
        let kinds: Vec<&str> = spans.iter().map(|span| std::str::from_utf8(&span.kind).unwrap()).collect();
        assert!(
            matches!(kinds[..], ["ftyp", "moov", "free", "free", "mdat"] | ["ftyp", "moov", "free", "mdat"]),
            "{kinds:?}"
        );
        let free: u64 = spans.iter().filter(|span| &span.kind == b"free").map(|span| span.bytes).sum();
        assert!(free <= 16, "{free} bytes wasted");
        let bytes = std::fs::read(progressive).unwrap();
        for word in [&b"Lavf"[..], b"moof"] {
            let head = &bytes[..spans.last().unwrap().offset as usize];
            assert!(!head.windows(word.len()).any(|window| window == word), "{word:?}");
        }
        assert_eq!(self.output.size_bytes, bytes.len() as u64);
    }

    /// First times in seconds of (video, audio) as a demuxer sees them, priming included.
    fn starts(&self, file: &std::path::Path) -> (f64, f64) {
        let start = |kind: &str| {
            let line = format!("-select_streams {kind} -show_entries packet=pts_time");
            numbers(&probe(file, &line), "pts_time").into_iter().fold(f64::INFINITY, f64::min)
        };
        (start("v"), start("a"))
    }
}

/// Every clean keyframe is a boundary.
fn plan(facts: &SourceFacts) -> Plan {
    let video = &facts.video;
    let start_s = |audio: &AudioFacts| audio.clock.seconds(audio.start);
    let starts: Vec<i64> = video.keyframes.clone();
    Plan {
        rungs: Vec::new(),
        first: None,
        audio: false,
        settings: EncodeSettingsPlanned {
            x264_preset: "veryfast".to_owned(),
            gop_s_max: 2.0,
            ..Default::default()
        },
        chunks: vec![ChunkSpan { start: starts[0], end: None }],
        boundaries: Boundaries { timescale: video.clock.timescale, starts },
        expected: Expected {
            frames: Some(video.frames()),
            duration_s: facts.duration_s,
            frame_duration_s: 0.04,
            audio_offset_s: facts
                .audio
                .as_ref()
                .map(|audio| start_s(audio) - video.clock.seconds(video.frame_times[0])),
        },
    }
}

#[test]
fn landscape_with_reordered_pictures() {
    let copied = Copied::of("source.mp4", &format!("{PICTURES} {SOUND} {AVC} -c:a aac -shortest"));
    copied.check();
    assert_eq!(copied.output.codecs, "avc1.4d400c,mp4a.40.2");
    let fragments = &copied.index.video.fragments;
    let seconds = |ticks: i64| ticks as f64 / f64::from(copied.index.video.timescale);
    assert_eq!(fragments.iter().map(|fragment| seconds(fragment.start)).collect::<Vec<_>>(), [0.0, 2.0, 4.0]);
    let durations = fragments.iter().map(|fragment| seconds(fragment.duration as i64));
    assert_eq!(durations.collect::<Vec<_>>(), [2.0, 2.0, 1.0]);
    let audio = copied.index.audio.as_ref().unwrap();
    assert_eq!((audio.channels, copied.index.video.channels), (Some(1), None));
    let starts: Vec<f64> =
        audio.fragments.iter().map(|f| f.start as f64 / f64::from(audio.timescale)).collect();
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(
        (starts[1] - 2.0).abs() <= 512.0 / 48_000.0 && (starts[2] - 4.0).abs() <= 512.0 / 48_000.0,
        "{starts:?}"
    );
    // Priming is cut by the edit list, so that sound and pictures begin together.
    assert_eq!(copied.starts(&copied.progressive()), (0.0, -0.021333));
    assert!((copied.output.frame_rate - 25.0).abs() < 1e-9);
}

#[test]
fn browsers_start_at_zero() {
    let copied = Copied::of("source.mp4", &format!("{PICTURES} {SOUND} {AVC} -c:a aac -shortest"));
    for file in ["original.video.mp4", "original.audio.mp4"] {
        let track = crate::track_index::TrackFile::read(&copied.folder.path().join(file), 0).unwrap();
        // `read` refuses all but a single edit; the first sample is decoded at its start.
        assert!(track.samples[0].dts <= 0 && track.samples[0].pts <= 0, "{file}: {:?}", track.samples[0]);
    }
}

#[test]
fn variable_rate_keeps_its_times() {
    let line = format!("{PICTURES} -vf select='not(mod(n\\,3))+lt(mod(n\\,20)\\,7)' -fps_mode vfr {AVC}");
    let copied = Copied::of("source.mp4", &line);
    copied.check();
    assert!(copied.output.frames < 125);
}

#[test]
fn rotation_stays_a_matrix() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "plain.mp4", &format!("{PICTURES} {AVC}"));
    let source = make(folder.path(), "source.mp4", "-i plain.mp4 -c copy -metadata:s:v rotate=90");
    let copied = Copied::at(folder, source);
    copied.check();
    assert_eq!((copied.output.size.width, copied.output.size.height), (180, 320));
    for file in [copied.progressive(), copied.folder.path().join("original.video.mp4")] {
        let rotation = probe(&file, "-select_streams v -show_entries stream_side_data=rotation");
        assert_eq!(numbers(&rotation, "rotation").iter().map(|r| r.abs()).collect::<Vec<_>>(), [90.0]);
    }
}

#[test]
fn personal_metadata_stays_behind() {
    let line = format!(
        "{PICTURES} {SOUND} {AVC} -c:a aac -metadata location=+48.1+011.5/ -metadata title=secretword \
         -metadata comment=secretword -metadata:s:v handler_name=secretword -metadata:s:a language=deu"
    );
    let copied = Copied::of("source.mp4", &line);
    for name in ["original.video.mp4", "original.audio.mp4", "original.head.mp4"] {
        let bytes = std::fs::read(copied.folder.path().join(name)).unwrap();
        for word in [&b"secretword"[..], b"+48.1", b"Lavf"] {
            let word_at = bytes.windows(word.len()).position(|window| window == word);
            // Encoders sign their own streams; what the container says is ours.
            assert!(word_at.is_none(), "{name}: {}", String::from_utf8_lossy(word));
        }
    }
}

#[test]
fn what_lies_between_the_samples_is_no_part_of_the_film() {
    let folder = tempfile::tempdir().unwrap();
    let cue = |second: u32| format!("{second}\n00:00:0{second},000 --> 00:00:0{second},900\nsecretword\n\n");
    std::fs::write(folder.path().join("cues.srt"), (0..5).map(cue).collect::<String>()).unwrap();
    let line = format!(
        "{PICTURES} {SOUND} -i cues.srt {AVC} -c:a aac -c:s mov_text -map 0 -map 1 -map 2 -metadata title=secretword"
    );
    let source = make(folder.path(), "source.mp4", &line);
    let has_secret = |path: &std::path::Path| {
        std::fs::read(path).unwrap().windows(10).any(|window| window == b"secretword")
    };
    assert!(has_secret(&source));
    let referenced = Copied::at(folder, source).by_reference().unwrap();
    referenced.check_alone();
    assert!(!has_secret(&referenced.progressive()));
    for (track, name) in
        [(&referenced.index.video, "v.mp4"), (referenced.index.audio.as_ref().unwrap(), "a.mp4")]
    {
        assert!(!has_secret(&referenced.joined(track, name)), "{name}");
    }
}

#[test]
fn samples_that_lie_over_each_other_are_copied() {
    let copied = Copied::of("source.mp4", &format!("{PICTURES} {SOUND} {AVC} -c:a aac"));
    let (opened, packets) = source::measure(&copied.source, &LIMITS).unwrap();
    let (facts, output) = (&opened.facts, copied.folder.path());
    let make = |packets: &[crate::source_packets::SourcePacket]| {
        reference::make(facts, packets, &opened.input, &copied.source, output, &plan(facts)).map(|_| ())
    };
    let packets = packets.unwrap();
    make(&packets).unwrap();
    let mut over = packets.clone();
    over[7].offset = over[3].offset;
    assert!(make(&over).is_err());
    let mut beyond = packets.clone();
    beyond.last_mut().unwrap().offset = std::fs::metadata(&copied.source).unwrap().len() - 1;
    assert!(make(&beyond).is_err());
}

#[test]
fn no_audio() {
    let copied = Copied::of("source.mp4", &format!("{PICTURES} {AVC}"));
    copied.check();
    assert_eq!(copied.index.files, ["original.video.mp4", "original.head.mp4"]);
    assert!(copied.index.audio.is_none());
}

#[test]
fn late_audio_stays_late() {
    let line = format!("{PICTURES} -itsoffset 1 {SOUND} {AVC} -c:a aac");
    let copied = Copied::of("source.mp4", &line);
    copied.check();
    let (video_s, audio_s) = copied.starts(&copied.progressive());
    assert_eq!((video_s, audio_s), copied.starts(&copied.source));
    assert_eq!(video_s, 0.0);
    // Fragments carry the delay in tfdt, for browsers ignore empty edits.
    let audio = copied.index.audio.as_ref().unwrap();
    let start_s = audio.fragments[0].start as f64 / f64::from(audio.timescale);
    assert!((start_s - audio_s).abs() < 1e-5, "{start_s} s, expected {audio_s}");
    assert!((copied.starts(&copied.joined(audio, "late.m4a")).1 - start_s).abs() < 0.001);
}

#[test]
fn late_video_stays_late() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), "video.mp4", &format!("{PICTURES} {AVC}"));
    make(folder.path(), "audio.m4a", &format!("{SOUND} -c:a aac"));
    let source = make(folder.path(), "source.mp4", "-itsoffset 1 -i video.mp4 -i audio.m4a -c copy");
    let copied = Copied::at(folder, source);
    copied.check();
    let (video_s, audio_s) = copied.starts(&copied.progressive());
    assert!((video_s - 1.0).abs() < 0.001 && audio_s.abs() < 0.022, "{video_s} {audio_s}");
    assert_eq!(copied.index.video.fragments[0].start, i64::from(copied.index.video.timescale));
}

#[test]
fn ntsc_rate_to_the_tick() {
    let line = format!("-f lavfi -i testsrc2=size=320x180:rate=30000/1001:duration=5 {SOUND} {AVC} -c:a aac");
    let copied = Copied::of("source.mp4", &line);
    copied.check();
    assert!((copied.output.frame_rate - 30_000.0 / 1001.0).abs() < 1e-6, "{}", copied.output.frame_rate);
    assert_eq!(
        copied.index.video.fragments[1].start * 30_000,
        50 * 1001 * i64::from(copied.index.video.timescale)
    );
}

#[test]
fn transport_stream_with_sound_in_adts() {
    let copied = Copied::of("source.ts", &format!("{PICTURES} {SOUND} {AVC} -c:a aac -f mpegts"));
    copied.check();
    assert_eq!(copied.output.codecs, "avc1.4d400c,mp4a.40.2");
}

#[test]
fn flash_and_matroska_count_in_milliseconds() {
    for name in ["source.flv", "source.mkv"] {
        let line = format!("{PICTURES} {} {AVC} -c:a aac", SOUND.replace("48000", "44100"));
        let copied = Copied::of(name, &line);
        copied.check();
        let track =
            crate::track_index::TrackFile::read(&copied.folder.path().join("original.audio.mp4"), 1).unwrap();
        let uneven = track.samples.iter().filter(|sample| sample.duration != 1024).count();
        assert_eq!(uneven, 0, "{name}: rounding became gaps in the sound");
    }
}

#[test]
fn open_groups_are_cut_where_decoding_can_start() {
    let line =
        format!("{PICTURES} {AVC} -x264-params open-gop=1:bframes=3:keyint=50:min-keyint=50:scenecut=0");
    Copied::of("source.mp4", &line).check();
}

#[test]
fn groups_of_ten_seconds() {
    let line = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=25 -c:v libx264 -preset ultrafast -g 250 \
                -keyint_min 250 -sc_threshold 0 -pix_fmt yuv420p";
    let copied = Copied::of("source.mp4", line);
    copied.check();
    assert_eq!(copied.index.video.fragments.len(), 3);
}

#[test]
fn one_frame() {
    let copied = Copied::of("source.mp4", &format!("{PICTURES} {AVC} -frames:v 1"));
    copied.check();
    assert_eq!(copied.output.frames, 1);
    assert!((copied.output.duration_s - 0.04).abs() < 1e-9);
}
