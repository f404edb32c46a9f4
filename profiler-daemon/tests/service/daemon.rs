//! A daemon that runs as the unit runs it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::common::LOCKPROF;
use crate::unit;
use crate::user::{self, Executable};

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    log: Receiver<String>,
}

/// The unit's command line with the capabilities of the unit, on a free port.
pub(crate) fn command(config: Option<&Path>) -> (Command, SocketAddr) {
    let executable = Executable::open(LOCKPROF);
    let (mut command, address) = command_of(&executable.path(), &[], config);
    user::confine(&mut command, unit::capabilities());
    // It has to be open when the command is run.
    std::mem::forget(executable);
    (command, address)
}

/// `program` with `before` and then the unit's arguments.
pub(crate) fn command_of(
    program: &str,
    before: &[&str],
    config: Option<&Path>,
) -> (Command, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("loopback has a free port");
    let mut command = Command::new(program);
    command.args(before).args(unit::arguments());
    command.args(["--log-format", "human", "--listen", &address.to_string()]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::null());
    (command, address)
}

/// A configuration file that everybody can read.
pub(crate) fn config(text: &str) -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it can be written");
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).expect("it is ours");
    file
}

impl Daemon {
    /// Runs `command` and waits until it is ready on `address`.
    pub(crate) fn start(mut command: Command, address: SocketAddr) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it can be run");
        let (said, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        let mut daemon = Self { child, address, log };
        let deadline = Instant::now() + Duration::from_secs(120);
        while daemon.try_get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = daemon.child.try_wait().expect("it can be awaited") {
                panic!("the daemon ended with {status}: {}", daemon.rest_of_log());
            }
            assert!(Instant::now() < deadline, "not ready: {}", daemon.rest_of_log());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// Status and body of a GET, or `None` without an answer.
    pub(crate) fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn get(&self, path: &str) -> String {
        let (status, body) = self.try_get(path).expect("the daemon answers");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) fn snapshot(&self) -> lockprof::snapshot::Snapshot {
        serde_json::from_str(&self.get("/api/v1/snapshot")).expect("the documented JSON")
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        signal_to(self.child.id(), signal);
    }

    /// Reads the log up to the line that contains `text`.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.log.recv_timeout(Duration::from_secs(120)) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("no line has `{text}`: {before:#?}"),
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    fn rest_of_log(&self) -> String {
        let pause = Duration::from_millis(200);
        std::iter::from_fn(|| self.log.recv_timeout(pause).ok()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends `signal` to the process `id`, which this test has started.
pub(crate) fn signal_to(id: u32, signal: libc::c_int) {
    let id = libc::pid_t::try_from(id).expect("a pid");
    // SAFETY: signals a process, and takes no pointer.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0, "{}", std::io::Error::last_os_error());
}
