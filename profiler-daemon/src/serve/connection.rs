//! One connection: TLS if that is spoken, then HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::access::Access;
use super::listen::{GRACE, MAX_HEAD};
use super::places::{Phase, Seat};
use super::watched::Watched;

/// First byte of a TLS handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// How long a connection without a request may go on when all are to end: one may
/// be on its way. Less than [`GRACE`].
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Answer to a request in clear where TLS is spoken.
const NOT_IN_CLEAR: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\
    Content-Length: 52\r\n\r\n\
    this port speaks TLS; ask with https:// in its URL.\n";

/// What connections have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) router: Router,
    pub(super) access: Arc<Access>,
    /// Becomes true when all are to end.
    pub(super) stopped: watch::Receiver<bool>,
}

/// Serves a connection until it ends, has to leave, or all are to stop.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, seat: Arc<Seat>, common: Common) {
    // The end of a response must not wait for the client's acknowledgement. A
    // connection for which this fails is gone, which reading from it shows.
    let _ = stream.set_nodelay(true);
    let mut stopped = common.stopped.clone();
    // Before the configuration is looked at, so that no change is missed.
    let changed = common.access.changed();
    let Some(config) = common.access.tls() else {
        return converse(stream, peer, seat, common, changed).await;
    };
    let handshake = async {
        if !is_tls(&stream).await? {
            refuse_clear(stream).await?;
            return Ok(None);
        }
        TlsAcceptor::from(config).accept(stream).await.map(Some)
    };
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = seat.told_to_leave() => return,
        () = stopped_for(&mut stopped, ON_ITS_WAY) => return,
    };
    match shaken {
        Ok(Some(stream)) => converse(stream, peer, seat, common, changed).await,
        Ok(None) => tracing::debug!(%peer, "a request in clear where TLS is spoken"),
        Err(error) => tracing::debug!(%peer, %error, "no TLS handshake"),
    }
}

async fn is_tls(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [HANDSHAKE];
    stream.peek(&mut first).await?;
    Ok(first == [HANDSHAKE])
}

async fn refuse_clear(mut stream: TcpStream) -> std::io::Result<()> {
    // What is not read would reset the connection, and the answer be lost.
    let _ = stream.read(&mut vec![0; MAX_HEAD]).await?;
    stream.write_all(NOT_IN_CLEAR).await?;
    stream.shutdown().await
}

/// Answers requests on a stream that is in clear here.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    seat: Arc<Seat>,
    common: Common,
    changed: impl Future<Output = ()>,
) {
    let Common { router, access, mut stopped } = common;
    let router = TowerToHyperService::new(router);
    let (peer, at) = (peer.ip().to_canonical(), seat.clone());
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, access, seat) = (router.clone(), access.clone(), at.clone());
        async move {
            seat.enter(Phase::Working);
            let admitted = access.admit(peer, request.headers()).await;
            let mut response = match admitted {
                Ok(()) => router.call(request.map(Body::new)).await?,
                Err(refused) => refused,
            };
            access.finish(&mut response);
            seat.enter(Phase::Taking);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        // The time is kept for all connections together.
        .header_read_timeout(None)
        // Who closes one direction after its requests still gets the answers.
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Watched { stream, seat: seat.clone() }), service);
    let mut served = pin!(served);
    let mut changed = pin!(changed);
    let mut ending = false;
    let ended = loop {
        let has_to_leave = tokio::select! {
            ended = &mut served => break ended,
            () = all_end(&mut stopped, changed.as_mut(), &seat), if !ending => false,
            () = seat.told_to_leave() => true,
        };
        let idle = seat.phase() == Phase::Idle;
        served.as_mut().graceful_shutdown();
        ending = true;
        if has_to_leave {
            // One that is idle may get a request at this moment.
            let grace = if idle { GRACE } else { Duration::ZERO };
            break timeout(grace, &mut served).await.unwrap_or(Ok(()));
        }
    };
    if let Err(error) = ended {
        // A client that hangs up or dawdles is no fault of the daemon.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Ready when all connections are to end after the request that they are in: the
/// service stops, or goes by another configuration. One that has not asked yet gets
/// the time to.
async fn all_end(
    stopped: &mut watch::Receiver<bool>,
    changed: impl Future<Output = ()>,
    seat: &Seat,
) {
    tokio::select! {
        () = stopped_for(stopped, Duration::ZERO) => {}
        () = changed => {}
    }
    // Shut down before its first request, it would be closed without an answer.
    let asked = async {
        while seat.phase() == Phase::Asking {
            sleep(Duration::from_millis(10)).await;
        }
    };
    // A client that asks nothing is not waited for.
    let _ = timeout(ON_ITS_WAY, asked).await;
}

/// Ready when the service has been stopping for so long.
async fn stopped_for(stopped: &mut watch::Receiver<bool>, time: Duration) {
    // An error means that the sender is gone, which stops as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_clear_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NOT_IN_CLEAR).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
