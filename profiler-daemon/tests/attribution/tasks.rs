//! Tasks of a name, in a cgroup, that do one thing until they are dropped.

use std::ffi::CStr;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal};

/// Tells threads to stop when it is dropped, be it by a test that fails.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A process, killed when dropped.
pub(crate) struct Task {
    pid: Option<Pid>,
    ready: OwnedFd,
}

/// By which a task says that it is.
pub(crate) struct Ready(OwnedFd);

impl Ready {
    pub(crate) fn say(&self) -> io::Result<()> {
        rustix::io::write(&self.0, b"r")?;
        Ok(())
    }
}

impl Task {
    /// Forks a process that calls itself `name`, moves to `cgroup` and does
    /// `work`. It ends with status 0 when that succeeds, else with 1.
    ///
    /// What is forked from a process of several threads may find locks taken for
    /// ever; glibc sees to it that this is not so for those of its allocator.
    pub(crate) fn start(
        name: &CStr,
        cgroup: Option<&Path>,
        work: impl FnOnce(&Ready) -> io::Result<()>,
    ) -> Self {
        let (ready, theirs) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let theirs = Ready(theirs);
        // SAFETY: no arguments. The child makes system calls and allocates, see
        // above, and leaves by `_exit`.
        let pid = match unsafe { libc::fork() } {
            0 => {
                keep_only(theirs.0.as_fd());
                let done = catch_unwind(AssertUnwindSafe(|| {
                    set_parent_process_death_signal(Some(Signal::KILL))?;
                    if let Some(cgroup) = cgroup {
                        enter(cgroup)?;
                    }
                    rustix::thread::set_name(name)?;
                    work(&theirs)
                }));
                let status = match done {
                    Ok(Ok(())) => 0,
                    Ok(Err(error)) => {
                        // Not by `eprintln`, which the harness of tests captures.
                        let _ = writeln!(io::stderr(), "{}: {error}", name.to_string_lossy());
                        1
                    }
                    Err(_) => 101,
                };
                // SAFETY: ends the process, whatever its state.
                unsafe { libc::_exit(status) }
            }
            pid => Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0),
        };
        assert!(pid.is_some(), "failed to fork: {}", io::Error::last_os_error());
        Self { pid, ready }
    }

    /// Returns when the task has said that it is ready.
    pub(crate) fn await_ready(&self) {
        let mut byte = [0];
        let got = rustix::io::read(&self.ready, &mut byte).expect("a pipe can be read");
        assert_eq!(got, 1, "the task ended before it was ready");
    }

    /// Returns when the task has ended by itself; whether it did what it should.
    pub(crate) fn join(mut self) -> bool {
        let pid = self.pid.take().expect("it is not yet awaited");
        await_end(pid) == Some(0)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            // It may have ended, but is not yet awaited.
            let _ = kill_process(pid, Signal::KILL);
            await_end(pid);
        }
    }
}

/// Closes all that a forked process has open but the first three and `fd`: the
/// ends of pipes above all, whose readers wait until everybody has closed them.
fn keep_only(fd: BorrowedFd<'_>) {
    let fd = u32::try_from(fd.as_raw_fd()).expect("an open file");
    for (first, last) in [(3, fd - 1), (fd + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: takes numbers. This process uses none of these files: it
            // leaves by `_exit`, which drops nothing.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

fn await_end(pid: Pid) -> Option<i32> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => return status.exit_status(),
            _ => return None,
        }
    }
}

/// Moves the calling process to the cgroup at `path`.
pub(crate) fn enter(path: &Path) -> io::Result<()> {
    std::fs::write(path.join("cgroup.procs"), "0")
}
