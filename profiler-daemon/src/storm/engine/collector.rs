//! What the engine gathers while a storm runs, and when it ends it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::child::Child;
use super::failed_to;
use super::pace::now_ns;
use super::shared::{RECORD_BYTES, Record, SharedCounters};
use super::summary::{Outcome, new_histogram};
use super::wire::{Channel, Event, Progress, Request};
use crate::storm::error::StormError;
use crate::storm::load::Stop;
use crate::storm::start::Op;

/// How long workers may take to finish their current start once the time is
/// up; then they are killed.
const GRACE: Duration = Duration::from_secs(5);

/// Time between two words to the caller about the progress.
const PROGRESS: Duration = Duration::from_millis(100);

/// One storm as the engine sees it.
pub(super) struct Collector<'a> {
    counters: &'a SharedCounters,
    supervisor: &'a Child,
    stop: Stop,
    /// When to stop or, if told to stop already, to kill.
    deadline: Option<Instant>,
    next_progress: Instant,
    latencies: hdrhistogram::Histogram<u64>,
    longest_ns: u64,
    starts: u64,
    first_failure: Option<(Op, i32)>,
    opened: Option<Opened>,
    /// In ns of `CLOCK_MONOTONIC`.
    ended_ns: Option<u64>,
    /// The last worker came to its own end.
    done: bool,
    /// The workers were told to end.
    stopping: bool,
    interrupted: bool,
    /// The grace was over, or a second request to stop came.
    killed: bool,
}

/// When the first worker could start.
#[derive(Clone, Copy)]
struct Opened {
    /// In ns of `CLOCK_MONOTONIC`, by the supervisor.
    at_ns: u64,
    /// When word of it came.
    heard: Instant,
}

/// How a storm ended.
pub(super) enum End {
    /// There are figures.
    Over(Outcome),
    /// It could not begin.
    Failed {
        /// The step.
        op: Op,
        /// Why.
        errno: i32,
    },
    /// Processes ended that nobody had told to.
    Early,
    /// The caller is gone.
    Abandoned,
}

impl<'a> Collector<'a> {
    pub(super) fn new(counters: &'a SharedCounters, supervisor: &'a Child, stop: Stop) -> Self {
        Self {
            counters,
            supervisor,
            stop,
            deadline: None,
            next_progress: Instant::now() + PROGRESS,
            latencies: new_histogram(),
            longest_ns: 0,
            starts: 0,
            first_failure: None,
            opened: None,
            ended_ns: None,
            done: false,
            stopping: false,
            interrupted: false,
            killed: false,
        }
    }

    /// Collects until every process that could write to `records` is gone.
    ///
    /// # Errors
    ///
    /// A system call failed; the storm still runs.
    pub(super) fn collect(
        mut self,
        records: impl Into<File>,
        caller: &mut Channel,
    ) -> Result<End, StormError> {
        let mut records = records.into();
        loop {
            let until = self.deadline.map_or(self.next_progress, |at| at.min(self.next_progress));
            let (data, request) = wait_for(records.as_fd(), caller.as_fd(), until)?;
            if request {
                match caller.receive().map_err(failed_to("read what the caller says"))? {
                    Some(Request::Stop) => {
                        self.interrupted = true;
                        self.stop();
                    }
                    // One storm at a time: the caller waits for the end.
                    Some(Request::Run(_)) => {}
                    None => return Ok(End::Abandoned),
                }
            }
            if data && !self.take(&mut records)? {
                return Ok(self.end());
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                self.stop();
            }
            if now >= self.next_progress {
                self.next_progress = now + PROGRESS;
                self.tell_progress(caller)?;
            }
        }
    }

    /// Books what has come; `false` when nothing can come any more.
    fn take(&mut self, records: &mut File) -> Result<bool, StormError> {
        let mut buffer = [0; RECORD_BYTES * 256];
        // Records are written whole (below `PIPE_BUF`), so whole ones come out.
        let n = match records.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            other => other.map_err(failed_to("read the latencies"))?,
        };
        for bytes in buffer[..n].as_chunks::<RECORD_BYTES>().0 {
            if let Some(record) = Record::decode(*bytes) {
                self.book(record);
            }
        }
        if self.first_failure.is_some() && !self.killed {
            self.killed = true;
            self.supervisor.kill();
        }
        Ok(n > 0)
    }

    fn book(&mut self, record: Record) {
        match record {
            Record::Started { latency_ns } => {
                self.starts += 1;
                self.longest_ns = self.longest_ns.max(latency_ns);
                self.latencies.saturating_record(latency_ns);
            }
            Record::Failed { op, errno } if self.starts == 0 && self.first_failure.is_none() => {
                self.first_failure = Some((op, errno));
            }
            // Later failures are in the counters.
            Record::Failed { .. } => {}
            Record::Opened { at_ns } => {
                let now = Instant::now();
                self.opened = Some(Opened { at_ns, heard: now });
                if let (Stop::After(time), false) = (self.stop, self.stopping) {
                    self.deadline = Some(now + time);
                }
            }
            Record::Done { at_ns } => {
                self.done = true;
                self.ended_ns = Some(at_ns);
            }
        }
    }

    /// Tells the workers to end; the second time it ends them.
    fn stop(&mut self) {
        if self.stopping {
            self.killed = true;
            self.supervisor.kill();
        }
        self.stopping = true;
        self.counters.pace.tell_to_stop();
        self.deadline = Some(Instant::now() + GRACE);
    }

    fn tell_progress(&self, caller: &Channel) -> Result<(), StormError> {
        let progress = Progress {
            starts: self.starts,
            failed_starts: self.counters.failed_starts.load(Ordering::Relaxed),
            elapsed: self.opened.map_or(Duration::ZERO, |opened| opened.heard.elapsed()),
        };
        match caller.send_if_read(&Event::Progress(progress)) {
            // That the caller is gone shows when its word is waited for.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(failed_to("tell the caller of the progress")(error))
            }
            _ => Ok(()),
        }
    }

    fn end(self) -> End {
        if let Some((op, errno)) = self.first_failure {
            return End::Failed { op, errno };
        }
        // Without having been told to, workers end when all starts are made.
        let complete = self.done && self.counters.pace.used_up();
        if !self.stopping && !complete {
            return End::Early;
        }
        let ended_ns = self.ended_ns.unwrap_or_else(now_ns);
        let duration = |opened: Opened| Duration::from_nanos(ended_ns.saturating_sub(opened.at_ns));
        End::Over(Outcome {
            duration: self.opened.map_or(Duration::ZERO, duration),
            latencies: self.latencies,
            longest_ns: self.longest_ns,
            interrupted: self.interrupted,
            killed: self.killed,
        })
    }
}

/// Waits for records, a request or the time; says which of the two came.
fn wait_for(
    records: BorrowedFd<'_>,
    caller: BorrowedFd<'_>,
    until: Instant,
) -> Result<(bool, bool), StormError> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    let mut fds = [PollFd::new(&records, PollFlags::IN), PollFd::new(&caller, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(failed_to("wait for the storm's processes")(error)),
    }
    // `HUP` counts: it is how the end of the last writer, or of the caller,
    // shows.
    Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty()))
}
