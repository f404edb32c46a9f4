//! Pid 1 of the storm's PID namespace: cuts the mount namespace off from the
//! host's, starts workers and readers, and reaps them.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};
use rustix::thread::set_name;

use super::shared::{Record, SharedCounters};
use super::worker::{self, Starts};
use crate::storm::load::Options;
use crate::storm::runtime::Driver;
use crate::storm::start::{Op, Prepared, TMPFS_SOURCE};
use crate::storm::sys::{Forked, exit, fork, write_record};

/// Existing directories that the storm's tmpfs may cover in its own namespace;
/// the first that is there is taken.
const BASES: [&CStr; 3] = [c"/tmp", c"/mnt", c"/run"];

/// Exit status of a process that found the reason to stop itself; it has told
/// the caller.
const FAILED: i32 = 1;
/// Exit status after a panic.
const PANICKED: i32 = 101;

/// All that the supervisor and its children need.
pub(super) struct Supervisor<'a> {
    pub(super) options: &'a Options,
    /// The real runtime that starts the containers, if one does.
    pub(super) driver: Option<Driver>,
    pub(super) counters: &'a SharedCounters,
    /// Where records go. The caller sees the end of the storm when the last
    /// process that holds it ends.
    pub(super) records: OwnedFd,
}

impl Supervisor<'_> {
    /// Runs the storm and ends the process. `lifeline` hangs up when the caller
    /// is gone.
    pub(super) fn run(&self, lifeline: BorrowedFd<'_>) -> ! {
        let end = catch_unwind(AssertUnwindSafe(|| {
            if set_parent_process_death_signal(Some(Signal::KILL)).is_err() || hung_up(lifeline) {
                // The caller ended before the death signal was set.
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

    fn supervise(&self) -> Result<(), (Op, io::Error)> {
        name_process(c"storm-init");
        make_private().map_err(|e| (Op::MakePrivate, e))?;
        let base = mount_base().map_err(|e| (Op::BaseTmpfs, e))?;
        let strategy = &self.options.strategy;
        let starts = match &self.driver {
            None => Starts::Builtin(Prepared::new(strategy, base)?),
            Some(driver) => Starts::Runtime(driver.clone().prepare(strategy, base)?),
        };
        for _ in 0..self.options.pollers {
            self.spawn(c"storm-poller", || worker::poll_mounts(self))?;
        }
        for i in 0..self.options.concurrency.get() {
            let dir = format!("{base}/{i}");
            fs::create_dir(&dir).map_err(|e| (Op::MakeTargets, e))?;
            self.spawn(c"storm-worker", || worker::start_containers(self, &starts, &dir))?;
        }
        self.reap();
        Ok(())
    }

    /// Starts a process that runs `work`.
    fn spawn(&self, name: &CStr, work: impl FnOnce()) -> Result<(), (Op, io::Error)> {
        match fork() {
            Ok(Forked::Parent(_)) => Ok(()),
            Ok(Forked::Child) => {
                name_process(name);
                let end = catch_unwind(AssertUnwindSafe(work));
                exit(if end.is_ok() { 0 } else { PANICKED })
            }
            Err(error) => Err((Op::Fork, error)),
        }
    }

    /// Waits for all children, orphaned starts included.
    fn reap(&self) {
        loop {
            match wait(WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Err(_) => return,
                Ok(Some((_, status))) if status.exit_status() != Some(0) => self.count_lost(),
                Ok(_) => {}
            }
        }
    }

    /// Counts a process that did not come to its own end.
    pub(super) fn count_lost(&self) {
        self.counters.lost_processes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a step that failed and tells the caller.
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
fn hung_up(pipe: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Cuts all mounts of this namespace off from the host's, so that no mount or
/// unmount here shows there, and looks whether that worked.
fn make_private() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let table = fs::read("/proc/self/mountinfo")?;
    match still_propagates(&String::from_utf8_lossy(&table)) {
        // The errno for what a caller must not go on with: mounts are busy
        // with somebody else.
        true => Err(Errno::BUSY.into()),
        false => Ok(()),
    }
}

/// Whether a mount of a mountinfo table (proc_pid_mountinfo(5)) is in a peer
/// group or receives from one. An empty table says nothing, hence counts as
/// such.
fn still_propagates(mountinfo: &str) -> bool {
    mountinfo.is_empty()
        || mountinfo.lines().any(|line| {
            // Optional fields stand between the sixth field and a lone dash.
            line.split(' ')
                .skip(6)
                .take_while(|field| *field != "-")
                .any(|field| field.starts_with("shared:") || field.starts_with("master:"))
        })
}

/// Mounts the tmpfs that holds all mount points of the storm; returns where.
fn mount_base() -> io::Result<&'static str> {
    let base = BASES
        .into_iter()
        .filter_map(|base| base.to_str().ok())
        .find(|base| fs::metadata(base).is_ok_and(|m| m.is_dir()))
        .ok_or(Errno::NOENT)?;
    mount(TMPFS_SOURCE, base, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=700")?;
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_table_does_not_propagate() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        assert!(!still_propagates(table));
    }

    #[test]
    fn shared_and_slave_mounts_propagate() {
        for field in ["shared:7", "master:1", "unbindable shared:3"] {
            let table = format!("22 27 0:21 / /proc rw,relatime {field} - proc proc rw\n");
            assert!(still_propagates(&table), "{field}");
        }
    }

    #[test]
    fn words_after_the_dash_are_no_propagation() {
        let table = "30 27 0:25 / /mnt rw,relatime - tmpfs shared:1 rw\n";
        assert!(!still_propagates(table));
    }

    #[test]
    fn an_empty_table_is_no_proof() {
        assert!(still_propagates(""));
    }
}
