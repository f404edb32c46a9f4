//! Who can reach the port, and whether they are asked who they are.

use std::net::SocketAddr;

/// An address that others can reach, with nobody asked who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "refusing to listen on {0}: others than this machine can reach it, and nobody would be asked \
     who they are; either listen on loopback (--listen 127.0.0.1:{port}), or name users or the \
     authority of client certificates in the file of --web-config (docs/access.md), or say that \
     this is meant with --allow-unauthenticated",
    port = .0.port()
)]
pub struct Exposed(
    /// The address.
    pub SocketAddr,
);

/// What clients have to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// A password, or a certificate of a known authority.
    pub(super) who: bool,
    /// Nobody can listen in.
    pub(super) encrypted: bool,
}

/// Whether `address` may be listened on: it is loopback, clients are asked who
/// they are, or nobody has to be (`allowed`).
pub(super) fn check(address: SocketAddr, asked: Asked, allowed: bool) -> Result<(), Exposed> {
    if is_loopback(address) || asked.who || allowed { Ok(()) } else { Err(Exposed(address)) }
}

/// Logs what should be known about listening on `address` all the same.
pub(super) fn warn(address: SocketAddr, asked: Asked) {
    match asked {
        _ if is_loopback(address) => {}
        Asked { who: true, encrypted: true } => {}
        Asked { who: true, encrypted: false } => tracing::warn!(
            "passwords cross the network to {address} in clear; add tls_server_config to the file \
             of --web-config"
        ),
        Asked { who: false, .. } => tracing::warn!(
            "whoever reaches {address} may read everything: started with --allow-unauthenticated"
        ),
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Asked = Asked { who: false, encrypted: false };
    const TLS_ALONE: Asked = Asked { who: false, encrypted: true };
    const CLEAR: Asked = Asked { who: true, encrypted: false };

    #[test]
    fn only_loopback_is_open_to_anyone() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(check(address.parse().unwrap(), NOBODY, false), Ok(()), "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
            let address = address.parse().unwrap();
            for asked in [NOBODY, TLS_ALONE] {
                assert_eq!(check(address, asked, false), Err(Exposed(address)));
                assert_eq!(check(address, asked, true), Ok(()));
            }
            assert_eq!(check(address, CLEAR, false), Ok(()));
        }
    }

    #[test]
    fn the_refusal_names_three_ways_out() {
        let error = Exposed("[::]:9723".parse().unwrap()).to_string();
        assert!(error.starts_with("refusing to listen on [::]:9723: "), "{error}");
        for way in ["--listen 127.0.0.1:9723", "--web-config", "--allow-unauthenticated"] {
            assert!(error.contains(way), "{error}");
        }
    }
}
