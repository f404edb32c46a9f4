//! What one container-like start mounts: pure data, laid out once and carried
//! out by every start.
//!
//! All paths are relative to the root of the start's own tmpfs.

use std::ffi::CString;
use std::fmt;

/// A step of a start, or of the storm's own making: what an error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// `mount(MS_REC | MS_PRIVATE)` of `/`.
    MakePrivate,
    /// The tmpfs that holds all mount points.
    BaseTmpfs,
    /// A further mount in the storm's own table.
    HostMounts,
    /// `mount(MS_REC | MS_SHARED)` of `/`, cut off from the host.
    MakeShared,
    /// `fork(2)`.
    Fork,
    /// `unshare(CLONE_NEWNS)`.
    Unshare,
    /// The tmpfs that becomes the root of a start.
    RootTmpfs,
    /// Directories and files to mount on.
    MakeTargets,
    /// A tmpfs with a size limit, like `/dev/shm`.
    Tmpfs,
    /// A bind mount of a directory, like a volume.
    Bind,
    /// A bind mount of a file, like `/etc/hosts`.
    BindFile,
    /// `MS_REMOUNT | MS_BIND | MS_RDONLY` of a bind mount.
    RemountReadOnly,
    /// An empty read-only tmpfs over a directory, like a masked path.
    Mask,
    /// `MS_BIND | MS_REC` of a directory with mounts in it.
    BindRecursive,
    /// `MS_REC | MS_SLAVE` of a recursive bind mount.
    MakeSlave,
    /// `pivot_root(2)`, or `MS_MOVE` and `chroot(2)` where it cannot be used.
    ChangeRoot,
    /// `umount2(MNT_DETACH)` of the old root.
    DetachOldRoot,
    /// `umount2(MNT_DETACH)` of a mount of the start.
    Detach,
    /// Reading `/proc/self/mountinfo`.
    ReadMountinfo,
}

impl Op {
    /// All of them, by discriminant.
    pub const ALL: [Self; 19] = [
        Self::MakePrivate,
        Self::BaseTmpfs,
        Self::HostMounts,
        Self::MakeShared,
        Self::Fork,
        Self::Unshare,
        Self::RootTmpfs,
        Self::MakeTargets,
        Self::Tmpfs,
        Self::Bind,
        Self::BindFile,
        Self::RemountReadOnly,
        Self::Mask,
        Self::BindRecursive,
        Self::MakeSlave,
        Self::ChangeRoot,
        Self::DetachOldRoot,
        Self::Detach,
        Self::ReadMountinfo,
    ];

    /// Name in the summary.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MakePrivate => "make_private",
            Self::BaseTmpfs => "base_tmpfs",
            Self::HostMounts => "host_mounts",
            Self::MakeShared => "make_shared",
            Self::Fork => "fork",
            Self::Unshare => "unshare",
            Self::RootTmpfs => "root_tmpfs",
            Self::MakeTargets => "make_targets",
            Self::Tmpfs => "tmpfs",
            Self::Bind => "bind",
            Self::BindFile => "bind_file",
            Self::RemountReadOnly => "remount_ro",
            Self::Mask => "mask",
            Self::BindRecursive => "bind_recursive",
            Self::MakeSlave => "make_slave",
            Self::ChangeRoot => "change_root",
            Self::DetachOldRoot => "detach_old_root",
            Self::Detach => "detach",
            Self::ReadMountinfo => "read_mountinfo",
        }
    }

    /// What a person can do about it, to go behind the error.
    pub(in crate::storm) const fn hint(self) -> &'static str {
        match self {
            Self::Fork => ": allow more processes (ulimit -u, pids.max) or use less --concurrency",
            Self::Unshare => {
                ": look at /proc/sys/user/max_mnt_namespaces and at the sandbox's seccomp filter"
            }
            Self::BaseTmpfs | Self::RootTmpfs => {
                ": storm needs tmpfs and one of /tmp, /mnt and /run"
            }
            Self::MakePrivate | Self::ReadMountinfo => ": storm needs /proc mounted",
            _ => "",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One `mount(2)` call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storm) struct Step {
    /// What sort of mount.
    pub(in crate::storm) op: Op,
    /// Source of a bind mount; empty otherwise.
    pub(in crate::storm) source: CString,
    /// Mount point.
    pub(in crate::storm) target: CString,
}

/// What every start does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storm) struct Plan {
    /// Directories to make, parents first.
    pub(in crate::storm) dirs: Vec<CString>,
    /// Empty files to make.
    pub(in crate::storm) files: Vec<CString>,
    /// `mount(2)` calls, in order.
    pub(in crate::storm) steps: Vec<Step>,
    /// Mount points to detach before the end.
    pub(in crate::storm) detach: Vec<CString>,
}

/// The order in which the sorts of mount come round.
///
/// A recursive bind copies the directory bind mounts of its round-trip only
/// (see [`VOLUMES_PER_GROUP`]).
const MIX: [Op; 8] = [
    Op::Tmpfs,
    Op::Bind,
    Op::RemountReadOnly,
    Op::BindFile,
    Op::Mask,
    Op::Bind,
    Op::BindRecursive,
    Op::MakeSlave,
];

