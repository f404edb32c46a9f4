//! The listening socket and its limits.
//!
//! In: an address, the router, a signal to stop. Out: served connections.
//! Whoever may connect may be hostile or stuck: the number of connections, the
//! time for a request and the age of a connection are bounded, so that a client
//! can at most keep others waiting for a while.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::SnapshotSource;
use super::http::router;

/// Connections served at once; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 64;
/// Time for the head of a request, counted also while a kept-alive connection
/// is idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection is closed after the request it is in, so that a
/// client that reads nothing does not hold its place forever.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Time that a request in progress gets at the end.
const GRACE: Duration = Duration::from_secs(3);
/// Most bytes of the head of a request.
const MAX_HEAD: usize = 16 << 10;
/// Pause after an error of `accept(2)`: most often a full table of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "cannot listen on {address}: the port is in use; stop the process that has it \
         (`ss -ltnp 'sport = :{port}'` names it) or choose another with --listen ADDRESS:PORT",
        port = address.port()
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error(
        "cannot listen on {address}: this machine has no address {ip}; choose one that \
         `ip address` lists, for instance --listen 127.0.0.1:{port}",
        ip = address.ip(),
        port = address.port()
    )]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
    },
    /// The port is privileged.
    #[error(
        "cannot listen on {address}: port {port} needs CAP_NET_BIND_SERVICE; choose one above \
         1023, for instance --listen {ip}:9723",
        ip = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        },
        port = address.port()
    )]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}; choose another with --listen ADDRESS:PORT")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Listens on `address`.
///
/// # Errors
///
/// [`BindError`], with the address and what to do next.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => BindError::InUse { address },
        ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { address },
        ErrorKind::PermissionDenied => BindError::Denied { address },
        _ => BindError::Other { address, source },
    })
}

/// Serves `source` on `listener` until `shutdown` is ready; then takes no more
/// connections and gives requests in progress 3 s. Errors of single connections
/// are logged, none ends the service.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn SnapshotSource>,
    shutdown: impl Future<Output = ()>,
) {
    let router = router(source);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            // The semaphore is never closed, so a place always comes.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stopped) = (router.clone(), stopped.clone());
                connections.spawn(async move {
                    connection(stream, router, stopped).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    stop.send_replace(true);
    if timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = connections.len(), "closed connections with requests in progress");
    }
}

/// Serves one connection until it ends, is too old, or all are to stop.
async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        _ = stopped.wait_for(|stopped| *stopped) => None,
        () = sleep(MAX_AGE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(GRACE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        // A client that hangs up or dawdles is no fault of the daemon.
        tracing::debug!(%error, "a connection ended early");
    }
}
