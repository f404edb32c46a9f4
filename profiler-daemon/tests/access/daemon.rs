//! `lockprof daemon`, with what it logs.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::LOCKPROF;

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A free port of loopback.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has a free port")
}

/// Waits until `is_so` gives something.
pub(crate) fn await_that<T>(what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(it) = is_so() {
            return it;
        }
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    /// On loopback, whatever it listens on.
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts one that listens on `ip`, and waits until it has attached.
    pub(crate) fn start<A: AsRef<OsStr>>(ip: &str, arguments: &[A]) -> Self {
        let address = free_address();
        let mut child = Command::new(LOCKPROF)
            .args(["daemon", "--listen", &format!("{ip}:{}", address.port())])
            .args(["--log-format", "human"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon can be run");
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, lines) = (child.stderr.take().expect("piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().expect("no panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut daemon = Self { child, address, log };
        await_that("the daemon has attached", || {
            if let Some(status) = daemon.child.try_wait().expect("it can be awaited") {
                panic!("the daemon ended with {status}: {}", daemon.log());
            }
            daemon.log().contains("attached").then_some(())
        });
        daemon
    }

    /// What it has logged until now.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    pub(crate) fn await_log(&self, text: &str) {
        await_that(text, || self.log().contains(text).then_some(()));
    }

    /// A URL under the name that its certificate has.
    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    /// Tells it to read its configuration again.
    pub(crate) fn hang_up(&self) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: signals our own child, which is not yet awaited.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGHUP) }, 0);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}
