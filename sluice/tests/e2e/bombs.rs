//! Small files that ask for more than there is: each is refused at its first attempt, in time, and nobody else notices.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{App, clips};

/// The promise for small files.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// Of the declared size of a box.
const SIZE_BYTES: usize = 4;

/// Two pictures in an MP4.
fn film(folder: &Path, more: &str) -> Vec<u8> {
    let path = folder.join("film.mp4");
    let arguments =
        format!("-f lavfi -i testsrc2=size=320x240:rate=2:duration=1 {more} -c:v libx264 -pix_fmt yuv420p");
    clips::ffmpeg(&arguments.split_whitespace().collect::<Vec<_>>(), &path);
    std::fs::read(path).unwrap()
}

/// Where a box begins that is there once.
fn box_at(bytes: &[u8], name: &str) -> usize {
    let found = bytes.windows(SIZE_BYTES).position(|four| four == name.as_bytes());
    found.expect("every film has it") - SIZE_BYTES
}

fn size_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + SIZE_BYTES].try_into().unwrap()) as usize
}

fn boxed(name: &[u8], payload: &[u8]) -> Vec<u8> {
    [&u32::to_be_bytes((8 + payload.len()) as u32)[..], name, payload].concat()
}

/// 67 million pixels.
fn huge_picture(folder: &Path) -> Vec<u8> {
    let path = folder.join("huge.avi");
    let arguments = "-f lavfi -i color=black:size=8192x8192:rate=1:duration=1 -c:v mjpeg -pix_fmt yuvj420p";
    clips::ffmpeg(&arguments.split(' ').collect::<Vec<_>>(), &path);
    std::fs::read(path).unwrap()
}

/// The second picture is shown a day after the first.
fn a_day_long(folder: &Path) -> Vec<u8> {
    film(folder, "-vf setpts=N*86400/TB -fps_mode passthrough")
}

/// The index of its one track, many times.
fn tracks(folder: &Path, count: usize) -> Vec<u8> {
    let film = film(folder, "");
    let (moov, trak) = (box_at(&film, "moov"), box_at(&film, "trak"));
    let (header, track) = (&film[moov + 8..trak], &film[trak..trak + size_at(&film, trak)]);
    [&film[..moov], &boxed(b"moov", &[header, &track.repeat(count)].concat())].concat()
}

/// `box_name` counts four thousand million of what it lists; its count stands `count_at` bytes behind its name.
fn counts_more(folder: &Path, box_name: &str, count_at: usize) -> Vec<u8> {
    let mut film = film(folder, "");
    let count = box_at(&film, box_name) + 8 + count_at;
    film[count..count + 4].fill(0xff);
    film
}

/// Boxes in boxes, ten thousand deep.
fn deep(folder: &Path) -> Vec<u8> {
    let film = film(folder, "");
    let head = &film[..size_at(&film, 0)];
    let boxes = (0..10_000).fold(Vec::new(), |inner, _| boxed(b"moov", &inner));
    [head, &boxes].concat()
}

#[tokio::test]
async fn bombs_are_refused_at_once_and_the_server_goes_on() {
    let app = App::start().await;
    let (alice, root) = (app.user("alice").await, app.admin().await);
    let folder = app.folder.path();
    let bombs = [
        ("67 million pixels", huge_picture(folder), "media-too-many-pixels"),
        ("a day", a_day_long(folder), "media-too-long"),
        ("40 tracks", tracks(folder, 40), "media-too-large"),
        ("2,000 tracks", tracks(folder, 2000), "media-unreadable"),
        ("samples without end", counts_more(folder, "stsz", 8), "media-unreadable"),
        ("chunks without end", counts_more(folder, "stco", 4), "media-unreadable"),
        ("depth", deep(folder), "media-unreadable"),
    ];
    for (name, bytes, problem) in bombs {
        let bomb = folder.join("bomb.mp4");
        std::fs::write(&bomb, bytes).unwrap();
        let id = alice.upload(&bomb).await;
        let began = Instant::now();
        let video = alice.until(&id, &["rejected", "ready", "failed"], 60).await;
        assert!(began.elapsed() < REFUSED_WITHIN, "{name}: {:?}", began.elapsed());
        assert_eq!(video["error"]["type"], format!("/problems/{problem}"), "{name}: {video:#}");
        assert_eq!(
            attempts(&root.get("/scheduler/jobs?limit=100").await.expect(200).json(), &id),
            [1],
            "{name}"
        );
    }
    // Whoever comes next notices nothing.
    let film = folder.join("good.mp4");
    std::fs::write(&film, self::film(folder, "")).unwrap();
    let id = alice.upload(&film).await;
    alice.until(&id, &["ready"], 60).await;
    app.finish();
}

fn attempts(jobs: &Value, video: &str) -> Vec<u64> {
    let jobs = jobs["items"].as_array().unwrap().iter().filter(|job| job["video_id"] == video);
    jobs.map(|job| job["attempts"].as_u64().unwrap()).collect()
}
