//! What the daemon tells the service manager, by a real socket.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use crate::common;
use crate::daemon::{self, Daemon};
use crate::needs_bpf;

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message, as lines.
    fn next(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()
    }

    /// The next message that has `line`, and all that came before it.
    fn until(&self, line: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let mut before = Vec::new();
        loop {
            let message = self.next();
            if message.iter().any(|has| has == line) {
                return (message, before);
            }
            before.push(message);
        }
    }
}

fn has(messages: &[Vec<String>], start: &str) -> bool {
    messages.iter().flatten().any(|line| line.starts_with(start))
}

#[test]
fn start_reload_progress_and_stop_are_told_in_order() {
    needs_bpf!("start_reload_progress_and_stop_are_told_in_order");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket"));
    manager.0.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    let config = daemon::config("");
    let (mut command, address) = daemon::command_of(common::LOCKPROF, &[], Some(config.path()));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000").stderr(Stdio::null());
    let mut daemon = Daemon::start(command, address);

    let (ready, before) = manager.until("READY=1");
    assert!(has(&before, "EXTEND_TIMEOUT_USEC="), "{before:?}");
    assert!(!has(&before, "WATCHDOG=1"), "nothing was read yet: {before:?}");
    assert!(has(std::slice::from_ref(&ready), "STATUS=watching "), "{ready:?}");

    // Without anybody who scrapes.
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }

    daemon.signal(libc::SIGHUP);
    let (reloading, _) = manager.until("RELOADING=1");
    assert!(has(std::slice::from_ref(&reloading), "MONOTONIC_USEC="), "{reloading:?}");
    manager.until("READY=1");

    // Settings that are wrong do not leave the unit reloading forever.
    std::fs::write(config.path(), "nonsense = 1\n").expect("it can be written");
    daemon.signal(libc::SIGHUP);
    manager.until("RELOADING=1");
    manager.until("READY=1");

    daemon.signal(libc::SIGTERM);
    manager.until("STOPPING=1");
    assert!(daemon.end().success());
}

#[test]
fn a_daemon_that_stands_still_reports_nothing() {
    needs_bpf!("a_daemon_that_stands_still_reports_nothing");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket"));
    manager.0.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    let (mut command, address) = daemon::command_of(common::LOCKPROF, &[], None);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000").stderr(Stdio::null());
    let mut daemon = Daemon::start(command, address);
    manager.until("WATCHDOG=1");

    daemon.signal(libc::SIGSTOP);
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.child.id()));
        stat.expect("our own child").rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'))
    };
    while state() != Some(true) {
        std::thread::yield_now();
    }
    manager.0.set_nonblocking(true).expect("it can be");
    let mut message = [0; 4096];
    while manager.0.recv(&mut message).is_ok() {}
    // Several periods of what it was told to report in.
    std::thread::sleep(Duration::from_secs(2));
    assert!(manager.0.recv(&mut message).is_err(), "{}", String::from_utf8_lossy(&message));

    manager.0.set_nonblocking(false).expect("it can be");
    daemon.signal(libc::SIGCONT);
    manager.until("WATCHDOG=1");
    daemon.signal(libc::SIGTERM);
    assert!(daemon.end().success());
}
