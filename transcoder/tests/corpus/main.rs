//! Every file of a folder of real videos (`SLUICE_MEDIA_DIR`, or `../shared/media` beside the repository) goes
//! through the child as the scheduler would send it: ingest, encode, assemble. `MANIFEST.tsv` says what must come
//! of it. Without the folder the tests say so and pass.
//!
//! What comes out is measured by FFmpeg's own programs; the rows of the table are printed, and `make campaign-corpus`
//! writes all of it to `bench/results/corpus.md`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../child/mod.rs"]
mod child;
mod measure;
mod private;
mod table;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use child::{Made, Verdict};
use domain::Size;
use domain::task::RenditionOutput;
use measure::{Beginning, Probed, SoundAndPicture};
use table::Line;

#[test]
fn phones_and_hdr() {
    check(|name| ["phone_", "hdr10_", "hevc8_"].iter().any(|group| name.starts_with(group)));
}

#[test]
fn containers_codecs_and_shapes() {
    check(|name| {
        !["phone_", "hdr10_", "hevc8_", "long_", "bad_"].iter().any(|group| name.starts_with(group))
    });
}

#[test]
fn long_files() {
    check(|name| name.starts_with("long_"));
}

#[test]
fn bad_files() {
    // One of them asks for this address.
    let listener = TcpListener::bind("127.0.0.1:18999");
    if let Ok(listener) = &listener {
        listener.set_nonblocking(true).unwrap();
    }
    check(|name| name.starts_with("bad_"));
    if let Ok(listener) = listener {
        assert!(listener.accept().is_err(), "a playlist made the child connect to 127.0.0.1:18999");
    }
}

/// `make campaign-corpus`: all of them, as a table in a file.
#[test]
#[ignore = "the tests above are the same in parts"]
fn the_whole_corpus_as_a_table() {
    let lines = check(|_| true);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/results/corpus.md");
    std::fs::write(path, table::page(&lines)).unwrap();
}

/// One row of the manifest.
struct Row {
    name: String,
    outcome: String,
}

