//! The accept loop: a cap on connections, deadlines on each, a graceful end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::future::{self, FutureExt};
use http::Request;
use http_body::{Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{Answering, App};
use crate::body::TimedBody;
use crate::io::{Busy, Phase, TimedIo};
use crate::{ClientAddress, FairBucket, FairPermit, Limits, Network};

/// Serves `app` until `shutdown`, then lets requests in flight finish for at most `drain_s_max`.
pub async fn serve(
    listener: TcpListener,
    app: App,
    limits: &Limits,
    trusted_proxies: &[Network],
    shutdown: CancellationToken,
) -> io::Result<()> {
    let places = Places {
        bucket: FairBucket::new("connections", limits.connections_max),
        trusted_proxies: trusted_proxies.to_vec(),
    };
    let connections = TaskTracker::new();
    let server = Arc::new(Server { app, limits: limits.clone(), shutdown, cut: CancellationToken::new() });
    while let Some((stream, peer, place)) = next(&listener, &places, &server.shutdown).await {
        let server = server.clone();
        connections.spawn(async move {
            server.connection(stream, peer).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    let drain_max = Duration::from_secs(limits.drain_s_max);
    if tokio::time::timeout(drain_max, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            drain_s_max = limits.drain_s_max,
            "cutting connections"
        );
        server.cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

type Place = FairPermit<IpAddr>;

/// For connections, which addresses share; proxies that we know stand for many.
struct Places {
    bucket: FairBucket<IpAddr>,
    trusted_proxies: Vec<Network>,
}

impl Places {
    /// `None`: there are some, but not for whoever has as many already.
    fn take(&self, peer: IpAddr) -> Option<Place> {
        let is_proxy = self.trusted_proxies.iter().any(|network| network.contains(peer));
        self.bucket.acquire((!is_proxy).then(|| ClientAddress(peer).limit_key())).ok()
    }
}

/// There is a place before a connection is taken: over the cap, clients wait in the kernel's queue and cost us nothing.
/// Who has more than their share is closed at once, so that nobody waits behind them.
async fn next(
    listener: &TcpListener,
    places: &Places,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let accepted = async {
        loop {
            places.bucket.wait_for_place().await;
            let (stream, peer) = accept(listener).await;
            match places.take(peer.ip()) {
                Some(place) => return (stream, peer, place),
                None => tracing::debug!(%peer, "closed: this address has its share of the connections"),
            }
        }
    };
    shutdown.run_until_cancelled(accepted).await
}

/// A client that went away again is not our trouble; out of file handles or memory is, and trying again at once would
/// only burn the processor.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    const BACK_OFF: Duration = Duration::from_millis(200);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(e) if is_the_clients(&e) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Server {
    app: App,
    limits: Limits,
    shutdown: CancellationToken,
    /// Cancelled when draining took too long.
    cut: CancellationToken,
}

/// Read buffer of a connection at most, in bytes; heads and pieces of bodies pass through it.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let phase = Phase::new();
        let io = TimedIo::new(stream, phase.clone(), &self.limits);
        let server = self.clone();
        let service = service_fn(move |request| server.answer(request, peer.ip(), phase.busy()));
        let mut connection = http1::Builder::new()
            // `TimedIo` has them.
            .header_read_timeout(None)
            // Twice what the edge lets through: it answers with a problem where hyper has only a status.
            .max_header_size(self.limits.header_bytes_max.saturating_mul(2))
            .max_buf_size(BUFFER_BYTES_MAX.max(self.limits.header_bytes_max.saturating_mul(2)))
            .serve_connection(TokioIo::new(io), service);
        let mut draining = false;
        let ended = loop {
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return,
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = self.shutdown.cancelled(), if !draining => {
                    Pin::new(&mut connection).graceful_shutdown();
                    draining = true;
                }
            }
        };
        match ended {
            Ok(()) => linger(connection.into_parts().io.into_inner().into_inner()).await,
            // Clients vanish and stall all day.
            Err(error) => tracing::debug!(%error, %peer, "connection ended"),
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        busy: Busy,
    ) -> impl Future<Output = Result<http::Response<Answer>, Infallible>> + Send + use<> {
        let timed = |body| Body::new(TimedBody::new(body, &self.limits));
        match self.app.answer(request, Some(peer), timed) {
            Answering::AtOnce(response) => {
                let response =
                    response.map(|bytes| Answer { body: Either::Left(Full::new(bytes)), _busy: busy });
                future::Either::Left(future::ready(Ok(response)))
            }
            Answering::Made(making) => {
                future::Either::Right(making.map(|response| {
                    Ok(response.map(|body| Answer { body: Either::Right(body), _busy: busy }))
                }))
            }
        }
    }
}

/// Closes our half and reads on for a moment: closing with bytes unread would reset the connection and could take the
/// answer with it, e.g. a 413 to an upload that is still being sent.
async fn linger(mut stream: TcpStream) {
    const LINGER: Duration = Duration::from_secs(2);
    const DISCARDED_BYTES_MAX: usize = 64 << 20;
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let mut buffer = [0; 16 * 1024];
        let mut discarded_bytes = 0;
        while discarded_bytes < DISCARDED_BYTES_MAX {
            match stream.read(&mut buffer).await {
                Ok(bytes) if bytes > 0 => discarded_bytes += bytes,
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}

/// A response body that keeps its connection busy until it is sent or dropped.
struct Answer {
    body: Either<Full<Bytes>, Body>,
    _busy: Busy,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
