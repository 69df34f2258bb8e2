//! `kill -9` in mid-upload and in mid-encode, then a new start: nothing acknowledged is lost.

use std::time::Duration;

use crate::harness::{App, Points, clips, probe};

/// Six kills in every run; `make campaign-kills` asks for fifty.
#[allow(clippy::disallowed_methods, reason = "the campaign sets its size and seed from outside")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// A short lease, so that a dead process's work is taken up soon.
const SETTINGS: [(&str, &str); 2] = [("SLUICE_LEASE_S", "2"), ("SLUICE_HEARTBEAT_S", "1")];

#[tokio::test]
async fn killed_in_mid_encode_the_video_still_becomes_ready() {
    let (kills, seed) = (setting("SLUICE_TEST_KILLS", 6).div_ceil(2), setting("SLUICE_TEST_SEED", 1));
    let mut app = App::with(&SETTINGS).await;
    let mut alice = app.user("alice").await;
    // By turns one that plays as it is, and one that is encoded in two phases.
    let films = [
        clips::hevc(app.folder.path(), "hevc.mp4", "1280x720", 6),
        clips::h264(app.folder.path(), "h264.mp4", "1280x720", 6),
    ];
    let mut points = Points::new(seed);
    for number in 0..kills {
        let id = alice.upload(&films[number as usize % films.len()]).await;
        tokio::time::sleep(Duration::from_millis(points.next_below(2500))).await;
        app.kill_and_restart();
        alice = alice.at(app.base());
        let video = alice.until(&id, &["ready"], 60).await;
        assert_eq!(video["renditions"].as_array().unwrap().len(), 3, "kill {number}: {video:#}");
        for rendition in ["original", "medium", "low"] {
            let url = format!("{}/stream/videos/{id}?rendition={rendition}", app.base());
            assert_eq!(probe::ffprobe(&url).frames(), 180, "kill {number}, {rendition}");
        }
    }
    println!("mid-encode: {kills} kills, seed {seed}: every video ready with all its frames");
    app.finish();
}

#[tokio::test]
async fn killed_in_mid_upload_what_was_acknowledged_is_there_and_the_rest_is_not() {
    let (kills, seed) = (setting("SLUICE_TEST_KILLS", 6) / 2, setting("SLUICE_TEST_SEED", 1));
    let mut app = App::with(&SETTINGS).await;
    let mut alice = app.user("alice").await;
    let clip = clips::h264(app.folder.path(), "clip.mp4", "640x360", 2);
    // A long tail that no player reads makes the upload last.
    let mut bytes = std::fs::read(&clip).unwrap();
    let tail_bytes = 64 << 20_u32;
    bytes.extend(u32::to_be_bytes(tail_bytes));
    bytes.extend(b"free");
    bytes.resize(bytes.len() + tail_bytes as usize - 8, 0);
    let mut points = Points::new(seed ^ 0xABCD);
    let mut acknowledged = 0;
    for number in 0..kills {
        let video = alice.create(&format!("kill {number}")).await;
        let id = video["id"].as_str().unwrap().to_owned();
        let sending = {
            let (alice, id, bytes) = (alice.clone(), id.clone(), bytes.clone());
            tokio::spawn(async move {
                let request = alice
                    .request(reqwest::Method::POST, &format!("/stream/videos/{id}"))
                    .header("Content-Type", "video/mp4")
                    .body(bytes);
                alice.try_send(request).await.map(|answer| answer.status)
            })
        };
        tokio::time::sleep(Duration::from_millis(points.next_below(600))).await;
        app.kill_and_restart();
        alice = alice.at(app.base());
        match sending.await.unwrap() {
            Ok(status) => {
                assert_eq!(status, 201, "kill {number}");
                acknowledged += 1;
            }
            // Not acknowledged: it may have been stored all the same, or is to be sent again.
            Err(_) if alice.video(&id).await["state"] == "awaiting_upload" => {
                alice.send_bytes(&id, bytes.clone()).await.expect(201);
            }
            Err(_) => {}
        }
        alice.until(&id, &["ready"], 60).await;
        let url = format!("{}/stream/videos/{id}", app.base());
        assert_eq!(probe::ffprobe(&url).frames(), 60, "kill {number}");
    }
    println!("mid-upload: {kills} kills, {acknowledged} acknowledged before, seed {seed}: nothing lost");
    // Attempts that died with the process are swept once their lease is over.
    let swept = std::time::Instant::now();
    let expected = kills as usize;
    let sources = |app: &App| app.objects().iter().filter(|path| path.ends_with("/source")).count();
    while sources(&app) > expected {
        assert!(swept.elapsed() < Duration::from_secs(60), "{:?}", app.objects());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.finish();
}
