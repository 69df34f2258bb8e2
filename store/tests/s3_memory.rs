//! What writers cost while they wait for the network: little, whatever they carry.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod objects;
mod s3_server;

use bytes::Bytes;
use futures::{StreamExt, stream};
use objects::key;
use s3_server::{RealServer, S3sServer, hasty};
use store::{S3, Store};

const RESIDENT_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// The most that this process ever had in memory.
fn resident_bytes_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

async fn upload(store: &S3, number: u8, bytes: usize) {
    let mut writer = store.create(&key(number)).await.unwrap();
    let frame = Bytes::from(vec![number; 64 * 1024]);
    for _ in 0..bytes / frame.len() {
        writer.write(frame.clone()).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap().bytes, bytes as u64);
}

async fn measure(server: &str, store: &S3, writers: u8, bytes: usize) {
    // Code, connections and the allocator's habits are not what is measured.
    upload(store, 0, bytes).await;
    let before = resident_bytes_max();
    stream::iter(1..=writers).for_each_concurrent(None, |number| upload(store, number, bytes)).await;
    let more = resident_bytes_max() - before;
    println!("{server}: {writers} writers of {bytes} bytes: {} MiB more resident", more / 1024 / 1024);
    assert!(more < RESIDENT_BYTES_MAX, "{more} bytes");
}

/// The server's own memory counts along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_small_on_s3s_fs() {
    let server = S3sServer::start().await;
    let store = S3::open(&server.place(""), &server.access(), hasty()).await.unwrap();
    measure("s3s-fs in process", &store, 32, 16 * 1024 * 1024).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_small_on_a_real_server() {
    let Some(server) = RealServer::from_environment() else { return };
    let store = S3::open(&server.place(), &server.access(), hasty()).await.unwrap();
    measure("real server", &store, 8, 8 * 1024 * 1024).await;
    let objects = store.list("", None, 1000).await.unwrap().objects;
    let paths: Vec<String> = objects.into_iter().map(|(path, _)| path).collect();
    assert!(store.delete(&paths).await.iter().all(|(_, result)| result.is_ok()));
}
