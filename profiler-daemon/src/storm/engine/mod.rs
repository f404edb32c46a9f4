//! The processes that make starts.
//!
//! In: [`Options`]. Out: a [`Summary`].
//!
//! The processes, each the child of the one above it:
//!
//! - the caller (`run`): keeps the clock, takes signals, collects latencies;
//! - the supervisor (`supervisor`): pid 1 of a PID namespace of its own, in a
//!   mount namespace of its own that is private all through. It dies with the
//!   caller, and everything below dies with it, whatever ends them. All mount
//!   points lie in a tmpfs that only its namespace has, so nothing is left in
//!   the host's tables or directories;
//! - workers and readers (`worker`);
//! - one process for each container-like start.
//!
//! Counters are in a shared mapping (`shared`), latencies come by a pipe.

mod pin;
mod shared;
mod summary;
mod supervisor;
mod words;
mod worker;

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{CapabilitySet, capabilities};

use super::error::StormError;
use super::load::{Options, Stop};
use super::runtime::Driver;
use super::start::Op;

use self::pin::Pinned;
pub use self::pin::Place;
use self::shared::{RECORD_BYTES, Record, SharedCounters};
pub use self::summary::{ErrorCount, Latency, Summary};
use self::summary::{Outcome, new_histogram};
use self::supervisor::Supervisor;
use super::sys::{Forked, Signals, fork_into_namespaces};

/// How long workers may take to finish their current start once the time is
/// up; then they are killed.
const GRACE: Duration = Duration::from_secs(5);

/// For `map_err`: a system call of the machinery failed while trying `action`.
fn failed_to<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> StormError {
    move |error| StormError::System { action, error: error.into() }
}

/// Makes the load until [`Options::stop`], or until SIGINT, SIGTERM or
/// SIGHUP, and says what it was. A second signal does not wait for the starts
/// under way.
///
/// Call it while the process has one thread: it forks, and the children go on
/// without `execve`. The three signals stay blocked in the calling thread for
/// as long as it runs.
///
/// # Errors
///
/// [`StormError`]. A `mount(2)` call that fails inside a start is counted in
/// the summary instead, unless it is part of what the very first start cannot
/// do without.
pub fn run(options: &Options) -> Result<Summary, StormError> {
    options.strategy.check().map_err(StormError::Contradiction)?;
    let own = capabilities(None).map_err(failed_to("read the capabilities of this process"))?;
    if !own.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Err(StormError::NotPermitted);
    }
    let driver = Driver::find(options.strategy.runtime)?;
    if let Some(driver) = &driver {
        driver.check(&options.strategy)?;
    }
    let _pinned = options.cpus.as_deref().map(Pinned::to).transpose()?;
    let counters = SharedCounters::new().map_err(failed_to("map memory for the counters"))?;
    let (records, records_in) =
        pipe_with(PipeFlags::CLOEXEC).map_err(failed_to("make a pipe for the latencies"))?;
    let (lifeline, lifeline_in) =
        pipe_with(PipeFlags::CLOEXEC).map_err(failed_to("make a pipe to the supervisor"))?;
    let signals = Signals::block().map_err(failed_to("take SIGINT, SIGTERM and SIGHUP"))?;

    let started = Instant::now();
    let forked = fork_into_namespaces().map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSPC | libc::EINVAL | libc::ENOSYS | libc::EUSERS) => {
            StormError::NamespacesRefused(error)
        }
        _ => StormError::System { action: "start the supervisor", error },
    })?;
    let supervisor = match forked {
        Forked::Child => {
            // The write end of the lifeline must be the caller's alone, or
            // its end would not show.
            drop(lifeline_in);
            drop(records);
            Supervisor { options, driver, counters: &counters, records: records_in }
                .run(lifeline.as_fd())
        }
        Forked::Parent(child) => Child(child),
    };
    drop(records_in);
    drop(lifeline);

    let mut storm = Collector::new(started, options.stop);
    let collected = storm.collect(&counters, &signals, records, &supervisor);
    if collected.is_err() {
        supervisor.kill();
    }
    let end = supervisor.wait();
    collected?;
    if let Some((op, errno)) = storm.first_failure {
        return Err(match counters.words.about(op) {
            Some(words) => StormError::FirstStart { op, error: io::Error::other(words) },
            None => StormError::first_start(op, io::Error::from_raw_os_error(errno)),
        });
    }
    if !storm.stopping {
        return Err(StormError::EndedEarly(end));
    }
    Ok(Summary::new(
        options,
        &counters,
        &Outcome {
            duration: storm.ended.unwrap_or_else(Instant::now) - started,
            latencies: storm.latencies,
            longest_ns: storm.longest_ns,
            interrupted: storm.interrupted,
            killed: storm.killed,
        },
    ))
}

