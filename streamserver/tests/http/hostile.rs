//! `reliability` §3.3, U1 to U9, of both ways to upload: what nobody's tests of a feature would send. What is refused
//! for its headers alone stands in `resuming::refusals`, forms in detail in `multipart`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::{ObjectFile, ObjectKey, UploadId, VideoId, VideoState, Visibility};
use reqwest::Method;
use store::Disk;

use crate::raw::Connection;
use crate::world::{Person, World, expect_problem};

/// What a client may have sent before it hears that it is in vain.
const SENT_IN_VAIN_BYTES: usize = 64 * 1024;
const GIB: u64 = 1 << 30;

/// Heads of requests with a large body, as lines without their end.
struct Heads {
    whole: String,
    form: String,
    creation: String,
    append: String,
}

impl Heads {
    fn of(token: &str, video: VideoId, upload: UploadId) -> Heads {
        let authorization = format!("Host: x\r\nAuthorization: Bearer {token}");
        let whole = format!("POST /stream/videos/{video} HTTP/1.1\r\n{authorization}");
        let tus = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream";
        Heads {
            form: format!("{whole}\r\nContent-Type: multipart/form-data; boundary=b"),
            creation: format!(
                "POST /stream/uploads HTTP/1.1\r\n{authorization}\r\n{tus}\r\nUpload-Metadata: video_id {}\r\n\
                 Upload-Length: {GIB}",
                BASE64_STANDARD.encode(video.to_string())
            ),
            append: format!(
                "PATCH /stream/uploads/{upload} HTTP/1.1\r\n{authorization}\r\n{tus}\r\nUpload-Offset: 0"
            ),
            whole: format!("{whole}\r\nContent-Type: video/mp4"),
        }
    }

    fn all(&self) -> [&str; 4] {
        [&self.whole, &self.form, &self.creation, &self.append]
    }
}

async fn create(world: &World, person: &Person, video: VideoId, length: u64) -> UploadId {
    let request = world.http.post(world.url("/stream/uploads")).bearer_auth(&person.token);
    let request = request.header("tus-resumable", "1.0.0").header("upload-length", length);
    let metadata = format!("video_id {}", BASE64_STANDARD.encode(video.to_string()));
    let response = request.header("upload-metadata", metadata).send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().parse().unwrap()
}

async fn offset(world: &World, upload: UploadId) -> u64 {
    world.catalog.resumable(upload, world.clock.now()).await.unwrap().unwrap().offset_bytes
}

/// Nothing that is being written, and no more objects than these.
async fn nothing_is_left(world: &World, objects: usize) {
    let swept = async {
        while !world.store.list_unfinished(None, 1).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), swept).await.expect("temporary bytes are 0 again");
    assert_eq!(world.objects().await.len(), objects);
}

/// U1
#[tokio::test]
async fn who_is_refused_hears_it_before_the_body_is_read() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let video = world.video(&alice, Visibility::Public).await;
    let upload = create(&world, &alice, video, GIB).await;
    let finished = world.video(&alice, Visibility::Public).await;
    let stale = create(&world, &alice, finished, GIB).await;
    let url = world.url(&format!("/stream/videos/{finished}"));
    let request = world.http.post(url).bearer_auth(&alice.token).header("content-type", "video/mp4");
    assert_eq!(request.body("bytes").send().await.unwrap().status(), 201);

    let nobody = Heads::of("nonsense", video, upload);
    let strangers = Heads::of(&bob.token, video, upload);
    let finished = Heads::of(&alice.token, finished, stale);
    // An upload of a finished video has ended.
    for (heads, statuses) in [(nobody, [401; 4]), (strangers, [404; 4]), (finished, [409, 409, 409, 410])] {
        for (head, status) in heads.all().into_iter().zip(statuses) {
            let mut connection = Connection::open(&world).await;
            connection.send(format!("{head}\r\nContent-Length: {GIB}\r\n\r\n")).await;
            connection.send(vec![7; SENT_IN_VAIN_BYTES]).await;
            let answer = tokio::time::timeout(Duration::from_secs(5), connection.head()).await;
            let answer = answer.unwrap_or_else(|_| panic!("the rest of the body is waited for: {head}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{answer}");
        }
    }
    assert_eq!(offset(&world, upload).await, 0);
    nothing_is_left(&world, 1).await;
    world.end().await;
}

/// Folders and files under a folder, with what the files hold.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
            found.push((path.display().to_string(), Vec::new()));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// U2: ids
