//! Child processes that do not outlive xtask, and the signals that end it.

use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, getppid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often to look whether a child has ended or a signal has come.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// How long a child may take to stop by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Whether the user has asked to stop.
pub(crate) struct Interrupt {
    signal: Arc<AtomicBool>,
    /// Who must live for this to go on.
    parent: Option<Pid>,
}

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP: from now on they stop xtask in order
    /// and not at once.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub(crate) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("failed to install a signal handler")?;
        }
        Ok(Self { signal: flag, parent: None })
    }

    /// Counts the end of the parent as well, for a process between which and
    /// xtask's first process stands another that may be killed.
    pub(crate) fn with_parent(self) -> Self {
        Self { parent: getppid(), ..self }
    }

    /// Whether one has come.
    pub(crate) fn came(&self) -> bool {
        self.signal.load(Ordering::Relaxed)
            || self.parent.is_some_and(|parent| getppid() != Some(parent))
    }
}

/// A child that is stopped when this is dropped.
pub(crate) struct Guarded(Child);

impl Guarded {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        Ok(Self(child))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("failed to wait for a child")
    }

    /// Its standard output, the first time, if that is a pipe.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.0.wait().context("failed to wait for a child")
    }

    /// Asks it to stop, and kills it when it does not.
    fn stop(&mut self) {
        // The pid is still this child's: it is reaped only by the waits here.
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.0.try_wait(), Ok(None))
            && kill_process(pid, Signal::TERM).is_ok()
        {
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
                thread::sleep(TICK);
            }
        }
        if matches!(self.0.try_wait(), Ok(None)) {
            // Both fail only when it has just ended.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a command to its end, or stops it when the user asks to.
///
/// # Errors
/// When it cannot be started or waited for.
pub(crate) fn run(command: &mut Command, interrupt: &Interrupt) -> Result<ExitStatus> {
    wait(&mut Guarded::spawn(command)?, interrupt)
}

/// Waits for a child's end, or stops it when the user asks to.
///
/// # Errors
/// When it cannot be waited for.
pub(crate) fn wait(child: &mut Guarded, interrupt: &Interrupt) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.ended()? {
            return Ok(status);
        }
        if interrupt.came() {
            child.stop();
        } else {
            thread::sleep(TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_child_is_gone_after_the_drop() {
        let child = Guarded::spawn(Command::new("sleep").arg("1000")).unwrap();
        let status = format!("/proc/{}/stat", child.0.id());
        assert!(std::fs::exists(&status).unwrap());
        drop(child);
        assert!(!std::fs::exists(&status).unwrap());
    }

    #[test]
    fn an_interrupt_ends_the_command_that_runs() {
        let interrupt = Interrupt { signal: Arc::new(AtomicBool::new(true)), parent: None };
        let start = Instant::now();
        let status = run(Command::new("sleep").arg("1000"), &interrupt).unwrap();
        assert!(!status.success());
        assert!(start.elapsed() < GRACE);
    }
}
