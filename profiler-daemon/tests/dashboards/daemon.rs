//! `lockprof daemon` on a free port, and what it says.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::LOCKPROF;

/// How long a server may take to get ready.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has a free port")
}

/// A child that is killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts it and waits until `ready` is answered.
    pub(crate) fn start(command: &mut Command, address: SocketAddr, ready: &str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut server = Self { child: child.spawn().expect("it can be run"), address };
        // Read all the while: a server that logs more than the pipe holds would stop.
        let mut stderr = server.child.stderr.take().expect("piped");
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            said
        });
        let deadline = Instant::now() + PATIENCE;
        while server.get(ready).is_err() {
            if let Some(status) = server.child.try_wait().expect("it can be awaited") {
                panic!("it ended with {status}: {}", said.join().expect("text"));
            }
            assert!(Instant::now() < deadline, "not ready after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// The body of the answer to a GET.
    pub(crate) fn get(&self, path: &str) -> Result<String, ureq::Error> {
        ureq::get(format!("http://{}{path}", self.address)).call()?.body_mut().read_to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon with the default configuration.
pub(crate) fn daemon() -> Server {
    let address = free_address();
    let mut command = Command::new(LOCKPROF);
    command.args(["daemon", "--listen", &address.to_string()]);
    Server::start(&mut command, address, "/readyz")
}
