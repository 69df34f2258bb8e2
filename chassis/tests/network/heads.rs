use crate::server::Server;

fn get(headers: &str) -> String {
    format!("GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_and_fields() {
    let server = Server::start().await;
    let within = format!("x: {}\r\n", "y".repeat(15_000));
    assert!(server.ask(&get(&within)).await.starts_with("HTTP/1.1 200 "));
    let large = format!("x: {}\r\n", "y".repeat(17_000));
    let answer = server.ask(&get(&large)).await;
    assert!(
        answer.starts_with("HTTP/1.1 431 ") && answer.contains("/problems/headers-too-large"),
        "{answer}"
    );
    let huge = format!("x: {}\r\n", "y".repeat(40_000));
    assert!(server.ask(&get(&huge)).await.starts_with("HTTP/1.1 431 "));
    let many = "x: y\r\n".repeat(101);
    assert!(server.ask(&get(&many)).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn addresses_are_bounded() {
    let server = Server::start().await;
    let ask = async |length: usize| {
        let target = "x".repeat(length);
        server.ask(&format!("GET /{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    };
    assert!(ask(8000).await.starts_with("HTTP/1.1 404 "));
    let answer = ask(9000).await;
    assert!(answer.starts_with("HTTP/1.1 414 ") && answer.contains("/problems/uri-too-long"), "{answer}");
    let answer = ask(70_000).await;
    assert!(answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let server = Server::start().await;
    for nonsense in [
        "hello\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /hello HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
        "POST /count HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "\u{0}\u{1}\u{2}\r\n\r\n",
    ] {
        let answer = server.ask(nonsense).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{nonsense:?}: {answer}");
    }
    assert!(server.ask(&get("")).await.ends_with("hello"));
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing() {
    let server = Server::start().await;
    let answer = server.ask("GET /panic HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("/problems/internal"), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
    assert_eq!(answer.matches(id).count(), 2, "in the head and in the body");
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let server = Server::start().await;
    let answer = server.ask("HEAD /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-length: 5"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn another_method_is_a_405_that_lists_those_taken() {
    let server = Server::start().await;
    let answer = server.ask("DELETE /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 405 ") && answer.contains("/problems/method-not-allowed"),
        "{answer}"
    );
    let allow = answer.lines().find_map(|line| line.strip_prefix("allow: ")).expect("Allow");
    assert!(allow.contains("GET") && allow.contains("HEAD"), "{allow}");
}
