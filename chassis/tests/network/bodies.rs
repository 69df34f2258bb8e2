use std::time::{Duration, Instant};

use crate::server::Server;

fn post(path: &str, length: usize, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let server = Server::with(|limits| limits.body_stall_s_max = 1).await;
    let started = Instant::now();
    let answer = server.ask(&post("/count", 100, "only this")).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("/problems/request-timeout") && answer.contains("application/problem+json"));
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_body_that_trickles_is_a_408() {
    let server = Server::with(|limits| {
        limits.body_stall_s_max = 1;
        limits.body_bytes_per_s_min = 1000;
    })
    .await;
    let mut client = server.connect().await;
    client.send(&post("/count", 100_000, "")).await;
    let mut sent = 0;
    let answer = loop {
        // Never stalled for a second, yet far below the rate.
        if client.stream.try_write(b"0123456789").is_err() || sent > 80 {
            break client.rest().await;
        }
        sent += 1;
        let mut byte = [0];
        let peeked = tokio::time::timeout(Duration::from_millis(100), client.stream.peek(&mut byte)).await;
        if peeked.is_ok() {
            break client.rest().await;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 408 "), "after {sent} pieces: {answer}");
}

#[tokio::test]
async fn a_slow_but_steady_body_passes() {
    let server = Server::with(|limits| {
        limits.body_stall_s_max = 1;
        limits.body_bytes_per_s_min = 10;
    })
    .await;
    let mut client = server.connect().await;
    client.send(&post("/count", 100, "")).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.send("0123456789").await;
    }
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("100"), "{answer}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_nobodys_fault_but_the_clients() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(&post("/count", 100, "only this")).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        server.ask("GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ends_with("hello")
    );
}

#[tokio::test]
async fn a_declared_length_is_refused_before_the_body_is_asked_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send(
            "POST /name HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
             content-length: 70000\r\n\r\n",
        )
        .await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(!answer.contains("100 Continue") && answer.contains("/problems/too-large"));
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(&post("/refuse", 50_000_000, "")).await;
    let block = vec![b'x'; 100_000];
    for _ in 0..100 {
        if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &block).await.is_err() {
            break;
        }
    }
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
}

#[tokio::test]
async fn bad_json_names_the_field() {
    let server = Server::start().await;
    let body = "{\"name\":\"a\",\"nmae\":1}";
    let answer = server.ask(&post("/name", body.len(), body)).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("\"field\":\"nmae\""), "{answer}");
}
