//! Sockets that a service manager passes.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use crate::common::{self, LOCKPROF};
use crate::daemon::{self, Daemon};
use crate::{needs_bpf, unit};

/// The daemon with `sockets` from descriptor 3 on, as sd_listen_fds(3) has it.
fn with_sockets(sockets: &[RawFd], listen: &str, config: Option<&std::path::Path>) -> Command {
    // The shell knows the process id that the daemon will have.
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh", LOCKPROF]);
    command.args(unit::arguments()).args(["--listen", listen, "--log-format", "human"]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command.env("LISTEN_FDS", sockets.len().to_string()).stdin(Stdio::null());
    let sockets = sockets.to_vec();
    let first = 3;
    // SAFETY: between fork and exec, and makes system calls alone.
    unsafe {
        command.pre_exec(move || {
            // Out of the way first, as one may have the number of another.
            let mut moved = [0; 4];
            for (place, socket) in moved.iter_mut().zip(&sockets) {
                *place = libc::fcntl(*socket, libc::F_DUPFD_CLOEXEC, 50);
            }
            for (number, place) in (first..).zip(moved.iter().take(sockets.len())) {
                if *place < 0 || libc::dup2(*place, number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        })
    };
    command
}

fn refused(sockets: &[RawFd]) -> String {
    let Output { status, stderr, .. } =
        with_sockets(sockets, "127.0.0.1:0", None).output().expect("it can be run");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{said}");
    said
}

#[test]
fn a_passed_socket_takes_the_place_of_the_address_and_stays_when_that_changes() {
    needs_bpf!("a_passed_socket_takes_the_place_of_the_address_and_stays_when_that_changes");
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = elsewhere.local_addr().expect("bound").to_string();
    let config = daemon::config("");
    // The address of the settings is taken: it would fail if it were tried.
    let command = with_sockets(&[socket.as_raw_fd()], &taken, Some(config.path()));
    let mut daemon = Daemon::start(command, address);
    let said = daemon.wait_for("serving on the socket that was passed");
    assert!(said.contains(&address.to_string()), "{said}");

    let fdinfo = format!("/proc/{}/fdinfo/3", daemon.child.id());
    let flags = std::fs::read_to_string(fdinfo).expect("the socket has the number 3");
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
    assert_ne!(flags & libc::O_CLOEXEC, 0, "programs that are executed do not get it");

    std::fs::write(config.path(), "[metrics]\ncontainers = 1\n").expect("it can be written");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("reloaded");
    daemon.get("/metrics");
    daemon.signal(libc::SIGTERM);
    assert!(daemon.end().success());

    // Whoever opened it has it still: scrapes wait for the next daemon.
    drop(daemon);
    let again = with_sockets(&[socket.as_raw_fd()], &taken, Some(config.path()));
    Daemon::start(again, address).get("/metrics");
}

#[test]
fn other_sockets_and_more_than_one_are_refused_with_what_to_change() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let said = refused(&[tcp.as_raw_fd(), udp.as_raw_fd()]);
    assert!(said.contains("2 sockets") && said.contains("lockprof.socket"), "{said}");
    let said = refused(&[udp.as_raw_fd()]);
    assert!(said.contains("datagram") && said.contains("ListenStream="), "{said}");
}

#[test]
fn variables_for_another_process_are_none_of_its_business() {
    needs_bpf!("variables_for_another_process_are_none_of_its_business");
    let (mut command, address) = daemon::command_of(LOCKPROF, &[], None);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    Daemon::start(command, address).get("/healthz");
}

#[test]
fn the_socket_unit_has_the_one_address_that_is_the_default() {
    let addresses = unit::values(unit::SOCKET, "ListenStream");
    let default = lockprof::cli::Settings::default().listen.to_string();
    assert_eq!(addresses, [default.as_str()]);
}
