//! The steps of a start, by the names that errors give them.

use std::fmt;

use rustix::io::Errno;

/// Declares [`Op`] with a name for each step.
macro_rules! ops {
    ($($(#[$meta:meta])* $op:ident = $name:literal),+ $(,)?) => {
        /// A step of a start, or of the storm's own making: what an error names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op {
            $($(#[$meta])* $op),+
        }

        impl Op {
            /// All of them, by discriminant.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$op),+];

            /// Name in the summary.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$op => $name),+ }
            }
        }
    };
}

ops! {
    /// `mount(MS_REC | MS_PRIVATE)` of `/`.
    MakePrivate = "make_private",
    /// `mount(MS_REC | MS_SLAVE)` of `/`.
    MakeSlave = "make_slave",
    /// The tmpfs that holds all mount points.
    BaseTmpfs = "base_tmpfs",
    /// A further mount in the storm's own table.
    HostMounts = "host_mounts",
    /// `mount(MS_REC | MS_SHARED)` of `/`, cut off from the host.
    MakeShared = "make_shared",
    /// `fork(2)`.
    Fork = "fork",
    /// `unshare(CLONE_NEWNS)`.
    Unshare = "unshare",
    /// The tmpfs that becomes the root of a start, or holds the upper directory
    /// of the overlayfs that does.
    RootTmpfs = "root_tmpfs",
    /// The overlayfs that becomes the root of a start.
    Overlay = "overlay",
    /// The names of an overlayfs's layers, given one by one.
    LayerNames = "layer_names",
    /// The lower layers that all starts share.
    MakeLayers = "make_layers",
    /// The user namespace that layers are mapped by.
    MakeUserNamespace = "make_user_namespace",
    /// `open_tree(OPEN_TREE_CLONE)` of a layer.
    CloneLayer = "clone_layer",
    /// `mount_setattr(MOUNT_ATTR_IDMAP)` of a layer's clone.
    MapLayer = "map_layer",
    /// `move_mount(2)` of a mapped layer to where the overlayfs finds it.
    AttachLayer = "attach_layer",
    /// `umount2(MNT_DETACH)` of a mapped layer, once the overlayfs has it.
    DetachLayer = "detach_layer",
    /// Directories and files to mount on.
    MakeTargets = "make_targets",
    /// `/dev` or `/dev/shm`.
    Tmpfs = "tmpfs",
    /// `/dev/pts`.
    Devpts = "devpts",
    /// A bind mount of a directory, like a volume.
    Bind = "bind",
    /// A bind mount of a file, like `/etc/hosts`.
    BindFile = "bind_file",
    /// A bind mount made read-only: `MS_REMOUNT | MS_BIND | MS_RDONLY`, or
    /// `mount_setattr(2)`.
    ReadOnly = "read_only",
    /// What covers a masked directory.
    Mask = "mask",
    /// `pivot_root(2)`, or `MS_MOVE` and `chroot(2)` where it cannot be used.
    ChangeRoot = "change_root",
    /// `open_tree(OPEN_TREE_NAMESPACE)` of the root.
    OpenTreeNamespace = "open_tree_namespace",
    /// `setns(CLONE_NEWNS)` into the namespace of the root.
    Setns = "setns",
    /// `move_mount(MOVE_MOUNT_BENEATH)` of the new root below `/`.
    Beneath = "beneath",
    /// `umount2(MNT_DETACH)` of the old root.
    DetachOldRoot = "detach_old_root",
    /// `umount2(MNT_DETACH)` of a mount of the start.
    Detach = "detach",
    /// Removing what mounts went from the start into the storm's own table.
    CleanUp = "clean_up",
    /// Reading `/proc/self/mountinfo`.
    ReadMountinfo = "read_mountinfo",
    /// `listmount(2)` and `statmount(2)`.
    Statmount = "statmount",
    /// `fsopen(2)`, `fsmount(2)` and `move_mount(2)`.
    Fsopen = "fsopen",
    /// `mount_setattr(2)`.
    MountSetattr = "mount_setattr",
    /// What a real runtime needs in the storm's namespaces: /proc of the PID
    /// namespace, and a cgroup hierarchy.
    RuntimeHost = "runtime_host",
    /// `create` of a real runtime.
    RuntimeCreate = "runtime_create",
    /// `start` of a real runtime, and the container's process.
    RuntimeStart = "runtime_start",
    /// `delete` of a real runtime.
    RuntimeDelete = "runtime_delete",
}

/// What a kernel lacks for a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storm) struct Missing {
    /// What.
    pub(in crate::storm) feature: &'static str,
    /// Where it comes from: a version, mostly.
    pub(in crate::storm) needs: &'static str,
    /// What to do.
    pub(in crate::storm) instead: &'static str,
}

impl Op {
    /// What a person can do about it, to go behind the error.
    pub(in crate::storm) const fn hint(self) -> &'static str {
        match self {
            Self::Fork => ": allow more processes (ulimit -u, pids.max) or use less --concurrency",
            Self::Unshare => {
                ": look at /proc/sys/user/max_mnt_namespaces and at the sandbox's seccomp filter"
            }
            // `alloc_mnt_ns` (fs/namespace.c) counts those of detached mounts too.
            Self::OpenTreeNamespace => {
                ": raise /proc/sys/user/max_mnt_namespaces or use less --binds: until it is \
                 attached, each is in a namespace of its own"
            }
            Self::BaseTmpfs | Self::RootTmpfs => {
                ": storm needs tmpfs and one of /tmp, /mnt and /run"
            }
            Self::RuntimeHost => {
                ": a real runtime needs procfs and cgroup2 there; use --runtime builtin"
            }
            Self::MakePrivate | Self::ReadMountinfo => ": storm needs /proc mounted",
            Self::MakeUserNamespace => {
                ": --idmap needs CONFIG_USER_NS, room under /proc/sys/user/max_user_namespaces, \
                 and the user IDs 100000 to 165535 in this user namespace"
            }
            Self::Bind | Self::BindFile => {
                ": if there are too many open files, raise the limit (ulimit -Hn) or use less \
                 --binds: --rootfs open-tree-namespace opens all sources before it leaves"
            }
            Self::Overlay => ": the kernel log says what overlayfs dislikes",
            _ => "",
        }
    }

    /// What the kernel lacks if this step fails with this errno.
    pub(in crate::storm) fn missing(self, errno: i32) -> Option<Missing> {
        let errno = Errno::from_raw_os_error(errno);
        let (feature, needs, instead) = match (self, errno) {
            (Self::Fsopen, Errno::NOSYS) => {
                ("fsopen(2) and move_mount(2)", "Linux 5.2", "use --rootfs legacy")
            }
            (Self::MountSetattr, Errno::NOSYS) => {
                ("mount_setattr(2)", "Linux 5.12", "use --rootfs legacy, without --idmap")
            }
            (Self::OpenTreeNamespace, Errno::INVAL | Errno::NOSYS) => {
                ("open_tree(OPEN_TREE_NAMESPACE)", "Linux 7.0", "use --rootfs fd")
            }
            (Self::Beneath, Errno::INVAL | Errno::NOSYS) => {
                ("move_mount(MOVE_MOUNT_BENEATH) of a root", "Linux 7.1", "use --rootfs fd")
            }
            (Self::Statmount, Errno::NOSYS) => {
                ("listmount(2) and statmount(2)", "Linux 6.8", "use --mount-query mountinfo")
            }
            (Self::MapLayer, Errno::INVAL) => {
                ("an idmapped mount of tmpfs", "Linux 6.3", "leave out --idmap")
            }
            (Self::LayerNames, Errno::INVAL) => (
                "lowerdir+ of overlayfs, for more layers than 88",
                "Linux 6.7",
                "use --rootfs legacy",
            ),
            (Self::Overlay, Errno::NODEV) => {
                ("overlayfs", "CONFIG_OVERLAY_FS (`modprobe overlay`)", "use --layers 0")
            }
            _ => return None,
        };
        Some(Missing { feature, needs, instead })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn operations_are_listed_by_their_discriminant_under_distinct_names() {
        for (i, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, i);
        }
        let names: HashSet<_> = Op::ALL.map(Op::as_str).into_iter().collect();
        assert_eq!(names.len(), Op::ALL.len());
    }

    #[test]
    fn a_missing_feature_is_told_from_another_failure_of_the_same_step() {
        let missing = Op::OpenTreeNamespace.missing(libc::EINVAL).unwrap();
        assert_eq!(missing.needs, "Linux 7.0");
        assert_eq!(Op::OpenTreeNamespace.missing(libc::ENOSPC), None);
        assert_eq!(Op::Overlay.missing(libc::EINVAL), None);
        assert_eq!(Op::Unshare.missing(libc::EINVAL), None);
    }
}
