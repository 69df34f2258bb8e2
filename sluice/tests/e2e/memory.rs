//! Large bodies pass through in bounded memory.

use bytes::Bytes;
use futures::StreamExt;
use reqwest::Method;

use crate::harness::App;

const RESIDENT_KIB_MAX: u64 = 32 * 1024;

#[allow(clippy::disallowed_methods, reason = "the campaign sets its size from outside")]
fn size_bytes() -> u64 {
    std::env::var("SLUICE_TEST_MEMORY_BYTES").ok().map_or(256 << 20, |value| value.parse().unwrap())
}

/// An upload, then its streaming back, raise the resident memory by at most 32 MiB each.
#[tokio::test]
async fn a_large_upload_and_a_large_stream_take_little_memory() {
    let app = App::start().await;
    let alice = app.user("alice").await;
    let total = size_bytes();
    // A real film in front, so that it can be watched; the rest is one box that no player reads.
    let clip = crate::harness::clips::h264(app.folder.path(), "clip.mp4", "640x360", 2);
    let head = Bytes::from(std::fs::read(clip).unwrap());
    let filler = large_box(total - head.len() as u64);
    let video = alice.create("large").await;
    let id = video["id"].as_str().unwrap().to_owned();

    let before = app.program.resident_kib();
    let pieces = std::iter::once(head.clone()).chain(filler);
    let peak = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces.map(Ok::<_, std::io::Error>)));
    let request = alice
        .request(Method::POST, &format!("/stream/videos/{id}"))
        .header("Content-Type", "video/mp4")
        .header("Content-Length", total)
        .body(body);
    let watching = watch(app.program.pid(), peak.clone());
    let stored = alice.send(request).await.expect(201).json();
    watching.abort();
    assert_eq!(stored["size_bytes"], total);
    let upload_kib = peak.swap(0, std::sync::atomic::Ordering::SeqCst).saturating_sub(before);

    alice.until(&id, &["ready"], 120).await;
    // The largest thing there is to stream is the film itself; it is read again and again until the size is reached.
    let film = alice.get(&format!("/stream/videos/{id}")).await.expect(200).body.len() as u64;
    let before = app.program.resident_kib();
    let watching = watch(app.program.pid(), peak.clone());
    let mut streamed = 0;
    while streamed < total.min(64 << 20) {
        let response = alice.request(Method::GET, &format!("/stream/videos/{id}")).send().await.unwrap();
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            streamed += piece.unwrap().len() as u64;
        }
        assert!(film > 0);
    }
    watching.abort();
    let stream_kib = peak.load(std::sync::atomic::Ordering::SeqCst).saturating_sub(before);
    println!("{total} bytes: upload +{upload_kib} KiB, stream of {streamed} bytes +{stream_kib} KiB");
    assert!(upload_kib <= RESIDENT_KIB_MAX, "the upload took {upload_kib} KiB");
    assert!(stream_kib <= RESIDENT_KIB_MAX, "streaming took {stream_kib} KiB");
    app.finish();
}

/// A `free` box of `bytes` bytes, in pieces of 1 MiB.
fn large_box(bytes: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut header = Vec::from(1_u32.to_be_bytes());
    header.extend(b"free");
    header.extend(bytes.to_be_bytes());
    let piece = Bytes::from(vec![0; 1 << 20]);
    let mut left = bytes - 16;
    std::iter::once(Bytes::from(header)).chain(std::iter::from_fn(move || {
        let now = left.min(piece.len() as u64) as usize;
        left -= now as u64;
        (now > 0).then(|| piece.slice(..now))
    }))
}

/// Keeps the highest resident memory of the process, in KiB, until it is aborted.
fn watch(pid: u32, peak: std::sync::Arc<std::sync::atomic::AtomicU64>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let kib = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
            peak.fetch_max(kib.unwrap_or(0), std::sync::atomic::Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
}
