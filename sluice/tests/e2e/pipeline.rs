//! Generated and real files through the whole program: what comes out is what the source promised.

use std::path::Path;

use crate::harness::{App, clips, probe};

struct Clip {
    name: &'static str,
    arguments: &'static [&'static str],
    shown: (u64, u64),
    frames: u64,
    seconds: f64,
    renditions: &'static [&'static str],
}

const PICTURE: &str = "testsrc2=size=1280x720:rate=30:duration=4";
const TONE: &str = "sine=frequency=440:sample_rate=48000:duration=4";
const X264: [&str; 6] = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];

/// What phones, cameras and recorders send, in small.
fn generated() -> Vec<Clip> {
    vec![
        Clip {
            name: "landscape.mp4",
            arguments: &[
                "-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", TONE, "-c:v", "libx264", "-bf", "2",
                "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "45", "-c:a", "aac",
            ],
            shown: (1280, 720),
            frames: 120,
            seconds: 4.0,
            renditions: &["original", "medium", "low"],
        },
        Clip {
            name: "silent.mp4",
            arguments: &[
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=640x360:rate=30000/1001:duration=3.003",
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-pix_fmt",
                "yuv420p",
                "-an",
            ],
            shown: (640, 360),
            frames: 90,
            seconds: 3.003,
            renditions: &["original", "low"],
        },
        Clip {
            name: "hevc.mp4",
            arguments: &[
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=960x540:rate=25:duration=2",
                "-f",
                "lavfi",
                "-i",
                "sine=duration=2",
                "-c:v",
                "libx265",
                "-preset",
                "ultrafast",
                "-x265-params",
                "log-level=none",
                "-tag:v",
                "hvc1",
                "-c:a",
                "aac",
            ],
            shown: (960, 540),
            frames: 50,
            seconds: 2.0,
            renditions: &["original", "medium", "low"],
        },
        Clip {
            name: "vp9.webm",
            arguments: &[
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=640x480:rate=24:duration=2",
                "-f",
                "lavfi",
                "-i",
                "sine=duration=2",
                "-c:v",
                "libvpx-vp9",
                "-deadline",
                "realtime",
                "-cpu-used",
                "8",
                "-c:a",
                "libopus",
            ],
            shown: (640, 480),
            frames: 48,
            seconds: 2.0,
            renditions: &["original", "medium", "low"],
        },
        Clip {
            name: "odd.mkv",
            arguments: &[
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=363x241:rate=25:duration=2",
                "-c:v",
                "mpeg4",
                "-q:v",
                "4",
            ],
            shown: (362, 240),
            frames: 50,
            seconds: 2.0,
            renditions: &["original"],
        },
        Clip {
            name: "one-frame.mp4",
            arguments: &[
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=480x360:rate=25:duration=0.04",
                "-c:v",
                "libx264",
                "-pix_fmt",
                "yuv420p",
            ],
            shown: (480, 360),
            frames: 1,
            seconds: 0.04,
            renditions: &["original", "low"],
        },
    ]
}

#[tokio::test]
async fn generated_clips_come_out_whole() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let mut uploaded = Vec::new();
    for clip in generated() {
        let path = app.folder.path().join(clip.name);
        clips::ffmpeg(clip.arguments, &path);
        uploaded.push((alice.upload(&path).await, path, clip));
    }
    for (id, path, clip) in &uploaded {
        let video = alice.until(id, &["ready"], 120).await;
        let renditions = video["renditions"].as_array().unwrap();
        let names: Vec<_> = renditions.iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names, clip.renditions, "{}", clip.name);
        assert!(
            (video["duration_s"].as_f64().unwrap() - clip.seconds).abs() < 0.05,
            "{}: {video:#}",
            clip.name
        );
        for name in names {
            exact(&app, id, name, clip, path);
        }
    }
    app.finish();
}

/// Frames, duration, size, keyframes and A/V offset of one rendition, against its source.
fn exact(app: &App, id: &str, rendition: &str, clip: &Clip, source: &Path) {
    let url = format!("{}/stream/videos/{id}?rendition={rendition}", app.base());
    let what = format!("{} {rendition}", clip.name);
    let (before, after) = (probe::ffprobe(source.to_str().unwrap()), probe::ffprobe(&url));
    probe::decodes(&url);
    assert_eq!(after.frames(), clip.frames, "{what}: frames");
    let frame_s = clip.seconds / clip.frames as f64;
    assert!((after.seconds("video", "duration") - clip.seconds).abs() <= frame_s, "{what}: {:#}", after.0);
    assert!(after.seconds("video", "start_time").abs() <= 0.02, "{what}: starts late: {:#}", after.0);
    let (width, height) = after.shown_size();
    assert!(width <= clip.shown.0 && height <= clip.shown.1, "{what}: upscaled to {width}x{height}");
    if rendition == "original" {
        assert_eq!((width, height), clip.shown, "{what}");
    }
    let change_s = before.audio_offset_s().zip(after.audio_offset_s()).map(|(a, b)| (a - b).abs());
    assert!(change_s.is_none_or(|s| s <= 0.020), "{what}: A/V offset changed by {change_s:?} s");
    assert_eq!(before.stream("audio").is_some(), after.stream("audio").is_some(), "{what}: audio");
    if rendition != "original" {
        assert!(probe::has_closed_gops(&url), "{what}: open GOPs");
        let keyframes = probe::keyframes(&url);
        let gaps_closed = keyframes.windows(2).all(|pair| pair[1] - pair[0] <= 2.0 + frame_s);
        assert!(gaps_closed && keyframes[0].abs() <= 0.02, "{what}: keyframes at {keyframes:?}");
    }
}

