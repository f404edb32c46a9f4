//! A forked process as its parent sees it.

use std::cell::OnceCell;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// A process that is waited for once.
pub(super) struct Child {
    pid: Pid,
    name: &'static str,
    end: OnceCell<String>,
}

impl Child {
    /// The process `pid`, which errors call `name`.
    pub(super) const fn new(pid: Pid, name: &'static str) -> Self {
        Self { pid, name, end: OnceCell::new() }
    }

    /// Ends it. For the supervisor of a storm that is the end of everything in
    /// its PID namespace.
    pub(super) fn kill(&self) {
        // Until `wait` it is not reaped, so the pid is still its own; that it
        // has ended by itself is no error.
        if self.end.get().is_none() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Waits until it has ended, and says how. Then nothing is left in a PID
    /// namespace of which it was pid 1, which the kernel reaps last
    /// (`zap_pid_ns_processes`, kernel/pid_namespace.c).
    pub(super) fn wait(&self) -> &str {
        self.end.get_or_init(|| self.wait_once())
    }

    fn wait_once(&self) -> String {
        let name = self.name;
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) | Ok(None) => {}
                Err(error) => return format!("the {name} cannot be waited for: {error}"),
                Ok(Some((_, status))) => {
                    return match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("the {name} exited with status {code}"),
                        (None, Some(signal)) => format!("signal {signal} killed the {name}"),
                        (None, None) => format!("the {name} is gone"),
                    };
                }
            }
        }
    }
}
