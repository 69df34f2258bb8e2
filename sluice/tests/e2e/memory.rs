//! A large film passes through in bounded memory, in and out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::Method;
use tokio_util::io::ReaderStream;

use crate::harness::backends::variable;
use crate::harness::{App, Cluster, Peak, Persona, Points, Service, Sizes, clips};

const RESIDENT_KIB_MAX: u64 = 32 * 1024;
const UPLOADS_RESIDENT_KIB_MAX: u64 = 256 * 1024;

fn size_bytes() -> u64 {
    setting("SLUICE_TEST_MEMORY_BYTES", 192 << 20)
}

/// Ten uploads of 8 MiB at once in every run; `make campaign-uploads` asks for a hundred of 64 MiB.
fn setting(name: &str, default: u64) -> u64 {
    variable(name).map_or(default, |value| value.parse().unwrap())
}

/// Pure noise in a small picture: every frame is large, and below 360 lines there is nothing to encode.
pub fn large_film(folder: &Path, bytes: u64) -> PathBuf {
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

/// A hash takes 19 MiB; several threads that would each keep theirs show.
#[tokio::test]
async fn what_a_log_in_takes_it_gives_back() {
    const KEPT_KIB_MAX: u64 = 15 * 1024;
    let app = App::with(&[("SLUICE_LOGINS_PER_MINUTE_PER_CLIENT", "0")]).await;
    app.admin().await;
    let before_kib = app.program.resident_kib();
    let who = serde_json::json!({"username": "root", "password": Persona::PASSWORD});
    for _ in 0..5 {
        let anyone = app.anonymous();
        let crowd = (0..4).map(|_| async { anyone.post("/api/sessions", &who).await.expect(200) });
        futures::future::join_all(crowd).await;
    }
    let kept_kib = app.program.resident_kib().saturating_sub(before_kib);
    println!("twenty log-ins: +{kept_kib} KiB resident");
    assert!(kept_kib <= KEPT_KIB_MAX, "{kept_kib} KiB");
    app.finish();
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

/// Many uploads at once do not add up in memory, wherever the objects go.
#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_at_once_take_bounded_memory() {
    let (uploads, bytes) = (setting("SLUICE_TEST_UPLOADS", 10), setting("SLUICE_TEST_UPLOAD_BYTES", 8 << 20));
    let cluster = Cluster::start(Sizes { apis: 1, streamservers: 1, schedulers: 0 }, &[]).await;
    let alice = cluster.user("alice").await;
    let streamserver = cluster.of(Service::Streamserver)[0];
    let uploader = alice.at(&cluster.base(streamserver));
    let mut ids = Vec::new();
    for number in 0..uploads {
        ids.push(alice.create(&format!("upload {number}")).await["id"].as_str().unwrap().to_owned());
    }
    // Made before anything is sent: a client that does sums on the way is cut off as one that says nothing.
    let noises: Vec<Noise> = (1..=uploads).map(|seed| Noise::new(bytes, seed)).collect();
    // One that warms up what stays.
    let first = alice.create("first").await["id"].as_str().unwrap().to_owned();
    Noise::new(bytes, 0).upload(&uploader, &first).await;
    let before_kib = cluster.resident_kib(streamserver);
    let peak = Peak::of(cluster.pid(streamserver));
    let began = Instant::now();
    let sending = ids.iter().zip(&noises).map(|(id, noise)| noise.upload(&uploader, id));
    futures::future::join_all(sending).await;
    let (took, grown_kib) = (began.elapsed(), peak.end().saturating_sub(before_kib));
    println!(
        "{uploads} uploads of {bytes} bytes at once in {took:.0?}: base {before_kib} KiB resident, +{grown_kib} KiB"
    );
    assert!(grown_kib <= UPLOADS_RESIDENT_KIB_MAX, "the uploads took {grown_kib} KiB");
    cluster.finish();
}

/// Bytes of no format: one block, again and again.
struct Noise {
    bytes: u64,
    block: Bytes,
    crc: store::Crc64Nvme,
}

impl Noise {
    const BLOCK_BYTES: u64 = 64 * 1024;

    fn new(bytes: u64, seed: u64) -> Noise {
        let block = Points::new(seed).bytes(Self::BLOCK_BYTES as usize);
        let mut crc = store::Crc64Nvme::default();
        for _ in 0..bytes / Self::BLOCK_BYTES {
            crc.update(&block);
        }
        Noise { bytes, block, crc }
    }

    /// The answer says what they should be.
    async fn upload(&self, uploader: &Persona, id: &str) {
        let block = self.block.clone();
        let blocks = (0..self.bytes / Self::BLOCK_BYTES).map(move |_| Ok::<_, std::io::Error>(block.clone()));
        let request = uploader
            .request(Method::POST, &format!("/stream/videos/{id}"))
            .header("Content-Type", "video/mp4")
            .header("Content-Length", self.bytes)
            .body(reqwest::Body::wrap_stream(futures::stream::iter(blocks)));
        let stored = uploader.send(request).await.expect(201).json();
        assert_eq!(stored["size_bytes"], self.bytes);
        assert_eq!(stored["crc64nvme"], clips::crc64nvme_text(&self.crc));
    }
}
