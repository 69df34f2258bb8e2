//! An upload, again and again: in each the Nth call of a kind to the database or the store fails, N = 1, 2, 3 …, until
//! one is over before its Nth call. 201 means that it is all there; after anything else the client comes again, and
//! then it is there once. (`reliability` F2, F10, F15)

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::{JobKind, ObjectFile, ObjectKey, VideoState, Visibility};
use futures::TryStreamExt;
use store::{Disk, Faulty};

use crate::world::World;

/// Of which call, and whether only its answer is lost.
type Failing = (Kind, bool);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Store(&'static str),
    Database(sql::Call),
}

const BYTES: &[u8] = &[7; 300_000];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_an_upload_is_there_or_comes_again() {
    use sql::Call::{Begin, Commit, Read, Write};
    let mut uploads = 0;
    for call in ["create", "write", "finish", "delete"].map(Kind::Store) {
        uploads += upload_until_over((call, false)).await + upload_until_over((call, true)).await;
    }
    for call in [Read, Write, Begin, Commit].map(Kind::Database) {
        uploads += upload_until_over((call, false)).await + upload_until_over((call, true)).await;
    }
    println!("{uploads} uploads with one call failing in each");
    assert!(uploads > 20, "{uploads}");
}

/// How many uploads there were with an Nth call.
async fn upload_until_over(failing: Failing) -> usize {
    for uploads in 0.. {
        if !upload(failing, uploads + 1).await {
            return uploads;
        }
    }
    unreachable!("an upload has an end")
}

async fn upload(failing: Failing, nth: usize) -> bool {
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
    let view = move |catalog: sql::Catalog| {
        catalog.under(move |call| {
            let fault = if failing.1 { sql::Fault::After } else { sql::Fault::Before };
            strikes(Kind::Database(call)).then_some(fault)
        })
    };
    let world = World::build_under(folder, Arc::new(store), view, |_| {}).await;
    let alice = world.user("alice").await;
    let video = world.video(&alice, Visibility::Public).await;
    let told = format!("{failing:?} {nth}");

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
    let struck = calls.load(Ordering::SeqCst) >= nth;

    assert_eq!(world.state(video).await, VideoState::Uploaded, "{told}");
    let source = world.catalog.source(video).await.unwrap().unwrap();
    let key = ObjectKey { video, attempt: source.attempt, file: ObjectFile::Source };
    let blocks = world.store.read(&key, 0..source.bytes).await.unwrap();
    let blocks: Vec<bytes::Bytes> = blocks.try_collect().await.unwrap();
    assert!(blocks.concat() == BYTES, "{told}");
    let jobs = world.catalog.jobs(None, None, None, 10).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.kind).collect::<Vec<_>>(), [JobKind::Ingest], "{told}");
    world.end().await;
    struck
}
