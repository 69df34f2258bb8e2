//! Bad input gets a clear problem, and nothing half kept.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{App, Peak, Persona, clips};

#[tokio::test]
async fn uploads_that_are_not_allowed_leave_nothing() {
    let app = App::with(&[("SLUICE_UPLOAD_BYTES_MAX", "1000000")]).await;
    let (alice, mallory, anyone) = (app.user("alice").await, app.user("mallory").await, app.anonymous());
    let video = alice.create("mine").await;
    let id = video["id"].as_str().unwrap();
    let path = format!("/stream/videos/{id}");

    anyone.send_bytes(id, "x").await.problem(401, "/problems/unauthorized");
    alice.with_token("not.a.token").send_bytes(id, "x").await.problem(401, "/problems/unauthorized");
    mallory.send_bytes(id, "x").await.problem(404, "/problems/not-found");
    let other = mallory.create("theirs").await;
    let wrong_token = anyone.with_token(other["upload"]["token"].as_str().unwrap());
    wrong_token.send_bytes(id, "x").await.problem(403, "/problems/forbidden");
    alice.send_bytes("not-an-id", "x").await.problem(400, "/problems/invalid-id");
    alice.send_bytes("01890000-0000-7000-8000-000000000000", "x").await.problem(404, "/problems/not-found");
    let text = alice.request(Method::POST, &path).header("Content-Type", "text/plain").body("x");
    alice.send(text).await.problem(415, "/problems/unsupported-media-type");
    let large = vec![0_u8; 1_000_001];
    alice.send_bytes(id, large.clone()).await.problem(413, "/problems/upload-too-large");
    // Chunked: its size shows only as it comes.
    let chunks = futures::stream::iter(
        large.chunks(10_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
    );
    let answer = alice.send_bytes(id, reqwest::Body::wrap_stream(chunks)).await;
    answer.problem(413, "/problems/upload-too-large");
    let digest = alice
        .request(Method::POST, &path)
        .header("Content-Type", "video/mp4")
        .header("Content-Digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:")
        .body("x");
    alice.send(digest).await.problem(400, "/problems/digest-mismatch");
    assert_eq!(alice.video(id).await["state"], "awaiting_upload");
    assert!(app.objects().is_empty(), "{:?}", app.objects());

    let clip = clips::h264(app.folder.path(), "clip.mp4", "320x240", 1);
    alice.send_bytes(id, std::fs::read(clip).unwrap()).await.expect(201);
    alice.send_bytes(id, "again").await.problem(409, "/problems/already-uploaded");
    alice.until(id, &["ready"], 60).await;
    app.finish();
}

#[tokio::test]
async fn a_declared_size_that_is_too_large_is_refused_before_the_body() {
    let app = App::with(&[("SLUICE_UPLOAD_BYTES_MAX", "1000000")]).await;
    let alice = app.user("alice").await;
    let video = alice.create("huge").await;
    let mut socket = connect(&app);
    write!(
        socket,
        "POST /stream/videos/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: video/mp4\r\nContent-Length: 1000001\r\nExpect: 100-continue\r\n\r\n",
        video["id"].as_str().unwrap(),
        alice.token.as_deref().unwrap()
    )
    .unwrap();
    let answer = read_head(&mut socket);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    app.finish();
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_no_object_and_no_stuck_row() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("cut off").await;
    let id = video["id"].as_str().unwrap();
    let mut socket = connect(&app);
    write!(
        socket,
        "POST /stream/videos/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: video/mp4\r\nContent-Length: 5000000\r\n\r\n",
        alice.token.as_deref().unwrap()
    )
    .unwrap();
    socket.write_all(&vec![7; 2_000_000]).unwrap();
    drop(socket);
    let gone = Instant::now();
    while alice.video(id).await["state"] != "awaiting_upload" || !app.objects().is_empty() {
        assert!(gone.elapsed() < Duration::from_secs(10), "{} {:?}", alice.video(id).await, app.objects());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let clip = clips::h264(app.folder.path(), "clip.mp4", "320x240", 1);
    alice.send_bytes(id, std::fs::read(clip).unwrap()).await.expect(201);
    alice.until(id, &["ready"], 60).await;
    app.finish();
}

/// Texts that FFmpeg would follow to other files and addresses.
#[tokio::test]
async fn files_that_are_not_media_are_rejected_and_open_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let app = App::start().await;
    let alice = app.user("alice").await;
    let sibling = clips::h264(app.folder.path(), "sibling.mp4", "320x240", 1);
    let playlist =
        |target: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n");
    let files = [
        ("text.mp4", "This is a shopping list, not a film.".to_owned()),
        ("playlist.mp4", playlist(&format!("file://{}", sibling.display()))),
        ("remote.mp4", playlist(&format!("http://{address}/x.ts"))),
        ("concat.mkv", format!("ffconcat version 1.0\nfile {}\n", sibling.display())),
        ("drawing.mp4", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_owned()),
    ];
    for (name, content) in files {
        let path = app.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let id = alice.upload(&path).await;
        let video = alice.until(&id, &["rejected"], 30).await;
        assert_eq!(video["error"]["type"], "/problems/media-not-media", "{name}: {video:#}");
        assert!(!video["error"]["detail"].as_str().unwrap().contains('/'), "names no path: {video:#}");
        app.anonymous().get(&format!("/stream/videos/{id}")).await.problem(404, "/problems/not-found");
    }
    assert!(listener.accept().is_err(), "the file was followed to {address}");
    app.finish();
}

#[tokio::test]
async fn a_file_cut_short_is_taken_as_far_as_it_is_whole() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let whole = app.folder.path().join("whole.mp4");
    clips::ffmpeg(
        &[
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=640x360:rate=30:duration=6",
            "-c:v",
            "libx264",
            "-g",
            "30",
            "-bf",
            "0",
            "-pix_fmt",
            "yuv420p",
            "-b:v",
            "1M",
            "-movflags",
            "+faststart",
        ],
        &whole,
    );
    let bytes = std::fs::read(&whole).unwrap();
    let cut = app.folder.path().join("cut.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let id = alice.upload(&cut).await;
    let video = alice.until(&id, &["ready"], 60).await;
    let seconds = video["duration_s"].as_f64().unwrap();
    assert!((1.0..5.0).contains(&seconds), "{video:#}");
    assert!(!video["warnings"].as_array().unwrap().is_empty(), "{video:#}");
    app.finish();
}

const FORMS_RESIDENT_KIB_MAX: u64 = 1024;

/// `reliability` U9: of a form only the file's bytes are as many as they like.
#[tokio::test]
async fn forms_without_measure_are_refused_and_take_no_memory() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let video = alice.create("a form").await;
    let id = video["id"].as_str().unwrap();
    // The first ones warm up what stays.
    for _ in 0..5 {
        send_forms(&alice, id).await;
    }
    let before_kib = app.program.resident_kib();
    let peak = Peak::of(app.program.pid());
    for _ in 0..10 {
        send_forms(&alice, id).await;
    }
    let grown_kib = peak.end().saturating_sub(before_kib);
    println!("forms: base {before_kib} KiB resident, +{grown_kib} KiB");
    assert!(grown_kib <= FORMS_RESIDENT_KIB_MAX, "the forms took {grown_kib} KiB");
    assert_eq!(alice.video(id).await["state"], "awaiting_upload");
    assert!(app.objects().is_empty(), "{:?}", app.objects());
    app.finish();
}

