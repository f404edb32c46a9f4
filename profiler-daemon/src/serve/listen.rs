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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::serve::example::Still;

    const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn start() -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = tokio::spawn(serve(listener, Arc::new(Still::healthy()), async {
            let _ = stopped.await;
        }));
        (address, stop, service)
    }

    /// Sends a request and reads the answer up to its body `ok\n`.
    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(GET).await.unwrap();
        let mut answer = String::new();
        let mut chunk = [0; 1024];
        while !answer.ends_with("ok\n") {
            let n = stream.read(&mut chunk).await.unwrap();
            assert!(n > 0, "closed after {answer:?}");
            answer += std::str::from_utf8(&chunk[..n]).unwrap();
        }
        answer
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request() {
        let (address, _stop, _service) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
    }

    #[tokio::test]
    async fn stopping_closes_idle_connections_and_the_port_at_once() {
        let (address, stop, service) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream).await;
        let began = Instant::now();
        stop.send(()).unwrap();
        service.await.unwrap();
        assert!(began.elapsed() < GRACE, "waited for an idle connection");
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        bind(address).await.unwrap();
    }

    #[tokio::test]
    async fn one_connection_more_than_the_limit_waits_for_a_place() {
        let (address, _stop, _service) = start().await;
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream).await;
            held.push(stream);
        }
        let mut extra = TcpStream::connect(address).await.unwrap();
        let early = timeout(Duration::from_millis(300), ask(&mut extra)).await;
        assert!(early.is_err(), "served beyond the limit");
        held.pop();
        let mut answer = String::new();
        let mut chunk = [0; 1024];
        while !answer.ends_with("ok\n") {
            let read = timeout(Duration::from_secs(5), extra.read(&mut chunk)).await;
            answer += std::str::from_utf8(&chunk[..read.unwrap().unwrap()]).unwrap();
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_off() {
        let (address, _stop, _service) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        let read = timeout(HEAD_TIMEOUT * 2, stream.read_to_end(&mut answer)).await;
        read.expect("still open").unwrap();
        assert!(began.elapsed() >= HEAD_TIMEOUT - Duration::from_secs(1));
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let (address, _stop, _service) = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        let _ = stream.write_all(head.as_bytes()).await;
        let mut chunk = [0; 64];
        // The answer, or a reset because the rest of the head was not read.
        if let Ok(n) = stream.read(&mut chunk).await {
            let answer = String::from_utf8_lossy(&chunk[..n]);
            assert!(answer.starts_with("HTTP/1.1 431 ") || n == 0, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_to_do() {
        let holder = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = holder.local_addr().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("cannot listen on {address}: the port is in use")));
        assert!(message.contains(&format!("sport = :{}", address.port())), "{message}");
        assert!(message.contains("--listen"), "{message}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named_with_what_to_do() {
        // 192.0.2.0/24 is reserved for documentation (RFC 5737).
        let error = bind("192.0.2.1:9723".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error:?}");
        assert!(error.to_string().contains("--listen 127.0.0.1:9723"), "{error}");
    }
}
