//! The mount table that the storm's own namespace has before the first start.

use std::fs;
use std::io;

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use crate::storm::start::{Failure, Op, TMPFS_SOURCE};
use crate::storm::strategy::{Propagation, Strategy};

/// Existing directories that the storm's tmpfs may cover in its own namespace;
/// the first that is there is taken.
const BASES: [&str; 3] = ["/tmp", "/mnt", "/run"];

/// Below the base: where the further mounts are.
const HOST_MOUNTS: &str = "host";

/// Makes the table of a strategy in a new mount namespace. Returns the directory
/// of the storm, a tmpfs. `must_stop` cuts it short.
pub(super) fn lay_out(
    strategy: &Strategy,
    must_stop: impl Fn() -> bool,
) -> Result<&'static str, Failure> {
    make_private().map_err(|e| (Op::MakePrivate, e))?;
    let base = mount_base().map_err(|e| (Op::BaseTmpfs, e))?;
    add_host_mounts(base, strategy.host_mounts, must_stop)?;
    match strategy.propagation {
        Propagation::Private => {}
        // A slave needs a master: the storm's own table is that of its starts.
        Propagation::Shared | Propagation::Slave => {
            let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
            mount_change("/", shared).map_err(|e| (Op::MakeShared, e.into()))?;
        }
    }
    Ok(base)
}

/// Cuts all mounts of this namespace off from the host's, so that no mount or
/// unmount here shows there, and looks whether that worked.
fn make_private() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let table = fs::read("/proc/self/mountinfo")?;
    match still_propagates(&String::from_utf8_lossy(&table)) {
        // The errno for what a caller must not go on with: mounts are busy
        // with somebody else.
        true => Err(Errno::BUSY.into()),
        false => Ok(()),
    }
}

/// Whether a mount of a mountinfo table (proc_pid_mountinfo(5)) is in a peer
/// group or receives from one. An empty table says nothing, hence counts as
/// such.
fn still_propagates(mountinfo: &str) -> bool {
    mountinfo.is_empty()
        || mountinfo.lines().any(|line| {
            // Optional fields stand between the sixth field and a lone dash.
            line.split(' ')
                .skip(6)
                .take_while(|field| *field != "-")
                .any(|field| field.starts_with("shared:") || field.starts_with("master:"))
        })
}

/// Mounts the tmpfs that holds all mount points of the storm; returns where.
fn mount_base() -> io::Result<&'static str> {
    let base = BASES
        .into_iter()
        .find(|base| fs::metadata(base).is_ok_and(|m| m.is_dir()))
        .ok_or(Errno::NOENT)?;
    mount(TMPFS_SOURCE, base, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=700")?;
    Ok(base)
}

/// Makes `count` bind mounts, each on a directory of its own: a stack of them on
/// one would have to be climbed by every walk to the top.
///
/// The first one binds their source to itself. So the others are made of a mount
/// that has none on it; a bind mount looks at all of those
/// (`has_locked_children`, fs/namespace.c).
fn add_host_mounts(base: &str, count: u32, must_stop: impl Fn() -> bool) -> Result<(), Failure> {
    if count == 0 {
        return Ok(());
    }
    let make = |path: &str| mkdir(path, Mode::RWXU).map_err(|e| (Op::MakeTargets, e.into()));
    let host = format!("{base}/{HOST_MOUNTS}");
    let source = format!("{host}/source");
    let bind = |target: &str| mount_bind(&source, target).map_err(|e| (Op::HostMounts, e.into()));
    make(&host)?;
    make(&source)?;
    bind(&source)?;
    for i in 1..count {
        if must_stop() {
            break;
        }
        let target = format!("{host}/{i}");
        make(&target)?;
        bind(&target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_table_does_not_propagate() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        assert!(!still_propagates(table));
    }

    #[test]
    fn shared_and_slave_mounts_propagate() {
        for field in ["shared:7", "master:1", "unbindable shared:3"] {
            let table = format!("22 27 0:21 / /proc rw,relatime {field} - proc proc rw\n");
            assert!(still_propagates(&table), "{field}");
        }
    }

    #[test]
    fn words_after_the_dash_are_no_propagation() {
        let table = "30 27 0:25 / /mnt rw,relatime - tmpfs shared:1 rw\n";
        assert!(!still_propagates(table));
    }

    #[test]
    fn an_empty_table_is_no_proof() {
        assert!(still_propagates(""));
    }
}
