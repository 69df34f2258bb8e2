//! The life of a video over HTTP: created, uploaded, watched, deleted for good.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{App, Persona, clips, probe};

#[tokio::test]
async fn from_the_upload_to_the_receipt() {
    let app = App::start().await;
    let (alice, root, anyone) = (app.user("alice").await, app.admin().await, app.anonymous());
    let clip = clips::h264(app.folder.path(), "landscape.mp4", "1280x720", 6);

    let created = alice.create("First light").await;
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["state"], "awaiting_upload");
    assert!(created["upload"]["token"].is_string(), "{created}");
    anyone.get(&format!("/api/videos/{id}")).await.problem(404, "/problems/not-found");

    // The upload token alone is enough.
    let bearer = anyone.with_token(created["upload"]["token"].as_str().unwrap());
    let bytes = std::fs::read(&clip).unwrap();
    let stored = bearer.send_bytes(id, bytes.clone()).await.expect(201).json();
    assert_eq!(stored["id"], id);
    assert_eq!(stored["size_bytes"], bytes.len());

    let events = alice.get(&format!("/api/videos/{id}/events")).await.expect(200);
    assert!(events.header("content-type").starts_with("text/event-stream"));
    let text = events.text();
    assert!(text.contains("event: state") && text.contains("ready"), "{text}");

    let video = alice.until(id, &["ready"], 60).await;
    assert_eq!((video["width"].as_u64(), video["height"].as_u64()), (Some(1280), Some(720)));
    assert!((video["duration_s"].as_f64().unwrap() - 6.0).abs() < 0.05, "{video}");
    let names: Vec<_> =
        video["renditions"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["original", "medium", "low"]);
    assert!(video["thumbhash"].is_string() && video["published_at"].is_string(), "{video}");
    assert!(video.get("upload").is_none(), "{video}");

    watch(&app, id).await;

    let listed = anyone.get("/api/videos").await.expect(200).json();
    assert_eq!(listed["items"][0]["id"], id);
    let comment = json!({"content": "Lovely <b>light</b>"});
    let bob = app.user("bob").await;
    bob.post(&format!("/api/videos/{id}/comments"), &comment).await.expect(201);
    assert_eq!(alice.video(id).await["counts"]["comments"], 1);

    let segment = first_segment(&anyone, id).await;
    let asked = Instant::now();
    alice.delete(&format!("/api/videos/{id}")).await.expect(204);
    alice.delete(&format!("/api/videos/{id}")).await.problem(404, "/problems/not-found");
    for path in [
        format!("/api/videos/{id}"),
        format!("/stream/videos/{id}"),
        format!("/stream/videos/{id}/master.m3u8"),
        format!("/stream/videos/{id}/cover.jpg"),
        segment,
    ] {
        anyone.until_gone(&path, asked).await;
    }
    assert_eq!(anyone.get("/api/videos").await.json()["items"], json!([]));

    let deletions = root.get("/scheduler/deletions").await.expect(200).json();
    let deletion = deletions["items"][0]["id"].as_str().unwrap().to_owned();
    let done = loop {
        let deletion = root.get(&format!("/scheduler/deletions/{deletion}")).await.expect(200).json();
        if deletion["state"] == "done" {
            break deletion;
        }
        assert!(asked.elapsed() < Duration::from_secs(60), "no receipt within 60 s: {deletion}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(done["receipt"]["checked_empty"], true);
    assert!(done["receipt"]["bytes_freed"].as_u64().unwrap() > bytes.len() as u64, "{done}");
    assert_eq!(app.objects(), Vec::<String>::new());
    app.finish();
}

/// Every way to watch gives the film.
async fn watch(app: &App, id: &str) {
    let anyone = app.anonymous();
    let whole = anyone.get(&format!("/stream/videos/{id}")).await.expect(200);
    assert_eq!(whole.header("content-type"), "video/mp4");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("content-length"), whole.body.len().to_string());
    let part = anyone.get_range(&format!("/stream/videos/{id}"), "bytes=1000-4999").await.expect(206);
    assert_eq!(part.body, whole.body[1000..5000]);
    assert_eq!(part.header("content-range"), format!("bytes 1000-4999/{}", whole.body.len()));
    assert_eq!(part.header("etag"), whole.header("etag"));
    let beyond = anyone.get_range(&format!("/stream/videos/{id}"), "bytes=999999999-").await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", whole.body.len()));
    let request = anyone
        .request(Method::GET, &format!("/stream/videos/{id}"))
        .header("If-None-Match", whole.header("etag"));
    assert!(anyone.send(request).await.expect(304).body.is_empty());

    for rendition in ["original", "medium", "low"] {
        let url = format!("{}/stream/videos/{id}?rendition={rendition}", app.base());
        probe::decodes(&url);
        assert_eq!(probe::ffprobe(&url).frames(), 180, "{rendition}");
    }
    let master = format!("{}/stream/videos/{id}/master.m3u8", app.base());
    probe::decodes(&master);
    for (cover, kind) in
        [("cover.jpg", "image/jpeg"), ("cover.webp", "image/webp"), ("cover.jpg?w=240", "image/jpeg")]
    {
        let answer = anyone.get(&format!("/stream/videos/{id}/{cover}")).await.expect(200);
        assert_eq!(answer.header("content-type"), kind);
        assert!(answer.body.len() > 500, "{cover} has {} bytes", answer.body.len());
    }
}