#[tokio::test]
async fn a_portrait_clip_stays_upright() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let (flat, turned) = (app.folder.path().join("flat.mp4"), app.folder.path().join("turned.mp4"));
    let mut arguments = vec!["-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", TONE];
    arguments.extend(X264);
    arguments.extend(["-c:a", "aac"]);
    clips::ffmpeg(&arguments, &flat);
    // The matrix that a phone writes when it is held upright.
    clips::ffmpeg(&["-i", flat.to_str().unwrap(), "-c", "copy", "-metadata:s:v:0", "rotate=90"], &turned);
    assert_eq!(probe::ffprobe(turned.to_str().unwrap()).shown_size(), (720, 1280), "the fixture is turned");

    let id = alice.upload(&turned).await;
    let video = alice.until(&id, &["ready"], 60).await;
    assert_eq!((video["width"].as_u64(), video["height"].as_u64()), (Some(720), Some(1280)));
    for (rendition, size) in [("original", (720, 1280)), ("medium", (480, 854)), ("low", (360, 640))] {
        let url = format!("{}/stream/videos/{id}?rendition={rendition}", app.base());
        assert_eq!(probe::ffprobe(&url).shown_size(), size, "{rendition}");
    }
    let cover = probe::ffprobe(&format!("{}/stream/videos/{id}/cover.jpg?w=720", app.base()));
    assert_eq!(cover.shown_size(), (720, 1280));
    app.finish();
}

/// Every file of the manifest ends as its row says, over HTTP.
#[tokio::test]
async fn real_files_end_as_the_manifest_says() {
    let Some(folder) = clips::media_dir() else { return };
    let app = App::start().await;
    let alice = app.user("alice").await;
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let columns: Vec<_> = manifest.lines().next().unwrap().split('\t').collect();
    let column = |name| columns.iter().position(|c| *c == name).unwrap();
    let (file, outcome) = (column("file"), column("outcome"));
    let mut wrong = Vec::new();
    let mut waiting = Vec::new();
    for row in manifest.lines().skip(1) {
        let row: Vec<_> = row.split('\t').collect();
        let path = folder.join(row[file]);
        if std::fs::metadata(&path).unwrap().len() == 0 {
            // Nothing to judge: refused while it is uploaded.
            let video = alice.create("empty").await;
            let answer = alice.send_bytes(video["id"].as_str().unwrap(), "").await;
            println!("{}: {} at the upload ({})", row[file], answer.status, row[outcome]);
            assert!([400, 411].contains(&answer.status), "{}", answer.text());
            continue;
        }
        waiting.push((row[file], row[outcome], alice.upload(&path).await));
    }
    assert!(waiting.len() > 40, "the manifest has its rows");
    for (file, outcome, id) in waiting {
        let video = alice.until(&id, &["ready", "rejected"], 400).await;
        let got = match video["state"].as_str().unwrap() {
            "ready" if video["warnings"].as_array().is_some_and(|w| !w.is_empty()) => {
                "accept with warning".to_owned()
            }
            "ready" => "accept".to_owned(),
            _ => format!(
                "reject {}",
                video["error"]["type"].as_str().unwrap().trim_start_matches("/problems/media-")
            ),
        };
        println!("{file}: {got} ({outcome})");
        if !allowed(outcome).contains(&got) {
            wrong.push(format!("{file}: {got}, wanted {outcome}: {}", video["error"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    app.finish();
}

/// `accept or reject unreadable|truncated` → each outcome by itself.
fn allowed(outcome: &str) -> Vec<String> {
    let mut all = Vec::new();
    for alternative in outcome.split(" or ") {
        match alternative.strip_prefix("reject ") {
            Some(names) => all.extend(names.split('|').map(|name| format!("reject {name}"))),
            None if alternative == "accept" => {
                all.extend(["accept".to_owned(), "accept with warning".to_owned()])
            }
            None if alternative == "reject" => {
                all.extend(domain::MediaProblem::ALL.iter().map(|problem| format!("reject {problem}")))
            }
            None => all.push(alternative.to_owned()),
        }
    }
    all
}