/// Bind mounts below one directory, so that the recursive binds of a start with
/// thousands of mounts do not copy ever larger trees.
const VOLUMES_PER_GROUP: u32 = 8;

impl Plan {
    /// A plan of `mounts` calls.
    pub(in crate::storm) fn new(mounts: u32) -> Self {
        let mut plan =
            Self { dirs: Vec::new(), files: Vec::new(), steps: Vec::new(), detach: Vec::new() };
        for dir in ["layer", "run", "mask", "volumes", "volumes/0", "copies", "etc"] {
            plan.dir(dir.to_owned());
        }
        plan.file("hosts".to_owned());
        let mut volumes = 0;
        let mut group = "volumes/0".to_owned();
        let (mut bound, mut copied) = (CString::default(), CString::default());
        for (i, op) in (0..mounts).zip(MIX.into_iter().cycle()) {
            let (source, target) = match op {
                Op::Tmpfs => (CString::default(), plan.dir(format!("run/{i}"))),
                Op::Mask => (CString::default(), plan.dir(format!("mask/{i}"))),
                Op::Bind => {
                    if volumes > 0 && volumes % VOLUMES_PER_GROUP == 0 {
                        group = format!("volumes/{}", volumes / VOLUMES_PER_GROUP);
                        plan.dir(group.clone());
                    }
                    volumes += 1;
                    bound = plan.dir(format!("{group}/{i}"));
                    (c_string("layer".to_owned()), bound.clone())
                }
                Op::BindFile => (c_string("hosts".to_owned()), plan.file(format!("etc/{i}"))),
                Op::BindRecursive => {
                    copied = plan.dir(format!("copies/{i}"));
                    (c_string(group.clone()), copied.clone())
                }
                Op::MakeSlave => (CString::default(), copied.clone()),
                // The rest of `MIX`: a remount of the last bind mount.
                _ => (CString::default(), bound.clone()),
            };
            // Half of what a start made is unmounted one by one, as a runtime
            // does when it stops a container; the rest goes with the namespace.
            let adds_a_mount = !matches!(op, Op::RemountReadOnly | Op::MakeSlave);
            if adds_a_mount && i % 2 == 0 {
                plan.detach.push(target.clone());
            }
            plan.steps.push(Step { op, source, target });
        }
        plan
    }

    fn dir(&mut self, path: String) -> CString {
        let path = c_string(path);
        self.dirs.push(path.clone());
        path
    }

    fn file(&mut self, path: String) -> CString {
        let path = c_string(path);
        self.files.push(path.clone());
        path
    }
}

fn c_string(path: String) -> CString {
    CString::new(path).expect("the plan's own names have no NUL")
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
        assert_eq!(Op::ALL.map(Op::as_str).into_iter().collect::<HashSet<_>>().len(), 19);
    }

    #[test]
    fn a_plan_makes_as_many_calls_as_asked() {
        for mounts in [0, 1, 2, 3, 40, 1000] {
            assert_eq!(Plan::new(mounts).steps.len(), mounts as usize);
        }
    }

    #[test]
    fn the_default_start_has_every_sort_of_mount() {
        let plan = Plan::new(40);
        for op in MIX {
            assert!(plan.steps.iter().any(|s| s.op == op), "{op}");
        }
        assert!(!plan.detach.is_empty());
    }

    #[test]
    fn every_mount_point_and_source_is_made_before_it_is_used() {
        for mounts in [1, 7, 40, 500] {
            let plan = Plan::new(mounts);
            let made: HashSet<_> = plan.dirs.iter().chain(&plan.files).collect();
            for step in &plan.steps {
                assert!(made.contains(&step.target), "{step:?}");
                assert!(step.source.is_empty() || made.contains(&step.source), "{step:?}");
            }
            assert_eq!(made.len(), plan.dirs.len() + plan.files.len(), "a name twice");
        }
    }

    #[test]
    fn only_mount_points_of_their_own_are_detached_each_once() {
        let plan = Plan::new(200);
        let mut seen = HashSet::new();
        for target in &plan.detach {
            assert!(seen.insert(target), "{target:?} twice");
            let step = plan.steps.iter().find(|s| &s.target == target).unwrap();
            assert!(!matches!(step.op, Op::RemountReadOnly | Op::MakeSlave));
        }
    }

    #[test]
    fn recursive_binds_copy_at_most_a_group_of_volumes() {
        let plan = Plan::new(5000);
        let mut binds_by_group = std::collections::HashMap::<String, u32>::new();
        for step in plan.steps.iter().filter(|s| s.op == Op::Bind) {
            let target = step.target.to_str().unwrap();
            *binds_by_group.entry(target.rsplit_once('/').unwrap().0.to_owned()).or_default() += 1;
        }
        assert!(binds_by_group.values().all(|n| *n <= VOLUMES_PER_GROUP));
    }
}
