//! Mounts by `mount(2)`.

use std::ffi::{CStr, CString};

use rustix::io::Result;
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, mount, mount_bind, mount_change,
    mount_remount,
};

use super::TMPFS_SOURCE;
use super::plan::Fresh;

/// Mounts a new superblock.
pub(super) fn fresh(what: &Fresh, target: &CStr) -> Result<()> {
    let mut data = Vec::new();
    for (name, value) in what.options {
        if !data.is_empty() {
            data.push(b',');
        }
        data.extend_from_slice(name.to_bytes());
        if let Some(value) = value {
            data.push(b'=');
            data.extend_from_slice(value.to_bytes());
        }
    }
    let data = CString::new(data).expect("made of strings without NUL");
    mount(TMPFS_SOURCE, target, what.filesystem, flags(what.attributes), data.as_c_str())
}

/// The same as flags of `mount(2)`.
fn flags(attributes: MountAttrFlags) -> MountFlags {
    let mut flags = MountFlags::empty();
    for (attribute, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
    ] {
        flags.set(flag, attributes.contains(attribute));
    }
    flags
}

/// Mounts an overlayfs; `data` names its directories.
pub(super) fn overlay(data: &CStr, target: &CStr) -> Result<()> {
    mount(TMPFS_SOURCE, target, c"overlay", MountFlags::empty(), data)
}

/// Makes a bind mount.
pub(super) fn bind(source: &CStr, target: &CStr) -> Result<()> {
    mount_bind(source, target)
}

/// Makes a bind mount read-only, which takes a call of its own: `MS_BIND` ignores
/// all other flags (`do_loopback`, fs/namespace.c).
pub(super) fn make_read_only(target: &CStr) -> Result<()> {
    mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"")
}

/// Cuts all mounts of the namespace off from those of others.
pub(super) fn make_private() -> Result<()> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Keeps what is mounted in this namespace from going to others.
pub(super) fn make_slave() -> Result<()> {
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_has_its_flag() {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
        assert_eq!(flags(attributes), MountFlags::RDONLY | MountFlags::NODEV);
        assert_eq!(flags(MountAttrFlags::empty()), MountFlags::empty());
    }
}
