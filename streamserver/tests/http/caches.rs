//! What caches in front are told, and what is told of the one in here.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use chassis::settings::CacheTagHeader;
use domain::Visibility;
use reqwest::Method;
use sql::{Call, Catalog};
use store::{Disk, Memory};

use crate::watching::header;
use crate::world::World;

#[tokio::test]
async fn everything_about_a_video_has_its_tag_where_the_operator_wants_one() {
    for tagged in CacheTagHeader::ALL.iter().copied().map(Some).chain([None]) {
        let world = World::with_settings(|settings| settings.cache_tag_header = tagged).await;
        let film = world.ready_with_storyboard(Visibility::Public).await;
        let expected = match tagged {
            Some(CacheTagHeader::CacheGroups) => format!("\"video-{}\"", film.video),
            Some(_) => format!("video-{}", film.video),
            None => String::new(),
        };
        let name = tagged.map_or("cache-tag", CacheTagHeader::name);
        let addresses = world.walk(film.video, "").await;
        assert!(addresses.len() > 20, "{addresses:?}");
        for url in addresses {
            let got = world.fetch(Method::GET, &url, &[]).await;
            assert_eq!(got.header(name), expected, "{url}");
            let again = world.fetch(Method::GET, &url, &[("if-none-match", got.header("etag"))]).await;
            assert_eq!((again.status.as_u16(), again.header(name)), (304, &*expected), "{url}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn who_asks_hears_whether_the_bytes_were_kept_here() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::build(folder, Arc::new(Memory::new()), |_| {}).await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let path = format!("/stream/videos/{}", film.video);
    for expected in ["\"streamserver\"; fwd=miss; stored", "\"streamserver\"; hit"] {
        let response = world.get(&path).await;
        assert_eq!(header(&response, "cache-status"), expected);
        let store_ms: f64 =
            header(&response, "server-timing").strip_prefix("store;dur=").unwrap().parse().unwrap();
        assert!(store_ms < 5_000.0, "{store_ms}");
        assert!(response.bytes().await.unwrap() == film.original);
    }
    world.end().await;

    let world = World::new().await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    let response = world.get(&format!("/stream/videos/{}", film.video)).await;
    assert_eq!(header(&response, "cache-status"), "", "a file is nobody's copy");
    world.end().await;
}

#[tokio::test]
async fn what_a_crowd_gets_again_is_the_same_and_goes_with_its_video() {
    let world = World::new().await;
    let film = world.ready_with_storyboard(Visibility::Public).await;
    let addresses = world.walk(film.video, "").await;
    for url in &addresses {
        for encoding in ["gzip", "identity"] {
            let ask = async || world.fetch(Method::GET, url, &[("accept-encoding", encoding)]).await;
            let (first, second) = (ask().await, ask().await);
            assert!(first.body == second.body && first.status == 200, "{url} {encoding}");
            assert_ne!(first.header("x-request-id"), second.header("x-request-id"), "{url}");
            assert_eq!(first.lasting_headers(), second.lasting_headers(), "{url} {encoding}");
            let is_gzip = first.header("content-encoding") == "gzip";
            assert_eq!(is_gzip, encoding == "gzip" && !first.header("vary").is_empty(), "{url} {encoding}");
        }
    }
    world.delete(film.video, 0).await;
    let gone_at_latest = Instant::now() + Duration::from_millis(1000);
    for url in &addresses {
        while world.fetch(Method::GET, url, &[]).await.status != 404 {
            assert!(Instant::now() < gone_at_latest, "{url}");
        }
    }
    world.end().await;
}

/// Holds whoever asks the database, once it is told to.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    waiting: AtomicUsize,
    open: (Mutex<()>, Condvar),
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let closed = |_: &mut ()| self.closed.load(Ordering::SeqCst);
        drop(self.open.1.wait_while(self.open.0.lock().unwrap(), closed));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn set(&self, closed: bool) {
        let _held = self.open.0.lock().unwrap();
        self.closed.store(closed, Ordering::SeqCst);
        self.open.1.notify_all();
    }
}

/// Opened again however the test ends: else the runtime would wait for those who wait.
struct Opened(Arc<Gate>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_a_database_that_answered_a_moment_ago() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Disk::open(&folder.path().join("store")).unwrap());
    let gate = Arc::new(Gate::default());
    let at_the_gate = gate.clone();
    let view = |catalog: Catalog| {
        catalog.under(move |call| {
            if call == Call::Read {
                at_the_gate.pass();
            }
            None
        })
    };
    let world = World::build_under(folder, store, view, |_| {}).await;
    let alice = world.user("alice").await;
    let film = world.playable(&alice, Visibility::Public).await;
    // Ranges are never given again, so each of them asks what is known of the film.
    let path = format!("/stream/videos/{}", film.video);
    let ask = async || world.get_with(&path, &[("range", "bytes=0-9")]).await.status().as_u16();
    assert_eq!(ask().await, 206);
    let opened = Opened(gate.clone());
    gate.set(true);
    let answered_beside = async {
        while gate.waiting.load(Ordering::SeqCst) == 0 {
            assert_eq!(ask().await, 206);
        }
        assert_eq!(ask().await, 206, "while somebody asks the database");
    };
    tokio::time::timeout(Duration::from_secs(5), answered_beside).await.expect("it was not known any more");
    drop(opened);
    world.end().await;
}
