//! Pid 1 of the storm's PID namespace: lays out the mount table, starts workers
//! and pollers, and reaps them.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, wait};
use rustix::thread::set_name;

use super::shared::{Record, SharedCounters};
use super::worker::{self, Starts};
use super::{mounts, pace};
use crate::storm::load::Options;
use crate::storm::runtime::Driver;
use crate::storm::start::{Failure, Op, Prepared};
use crate::storm::sys::{Forked, exit, fork, write_record};

/// Exit status of a process that found the reason to stop itself; it has told
/// the engine.
const FAILED: i32 = 1;
/// Exit status after a panic.
const PANICKED: i32 = 101;

/// All that the supervisor and its children need.
pub(super) struct Supervisor<'a> {
    pub(super) options: &'a Options,
    /// The real runtime that starts the containers, if one does.
    pub(super) driver: Option<Driver>,
    pub(super) counters: &'a SharedCounters,
    /// Where records go. The engine sees the end of the storm when the last
    /// process that holds it ends.
    pub(super) records: OwnedFd,
}

impl Supervisor<'_> {
    /// Runs the storm and ends the process. `lifeline` hangs up when the engine
    /// is gone.
    pub(super) fn run(&self, lifeline: BorrowedFd<'_>) -> ! {
        let end = catch_unwind(AssertUnwindSafe(|| {
            if set_parent_process_death_signal(Some(Signal::KILL)).is_err() || hung_up(lifeline) {
                // The engine ended before the death signal was set.
                exit(FAILED);
            }
            self.supervise()
        }));
        match end {
            Ok(Ok(())) => exit(0),
            Ok(Err((op, error))) => {
                self.report_failure(op, &error);
                exit(FAILED)
            }
            Err(_) => exit(PANICKED),
        }
    }

    fn supervise(&self) -> Result<(), Failure> {
        name_process(c"storm-init");
        let strategy = &self.options.strategy;
        let turns = &self.counters.pace;
        let base = mounts::lay_out(strategy, || turns.must_stop())?;
        let starts = match &self.driver {
            None => Starts::Builtin(Prepared::new(strategy, base)?),
            Some(driver) => Starts::Runtime(driver.clone().prepare(strategy, base)?),
        };
        for _ in 0..self.options.pollers {
            self.spawn(c"storm-poller", || worker::poll_mounts(self))?;
        }
        let mut workers = HashSet::new();
        for i in 0..self.options.concurrency.get() {
            let dir = format!("{base}/{i}");
            fs::create_dir(&dir).map_err(|e| (Op::MakeTargets, e))?;
            let work = || worker::start_containers(self, &starts, &dir);
            workers.insert(self.spawn(c"storm-worker", work)?);
        }
        // First the word, so that no start comes before it.
        self.send(Record::Opened { at_ns: pace::now_ns() });
        turns.open();
        self.reap(workers);
        Ok(())
    }

    /// Starts a process that runs `work`.
    fn spawn(&self, name: &CStr, work: impl FnOnce()) -> Result<Pid, Failure> {
        match fork() {
            Ok(Forked::Parent(pid)) => Ok(pid),
            Ok(Forked::Child) => {
                name_process(name);
                let end = catch_unwind(AssertUnwindSafe(work));
                exit(if end.is_ok() { 0 } else { PANICKED })
            }
            Err(error) => Err((Op::Fork, error)),
        }
    }

    /// Waits for all children, orphaned starts included. The storm is over with
    /// the last worker.
    fn reap(&self, mut workers: HashSet<Pid>) {
        loop {
            let ended = match wait(WaitOptions::empty()) {
                Err(Errno::INTR) | Ok(None) => continue,
                Err(_) => return,
                Ok(Some((pid, status))) => {
                    if status.exit_status() != Some(0) {
                        self.count_lost();
                    }
                    pid
                }
            };
            if workers.remove(&ended) && workers.is_empty() {
                self.send(Record::Done { at_ns: pace::now_ns() });
                self.counters.pace.tell_to_stop();
            }
        }
    }

    /// Counts a process that did not come to its own end.
    pub(super) fn count_lost(&self) {
        self.counters.lost_processes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a step that failed and tells the engine.
    pub(super) fn report_failure(&self, op: Op, error: &io::Error) {
        self.counters.count_error(op, error);
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.send(Record::Failed { op, errno });
    }

    pub(super) fn send(&self, record: Record) {
        write_record(&self.records, &record.encode());
    }
}

/// Sets the name that `ps` and lock profiles show. It is for the eye alone, so
/// a refusal changes nothing.
pub(super) fn name_process(name: &CStr) {
    let _ = set_name(name);
}

/// Whether the other end of `pipe` is closed.
pub(super) fn hung_up(pipe: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
