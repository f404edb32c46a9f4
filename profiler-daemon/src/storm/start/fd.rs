//! Mounts by file descriptors: each is made, gets its attributes, and is then
//! attached.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::TMPFS_SOURCE;
use super::plan::Fresh;
use super::sys::{Attribute, set_attribute, set_propagation};

/// A string that `fsconfig(2)` takes is at most this long (`strndup_user` of 256
/// bytes in `SYSCALL_DEFINE5(fsconfig)`, fs/fsopen.c).
const LONGEST_STRING: usize = 255;

/// A mount of a new superblock, attached nowhere.
pub(super) fn fresh(what: &Fresh) -> Result<OwnedFd> {
    let context = fsopen(what.filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", TMPFS_SOURCE)?;
    for (name, value) in what.options {
        match value {
            Some(value) => fsconfig_set_string(&context, *name, *value)?,
            None => fsconfig_set_flag(&context, *name)?,
        }
    }
    create(&context, what.attributes)
}

/// An overlayfs, attached nowhere. `lower` are the names of its layers, joined by
/// colons as `mount(2)` takes them.
///
/// All layers go in one string where it is short enough, else one by one: the
/// option for that is there since Linux 6.7 (`lowerdir+`, fs/overlayfs/params.c).
pub(super) fn overlay(lower: &str, upper: &str, work: &str) -> Result<OwnedFd> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"source", TMPFS_SOURCE)?;
    if lower.len() <= LONGEST_STRING {
        fsconfig_set_string(&context, c"lowerdir", lower)?;
    } else {
        for layer in lower.split(':') {
            fsconfig_set_string(&context, c"lowerdir+", layer)?;
        }
    }
    fsconfig_set_string(&context, c"upperdir", upper)?;
    fsconfig_set_string(&context, c"workdir", work)?;
    create(&context, MountAttrFlags::empty())
}

/// Tries whether layers that are too many for one string can be given one by
/// one: makes an overlayfs of two of them, attached nowhere.
///
/// Before Linux 6.5 options are checked when the superblock is made.
pub(super) fn try_layer_names(lower: &str) -> Result<()> {
    if lower.len() <= LONGEST_STRING {
        return Ok(());
    }
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower.split(':').take(2) {
        fsconfig_set_string(&context, c"lowerdir+", layer)?;
    }
    fsconfig_create(&context)
}

fn create(context: &OwnedFd, attributes: MountAttrFlags) -> Result<OwnedFd> {
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A bind mount of `source`, attached nowhere.
pub(super) fn copy(source: &CStr) -> Result<OwnedFd> {
    open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

/// Makes a mount read-only.
pub(super) fn make_read_only(mount: &OwnedFd) -> Result<()> {
    set_attribute(mount.as_fd(), Attribute::ReadOnly)
}

/// Maps the owners of a mount that is attached nowhere.
pub(super) fn map_owners(mount: &OwnedFd, users: BorrowedFd<'_>) -> Result<()> {
    set_attribute(mount.as_fd(), Attribute::MappedBy(users))
}

/// Attaches a mount.
pub(super) fn attach(mount: &OwnedFd, target: &CStr) -> Result<()> {
    move_to(mount, target, MoveMountFlags::empty())
}

/// Attaches a mount below the one that `target` is the root of.
pub(super) fn attach_beneath(mount: &OwnedFd, target: &CStr) -> Result<()> {
    move_to(mount, target, MoveMountFlags::MOVE_MOUNT_BENEATH)
}

fn move_to(mount: &OwnedFd, target: &CStr, flags: MoveMountFlags) -> Result<()> {
    move_mount(mount, c"", CWD, target, flags | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Cuts all mounts of the namespace off from those of others.
pub(super) fn make_private() -> Result<()> {
    set_propagation(libc::MS_PRIVATE)
}

/// Keeps what is mounted in this namespace from going to others.
pub(super) fn make_slave() -> Result<()> {
    set_propagation(libc::MS_SLAVE)
}
