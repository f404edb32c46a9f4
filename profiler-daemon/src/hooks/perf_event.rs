//! Perf events that run a BPF program.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::perf_event_attr;

const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
const PERF_FLAG_FD_CLOEXEC: u32 = 8;

/// Whose events count.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// Those of all tasks on this CPU.
    Cpu(u32),
    /// Those of this thread.
    ThisThread,
}

/// An attribute with nothing but its size.
pub(super) fn attribute() -> perf_event_attr {
    // SAFETY: a plain C struct of integers, for which zeros are valid.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.size = u32::try_from(size_of::<perf_event_attr>()).unwrap_or(0);
    attr
}

/// Opens the event.
///
/// # Errors
///
/// Those of perf_event_open(2).
pub(super) fn open(attr: &perf_event_attr, scope: Scope) -> io::Result<OwnedFd> {
    let (pid, cpu): (libc::pid_t, libc::c_int) = match scope {
        Scope::Cpu(cpu) => (-1, libc::c_int::try_from(cpu).unwrap_or(libc::c_int::MAX)),
        Scope::ThisThread => (0, -1),
    };
    let group: libc::c_int = -1;
    // SAFETY: `attr` outlives the call and has the size it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attr),
            pid,
            cpu,
            group,
            libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a descriptor that the kernel just gave us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the event run `program` from now on, until it is closed.
///
/// # Errors
///
/// The kernel does not take the program for this event.
pub(super) fn run(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    ioctl(event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
    ioctl(event, PERF_EVENT_IOC_ENABLE, 0)
}

fn ioctl(event: &OwnedFd, request: libc::Ioctl, argument: i32) -> io::Result<()> {
    // SAFETY: both requests take an integer.
    if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
