//! A server with short limits, and a client that sends exactly what it is told to.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use chassis::{Edge, EdgeConfig, Ids, Json, Limits, Problem, ServiceName, Settings, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Server {
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<std::io::Result<()>>,
    /// One message for each flood that ended: how many bytes of it were taken.
    pub floods_ended: mpsc::UnboundedReceiver<usize>,
}

impl Server {
    pub async fn start() -> Server {
        Server::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Limits)) -> Server {
        Server::behind(&[], change).await
    }

    pub async fn behind(trusted_proxies: &[&str], change: impl FnOnce(&mut Limits)) -> Server {
        let mut settings = Settings::defaults(ServiceName::Api);
        settings.trusted_proxies = trusted_proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
        change(&mut settings.limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (flood_ended, floods_ended) = mpsc::unbounded_channel();
        let edge = Edge::new(EdgeConfig::new(&settings, Ids::seeded(1)));
        let app = edge.wrap(routes(flood_ended));
        let stop = shutdown.clone();
        let ended = tokio::spawn(async move {
            serve(listener, app, &settings.limits, &settings.trusted_proxies, stop).await
        });
        Server { address, shutdown, ended, floods_ended }
    }

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), since: Instant::now() }
    }

    /// From another address of this machine.
    pub async fn connect_from(&self, client: [u8; 4]) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((client, 0))).unwrap();
        Client { stream: socket.connect(self.address).await.unwrap(), since: Instant::now() }
    }

    /// One connection, one request, everything that comes back until the server closes.
    pub async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
}

fn routes(flood_ended: mpsc::UnboundedSender<usize>) -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(2500)).await;
                "at last"
            }),
        )
        .route("/never", get(std::future::pending::<()>))
        .route("/panic", get(panics))
        .route("/name", post(|Json(Name { name }): Json<Name>| async { name }))
        .route("/count", post(count))
        .route("/refuse", post(|| async { Problem::too_large(1) }))
        .route("/file", get(crate::files::answer))
        .route("/crowd", get(crate::repeats::answer))
        .route("/flood", get(move || flood(flood_ended)))
}

async fn panics() {
    panic!("SELECT secret");
}

async fn count(body: Body) -> Result<String, Problem> {
    let bytes = chassis::body::read(body, 1 << 20).await?;
    Ok(bytes.len().to_string())
}

/// Sends for ever; tells when nobody takes it any more.
async fn flood(ended: mpsc::UnboundedSender<usize>) -> Body {
    struct Taken(usize, mpsc::UnboundedSender<usize>);
    impl Drop for Taken {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }
    let block = Bytes::from(vec![0; 64 * 1024]);
    let stream = futures::stream::unfold(Taken(0, ended), move |mut taken| {
        let block = block.clone();
        async move {
            taken.0 += block.len();
            Some((Ok::<_, std::io::Error>(block), taken))
        }
    });
    Body::from_stream(stream)
}

pub struct Client {
    pub stream: TcpStream,
    since: Instant,
}

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Until the server closes.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        // A reset says the same as an end: the server let go.
        let _ = read.expect("the server closes the connection");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub async fn until(&mut self, needle: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains(needle) {
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let bytes = read.expect("an answer comes").unwrap();
            assert!(bytes > 0, "closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
        }
        text
    }

    /// Closed by the server between these times after connecting.
    pub async fn closed_within_s(&mut self, from: f64, to: f64) -> String {
        let text = self.rest().await;
        let took = self.since.elapsed().as_secs_f64();
        assert!((from..to).contains(&took), "closed after {took} s: {text}");
        text
    }
}
