//! A large film passes through in bounded memory, in and out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use tokio_util::io::ReaderStream;

use crate::harness::{App, clips};

const RESIDENT_KIB_MAX: u64 = 32 * 1024;

#[allow(clippy::disallowed_methods, reason = "the campaign sets its size from outside")]
fn size_bytes() -> u64 {
    std::env::var("SLUICE_TEST_MEMORY_BYTES").ok().map_or(192 << 20, |value| value.parse().unwrap())
}

/// Pure noise in a small picture: every frame is large, and below 360 lines there is nothing to encode.
fn large_film(folder: &Path, bytes: u64) -> PathBuf {
    let (second, film) = (folder.join("second.mp4"), folder.join("film.mp4"));
    let noise = "nullsrc=size=340x340:rate=30:duration=1,geq=random(1)*255:128:128";
    clips::ffmpeg(
        &[
            "-f",
            "lavfi",
            "-i",
            noise,
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-qp",
            "1",
            "-pix_fmt",
            "yuv420p",
        ],
        &second,
    );
    let times = (bytes / std::fs::metadata(&second).unwrap().len()).to_string();
    clips::ffmpeg(&["-stream_loop", &times, "-i", second.to_str().unwrap(), "-c", "copy"], &film);
    film
}

/// Uploading it, then streaming it back, each raise the resident memory by at most 32 MiB.
#[tokio::test]
async fn a_large_film_takes_little_memory_in_and_out() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let film = large_film(app.folder.path(), size_bytes());
    let bytes = std::fs::metadata(&film).unwrap().len();
    assert!(bytes >= size_bytes(), "the film has {bytes} bytes");
    let video = alice.create("large").await;
    let id = video["id"].as_str().unwrap().to_owned();

    let before_kib = app.program.resident_kib();
    let peak = Peak::of(app.program.pid());
    let file = tokio::fs::File::open(&film).await.unwrap();
    let request = alice
        .request(Method::POST, &format!("/stream/videos/{id}"))
        .header("Content-Type", "video/mp4")
        .header("Content-Length", bytes)
        .body(reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 1 << 20)));
    let stored = alice.send(request).await.expect(201).json();
    let upload_kib = peak.end().saturating_sub(before_kib);
    assert_eq!(stored["size_bytes"], bytes);

    let ready = alice.until(&id, &["ready"], 300).await;
    let film_bytes = ready["renditions"][0]["size_bytes"].as_u64().unwrap();
    assert!(film_bytes > bytes / 10 * 9, "what is streamed is as large: {ready:#}");
    let before_kib = app.program.resident_kib();
    let peak = Peak::of(app.program.pid());
    let response = alice.request(Method::GET, &format!("/stream/videos/{id}")).send().await.unwrap();
    let mut streamed = 0;
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        streamed += piece.unwrap().len() as u64;
    }
    let stream_kib = peak.end().saturating_sub(before_kib);
    assert_eq!(streamed, film_bytes);
    println!("{bytes} bytes in: +{upload_kib} KiB resident; {streamed} bytes out: +{stream_kib} KiB");
    assert!(upload_kib <= RESIDENT_KIB_MAX, "the upload took {upload_kib} KiB");
    assert!(stream_kib <= RESIDENT_KIB_MAX, "streaming took {stream_kib} KiB");
    app.finish();
}

/// The highest resident memory of a process, in KiB, sampled until it is asked for.
struct Peak {
    kib: Arc<AtomicU64>,
    sampling: tokio::task::JoinHandle<()>,
}

impl Peak {
    fn of(pid: u32) -> Peak {
        let kib = Arc::new(AtomicU64::new(0));
        let highest = kib.clone();
        let sampling = tokio::spawn(async move {
            loop {
                highest.fetch_max(crate::harness::resident_kib(pid), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Peak { kib, sampling }
    }

    fn end(self) -> u64 {
        self.sampling.abort();
        self.kib.load(Ordering::SeqCst)
    }
}
