//! What the caller and the engine's process say to each other.
//!
//! One message is one packet of JSON on a pair of `SOCK_SEQPACKET` sockets:
//! those keep packets apart, and hang up when the other end is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::summary::Summary;
use crate::storm::error::StormError;
use crate::storm::load::Options;

/// From the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make this load.
    Run(Options),
    /// End it; if told so already, without waiting for the starts under way.
    Stop,
}

/// From the engine's process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// It can make storms, or why not. Comes once, first.
    Ready(Result<Privileges, StormError>),
    /// How far the storm is.
    Progress(Progress),
    /// The storm is over, and nothing is left of it.
    Ended(Result<Summary, StormError>),
}

/// What lets the engine mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Privileges {
    /// `CAP_SYS_ADMIN` as the caller has it.
    Callers,
    /// A user namespace of the engine's own.
    UserNamespace,
}

/// How far a storm is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Starts whose root was in place.
    pub starts: u64,
    /// Starts that could not go on.
    pub failed_starts: u64,
    /// Time since the first start; zero while the storm prepares itself.
    pub elapsed: Duration,
}

/// More than any message has: what a socket takes by default is less
/// (`net.core.wmem_default`).
const LONGEST: usize = 256 * 1024;

/// One end.
pub(super) struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Channel {
    /// Both ends. They close on `execve`.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let kind = SocketType::SEQPACKET;
        let (a, b) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let end = |socket| Self { socket, buffer: vec![0; LONGEST] };
        Ok((end(a), end(b)))
    }

    /// Sends a message.
    pub(super) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.send_with(message, SendFlags::NOSIGNAL)
    }

    /// Sends a message that may get lost: it does when the other end does not
    /// read, which then holds nobody up.
    pub(super) fn send_if_read(&self, message: &impl Serialize) -> io::Result<()> {
        match self.send_with(message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    fn send_with(&self, message: &impl Serialize, flags: SendFlags) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        loop {
            match send(&self.socket, &packet, flags) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Waits for a message; `None` when the other end is gone.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
                Ok((n, _)) => return Ok(Some(serde_json::from_slice(&self.buffer[..n])?)),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::load::Stop;
    use crate::storm::strategy::{Idmap, MountQuery, Propagation, RootFs, Runtime, Strategy};

    #[test]
    fn the_load_comes_over_as_it_was() {
        let options = Options {
            strategy: Strategy {
                runtime: Runtime::Crun,
                rootfs: RootFs::OpenTreeNamespace,
                idmap: Some(Idmap::PerLayer),
                propagation: Propagation::Slave,
                mount_query: MountQuery::Statmount,
                ..Strategy::default()
            },
            concurrency: 7.try_into().unwrap(),
            rate: Some(0.1),
            stop: Stop::After(Duration::from_nanos(1_500_000_001)),
            pollers: 3,
            // All that Linux can number on the largest machine
            // (`CONFIG_NR_CPUS` of x86).
            cpus: Some((0..8192).collect()),
        };
        let (caller, mut engine) = Channel::pair().unwrap();
        caller.send(&Request::Run(options.clone())).unwrap();
        match engine.receive().unwrap() {
            Some(Request::Run(came)) => assert_eq!(came, options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_end_that_is_gone_shows() {
        let (caller, mut engine) = Channel::pair().unwrap();
        caller.send(&Request::Stop).unwrap();
        drop(caller);
        assert!(matches!(engine.receive().unwrap(), Some(Request::Stop)));
        assert!(engine.receive::<Request>().unwrap().is_none());
        assert_eq!(engine.send(&Request::Stop).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn one_who_does_not_read_holds_nobody_up() {
        let (engine, mut caller) = Channel::pair().unwrap();
        for starts in 0..100_000 {
            let progress = Progress { starts, ..Progress::default() };
            engine.send_if_read(&Event::Progress(progress)).unwrap();
        }
        let first = caller.receive::<Event>().unwrap();
        assert!(matches!(first, Some(Event::Progress(Progress { starts: 0, .. }))), "{first:?}");
    }

    proptest::proptest! {
        #[test]
        fn what_is_no_message_is_an_error_and_the_next_one_comes_over(
            packet in proptest::collection::vec(proptest::num::u8::ANY, 1..200),
        ) {
            let (caller, mut engine) = Channel::pair().unwrap();
            send(&caller, &packet, SendFlags::NOSIGNAL).unwrap();
            caller.send(&Request::Stop).unwrap();
            proptest::prop_assert!(engine.receive::<Request>().is_err());
            proptest::prop_assert!(matches!(engine.receive().unwrap(), Some(Request::Stop)));
        }
    }
}
