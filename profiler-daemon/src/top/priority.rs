//! Staying alive on a machine that is short of CPU and memory.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{getpriority_process, setpriority_process};

use super::TopError;

/// Nice value on the screen's and the readers' threads: ahead of the load, behind
/// what the system itself runs at -20.
const NICE: i32 = -10;

/// Raises the priority of the calling thread, and of the threads that it starts
/// from now on, if that is allowed (`CAP_SYS_NICE` or `RLIMIT_NICE`). It is fine
/// if it is not.
pub(super) fn raise() {
    if getpriority_process(None).is_ok_and(|nice| nice > NICE) {
        let _ = setpriority_process(None, NICE);
    }
}

/// Keeps all memory of this process, that of now and of later, from being paged
/// out.
///
/// # Errors
///
/// It is not allowed.
pub fn lock_memory() -> Result<(), TopError> {
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|errno| TopError::MemoryNotLocked(errno.into()))
}
