//! What the storm's own namespaces need before a runtime runs there.

use std::io;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_remount};

/// Where every runtime looks for cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Gives the storm's mount namespace a /proc of the storm's PID namespace, as
/// runtimes look themselves and their containers up there, and a cgroup
/// hierarchy that nothing can be made in.
///
/// A cgroup has no owner that it would end with: those that a runtime makes
/// stay behind when the storm is killed. So they are made by none: runc takes a
/// read-only hierarchy for one that it has no rights to and leaves its
/// containers where they are (`isIgnorableError`,
/// libcontainer/cgroups/fs, and `Apply`, fs2), crun is told so. All hosts show
/// the unified hierarchy here, also those that have the older ones: crun
/// refuses a mixture of both, and a container has the same mounts anywhere.
pub(super) fn adapt() -> io::Result<()> {
    let guarded = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", guarded, None).map_err(|e| named("/proc", e))?;
    // Read-only as a mount, not as a superblock: that is the host's.
    match mount("cgroup2", CGROUPS, "cgroup2", guarded, None) {
        // It is there already: a file system cannot be mounted on itself
        // (`do_add_mount`, fs/namespace.c).
        Ok(()) | Err(Errno::BUSY) => {}
        Err(error) => return Err(named(CGROUPS, error)),
    }
    let read_only = guarded | MountFlags::BIND | MountFlags::RDONLY;
    mount_remount(CGROUPS, read_only, c"").map_err(|e| named(CGROUPS, e))
}

/// The error with the place, as one step mounts at several.
fn named(place: &str, error: Errno) -> io::Error {
    io::Error::other(format!("{place}: {error}"))
}
