//! The processes that make starts.
//!
//! In: [`Options`]. Out: a [`Summary`], and [`Progress`] meanwhile.
//!
//! The processes, each the child of the one above it:
//!
//! - the caller ([`Engine`]), which may have threads: takes signals;
//! - the engine (`server`), forked while the caller had one thread: all that is
//!   forked later comes from a process without others. For each storm it keeps
//!   the clock and collects latencies (`collector`). It ends with the caller;
//! - the supervisor (`supervisor`): pid 1 of a PID namespace of its own, in a
//!   mount namespace of its own that is cut off from the host's (`mounts`). It
//!   dies with the engine, and everything below dies with it, whatever ends
//!   them. All mount points lie in a tmpfs that only its namespace has, so
//!   nothing is left in the host's tables or directories;
//! - workers and pollers (`worker`), which go by a common `pace`;
//! - one process for each container-like start.
//!
//! Caller and engine talk by a pair of sockets (`wire`). Counters are in a
//! mapping (`shared`) that the engine and all below it share, latencies come by
//! a pipe.

mod child;
mod collector;
mod mounts;
mod pace;
mod pin;
mod privileges;
mod server;
mod shared;
mod summary;
mod supervisor;
mod wire;
mod words;
mod worker;

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use self::child::Child;
pub use self::pin::Place;
pub use self::summary::{ErrorCount, Latency, Summary};
pub use self::wire::Progress;
use self::wire::{Channel, Event, Privileges, Request};
use super::error::StormError;
use super::load::Options;
use super::sys::{Forked, Signals, fork};

/// For `map_err`: a system call of the machinery failed while trying `action`.
fn failed_to<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> StormError {
    move |error| StormError::System { action: action.into(), error: error.into() }
}

/// Makes storms, one at a time, in processes of its own.
///
/// For as long as it lives, SIGINT, SIGTERM and SIGHUP do not end the calling
/// process: see [`Engine::run`] and [`Engine::interrupted`]. Between storms it
/// costs one sleeping process.
pub struct Engine {
    /// `None` once it is being dropped.
    channel: Option<Channel>,
    child: Child,
    signals: Signals,
    privileges: Privileges,
    interrupted: bool,
}

impl Engine {
    /// Forks the engine's process. Call it while the calling process has one
    /// thread, which the engine then dies with; threads made later inherit that
    /// the signals are blocked.
    ///
    /// # Errors
    ///
    /// There are threads already, or neither `CAP_SYS_ADMIN` nor a user
    /// namespace is to be had.
    pub fn start() -> Result<Self, StormError> {
        let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
        match threads.map_err(failed_to("count the threads of this process; is /proc mounted?"))? {
            1 => {}
            several => return Err(StormError::HasThreads(several)),
        }
        let signals = Signals::block().map_err(failed_to("take SIGINT, SIGTERM and SIGHUP"))?;
        let (ours, theirs) =
            Channel::pair().map_err(failed_to("make sockets to the storm's engine"))?;
        let child = match fork().map_err(failed_to("start the storm's engine"))? {
            Forked::Child => {
                // The caller's end must be the caller's alone, or its end would
                // not show.
                drop(ours);
                signals.keep_blocked();
                server::serve(theirs)
            }
            Forked::Parent(pid) => Child::new(pid, "engine"),
        };
        drop(theirs);
        let mut engine = Self {
            channel: Some(ours),
            child,
            signals,
            privileges: Privileges::Callers,
            interrupted: false,
        };
        match engine.receive()? {
            Event::Ready(acquired) => engine.privileges = acquired?,
            other => return Err(engine.unexpected(&other)),
        }
        Ok(engine)
    }

    /// Makes the load until [`Options::stop`] and says what it was. `progress`
    /// is called several times a second.
    ///
    /// SIGINT, SIGTERM or SIGHUP ends it with the figures so far; a second one
    /// does not wait for the starts under way. One that came since the last
    /// call, unless [`Engine::interrupted`] has told of it, ends it at once.
    ///
    /// # Errors
    ///
    /// [`StormError`]. What fails inside a start is counted in the summary
    /// instead, unless nothing had been started before.
    pub fn run(
        &mut self,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Summary, StormError> {
        self.send(&Request::Run(options.clone()))?;
        loop {
            let (event, signal) = self.wait()?;
            if signal {
                for _ in 0..self.take_signals()? {
                    self.send(&Request::Stop)?;
                }
            }
            if event {
                match self.receive()? {
                    Event::Progress(now) => progress(now),
                    Event::Ended(result) => return result,
                    other @ Event::Ready(_) => return Err(self.unexpected(&other)),
                }
            }
        }
    }

    /// Whether a signal has come that asks to end, in a storm or between two:
    /// then make no further one.
    pub fn interrupted(&mut self) -> bool {
        // A signal that cannot be read now is read in the next storm.
        let _ = self.take_signals();
        self.interrupted
    }

    /// Whether storms run in a user namespace of their own, for want of
    /// `CAP_SYS_ADMIN`. The kernel then mounts with the checks that such a
    /// namespace has on top, and takes no [`Idmap`](super::Idmap) and no real
    /// runtime.
    pub fn in_user_namespace(&self) -> bool {
        self.privileges == Privileges::UserNamespace
    }

    fn take_signals(&mut self) -> Result<u32, StormError> {
        let taken = self.signals.take().map_err(failed_to("read a signal"))?;
        self.interrupted |= taken > 0;
        Ok(taken)
    }

    /// Waits for the engine or a signal; says which of the two came.
    fn wait(&self) -> Result<(bool, bool), StormError> {
        let Some(channel) = &self.channel else { return Ok((true, false)) };
        let (channel, signals) = (channel.as_fd(), self.signals.as_fd());
        let mut fds = [PollFd::new(&channel, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed_to("wait for the storm's engine")(error)),
        }
        Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
    }

    fn send(&self, request: &Request) -> Result<(), StormError> {
        match self.channel.as_ref().map(|channel| channel.send(request)) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(failed_to("ask the storm's engine")(error))
            }
            _ => Err(self.gone()),
        }
    }

    fn receive(&mut self) -> Result<Event, StormError> {
        let event = self.channel.as_mut().map_or(Ok(None), Channel::receive);
        let event = event.map_err(failed_to("hear from the storm's engine"))?;
        event.ok_or_else(|| self.gone())
    }

    /// The engine has hung up, which it does at its end alone.
    fn gone(&self) -> StormError {
        StormError::EndedEarly(self.child.wait().to_owned())
    }

    fn unexpected(&self, event: &Event) -> StormError {
        self.child.kill();
        StormError::EndedEarly(format!("the engine said {event:?} out of turn"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It ends when the caller hangs up, and ends a storm that still runs.
        drop(self.channel.take());
        self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn no_engine_is_started_beside_threads() {
        let (release, held) = mpsc::channel::<()>();
        let other = thread::spawn(move || held.recv());
        let refused = Engine::start().err().expect("this process has threads");
        assert!(matches!(refused, StormError::HasThreads(n) if n > 1), "{refused}");
        drop(release);
        other.join().unwrap().unwrap_err();
    }
}