async fn send_forms(persona: &Persona, video: &str) {
    let field = "--b\r\nContent-Disposition: form-data; name=x\r\n\r\nx\r\n";
    let file = "--b\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\nbytes\r\n";
    let nested = file.replace("--b", "--c");
    let (many, long, wide) = (field.repeat(10_000), "x".repeat(1_000_000), "b".repeat(10_240));
    for (name, boundary, body) in [
        ("10,000 parts", "b", format!("{many}{file}--b--")),
        ("a header of 1 MB", "b", format!("--b\r\nX-Long: {long}\r\n\r\nx\r\n{file}--b--")),
        ("no closing boundary", "b", file.to_owned()),
        (
            "nested",
            "b",
            format!("--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{nested}--c--\r\n--b--"),
        ),
        ("a boundary of 10 kB", &wide, file.replace("--b", &format!("--{wide}")) + &format!("--{wide}--")),
        ("a field after the file", "b", format!("{file}{field}--b--")),
    ] {
        println!("{name}");
        let request = persona.request(Method::POST, &format!("/stream/videos/{video}"));
        let request = request.header("Content-Type", format!("multipart/form-data; boundary={boundary}"));
        persona.send(request.body(body)).await.problem(400, "/problems/bad-request");
    }
}

#[tokio::test]
async fn framework_errors_are_problems_too() {
    let app = App::start().await;
    let (alice, anyone) = (app.user("alice").await, app.anonymous());
    anyone.get("/nowhere").await.problem(404, "/problems/not-found");
    let wrong = anyone.delete("/api/videos").await;
    assert!(wrong.header("allow").contains("GET"), "{:?}", wrong.headers);
    wrong.problem(405, "/problems/method-not-allowed");
    let bad_json =
        alice.request(Method::POST, "/api/videos").header("Content-Type", "application/json").body("{");
    alice.send(bad_json).await.problem(400, "/problems/bad-request");
    let unknown = alice.post("/api/videos", &json!({"title": "x", "owner_id": "me"})).await;
    unknown.problem(400, "/problems/invalid-field");
    let endless = "x".repeat(3_000_000);
    alice.post("/api/videos", &json!({"title": endless})).await.problem(413, "/problems/too-large");
    anyone.get("/api/videos?limit=1000000").await.problem(400, "/problems/invalid-field");
    anyone.get("/api/videos?cursor=AAAA").await.problem(400, "/problems/invalid-field");
    for internal in ["/metrics", "/livez", "/readyz"] {
        anyone.get(internal).await.problem(404, "/problems/not-found");
    }
    app.finish();
}

#[tokio::test]
async fn metrics_name_the_route_of_whatever_was_asked_and_nothing_that_clients_invent() {
    let app = App::start().await;
    let anyone = app.anonymous();
    anyone.get("/api/videos/nobodys").await;
    anyone.send(anyone.request(Method::OPTIONS, "/api/videos/preflight")).await.expect(200);
    anyone.get("/invented").await.expect(404);
    let metrics = anyone.at(&app.program.ops).get("/metrics").await.expect(200).text();
    for (method, route) in [("GET", "/api/videos/{vid}"), ("OPTIONS", "/api/videos/{vid}"), ("GET", "none")] {
        let label = format!("http_request_method=\"{method}\",http_route=\"{route}\",");
        assert!(metrics.contains(&label), "{label}");
    }
    for invented in ["nobodys", "preflight", "invented"] {
        assert!(!metrics.contains(invented), "{invented}");
    }
    app.finish();
}

fn connect(app: &App) -> TcpStream {
    let socket = TcpStream::connect(app.base().trim_start_matches("http://")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