/// The path of the first media segment that the playlists name.
pub async fn first_segment(anyone: &Persona, id: &str) -> String {
    let master = anyone.get(&format!("/stream/videos/{id}/master.m3u8")).await.expect(200).text();
    let uri = |text: &str| text.lines().find(|line| !line.starts_with('#')).unwrap().to_owned();
    let base = reqwest::Url::parse(&format!("{}/stream/videos/{id}/master.m3u8", anyone.base)).unwrap();
    let playlist = base.join(&uri(&master)).unwrap();
    let media = anyone.get(playlist.as_str()).await.expect(200).text();
    let segment = playlist.join(&uri(&media)).unwrap();
    let answer = anyone.get(segment.as_str()).await.expect(200);
    assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
    assert!(segment.path().ends_with(".mp4"));
    segment.path().to_owned()
}

#[tokio::test]
async fn a_deletion_waits_for_its_time_and_can_be_cancelled() {
    let app = App::start().await;
    let (alice, root) = (app.user("alice").await, app.admin().await);
    let clip = clips::h264(app.folder.path(), "small.mp4", "320x240", 1);
    let id = alice.upload(&clip).await;
    alice.until(&id, &["ready"], 60).await;

    let later = root.delete(&format!("/scheduler/videos/{id}?after_s=3600")).await.expect(200).json();
    assert_eq!(later["state"], "scheduled");
    let path = format!("/scheduler/deletions/{}", later["id"].as_str().unwrap());
    app.anonymous().get(&format!("/stream/videos/{id}")).await.expect(200);
    root.delete(&path).await.expect(204);
    root.delete(&path).await.problem(409, "/problems/deletion-not-scheduled");

    let soon = root.delete(&format!("/scheduler/videos/{id}?after_s=1")).await.expect(200).json();
    let path = format!("/scheduler/deletions/{}", soon["id"].as_str().unwrap());
    let asked = Instant::now();
    while root.get(&path).await.json()["state"] != "done" {
        assert!(asked.elapsed() < Duration::from_secs(60), "{:#}", root.get(&path).await.json());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.anonymous().get(&format!("/stream/videos/{id}")).await.problem(404, "/problems/not-found");
    app.finish();
}

#[tokio::test]
async fn a_session_dies_everywhere_within_a_second() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("unsent").await;
    let id = video["id"].as_str().unwrap();
    assert_eq!(alice.delete("/api/sessions").await.status, 205);
    let out = Instant::now();
    while alice.get(&format!("/api/videos/{id}")).await.status != 401 {
        assert!(out.elapsed() < Duration::from_secs(1));
    }
    while alice.send_bytes(id, "x").await.status != 401 {
        assert!(out.elapsed() < Duration::from_secs(1));
    }
    app.finish();
}
