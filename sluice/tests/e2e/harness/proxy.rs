//! A TCP proxy in this process, before a server that a test wants to lose: weather by command.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

const BLOCK_BYTES: usize = 16 * 1024;

/// What happens to connections from now on, those that are open as well as new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Nobody listens, as when the server has ended: what is open is reset.
    Refused,
    /// Connections stay open and carry nothing, as when the server's machine has lost its network.
    Stalled,
    /// Every block comes later by this.
    Delayed(Duration),
    /// So many bytes a second, each way of each connection.
    Trickling(usize),
    /// Each connection is reset once the server has answered with so many bytes more.
    ResetAfter(u64),
    /// The server's half is closed; what clients send is still taken.
    HalfClosed,
    /// Once: on a connection that has carried `after` to the server, the server hears `to` and answers, and the
    /// connection is reset before the answer gets back. Then it is clear.
    AnswerLost {
        after: String,
        to: &'static str,
    },
}

/// Carries until it is dropped, on a thread of its own: a test that waits for a process must not stop it.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    server: String,
    weather: watch::Sender<Weather>,
    /// Raised to reset what is open.
    cuts: watch::Sender<u32>,
    answers_lost: AtomicU32,
}

impl Proxy {
    /// Before `server`, which is `host:port`.
    pub fn before(server: &str) -> Proxy {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // Holds the port without listening, so that nobody else takes it while connections are refused.
        let port = {
            let _entered = runtime.enter();
            bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        };
        let address = port.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            weather: watch::Sender::new(Weather::Clear),
            cuts: watch::Sender::new(0),
            answers_lost: AtomicU32::new(0),
        });
        let (ready, listening) = std::sync::mpsc::channel();
        runtime.spawn(accept(port, address, shared.clone(), ready));
        listening.recv().unwrap();
        Proxy { address, shared, runtime: Some(runtime) }
    }

    pub fn weather(&self, weather: Weather) {
        let resets = weather == Weather::Refused;
        self.shared.weather.send_replace(weather);
        if resets {
            self.cut();
        }
    }

    /// Resets every connection that is open; new ones are taken.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many answers [`Weather::AnswerLost`] has swallowed.
    pub fn answers_lost(&self) -> u32 {
        self.shared.answers_lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A runtime may not wait for its end within another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(
    _port: TcpSocket,
    address: SocketAddr,
    shared: Arc<Shared>,
    ready: std::sync::mpsc::Sender<()>,
) {
    let mut weather = shared.weather.subscribe();
    loop {
        let _ = weather.wait_for(|weather| *weather != Weather::Refused).await;
        let listener = bound(address).listen(1024).unwrap();
        let _ = ready.send(());
        let refused = weather.wait_for(|weather| *weather == Weather::Refused);
        tokio::select! {
            _ = refused => {}
            () = carry_all(&listener, &shared) => {}
        }
    }
}

async fn carry_all(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let cuts = shared.cuts.subscribe();
        // Cuts that came before this are not heard, but the weather was there before them.
        if *shared.weather.borrow() == Weather::Refused {
            reset(&client);
            continue;
        }
        tokio::spawn(Connection { shared: shared.clone() }.carry(client, cuts));
    }
}

struct Connection {
    shared: Arc<Shared>,
}

/// Why a connection ended.
enum End {
    /// One of its ends wanted it so.
    Theirs,
    /// The weather.
    Reset,
}

impl Connection {
    async fn carry(self, mut client: TcpStream, mut cuts: watch::Receiver<u32>) {
        let connect = async {
            self.moving().await;
            TcpStream::connect(&self.shared.server).await
        };
        let mut server = tokio::select! {
            _ = cuts.changed() => return reset(&client),
            server = connect => match server {
                Ok(server) => server,
                Err(_) => return reset(&client),
            },
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let end = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let asked = AtomicBool::new(false);
            let both = async {
                let there = self.requests(from_client, to_server, &asked);
                let back = self.answers(from_server, to_client, &asked);
                match futures::future::try_join(there, back).await {
                    Ok(_) => End::Theirs,
                    Err(end) => end,
                }
            };
            tokio::select! {
                biased;
                _ = cuts.changed() => End::Reset,
                end = both => end,
            }
        };
        if let End::Reset = end {
            reset(&client);
            reset(&server);
        }
    }