#[tokio::test]
async fn ids_that_are_paths_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let canary = tempfile::tempdir().unwrap();
    std::fs::write(canary.path().join("canary"), "sings").unwrap();
    let outside = tree(canary.path());
    let root = folder.path().join("store");
    let world = World::build(folder, Arc::new(Disk::open(&root).unwrap()), |_| {}).await;
    let alice = world.user("alice").await;
    let long = "a".repeat(4096);
    let ids = [
        "../../../../etc/passwd",
        "..",
        "..%2f..%2fcanary",
        "%2e%2e%2f",
        "%252e%252e%252f",
        "..\\..\\canary",
        "..%5c..%5ccanary",
        "%00",
        "0199c5a8-5c6e-7a3b-8f00-0123456789ab%00",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "%c0%ae%c0%ae%c0%af",
        "%ff%fe",
        &long,
    ];
    for id in ids {
        for (method, path) in
            [("POST", "/stream/videos"), ("PATCH", "/stream/uploads"), ("DELETE", "/stream/uploads")]
        {
            let mut connection = Connection::open(&world).await;
            let head = format!(
                "{method} {path}/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\n\
                 Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 1\r\n\r\nx",
                alice.token
            );
            connection.send(head).await;
            let answer = connection.head().await;
            let refused = ["HTTP/1.1 400 ", "HTTP/1.1 404 ", "HTTP/1.1 405 "]
                .iter()
                .any(|status| answer.starts_with(status));
            assert!(refused, "{method} {id}: {answer}");
        }
    }
    nothing_is_left(&world, 0).await;

    // A link planted where the video's objects would be.
    let video = world.video(&alice, Visibility::Public).await;
    let planted = root.join("objects").join(ObjectKey::video_prefix(video).trim_end_matches('/'));
    std::fs::create_dir_all(planted.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(canary.path(), &planted).unwrap();
    let url = world.url(&format!("/stream/videos/{video}"));
    let request = world.http.post(url).bearer_auth(&alice.token).header("content-type", "video/mp4");
    let answer = request.body("bytes").send().await.unwrap();
    assert!(answer.status().is_server_error(), "{answer:?}");
    assert_eq!(world.state(video).await, VideoState::AwaitingUpload);
    std::fs::remove_file(planted).unwrap();
    assert_eq!(tree(canary.path()), outside, "nothing outside was touched");
    world.end().await;
}

/// U2: names
#[tokio::test]
async fn names_of_files_are_never_paths() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let long = format!("{}.mp4", "n".repeat(4096));
    for (name, kept) in [
        ("../../../canary", Some("canary".to_owned())),
        ("..%2f..%2fcanary", Some("..%2f..%2fcanary".to_owned())),
        ("%252e%252e%252fcanary", Some("%252e%252e%252fcanary".to_owned())),
        ("..\\..\\canary", Some("canary".to_owned())),
        ("/etc/passwd", Some("passwd".to_owned())),
        ("C:\\canary", Some("canary".to_owned())),
        ("a\u{0}b\r\nX-Injected: 1\u{1b}[31m", Some("abX-Injected: 1[31m".to_owned())),
        ("a/", None),
        (&long, Some("n".repeat(255))),
    ] {
        let video = world.video(&alice, Visibility::Public).await;
        let metadata = format!(
            "video_id {},filename {}",
            BASE64_STANDARD.encode(video.to_string()),
            BASE64_STANDARD.encode(name)
        );
        let request = world.http.post(world.url("/stream/uploads")).bearer_auth(&alice.token);
        let request = request
            .header("tus-resumable", "1.0.0")
            .header("upload-length", 5)
            .header("upload-metadata", metadata);
        let request = request.header("content-type", "application/offset+octet-stream").body("bytes");
        assert_eq!(request.send().await.unwrap().status(), 201, "{name:?}");
        assert_eq!(name_of(&world, video).await, kept, "{name:?}");
        // The place of an object is made of ids alone.
        let source = world.catalog.source(video).await.unwrap().unwrap();
        let key = ObjectKey { video, attempt: source.attempt, file: ObjectFile::Source };
        assert!(world.objects().await.contains(&key.path()), "{name:?}");
    }
    // An overlong spelling of `../` is no text; what is kept has no slash in it.
    let video = world.video(&alice, Visibility::Public).await;
    let form = b"--b\r\nContent-Disposition: form-data; name=f; filename=\"\xc0\xae\xc0\xae\xc0\xafcanary\"\r\n\r\nbytes\r\n--b--";
    let request = world.http.post(world.url(&format!("/stream/videos/{video}"))).bearer_auth(&alice.token);
    let request = request.header("content-type", "multipart/form-data; boundary=b").body(form.to_vec());
    assert_eq!(request.send().await.unwrap().status(), 201);
    let kept = name_of(&world, video).await.unwrap();
    assert!(kept.ends_with("canary") && !kept.contains(['/', '\\']), "{kept}");
    world.end().await;
}

async fn name_of(world: &World, video: VideoId) -> Option<String> {
    world.catalog.video(video, world.clock.now()).await.unwrap().unwrap().source_filename
}

