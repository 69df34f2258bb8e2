use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::server::Server;

#[tokio::test]
async fn requests_in_flight_finish_and_nothing_new_begins() {
    let server = Server::start().await;
    let mut busy = server.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut idle = server.connect().await;
    idle.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.until("hello").await;
    server.shutdown.cancel();
    let started = Instant::now();
    idle.rest().await;
    assert!(started.elapsed() < Duration::from_secs(2), "an idle connection ends at once");
    assert!(busy.rest().await.ends_with("at last"));
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    let server = Server::with(|limits| limits.drain_s_max = 1).await;
    let mut stuck = server.connect().await;
    stuck.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // Answered on another connection: the first one is under way by then.
    let mut other = server.connect().await;
    other.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    other.until("hello").await;
    server.shutdown.cancel();
    let started = Instant::now();
    server.ended.await.unwrap().unwrap();
    assert!((0.9..4.0).contains(&started.elapsed().as_secs_f64()));
    assert_eq!(stuck.rest().await, "");
}