    /// From the client to the server; `asked` is set when the answer to this is to be lost.
    async fn requests(
        &self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        asked: &AtomicBool,
    ) -> Result<(), End> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut armed = false;
        loop {
            let bytes = from.read(&mut block).await.map_err(|_| End::Reset)?;
            if bytes == 0 {
                let _ = to.shutdown().await;
                return Ok(());
            }
            let weather = self.moving().await;
            if let Weather::AnswerLost { after, to } = &weather {
                let holds =
                    |what: &str| block[..bytes].windows(what.len()).any(|part| part == what.as_bytes());
                armed = armed || holds(after);
                if armed && holds(to) {
                    asked.store(true, Ordering::SeqCst);
                    self.shared.weather.send_replace(Weather::Clear);
                }
            }
            self.pass(&block[..bytes], &mut to, &weather).await?;
        }
    }

    async fn answers(
        &self,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        asked: &AtomicBool,
    ) -> Result<(), End> {
        let mut block = vec![0; BLOCK_BYTES];
        let mut left_bytes: Option<u64> = None;
        loop {
            let bytes = from.read(&mut block).await.map_err(|_| End::Reset)?;
            if bytes == 0 {
                let _ = to.shutdown().await;
                return Ok(());
            }
            let weather = self.moving().await;
            if asked.load(Ordering::SeqCst) {
                self.shared.answers_lost.fetch_add(1, Ordering::SeqCst);
                return Err(End::Reset);
            }
            let mut passing = bytes;
            match weather {
                Weather::HalfClosed => {
                    let _ = to.shutdown().await;
                    return Ok(());
                }
                Weather::ResetAfter(reset_bytes) => {
                    let left = left_bytes.get_or_insert(reset_bytes);
                    passing = passing.min(usize::try_from(*left).unwrap());
                    *left -= passing as u64;
                }
                _ => left_bytes = None,
            }
            self.pass(&block[..passing], &mut to, &weather).await?;
            if passing < bytes {
                return Err(End::Reset);
            }
        }
    }

    /// Returns in weather that lets something through.
    async fn moving(&self) -> Weather {
        let mut weather = self.shared.weather.subscribe();
        let moving = weather.wait_for(|weather| *weather != Weather::Stalled).await;
        // The sender lives as long as we do.
        moving.unwrap().clone()
    }

    async fn pass(
        &self,
        mut bytes: &[u8],
        to: &mut (impl AsyncWriteExt + Unpin),
        weather: &Weather,
    ) -> Result<(), End> {
        const TICKS_PER_S: usize = 20;
        match weather {
            Weather::Delayed(by) => tokio::time::sleep(*by).await,
            Weather::Trickling(bytes_per_s) => {
                let drop_bytes = (bytes_per_s / TICKS_PER_S).max(1);
                while bytes.len() > drop_bytes && *self.shared.weather.borrow() == *weather {
                    let (now, later) = bytes.split_at(drop_bytes);
                    to.write_all(now).await.map_err(|_| End::Reset)?;
                    tokio::time::sleep(Duration::from_secs(1) / TICKS_PER_S as u32).await;
                    bytes = later;
                }
            }
            _ => {}
        }
        to.write_all(bytes).await.map_err(|_| End::Reset)
    }
}

/// The other end hears of an error, and not of an orderly end.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// The proxy does what its weather says: nobody else would notice if it did not.
mod tests {
    use super::*;

    /// Echoes what it gets, in lines.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, words: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(words).await?;
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn weather_is_what_it_says() {
        let proxy = Proxy::before(&echo().await);
        let connect = || TcpStream::connect(proxy.address);
        let mut stream = connect().await.unwrap();
        assert_eq!(say(&mut stream, b"clear").await.unwrap(), b"clear");

        proxy.weather(Weather::Stalled);
        let silent = tokio::time::timeout(Duration::from_millis(50), say(&mut stream, b"stalled")).await;
        assert!(silent.is_err());
        proxy.weather(Weather::Clear);
        let mut late = [0; 7];
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"stalled");

        proxy.weather(Weather::Delayed(Duration::from_millis(20)));
        let asked = std::time::Instant::now();
        assert_eq!(say(&mut stream, b"late").await.unwrap(), b"late");
        assert!(asked.elapsed() >= Duration::from_millis(40));

        proxy.weather(Weather::Trickling(400));
        let asked = std::time::Instant::now();
        assert_eq!(say(&mut stream, &[7; 60]).await.unwrap(), [7; 60]);
        assert!(asked.elapsed() >= Duration::from_millis(100));

        proxy.weather(Weather::AnswerLost { after: "alice".to_owned(), to: "COMMIT" });
        assert_eq!(say(&mut stream, b"COMMIT").await.unwrap(), b"COMMIT");
        assert_eq!(say(&mut stream, b"alice").await.unwrap(), b"alice");
        assert_eq!(
            say(&mut stream, b"COMMIT").await.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
        assert_eq!(proxy.answers_lost(), 1);

        proxy.weather(Weather::ResetAfter(3));
        let mut stream = connect().await.unwrap();
        stream.write_all(b"four").await.unwrap();
        let mut heard = [0; 3];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(stream.read(&mut heard).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

        proxy.weather(Weather::HalfClosed);
        let mut stream = connect().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read(&mut heard).await.unwrap(), 0);

        proxy.weather(Weather::Clear);
        let mut stream = connect().await.unwrap();
        proxy.weather(Weather::Refused);
        assert!(say(&mut stream, b"gone").await.is_err());
        let refused = connect().await;
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        proxy.weather(Weather::Clear);
        let mut stream = loop {
            // The listener comes back a moment after the weather.
            if let Ok(stream) = connect().await {
                break stream;
            }
        };
        assert_eq!(say(&mut stream, b"clear").await.unwrap(), b"clear");
    }
}
