use std::time::Duration;

use crate::server::Server;

const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let server = Server::with(|limits| limits.first_byte_s_max = 1).await;
    assert_eq!(server.connect().await.closed_within_s(0.9, 3.0).await, "");
}

#[tokio::test]
async fn a_head_must_be_complete_in_time_however_it_trickles() {
    let server = Server::with(|limits| limits.header_read_s_max = 1).await;
    let mut client = server.connect().await;
    client.send("GET /hello HTTP/1.1\r\n").await;
    let trickle = async {
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"x: y\r\n").await.is_err() {
                return;
            }
        }
        panic!("it may trickle for ever");
    };
    tokio::time::timeout(Duration::from_secs(4), trickle).await.expect("the connection is cut");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = Server::with(|limits| {
        limits.idle_s_max = 1;
        limits.first_byte_s_max = 1;
        limits.header_read_s_max = 1;
    })
    .await;
    let mut client = server.connect().await;
    client.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.until("at last").await;
    client.send(HELLO).await;
    client.until("hello").await;
    client.closed_within_s(3.0, 4.5).await;
}

#[tokio::test]
async fn whoever_asks_in_advance_is_not_idle_while_they_are_answered() {
    let server = Server::with(|limits| limits.idle_s_max = 1).await;
    let mut client = server.connect().await;
    client.send(&format!("{HELLO}GET /slow HTTP/1.1\r\nhost: x\r\n\r\n{HELLO}")).await;
    let answers = client.rest().await;
    assert!(answers.contains("at last") && answers.matches("\r\n\r\nhello").count() == 2, "{answers}");
}

#[tokio::test]
async fn connections_are_kept_and_requests_may_come_in_a_row() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(&format!("{HELLO}{HELLO}GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    assert_eq!(client.rest().await.matches("\r\n\r\nhello").count(), 3);
}

#[tokio::test]
async fn over_the_cap_clients_wait_for_a_place() {
    let server = Server::with(|limits| limits.connections_max = 1).await;
    let mut first = server.connect().await;
    first.send(HELLO).await;
    first.until("hello").await;
    let mut second = server.connect().await;
    second.send(HELLO).await;
    let mut byte = [0];
    let waiting = tokio::time::timeout(
        Duration::from_millis(300),
        tokio::io::AsyncReadExt::read(&mut second.stream, &mut byte),
    );
    assert!(waiting.await.is_err(), "the second is not served while the first holds the place");
    drop(first);
    second.until("hello").await;
}

#[tokio::test]
async fn who_takes_nothing_of_the_answer_is_let_go() {
    let mut server = Server::with(|limits| limits.write_stall_s_max = 1).await;
    let mut client = server.connect().await;
    client.send("GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let ended = tokio::time::timeout(Duration::from_secs(8), server.floods_ended.recv()).await;
    let taken = ended.expect("the answer is given up").expect("told by the answer itself");
    assert!(taken <= 1 << 20, "{taken} bytes for a reader who took nothing");
    // Reset: an orderly end would stand behind what the client does not take.
    let reset = async {
        while let Ok(None) = client.stream.take_error() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), reset).await.expect("the kernel offers it no more");
}

#[tokio::test]
async fn no_address_has_all_connections() {
    let server = Server::with(|limits| limits.connections_max = 6).await;
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect_from([127, 0, 0, 2]).await;
        client.send(HELLO).await;
        client.until("hello").await;
        greedy.push(client);
    }
    assert_eq!(server.connect_from([127, 0, 0, 2]).await.rest().await, "", "half of them are its share");
    let mut other = server.connect_from([127, 0, 0, 3]).await;
    other.send(HELLO).await;
    other.until("hello").await;
}

#[tokio::test]
async fn a_proxy_that_we_know_may_have_all_connections() {
    let server = Server::behind(&["127.0.0.2"], |limits| limits.connections_max = 6).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = server.connect_from([127, 0, 0, 2]).await;
        client.send(HELLO).await;
        client.until("hello").await;
        clients.push(client);
    }
}

#[tokio::test]
async fn who_vanishes_ends_the_answer() {
    let mut server = Server::start().await;
    let mut client = server.connect().await;
    client.send("GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.until("200 OK").await;
    drop(client);
    let ended = tokio::time::timeout(Duration::from_secs(5), server.floods_ended.recv()).await;
    ended.expect("the answer ends").expect("told by the answer itself");
}
