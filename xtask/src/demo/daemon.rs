//! `lockprof daemon` on a free port of loopback, for as long as the demo lasts.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::http;
use crate::process::{Guarded, Interrupt, TICK};
use crate::shell;

/// How long the daemon may take to load its programs.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A daemon that answers. Stops when dropped.
pub(super) struct Daemon {
    address: SocketAddr,
    _process: Guarded,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// With the daemon's log, when it ends or does not get ready.
    pub(super) fn start(lockprof: &Path, interrupt: &Interrupt) -> Result<Self> {
        let address = free_address()?;
        let (log, out) = shell::log_file("daemon")?;
        let err = out.try_clone().with_context(|| format!("failed to share {}", log.display()))?;
        let mut command = Command::new(lockprof);
        command.args(["daemon", "--listen", &address.to_string()]);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let mut process = Guarded::spawn(&mut command)?;
        let deadline = Instant::now() + READY_WITHIN;
        while http::get(address, "/readyz").is_err() {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = process.ended()? {
                bail!("the daemon ended ({status}) before it was ready:\n{}", said());
            }
            if interrupt.came() {
                bail!("stopped while the daemon was starting");
            }
            if Instant::now() >= deadline {
                let seconds = READY_WITHIN.as_secs();
                bail!("the daemon was not ready within {seconds} s:\n{}", said());
            }
            thread::sleep(TICK);
        }
        Ok(Self { address, _process: process })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address that nobody listened on a moment ago.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("failed to find a free port on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_ends_is_reported_and_not_waited_for() {
        let interrupt = Interrupt::watch().unwrap();
        let start = Instant::now();
        let Err(error) = Daemon::start(Path::new("/bin/false"), &interrupt) else {
            panic!("/bin/false got ready");
        };
        assert!(error.to_string().contains("ended (exit status: 1)"), "{error:#}");
        assert!(start.elapsed() < READY_WITHIN);
    }
}
