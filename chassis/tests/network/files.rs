//! Bodies that are files: sent by the kernel, whole, in order, also to those who read slowly.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use filemap::FileMap;
use futures::stream;
use tokio::io::AsyncReadExt;

use crate::server::{Client, Server};

const FILE_BYTES: usize = 5 * 1024 * 1024 + 77;
const REQUEST: &str = "GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

static CONTENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..FILE_BYTES).map(|at| (at / 7 % 251) as u8).collect());
static FILE: LazyLock<FileMap> = LazyLock::new(|| {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&CONTENT).unwrap();
    FileMap::new(file).unwrap()
});

/// Its bytes between others that are in memory.
pub async fn answer() -> Body {
    let bytes = FILE.bytes();
    let blocks = [
        Bytes::from_static(b"before"),
        bytes.slice(..3_000_000),
        Bytes::from_static(b"between"),
        bytes.slice(3_000_000..),
        bytes.slice(1_000..1_001),
        Bytes::from_static(b"after"),
    ];
    Body::from_stream(stream::iter(blocks.map(Ok::<_, std::io::Error>)))
}

fn expected() -> Vec<u8> {
    let (first, second) = CONTENT.split_at(3_000_000);
    [b"before", first, b"between", second, &CONTENT[1_000..1_001], b"after"].concat()
}

/// What is left of an answer in chunks, head and all.
fn body_of(answer: &[u8]) -> Vec<u8> {
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let (mut rest, mut body) = (&answer[head_end..], Vec::new());
    loop {
        let line_end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = usize::from_str_radix(str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line_end + 2..][..length]);
        rest = &rest[line_end + 2 + length + 2..];
    }
}

async fn read_all(client: &mut Client, at_once: usize) -> Vec<u8> {
    let (mut answer, mut block) = (Vec::new(), vec![0; at_once]);
    loop {
        match client.stream.read(&mut block).await.unwrap() {
            0 => return answer,
            read => answer.extend_from_slice(&block[..read]),
        }
    }
}

#[tokio::test]
async fn a_file_is_sent_by_the_kernel_between_other_bytes() {
    let server = Server::start().await;
    let before = filemap::sent_bytes();
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    assert!(body_of(&read_all(&mut client, 1 << 20).await) == expected());
    // Had a layer in between copied the body, it would have been ordinary memory when it was written.
    assert!(filemap::sent_bytes() - before > FILE_BYTES as u64);
}

#[tokio::test]
async fn a_file_that_is_cold_is_warmed_first() {
    FILE.file().sync_all().unwrap();
    rustix::fs::fadvise(&**FILE.file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    assert!(body_of(&read_all(&mut client, 1 << 20).await) == expected());
}

#[tokio::test]
async fn whoever_reads_a_little_at_a_time_gets_the_same() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(REQUEST).await;
    assert!(body_of(&read_all(&mut client, 1_000).await) == expected());
}
