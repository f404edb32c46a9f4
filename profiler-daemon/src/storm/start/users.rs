//! The user namespace that layers are mapped by.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::UnshareFlags;

use crate::storm::sys::{Forked, exit, fork};

/// IDs 0 to 65535 of the container are 100000 to 165535 outside: what an entry of
/// `/etc/subuid` usually gives.
const MAP: &str = "0 100000 65536\n";

/// Makes a user namespace with this map. It lives as long as its descriptor, and
/// what is mounted by it.
pub(super) fn new_user_namespace() -> io::Result<OwnedFd> {
    let (name, name_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let (end, end_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = match fork()? {
        Forked::Child => {
            drop((name, end_in));
            let made = member(name_in, end);
            exit(made.err().and_then(|error| error.raw_os_error()).unwrap_or(0));
        }
        Forked::Parent(child) => child,
    };
    drop((name_in, end));
    let opened = open(name);
    // The child ends when it sees this.
    drop(end_in);
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Ok(Some((_, status))) => break status.exit_status(),
            _ => break None,
        }
    };
    match status {
        Some(0) => opened,
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(Errno::CHILD.into()),
    }
}

/// Stays in a new user namespace until `end` is closed.
fn member(name: OwnedFd, end: OwnedFd) -> io::Result<()> {
    // SAFETY: file descriptors stay as they are; the process has one thread and
    // only goes on to tell its name.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?;
    // The pid as /proc has it, which may be that of an outer PID namespace.
    let pid = fs::read_link("/proc/self")?;
    File::from(name).write_all(pid.as_os_str().as_encoded_bytes())?;
    File::from(end).read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Gives the namespace of the process that is named its map, and opens it.
fn open(name: OwnedFd) -> io::Result<OwnedFd> {
    let mut pid = String::new();
    File::from(name).read_to_string(&mut pid)?;
    let process = format!("/proc/{pid}");
    fs::write(format!("{process}/uid_map"), MAP)?;
    fs::write(format!("{process}/gid_map"), MAP)?;
    File::open(format!("{process}/ns/user")).map(OwnedFd::from)
}
