//! What stands between a catalog and PostgreSQL in these tests: it passes messages on, until it is told not to.

use std::sync::{Arc, Mutex};

use sqlx::ConnectOptions as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a connection is cut, of one request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears of the request.
    BeforeTheRequest,
    /// The server does what it was asked for, and its answer is lost.
    BeforeTheAnswer,
}

#[derive(Default)]
struct Plan {
    /// Requests until the cut.
    left: usize,
    cut: Option<Cut>,
}

pub struct Proxy {
    /// The database's address, but by way of the proxy.
    pub url: String,
    plan: Arc<Mutex<Plan>>,
    /// Whether nothing passes, in either direction, and nobody says why.
    silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(url: &str) -> Proxy {
        let options = url.parse::<sqlx::postgres::PgConnectOptions>().unwrap();
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = options.host("127.0.0.1").port(port).ssl_mode(sqlx::postgres::PgSslMode::Disable);
        let (plan, silent) = (Arc::new(Mutex::new(Plan::default())), watch::Sender::new(false));
        let accepting = tokio::spawn({
            let (plan, silent) = (plan.clone(), silent.subscribe());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, server.clone(), plan.clone(), silent.clone()));
                }
            }
        });
        Proxy { url: options.to_url_lossy().to_string(), plan, silent, accepting }
    }

    /// The `n`-th request from now on, counted from 1, is cut.
    pub fn cut(&self, n: usize, cut: Cut) {
        *self.plan.lock().unwrap() = Plan { left: n, cut: Some(cut) };
    }

    /// Whether the cut has happened. From now on there is none.
    pub fn has_cut(&self) -> bool {
        std::mem::take(&mut *self.plan.lock().unwrap()).cut.is_none()
    }

    pub fn be_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(
    client: TcpStream,
    server: (String, u16),
    plan: Arc<Mutex<Plan>>,
    silent: watch::Receiver<bool>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Messages are passed on one by one; they must not wait for each other.
    for side in [&client, &server] {
        side.set_nodelay(true).unwrap();
    }
    let ((client_reads, client_writes), (server_reads, server_writes)) =
        (client.into_split(), server.into_split());
    // Set once the answer under way is to be the last thing that the server says.
    let last_answer = Arc::new(Mutex::new(false));
    // Whichever ends first ends both, and what they held is closed.
    tokio::select! {
        () = requests(client_reads, server_writes, plan, last_answer.clone(), silent.clone()) => {}
        () = answers(server_reads, client_writes, last_answer, silent) => {}
    }
}

async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    plan: Arc<Mutex<Plan>>,
    last_answer: Arc<Mutex<bool>>,
    mut silent: watch::Receiver<bool>,
) {
    // The first message has a length and no type.
    let mut kind_bytes = 0;
    while let Some(message) = message(&mut client, kind_bytes).await {
        let _ = silent.wait_for(|silent| !silent).await;
        // A query, or the end of a request of several messages: the server answers either.
        let asks = kind_bytes == 1 && matches!(message[0], b'Q' | b'S');
        kind_bytes = 1;
        let cut = asks.then(|| planned(&plan)).flatten();
        if cut == Some(Cut::BeforeTheRequest) {
            return;
        }
        *last_answer.lock().unwrap() |= cut.is_some();
        if server.write_all(&message).await.is_err() {
            return;
        }
        if cut.is_some() {
            std::future::pending::<()>().await;
        }
    }
}

fn planned(plan: &Mutex<Plan>) -> Option<Cut> {
    let mut plan = plan.lock().unwrap();
    plan.cut?;
    plan.left -= 1;
    if plan.left == 0 { plan.cut.take() } else { None }
}

async fn answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    last_answer: Arc<Mutex<bool>>,
    mut silent: watch::Receiver<bool>,
) {
    while let Some(message) = message(&mut server, 1).await {
        let _ = silent.wait_for(|silent| !silent).await;
        if *last_answer.lock().unwrap() {
            // Ready for the next query: this one is done.
            if message[0] == b'Z' {
                return;
            }
        } else if client.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// One message: perhaps a type, then a length that counts itself.
async fn message(from: &mut OwnedReadHalf, kind_bytes: usize) -> Option<Vec<u8>> {
    let mut message = vec![0; kind_bytes + 4];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes(message[kind_bytes..].try_into().unwrap()) as usize;
    message.resize(kind_bytes + length, 0);
    from.read_exact(&mut message[kind_bytes + 4..]).await.ok()?;
    Some(message)
}