fn check(wanted: impl Fn(&str) -> bool) -> Vec<Line> {
    let Some(media) = media_folder() else {
        println!("SKIPPED: no folder with a MANIFEST.tsv in SLUICE_MEDIA_DIR or ../shared/media");
        return Vec::new();
    };
    let rows: Vec<Row> = manifest(&media).into_iter().filter(|row| wanted(&row.name)).collect();
    assert!(!rows.is_empty(), "the manifest names no such files");
    println!("{}", table::HEADER);
    let tried: Vec<(Line, Option<String>)> = rows
        .iter()
        .map(|row| {
            let mut line = Line::of(&row.name);
            let failure = failure(&media, row, &mut line);
            println!("{line}");
            (line, failure)
        })
        .collect();
    let failures: Vec<&str> = tried.iter().filter_map(|(_, failure)| failure.as_deref()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    tried.into_iter().map(|(line, _)| line).collect()
}

/// What is wrong with what came of a file, if anything.
fn failure(media: &Path, row: &Row, line: &mut Line) -> Option<String> {
    let scratch = tempfile::tempdir().unwrap();
    let verdict = child::whole_way(&media.join(&row.name), scratch.path());
    let found = match &verdict {
        Verdict::Rejected { problem, .. } => format!("reject {problem}"),
        Verdict::Made(made) if made.source.warnings.is_empty() => "accept".to_owned(),
        Verdict::Made(_) => "accept with warning".to_owned(),
        Verdict::Failed(why) => return Some(format!("{}: failed: {why}", row.name)),
    };
    line.end = found.clone();
    if !allowed(&row.outcome, &found) {
        return Some(format!("{}: {found}, the manifest says {}: {verdict:?}", row.name, row.outcome));
    }
    match verdict {
        Verdict::Made(made) => {
            let wrong = wrong_with(&row.name, &made)
                .or_else(|| measured(&media.join(&row.name), scratch.path(), &made, line));
            wrong.map(|wrong| format!("{}: {wrong}", row.name))
        }
        Verdict::Rejected { detail, .. } => {
            let sentence = detail.len() > 20 && detail.ends_with('.');
            (!sentence).then(|| format!("{}: `{detail}` is no sentence", row.name))
        }
        Verdict::Failed(_) => None,
    }
}

/// `outcome` as the manifest writes it: alternatives by ` or `, problem names by `|`.
fn allowed(outcome: &str, found: &str) -> bool {
    outcome.split(" or ").any(|alternative| match alternative.strip_prefix("reject") {
        None => found == alternative || (alternative == "accept" && found.starts_with("accept")),
        Some("") => found.starts_with("reject"),
        Some(problems) => {
            problems.trim().split('|').any(|problem| found.strip_prefix("reject ") == Some(problem))
        }
    })
}

fn wrong_with(name: &str, made: &Made) -> Option<String> {
    let expected = expectation(name);
    let source = &made.source;
    if let Some((width, height)) = expected.size
        && source.size != (Size { width, height })
    {
        return Some(format!("shown as {:?}, expected {width}×{height}", source.size));
    }
    if let Some((seconds, tolerance)) = expected.duration_s
        && (source.duration_s - seconds).abs() > tolerance
    {
        return Some(format!("{} s long, expected {seconds}", source.duration_s));
    }
    if made.covers.files.is_empty() || made.covers.thumbhash.is_empty() {
        return Some("no cover".to_owned());
    }
    if let Err(error) = image::open(&made.sprite) {
        return Some(format!("the storyboard does not decode: {error}"));
    }
    if made.renditions.is_empty() {
        return Some("no rendition".to_owned());
    }
    made.renditions.iter().find_map(|rendition| {
        let wrong = wrong_with_rendition(&expected, made, rendition)?;
        Some(format!("{}: {wrong}", rendition.name))
    })
}

fn wrong_with_rendition(expected: &Expectation, made: &Made, rendition: &RenditionOutput) -> Option<String> {
    let (source, size) = (&made.source.size, rendition.size);
    let copied = made.copied == Some(rendition.name);
    let even = size.width % 2 == 0 && size.height % 2 == 0;
    if !copied && (!even || size.width > source.width.max(2) || size.height > source.height.max(2)) {
        return Some(format!("{size:?} of a source of {source:?}"));
    }
    if let Some(frames) = expected.frames
        && rendition.frames != frames
    {
        return Some(format!("{} frames, expected {frames}", rendition.frames));
    }
    let slack_s = made.plan.expected.frame_duration_s.max(0.025);
    if (rendition.duration_s - made.source.duration_s).abs() > slack_s {
        return Some(format!("{} s of {} s", rendition.duration_s, made.source.duration_s));
    }
    let track = made.folder_of(rendition).join(format!("{}.video.mp4", rendition.name));
    let probed = probe(&track);
    // Copied pictures keep their matrix; in encoded ones the turn is baked in.
    let pixels = format!("width={}|height={}|", size.width, size.height);
    let as_encoded = probed.contains(&pixels) && probed.contains("yuv420p|") && probed.contains("=tv");
    if !copied && !as_encoded {
        return Some(format!("not {pixels} 4:2:0 limited: {probed}"));
    }
    // ISO 6709 and Apple's key, however they are spelled.
    ["location", "com.apple", "GPS"]
        .iter()
        .find(|tag| probed.contains(**tag))
        .map(|tag| format!("carries {tag}"))
}

/// Of the film that a viewer would download, against the source.
fn measured(source: &Path, scratch: &Path, made: &Made, line: &mut Line) -> Option<String> {
    let name = source.file_name().unwrap().to_string_lossy();
    let before = Probed::of(source);
    let expected = expectation(&name);
    // What tone-mapping makes says it of itself.
    let matrix = if expected.transfer.is_some() { "auto" } else { before.matrix() };
    let kept = made.renditions[0].frames;
    let Some(beginning) = Beginning::of(source, kept) else {
        return Some("FFmpeg sees no picture".to_owned());
    };
    let sound_before = SoundAndPicture::of(source, &beginning);
    let private = private::texts_of(&before);
    line.frames_before = before.frames();
    let (mut wrong, mut found) = (Vec::new(), Vec::new());
    for rendition in &made.renditions {
        let whole = measure::progressive(made, rendition, source, scratch);
        let after = Probed::of(&whole);
        let copied = made.copied == Some(rendition.name);
        let (frames, shown, duration_s) = (after.frames(), after.shown(), after.duration_s());
        if (frames, shown) != (rendition.frames, rendition.size) {
            wrong.push(format!("{}: {frames} frames of {shown:?}, not {rendition:?}", rendition.name));
        }
        let slack_s = made.plan.expected.frame_duration_s.max(0.025);
        if (duration_s - made.source.duration_s).abs() > slack_s {
            wrong.push(format!("{}: {duration_s} s of {}", rendition.name, made.source.duration_s));
        }
        if !copied && after.rotation_degrees() != 0 {
            wrong.push(format!("{}: turned by {}", rendition.name, after.rotation_degrees()));
        }
        let sound_after =
            Beginning::of(&whole, frames).and_then(|beginning| SoundAndPicture::of(&whole, &beginning));
        let shift = sound_before.as_ref().zip(sound_after).map(|(a, b)| a.shift_ms(&b));
        if let Some((shift_ms, _)) = shift
            && shift_ms.abs() > SHIFT_MS_MAX
        {
            wrong.push(format!("{}: sound {shift_ms:.1} ms later", rendition.name));
        }
        // Damage looks like anything.
        let likeness = (!copied && !name.starts_with("bad_"))
            .then(|| {
                measure::likeness(source, &expected.reference(), matrix, &beginning, &whole, rendition.size)
            })
            .flatten();
        if let Some(likeness) = &likeness
            && let Some(unlike) = unlike(likeness, expected.transfer.is_some())
        {
            wrong.push(format!("{}: {unlike}", rendition.name));
        }
        let tags = after.tags();
        if let Some((key, value)) = tags.iter().find(|(key, _)| key == "creation_time" || key == "location") {
            wrong.push(format!("{}: says {key}={value}", rendition.name));
        }
        found.extend(private::found_in(&whole, &private));
        line.renditions.push(table::Cell { rendition: rendition.clone(), copied, after, shift, likeness });
        std::fs::remove_file(whole).unwrap();
    }
    for file in made.files() {
        found.extend(private::found_in(&file, &private));
    }
    (line.private, line.private_found) = (private.len(), found.len());
    wrong.extend(found);
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// What the outcome promises.
const SHIFT_MS_MAX: f64 = 20.0;
/// Of luma, after encoding by the quickest preset; a picture that is not tone-mapped stays below 20.
const PSNR_DB_MIN: f64 = 26.0;
/// Steps of 8 bits by which a plane may be brighter or darker on average: 1 %.
const MEAN_STEPS_MAX: f64 = 2.5;

fn unlike(likeness: &measure::Likeness, is_hdr: bool) -> Option<String> {
    let [luma_db, ..] = likeness.psnr_db;
    if luma_db < PSNR_DB_MIN {
        return Some(format!("{luma_db:.1} dB off the reference"));
    }
    let shifted = likeness.mean.iter().any(|mean| mean.abs() > MEAN_STEPS_MAX);
    (is_hdr && shifted).then(|| format!("colours off by {:.1?}", likeness.mean))
}

fn probe(track: &Path) -> String {
    let entries = "stream=width,height,pix_fmt,color_range:stream_tags:format_tags";
    let run = Command::new("ffprobe")
        .args(["-v", "error", "-of", "compact=p=0", "-show_entries", entries])
        .arg(track)
        .output()
        .expect("ffprobe is installed for tests");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// What the manifest says in words.
#[derive(Default)]
struct Expectation {
    /// Of HDR, by zscale's names.
    transfer: Option<&'static str>,
    interlaced: bool,
    size: Option<(u32, u32)>,
    /// Seconds and tolerance.
    duration_s: Option<(f64, f64)>,
    frames: Option<u64>,
}

impl Expectation {
    /// What FFmpeg's filters have to do to the source.
    fn reference(&self) -> String {
        match self.transfer {
            Some(transfer) => measure::tone_mapping(transfer),
            None if self.interlaced => "bwdif=mode=send_frame,".to_owned(),
            None => String::new(),
        }
    }
}

fn expectation(name: &str) -> Expectation {
    let pq = Some("smpte2084");
    let shown = |width, height| Expectation { size: Some((width, height)), ..Default::default() };
    let lasts =
        |seconds, tolerance| Expectation { duration_s: Some((seconds, tolerance)), ..Default::default() };
    let counts = |frames| Expectation { frames: Some(frames), ..Default::default() };
    match name {
        "long_bbb_1080p60_51.mp4" => Expectation { frames: Some(1800), ..lasts(30.0, 0.05) },
        "long_camera_139s_noaudio.mp4" => Expectation { frames: Some(1394), ..lasts(139.4, 0.2) },
        "long_static_362s_1080p.mp4" => counts(10_883),
        "phone_android_rot90_720p.mp4" => Expectation { frames: Some(39), ..shown(720, 1280) },
        "phone_iphone_rot90.mov" => Expectation { frames: Some(62), ..shown(320, 568) },
        "phone_vfr_1080x1440.mp4" => Expectation { frames: Some(84), ..lasts(11.35, 0.1) },
        "phone_hevc_2tracks_rot90.mp4" => Expectation { frames: Some(58), ..shown(768, 1024) },
        "phone_iphone14_dolbyvision84.mov" => {
            Expectation { frames: Some(40), transfer: Some("arib-std-b67"), ..shown(1080, 1920) }
        }
        "hevc8_vfr_960x540.mov" => Expectation { frames: Some(169), ..lasts(6.38, 0.1) },
        "hdr10_pq_av1_portrait.mp4" => Expectation { frames: Some(127), transfer: pq, ..shown(720, 1280) },
        "hdr10_pq_hevc_1080p.mp4" => Expectation { transfer: pq, ..shown(1920, 1080) },
        "avchd_1080i50.mts" => Expectation { interlaced: true, ..shown(1920, 1080) },
        "anamorphic_sar3x2.mp4" => Expectation { frames: Some(46), ..shown(1920, 1080) },
        "multi_stream_2v2a2s.mp4" => Expectation { frames: Some(325), ..shown(320, 180) },
        "open_gop_editlist_444.mp4" => lasts(12.25, 0.3),
        "short_10_frames.mp4" => counts(10),
        "one_frame.avi" => counts(1),
        "mpeg2_opengop_1080p.ts" => counts(58),
        "bad_truncated.mp4" => lasts(1.9, 0.15),
        _ => Expectation::default(),
    }
}

fn manifest(media: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(media.join("MANIFEST.tsv")).unwrap();
    let mut lines = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let header = lines.next().expect("a manifest has a header");
    let column = |name: &str| header.iter().position(|&title| title == name).expect("a known column");
    let (file, outcome) = (column("file"), column("outcome"));
    lines.map(|row| Row { name: row[file].to_owned(), outcome: row[outcome].to_owned() }).collect()
}

fn media_folder() -> Option<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "tests are told where the folder is by their environment")]
    let told = std::env::var_os("SLUICE_MEDIA_DIR").map(PathBuf::from);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let beside = [repository.join("../shared/media"), repository.join("../../shared/media")];
    told.into_iter().chain(beside).find(|folder| folder.join("MANIFEST.tsv").exists())
}