/// The supervisor as the caller sees it.
struct Child(Pid);

impl Child {
    /// Ends the supervisor, and with it everything in its PID namespace.
    fn kill(&self) {
        // It is not reaped before `wait`, so the pid is still its own; that it
        // has ended by itself is no error.
        let _ = kill_process(self.0, Signal::KILL);
    }

    /// Waits until nothing is left in the PID namespace: the kernel reaps pid
    /// 1 last (`zap_pid_ns_processes`, kernel/pid_namespace.c). Says how it
    /// ended.
    fn wait(&self) -> String {
        loop {
            match waitpid(Some(self.0), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Err(error) => return format!("the supervisor cannot be waited for: {error}"),
                Ok(None) => {}
                Ok(Some((_, status))) => {
                    return match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("the supervisor exited with status {code}"),
                        (None, Some(signal)) => format!("signal {signal} killed the supervisor"),
                        (None, None) => "the supervisor is gone".to_owned(),
                    };
                }
            }
        }
    }
}

/// What the caller gathers while the storm runs.
struct Collector {
    deadline: Instant,
    latencies: hdrhistogram::Histogram<u64>,
    longest_ns: u64,
    starts: u64,
    first_failure: Option<(Op, i32)>,
    /// The workers were told to end.
    stopping: bool,
    interrupted: bool,
    /// The grace was over, or a second signal came.
    killed: bool,
    ended: Option<Instant>,
}

impl Collector {
    fn new(started: Instant, stop: Stop) -> Self {
        let duration = match stop {
            Stop::After(duration) => duration,
            Stop::Starts(_) => Duration::from_secs(7 * 24 * 3600),
        };
        Self {
            deadline: started + duration,
            latencies: new_histogram(),
            longest_ns: 0,
            starts: 0,
            first_failure: None,
            stopping: false,
            interrupted: false,
            killed: false,
            ended: None,
        }
    }

    /// Collects until every process that could write to `records` is gone.
    fn collect(
        &mut self,
        counters: &SharedCounters,
        signals: &Signals,
        records: impl Into<std::fs::File>,
        supervisor: &Child,
    ) -> Result<(), StormError> {
        let mut records: std::fs::File = records.into();
        loop {
            let (data, signal) = wait_for(records.as_fd(), signals.as_fd(), self.deadline)?;
            if signal && signals.take().map_err(failed_to("read a signal"))? {
                self.interrupted = true;
                self.stop(counters, supervisor);
            }
            if data {
                let mut buffer = [0; RECORD_BYTES * 256];
                // Records are written whole (below `PIPE_BUF`), so whole ones
                // come out.
                let n = match records.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other.map_err(failed_to("read the latencies"))?,
                };
                if n == 0 {
                    self.ended = Some(Instant::now());
                    return Ok(());
                }
                for bytes in buffer[..n].as_chunks::<RECORD_BYTES>().0 {
                    self.book(*bytes);
                }
                if self.first_failure.is_some() && !self.killed {
                    self.killed = true;
                    supervisor.kill();
                }
            }
            if Instant::now() >= self.deadline {
                self.stop(counters, supervisor);
            }
        }
    }

    /// Tells the workers to end; the second time it ends them.
    fn stop(&mut self, counters: &SharedCounters, supervisor: &Child) {
        if self.stopping {
            self.killed = true;
            supervisor.kill();
        }
        self.stopping = true;
        counters.tell_to_stop();
        self.deadline = Instant::now() + GRACE;
    }

    fn book(&mut self, record: [u8; RECORD_BYTES]) {
        match Record::decode(record) {
            Some(Record::Started { latency_ns }) => {
                self.starts += 1;
                self.longest_ns = self.longest_ns.max(latency_ns);
                self.latencies.saturating_record(latency_ns);
            }
            Some(Record::Failed { op, errno })
                if self.starts == 0 && self.first_failure.is_none() =>
            {
                self.first_failure = Some((op, errno));
            }
            // Later failures are in the counters.
            Some(Record::Failed { .. }) | None => {}
        }
    }
}

/// Waits for records, a signal or the deadline; says which of the two came.
fn wait_for(
    records: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
    deadline: Instant,
) -> Result<(bool, bool), StormError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    let mut fds = [PollFd::new(&records, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(failed_to("wait for the storm's processes")(error)),
    }
    // `HUP` counts: it is how the end of the last writer shows.
    Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
}
