//! The listening socket that a service manager opened (sd_listen_fds(3)).
//!
//! In: `LISTEN_PID`, `LISTEN_FDS` and the descriptors from 3 on. Out: the one TCP
//! socket to serve on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// What was passed is not what lockprof can serve on.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// `LISTEN_PID` or `LISTEN_FDS` is no number, or says more than was passed.
    #[error(
        "the variables LISTEN_PID and LISTEN_FDS do not describe passed sockets; unset them, or \
         start lockprof by a socket unit"
    )]
    Variables(#[source] io::Error),
    /// Not one.
    #[error(
        "{0} sockets were passed, and lockprof serves on one: leave one ListenStream= with \
         ADDRESS:PORT in lockprof.socket"
    )]
    Count(usize),
    /// Not a TCP socket that listens.
    #[error(
        "the passed socket is {0}, and lockprof serves on a listening TCP socket: give \
         lockprof.socket a ListenStream= with ADDRESS:PORT, and Accept=no"
    )]
    Kind(&'static str),
    /// It is what it should be, and cannot be used.
    #[error("failed to use the passed socket")]
    Socket(#[source] io::Error),
}

/// A socket that was passed.
#[derive(Debug)]
pub struct Passed {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Passed {
    /// The socket that was passed to this process, if one was. The variables are
    /// removed, so that no child takes its own descriptors for passed ones, and the
    /// descriptor is closed for programs that are executed.
    ///
    /// # Errors
    ///
    /// Something else was passed.
    ///
    /// # Safety
    ///
    /// The process has one thread (see [`std::env::remove_var`]), and nothing in it
    /// owns the descriptors that the variables speak of.
    pub unsafe fn take() -> Result<Option<Self>, ActivationError> {
        // SAFETY: the caller's promise.
        let passed = unsafe { sd_notify::listen_fds_with_names_and_unset_env() };
        let mut passed: Vec<_> = passed.map_err(ActivationError::Variables)?.collect();
        match (passed.pop(), passed.len()) {
            (None, _) => Ok(None),
            // SAFETY: passed to this process, and the caller's promise.
            (Some((fd, _)), 0) => unsafe { Self::of(fd) }.map(Some),
            (Some(_), others) => Err(ActivationError::Count(others + 1)),
        }
    }

    /// The socket with this descriptor.
    ///
    /// # Safety
    ///
    /// The descriptor is open, and nobody else owns it.
    unsafe fn of(fd: RawFd) -> Result<Self, ActivationError> {
        // SAFETY: the caller's promise.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        check(std::os::fd::AsFd::as_fd(&fd))?;
        let listener = TcpListener::from(fd);
        let address = listener.local_addr().map_err(ActivationError::Socket)?;
        listener.set_nonblocking(true).map_err(ActivationError::Socket)?;
        Ok(Self { listener, address })
    }

    /// The socket, for the event loop that this is called in.
    ///
    /// # Errors
    ///
    /// The event loop cannot take it.
    pub fn listener(&self) -> Result<tokio::net::TcpListener, ActivationError> {
        let listener = self.listener.try_clone().map_err(ActivationError::Socket)?;
        tokio::net::TcpListener::from_std(listener).map_err(ActivationError::Socket)
    }
}

fn check(fd: BorrowedFd<'_>) -> Result<(), ActivationError> {
    let kind = socket_type(fd).map_err(|_| ActivationError::Kind("no socket"))?;
    let failed = |errno: rustix::io::Errno| ActivationError::Socket(errno.into());
    if !matches!(socket_domain(fd).map_err(failed)?, AddressFamily::INET | AddressFamily::INET6) {
        return Err(ActivationError::Kind("not of the Internet"));
    }
    if kind != SocketType::STREAM {
        return Err(ActivationError::Kind("a datagram socket"));
    }
    if !socket_acceptconn(fd).map_err(failed)? {
        return Err(ActivationError::Kind("a connection"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn refusal(of: impl AsFd) -> String {
        check(of.as_fd()).unwrap_err().to_string()
    }

    #[test]
    fn a_listening_tcp_socket_of_either_family_is_what_is_served_on() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            match TcpListener::bind(address) {
                Ok(listener) => check(listener.as_fd()).unwrap(),
                // A machine without IPv6.
                Err(error) => assert!(address.starts_with('['), "{error}"),
            }
        }
    }

    #[test]
    fn anything_else_is_named_with_what_to_pass_instead() {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(refusal(unix).contains("not of the Internet"));
        assert!(refusal(UdpSocket::bind("127.0.0.1:0").unwrap()).contains("a datagram socket"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refusal(connection).contains("a connection"));
        let file = refusal(tempfile::tempfile().unwrap());
        assert!(file.contains("no socket") && file.contains("ListenStream="), "{file}");
    }
}
