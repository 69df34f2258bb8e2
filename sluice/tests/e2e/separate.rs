//! The three services and the transcoder as processes of their own, on one data directory.

use crate::harness::{Backends, Persona, Program, check, clips, probe};
use crate::life::first_segment;

#[tokio::test]
async fn the_services_meet_only_in_the_database_and_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let backends = Backends::fresh(folder.path());
    let mut settings = backends.settings().to_vec();
    settings.push(("SLUICE_ADMIN_PASSWORD".to_owned(), Persona::PASSWORD.to_owned()));
    settings.push(("SLUICE_ADMIN_USERNAME".to_owned(), "root".to_owned()));
    let start = |name: &str| Program::start(name, folder.path(), &format!("log-{name}"), &settings);
    let mut api = start("api");
    let mut streamserver = start("streamserver");
    let mut scheduler = start("scheduler");

    let alice = Persona::register(&api.base, "alice").await;
    let watcher = Persona::anonymous(&streamserver.base);
    let clip = clips::h264(folder.path(), "clip.mp4", "1280x720", 4);
    let video = alice.create("apart").await;
    let id = video["id"].as_str().unwrap();
    let uploader = alice.at(&streamserver.base);
    uploader.send_bytes(id, std::fs::read(&clip).unwrap()).await.expect(201);
    let events = alice.get(&format!("/api/videos/{id}/events")).await.expect(200).text();
    assert!(events.contains("\"ready\""), "{events}");
    alice.until(id, &["ready"], 60).await;
    first_segment(&watcher, id).await;

    let url = format!("{}/stream/videos/{id}", streamserver.base);
    assert_eq!(probe::ffprobe(&url).frames(), 120);
    watcher.get_range(&url, "bytes=0-99").await.expect(206);
    probe::decodes(&format!("{url}/master.m3u8"));
    watcher.get(&format!("{url}/cover.jpg")).await.expect(200);
    alice.get("/stream/videos").await.problem(404, "/problems/not-found");

    // A link made by the one opens at the other.
    let private = alice.request(reqwest::Method::PATCH, &format!("/api/videos/{id}"));
    alice.send(private.json(&serde_json::json!({"visibility": "private"}))).await.expect(200);
    watcher.until_gone(&url, std::time::Instant::now()).await;
    let lent = alice.get(&format!("/api/videos/{id}/playback")).await.expect(200).json();
    let link = lent["hls_url"].as_str().unwrap().split_once('?').unwrap().1;
    probe::decodes(&format!("{url}/master.m3u8?{link}"));

    let root = Persona::log_in(&api.base, "root").await.at(&scheduler.base);
    let asked = std::time::Instant::now();
    alice.delete(&format!("/api/videos/{id}")).await.expect(204);
    let deletions = root.get("/scheduler/deletions").await.expect(200).json();
    let path = format!("/scheduler/deletions/{}", deletions["items"][0]["id"].as_str().unwrap());
    watcher.until_gone(&url, asked).await;
    while root.get(&path).await.json()["state"] != "done" {
        assert!(asked.elapsed().as_secs() < 60, "{:#}", root.get(&path).await.json());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    assert_eq!(root.get(&path).await.json()["receipt"]["checked_empty"], true);

    for program in [&mut api, &mut streamserver, &mut scheduler] {
        assert!(program.terminate().success());
    }
    check(folder.path(), &settings);
}
