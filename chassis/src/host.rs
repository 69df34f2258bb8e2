//! One process on the network: its public and its ops listener, from bind to drain.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ops::Check;
use crate::service_manager::ServiceManager;
use crate::telemetry::Metrics;
use crate::{App, Ops, Settings, serve, serve_ops};

/// Why an address cannot be ours, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(
        "{address} is already in use. Stop what listens there, or set {setting} to another address (port 0 picks a free one)."
    )]
    InUse { address: SocketAddr, setting: &'static str },
    #[error("{address} cannot be listened on: {source}. Set {setting} to an address of this machine.")]
    Bind { address: SocketAddr, setting: &'static str, source: io::Error },
    #[error("the listener failed: {0}")]
    Serve(#[from] io::Error),
}

/// Both listeners, bound; nothing is accepted yet.
pub struct Host {
    public: TcpListener,
    ops: TcpListener,
    address: SocketAddr,
    ops_address: SocketAddr,
}

impl Host {
    pub async fn bind(settings: &Settings) -> Result<Host, HostError> {
        let public = bind(settings.listen, "SLUICE_LISTEN").await?;
        let ops = bind(settings.ops_listen, "SLUICE_OPS_LISTEN").await?;
        let (address, ops_address) = (public.local_addr()?, ops.local_addr()?);
        Ok(Host { public, ops, address, ops_address })
    }

    /// Where clients reach us; the port is the real one where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Serves until `shutdown` and drains. The ops listener stays up until the last request is done, so that
    /// probes see the process leave. A service manager is told when serving begins and when it ends.
    pub async fn run(
        self,
        settings: &Settings,
        app: App,
        checks: Vec<(&'static str, Check)>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Result<(), HostError> {
        let drained = CancellationToken::new();
        let ops = Ops { checks, metrics, draining: shutdown.clone() };
        tracing::info!(address = %self.ops_address, service = settings.service.as_str(), "ops listening");
        tracing::info!(address = %self.address, service = settings.service.as_str(), "listening");
        let manager = ServiceManager::of_process();
        manager.ready();
        let stopping = async {
            shutdown.cancelled().await;
            manager.stopping();
            Ok(())
        };
        let public = async {
            let served =
                serve(self.public, app, &settings.limits, &settings.trusted_proxies, shutdown.clone()).await;
            drained.cancel();
            served
        };
        let private = serve_ops(self.ops, ops, &settings.limits, drained.clone());
        tokio::try_join!(public, private, stopping)?;
        Ok(())
    }
}

async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, HostError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HostError::InUse { address, setting },
        _ => HostError::Bind { address, setting, source },
    })
}
