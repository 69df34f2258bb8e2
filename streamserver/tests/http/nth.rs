//! An upload, again and again: in each the Nth call of a kind to the database or the store fails, N = 1, 2, 3 …, until
//! one is over before its Nth call. 201 means that it is all there; after anything else the client comes again, and
//! then it is there once. (`reliability` F2, F10, F15)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::prelude::{BASE64_STANDARD, Engine};
use domain::{JobKind, ObjectFile, ObjectKey, VideoId, VideoState, Visibility};
use futures::TryStreamExt;
use reqwest::Method;
use store::{Disk, Faulty, Store};

use crate::world::{Person, World};

/// Of which call, and whether only its answer is lost.
type Failing = (Kind, bool);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Store(&'static str),
    Database(sql::Call),
}

const BYTES: &[u8] = &[7; 300_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    /// In three requests that go on where the last one ended.
    Resumable,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_an_upload_is_there_or_comes_again() {
    let uploads = all_kinds_of_calls(Way::Whole).await;
    assert!(uploads > 20, "{uploads}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_a_resumable_upload_goes_on() {
    let uploads = all_kinds_of_calls(Way::Resumable).await;
    assert!(uploads > 60, "{uploads}");
}

async fn all_kinds_of_calls(way: Way) -> usize {
    use sql::Call::{Begin, Commit, Read, Write};
    let mut uploads = 0;
    for call in ["create", "write", "finish", "delete", "read"].map(Kind::Store) {
        uploads += upload_until_over(way, (call, false)).await + upload_until_over(way, (call, true)).await;
    }
    for call in [Read, Write, Begin, Commit].map(Kind::Database) {
        uploads += upload_until_over(way, (call, false)).await + upload_until_over(way, (call, true)).await;
    }
    println!("{way:?}: {uploads} uploads with one call failing in each");
    uploads
}

/// How many uploads there were with an Nth call.
async fn upload_until_over(way: Way, failing: Failing) -> usize {
    for uploads in 0.. {
        if !upload(way, failing, uploads + 1).await {
            return uploads;
        }
    }
    unreachable!("an upload has an end")
}

async fn upload(way: Way, failing: Failing, nth: usize) -> bool {
    let calls = Arc::new(AtomicUsize::new(0));
    let strikes = {
        let calls = calls.clone();
        move |kind| kind == failing.0 && calls.fetch_add(1, Ordering::SeqCst) + 1 == nth
    };
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(&folder.path().join("store")).unwrap();
    let of_store = strikes.clone();
    let store = Faulty::chosen(disk, move |call| {
        let fault = if failing.1 { store::Fault::After } else { store::Fault::Before };
        of_store(Kind::Store(call)).then_some(fault)
    });
    let store = Arc::new(store);
    let faulty = store.clone();
    let view = move |catalog: sql::Catalog| {
        catalog.under(move |call| {
            let fault = if failing.1 { sql::Fault::After } else { sql::Fault::Before };
            strikes(Kind::Database(call)).then_some(fault)
        })
    };
    let world = World::build_under(folder, store, view, |_| {}).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let told = format!("{failing:?} {nth}");

    match way {
        Way::Whole => send_whole(&world, &alice, video, &told).await,
        Way::Resumable => send_in_pieces(&world, &alice, video, &told).await,
    }
    let struck = calls.load(Ordering::SeqCst) >= nth;

    assert_eq!(world.state(video).await, VideoState::Uploaded, "{told}");
    let source = world.catalog.source(video).await.unwrap().unwrap();
    let key = ObjectKey { video, attempt: source.attempt, file: ObjectFile::Source };
    let blocks = faulty.inner().read(&key, 0..source.bytes).await.unwrap();
    let blocks: Vec<bytes::Bytes> = blocks.try_collect().await.unwrap();
    assert!(blocks.concat() == BYTES, "{told}");
    let jobs = world.catalog.jobs(None, None, None, 10).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.kind).collect::<Vec<_>>(), [JobKind::Ingest], "{told}");
    world.end().await;
    struck
}

async fn send_whole(world: &World, alice: &Person, video: VideoId, told: &str) {
    let send = async || {
        let request =
            world.http.post(world.url(&format!("/stream/videos/{video}"))).bearer_auth(&alice.token);
        request.header("content-type", "video/mp4").body(BYTES).send().await.unwrap()
    };
    let mut answer = send().await;
    // The Nth call may be one of a later try.
    while answer.status() == 503 {
        assert!(answer.headers().contains_key("retry-after"), "{told}");
        answer = send().await;
    }
    // 409: it was stored before, and only the answer was lost.
    assert!([201, 409].contains(&answer.status().as_u16()), "{told}: {}", answer.status());
}

/// As the clients in use do it: what is neither 5xx nor 409 nor 423 would be the end of the upload.
async fn send_in_pieces(world: &World, alice: &Person, video: VideoId, told: &str) {
    let request = |method: Method, path: &str| {
        let request = world.http.request(method, world.url(path)).bearer_auth(&alice.token);
        request.header("tus-resumable", "1.0.0")
    };
    let comes_again = |answer: &reqwest::Response| {
        let status = answer.status().as_u16();
        assert!([409, 423, 503].contains(&status), "{told}: {status}");
        assert!(status == 409 || answer.headers().contains_key("retry-after"), "{told}: {status}");
    };
    let text = |answer: &reqwest::Response, name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let path = loop {
        let metadata = format!("video_id {}", BASE64_STANDARD.encode(video.to_string()));
        let creation = request(Method::POST, "/stream/uploads").header("upload-metadata", metadata);
        let answer = creation.header("upload-length", BYTES.len()).send().await.unwrap();
        if answer.status() == 201 {
            break text(&answer, "location");
        }
        assert_eq!(answer.status(), 503, "{told}");
    };
    let mut offset = 0;
    while offset < BYTES.len() {
        let end = (offset + BYTES.len().div_ceil(3)).min(BYTES.len());
        let patch = request(Method::PATCH, &path).header("upload-offset", offset);
        let patch = patch.header("content-type", "application/offset+octet-stream").body(&BYTES[offset..end]);
        let mut answer = patch.send().await.unwrap();
        while !answer.status().is_success() {
            comes_again(&answer);
            answer = request(Method::HEAD, &path).send().await.unwrap();
        }
        offset = text(&answer, "upload-offset").parse().unwrap();
    }
}