/// U3: temporary bytes are 0 again after every body that grew too large.
#[tokio::test]
async fn what_is_too_large_leaves_no_bytes() {
    let world = World::with_limits(|limits| limits.upload_bytes_max = 1_000_000).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let upload = create(&world, &alice, video, 500_000).await;
    let heads = Heads::of(&alice.token, video, upload);
    let form = "--b\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n";
    for (head, begin) in [(&heads.whole, ""), (&heads.form, form), (&heads.append, "")] {
        let mut connection = Connection::open(&world).await;
        connection.send(format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        if !begin.is_empty() {
            connection.send(format!("{:x}\r\n{begin}\r\n", begin.len())).await;
        }
        for _ in 0..11 {
            let chunk = [b"186a0\r\n", &[7; 100_000][..], b"\r\n"].concat();
            // It may have heard enough.
            if !connection.try_send(&chunk).await {
                break;
            }
        }
        let answer = connection.head().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{head}\n{answer}");
        nothing_is_left(&world, 0).await;
        assert_eq!(offset(&world, upload).await, 0);
    }
    assert_eq!(world.state(video).await, VideoState::AwaitingUpload);
    world.end().await;
}

/// U4
#[tokio::test]
async fn of_a_body_cut_short_only_a_resumable_upload_keeps_anything() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let upload = create(&world, &alice, video, 100).await;
    let heads = Heads::of(&alice.token, video, upload);
    let begin = "--b\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n";
    let half = [begin.as_bytes(), &[7; 50]].concat();
    for (head, sent, all) in [(&heads.whole, &half[..50], 100), (&heads.form, &half[..], half.len() + 50)] {
        let mut connection = Connection::open(&world).await;
        connection.send(format!("{head}\r\nContent-Length: {all}\r\n\r\n")).await;
        connection.send(sent).await;
        drop(connection);
        nothing_is_left(&world, 0).await;
        assert_eq!(world.state(video).await, VideoState::AwaitingUpload);
    }
    let mut connection = Connection::open(&world).await;
    connection.send(format!("{}\r\nContent-Length: 100\r\n\r\n", heads.append)).await;
    connection.send([7; 50]).await;
    drop(connection);
    let kept = async {
        while offset(&world, upload).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), kept).await.expect("what came is kept");
    assert_eq!(offset(&world, upload).await, 50);
    nothing_is_left(&world, 1).await;
    world.end().await;
}

/// U5: a length is a promise, and takes no space before it is kept.
#[tokio::test]
async fn a_length_without_bounds_takes_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Arc::new(Disk::open(&root).unwrap());
    let world = World::build(folder, store, |limits| limits.upload_bytes_max = i64::MAX as u64).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let metadata = format!("video_id {}", BASE64_STANDARD.encode(video.to_string()));
    let request = world.http.post(world.url("/stream/uploads")).bearer_auth(&alice.token);
    let request = request.header("tus-resumable", "1.0.0").header("upload-metadata", metadata);
    let request =
        request.header("upload-length", i64::MAX).header("content-type", "application/offset+octet-stream");
    let answer = request.body("bytes").send().await.unwrap();
    // Taken, or more than there is room for.
    assert!([201, 403, 507].contains(&answer.status().as_u16()), "{answer:?}");
    let bytes: usize = tree(&root).iter().map(|(_, content)| content.len()).sum();
    assert!(bytes < 4096, "{bytes} bytes");
    world.end().await;
}

/// U7: 16 KiB of metadata, in a head that may have no more.
#[tokio::test]
async fn metadata_as_long_as_a_head_is_refused() {
    let world = World::with_limits(|limits| limits.header_bytes_max = 64 * 1024).await;
    let alice = world.user("alice").await;
    for (bytes, many) in [(16_000, false), (16_000, true)] {
        let metadata = if many { "a,".repeat(bytes / 2) } else { format!("filename {}", "A".repeat(bytes)) };
        let request = world.http.post(world.url("/stream/uploads")).bearer_auth(&alice.token);
        let request = request.header("tus-resumable", "1.0.0").header("upload-length", 5);
        let answer = request.header("upload-metadata", metadata).send().await.unwrap();
        expect_problem(answer, 400, "bad-request").await;
    }
    world.end().await;
}

/// U8: a collection is not a thing that can be deleted, by whatever header.
#[tokio::test]
async fn other_methods_are_not_had_by_a_header_elsewhere() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    for (method, path, status) in [
        (Method::GET, format!("/stream/videos/{video}"), 404),
        (Method::GET, "/stream/uploads".to_owned(), 405),
        (Method::POST, "/stream/uploads".to_owned(), 400),
        (Method::POST, format!("/stream/videos/{video}"), 411),
    ] {
        let request = world.http.request(method.clone(), world.url(&path)).bearer_auth(&alice.token);
        let request = request.header("tus-resumable", "1.0.0").header("x-http-method-override", "DELETE");
        let answer = request.send().await.unwrap();
        assert!([status, 400].contains(&answer.status().as_u16()), "{method} {path}: {answer:?}");
    }
    assert_eq!(world.state(video).await, VideoState::AwaitingUpload);
    world.end().await;
}
