//! The listening socket and its limits.
//!
//! In: an address, the router, who may ask, a signal to stop. Out: served
//! connections. Whoever may connect may be hostile or stuck: the number of
//! connections and the time that each may keep others waiting are bounded
//! (`places`).

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::SnapshotSource;
use super::access::Access;
use super::connection::{self, Common};
use super::http::router;
use super::places::{Limits, Places};

/// Connections served at once; further ones wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 64;
/// Connections that the kernel holds until there is a place (`net.core.somaxconn`
/// may make it fewer); of further ones it drops the first packet, which clients
/// send again after a second.
const QUEUE: u32 = 1024;
/// Bytes that the kernel takes of a response that its client does not read: as
/// much as most have, where up to `net.ipv4.tcp_wmem`, often 4 MiB, would be the
/// kernel's own choice for each.
const SEND_BUFFER: u32 = 256 << 10;
/// Time that a request in progress gets at the end.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// Most bytes of the head of a request.
pub(super) const MAX_HEAD: usize = 16 << 10;
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

/// Listens on `address`, in an event loop.
///
/// # Errors
///
/// [`BindError`], with the address and what to do next.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => BindError::InUse { address },
        ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { address },
        ErrorKind::PermissionDenied => BindError::Denied { address },
        _ => BindError::Other { address, source },
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port can be taken again at once after a restart.
    socket.set_reuseaddr(true)?;
    // Connections have that of the socket that accepts them.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Serves `source` on `listener` to whom `access` lets in, until `shutdown` is
/// ready; then takes no more connections and gives requests in progress 3 s.
/// Errors of single connections are logged, none ends the service.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn SnapshotSource>,
    access: Arc<Access>,
    shutdown: impl Future<Output = ()>,
) {
    serve_within(Limits::default(), listener, source, access, shutdown).await;
}

/// [`serve`], with the times that clients get.
async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    source: Arc<dyn SnapshotSource>,
    access: Arc<Access>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Places::new(MAX_CONNECTIONS, limits);
    let (stop, stopped) = watch::channel(false);
    let common = Common { router: router(source, places.clone()), access, stopped };
    let mut connections = JoinSet::new();
    tokio::select! {
        () = shutdown => {}
        () = places.keep_time() => {}
        () = accept(&listener, &places, &common, &mut connections) => {}
    }
    drop(listener);
    stop.send_replace(true);
    if timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = connections.len(), "closed connections with requests in progress");
    }
}

/// Takes connections, without end.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Places>,
    common: &Common,
    connections: &mut JoinSet<()>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let place = places.take().await;
                let common = common.clone();
                connections.spawn(async move {
                    connection::serve(stream, peer, place.seat.clone(), common).await;
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
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::serve::access::AccessFile;
    use crate::serve::example::Still;

    const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn start() -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        start_within(Limits::default()).await
    }

    async fn start_within(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let access = Access::new(AccessFile::read(None).unwrap(), address, false).unwrap();
        let service = tokio::spawn(serve_within(
            limits,
            listener,
            Arc::new(Still::healthy()),
            access,
            async {
                let _ = stopped.await;
            },
        ));
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
        bind(address).unwrap();
    }

    #[tokio::test]
    async fn a_request_that_comes_while_the_service_stops_is_answered() {
        for _ in 0..20 {
            let (address, stop, service) = start().await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Until it is accepted.
            tokio::time::sleep(Duration::from_millis(5)).await;
            stop.send(()).unwrap();
            assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
            service.await.unwrap();
        }
    }

    /// As many connections as there are places, each after one answer.
    async fn fill(address: SocketAddr) -> Vec<TcpStream> {
        let mut held = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream).await;
            held.push(stream);
        }
        held
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        let read = timeout(Duration::from_millis(300), stream.read(&mut [0; 16])).await;
        !matches!(read, Err(_) | Ok(Ok(1..)))
    }

    #[tokio::test]
    async fn one_connection_more_than_the_limit_gets_the_place_of_the_longest_idle() {
        let (address, _stop, _service) = start().await;
        let mut held = fill(address).await;
        let mut extra = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut extra).await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(is_closed(&mut held[0]).await, "the first");
        for stream in &mut held[1..] {
            assert!(ask(stream).await.starts_with("HTTP/1.1 200 OK\r\n"), "kept");
        }
    }

    #[tokio::test]
    async fn silent_connections_make_others_wait_for_as_long_as_patience_lasts() {
        let patience = Duration::from_millis(500);
        let (address, _stop, _service) =
            start_within(Limits { patience, ..Limits::default() }).await;
        let mut silent = Vec::new();
        for _ in 0..3 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HT").await.unwrap();
            silent.push(stream);
        }
        let mut honest = TcpStream::connect(address).await.unwrap();
        let early = timeout(Duration::from_millis(100), ask(&mut honest)).await;
        assert!(early.is_err(), "served beyond the limit");
        let mut answer = String::new();
        let mut chunk = [0; 1024];
        while !answer.ends_with("ok\n") {
            let read = timeout(Duration::from_secs(30), honest.read(&mut chunk)).await;
            answer += std::str::from_utf8(&chunk[..read.unwrap().unwrap()]).unwrap();
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_that_never_ends_and_an_idle_connection_are_cut_off() {
        let short = Duration::from_millis(300);
        let look = Duration::from_millis(50);
        let limits = Limits { asking: short, idle: short, look, ..Limits::default() };
        let (address, _stop, _service) = start_within(limits).await;
        let mut unfinished = TcpStream::connect(address).await.unwrap();
        unfinished.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        ask(&mut idle).await;
        for stream in [&mut unfinished, &mut idle] {
            let mut rest = Vec::new();
            timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
                .await
                .expect("still open")
                .unwrap();
            assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
        }
    }

    #[tokio::test]
    async fn a_byte_now_and_then_earns_no_more_time() {
        let limits = Limits {
            asking: Duration::from_millis(300),
            look: Duration::from_millis(50),
            ..Limits::default()
        };
        let (address, _stop, _service) = start_within(limits).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        let dripping = async {
            while slow.write_all(b"G").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), dripping).await.expect("still open");
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
        let holder = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = holder.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("cannot listen on {address}: the port is in use")));
        assert!(message.contains(&format!("sport = :{}", address.port())), "{message}");
        assert!(message.contains("--listen"), "{message}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named_with_what_to_do() {
        // 192.0.2.0/24 is reserved for documentation (RFC 5737).
        let error = bind("192.0.2.1:9723".parse().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error:?}");
        assert!(error.to_string().contains("--listen 127.0.0.1:9723"), "{error}");
    }
}
