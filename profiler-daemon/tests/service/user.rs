//! Running a program as the unit does: as an ordinary user, with few capabilities
//! and no way to get more.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// `nobody` of every distribution, and a number alone where there is no name.
pub(crate) const NOBODY: u32 = 65534;

/// The lowest descriptor that [`Executable`] may have: above all that a test passes.
const FROM: libc::c_int = 100;

/// A program that an ordinary user can execute wherever it lies: by a descriptor
/// that is open.
pub(crate) struct Executable(OwnedFd);

impl Executable {
    /// Opens the program at `path`.
    pub(crate) fn open(path: &str) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // SAFETY: takes no pointer; the descriptor that it returns is ours.
        let fd = unsafe {
            let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, FROM);
            assert!(fd >= FROM, "{path}: {}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        Self(fd)
    }

    /// Its path in processes that inherit the descriptor.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// Whether this process may run programs as somebody else.
pub(crate) fn may_change_user() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes `command` run as [`NOBODY`] with `capabilities` and nothing else, as
/// `User=`, `AmbientCapabilities=`, `CapabilityBoundingSet=`, `NoNewPrivileges=` and
/// `LimitMEMLOCK=` do.
pub(crate) fn confine(command: &mut Command, capabilities: CapabilitySet) -> &mut Command {
    assert_eq!(crate::unit::value("LimitMEMLOCK"), "infinity");
    // SAFETY: between fork and exec, and makes system calls alone.
    unsafe { command.pre_exec(move || Ok(become_nobody(capabilities)?)) }
}

fn become_nobody(capabilities: CapabilitySet) -> rustix::io::Result<()> {
    match setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }) {
        // Nobody may raise it where the tests have no CAP_SYS_RESOURCE; only kernels
        // before 5.11 charge arrays to it, and there the test itself would fail.
        Err(rustix::io::Errno::PERM) => {}
        raised => raised?,
    }
    let each = || (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for other in each().filter(|one| !capabilities.contains(*one)) {
        match remove_capability_from_bounding_set(other) {
            // Numbers beyond the last one.
            Err(rustix::io::Errno::INVAL) => break,
            dropped => dropped?,
        }
    }
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    let group = rustix::process::Gid::from_raw(NOBODY);
    set_thread_res_gid(group, group, group)?;
    let user = rustix::process::Uid::from_raw(NOBODY);
    set_thread_res_uid(user, user, user)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: capabilities,
            permitted: capabilities,
            inheritable: capabilities,
        },
    )?;
    for one in each().filter(|one| capabilities.contains(*one)) {
        configure_capability_in_ambient_set(one, true)?;
    }
    set_no_new_privs(true)
}
