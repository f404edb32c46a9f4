//! What one container-like start mounts: pure data, laid out once and carried
//! out by every start.
//!
//! Targets are relative to the start's root.

use std::ffi::{CStr, CString};

use rustix::mount::MountAttrFlags;

use super::Op;
use crate::storm::strategy::{MaskWith, Strategy};

/// A mount of a new superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storm) struct Fresh {
    /// Its type.
    pub(in crate::storm) filesystem: &'static CStr,
    /// Attributes of the mount.
    pub(in crate::storm) attributes: MountAttrFlags,
    /// Names of options, with values where they have one.
    pub(in crate::storm) options: &'static [(&'static CStr, Option<&'static CStr>)],
}

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const STRICTATIME: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
const RDONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// The root of a start without layers, and what holds the upper directory of one
/// with layers.
pub(in crate::storm) const ROOT: Fresh = Fresh {
    filesystem: c"tmpfs",
    attributes: MountAttrFlags::empty(),
    options: &[(c"mode", Some(c"755"))],
};

/// What covers masked directories.
const MASK: Fresh = Fresh {
    filesystem: c"tmpfs",
    attributes: RDONLY.union(NOSUID).union(NODEV).union(NOEXEC),
    options: &[],
};

/// What every container has, as runc's default specification lists it
/// (`libcontainer/specconv/example.go`), as far as it takes a mount namespace
/// alone: `/proc`, `/dev/mqueue`, `/sys` and `/sys/fs/cgroup` belong to a PID, an
/// IPC, a network and a cgroup namespace, which a start does not make.
const ALWAYS: [(Op, &str, Fresh); 3] = [
    (
        Op::Tmpfs,
        "dev",
        Fresh {
            filesystem: c"tmpfs",
            attributes: NOSUID.union(STRICTATIME),
            options: &[(c"mode", Some(c"755")), (c"size", Some(c"65536k"))],
        },
    ),
    (
        Op::Devpts,
        "dev/pts",
        Fresh {
            filesystem: c"devpts",
            attributes: NOSUID.union(NOEXEC),
            options: &[
                (c"newinstance", None),
                (c"ptmxmode", Some(c"0666")),
                (c"mode", Some(c"0620")),
            ],
        },
    ),
    (
        Op::Tmpfs,
        "dev/shm",
        Fresh {
            filesystem: c"tmpfs",
            attributes: NOSUID.union(NODEV).union(NOEXEC),
            options: &[(c"mode", Some(c"1777")), (c"size", Some(c"65536k"))],
        },
    ),
];

/// Where the source of a bind mount is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storm) enum Source {
    /// Outside of the start, by its absolute path.
    Outside(CString),
    /// Below the start's root.
    Inside(CString),
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storm) enum Action {
    /// Mounts something new.
    Mount(Fresh),
    /// Makes a bind mount, and makes it read-only if so.
    Bind { source: Source, read_only: bool },
    /// Makes a directory in something that an earlier step mounted.
    MakeDirectory,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storm) struct Step {
    /// What an error calls it.
    pub(in crate::storm) op: Op,
    /// The mount point, or the directory.
    pub(in crate::storm) target: CString,
    /// What to do there.
    pub(in crate::storm) action: Action,
}

/// What every start does in its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storm) struct Plan {
    /// Directories that the root has, parents first.
    pub(in crate::storm) dirs: Vec<CString>,
    /// Empty files that the root has.
    pub(in crate::storm) files: Vec<CString>,
    /// In order.
    pub(in crate::storm) steps: Vec<Step>,
    /// Mount points to detach before the end.
    pub(in crate::storm) detach: Vec<CString>,
}

/// What bind mounts show, by absolute paths.
#[derive(Clone, Copy, Debug)]
pub(in crate::storm) struct Sources<'a> {
    pub(in crate::storm) directory: &'a str,
    pub(in crate::storm) file: &'a str,
}

impl Plan {
    /// The plan of a strategy.
    pub(in crate::storm) fn new(strategy: &Strategy, sources: Sources<'_>) -> Self {
        let mut plan = Self::default();
        for dir in ["dev", "volumes", "etc", "masked"] {
            plan.dirs.push(c_string(dir));
        }
        for (op, target, fresh) in ALWAYS {
            if target.contains('/') {
                plan.step(op, target, Action::MakeDirectory);
            }
            plan.step(op, target, Action::Mount(fresh));
        }
        for i in 0..strategy.binds {
            // Files one by one are what `/etc/hosts`, secrets and the like take:
            // a third.
            let (op, target, source) = if i % 3 == 2 {
                (Op::BindFile, format!("etc/{i}"), sources.file)
            } else {
                (Op::Bind, format!("volumes/{i}"), sources.directory)
            };
            let made = if op == Op::BindFile { &mut plan.files } else { &mut plan.dirs };
            made.push(c_string(&target));
            let source = Source::Outside(c_string(source));
            plan.step(op, &target, Action::Bind { source, read_only: i % 2 == 1 });
        }
        for i in 0..strategy.masks {
            let target = format!("masked/{i}");
            plan.dirs.push(c_string(&target));
            // The first of shared ones is what the others show.
            let shared = strategy.mask_with == MaskWith::SharedTmpfs && i > 0;
            let action = if shared {
                Action::Bind { source: Source::Inside(c_string("masked/0")), read_only: false }
            } else {
                Action::Mount(MASK)
            };
            plan.step(Op::Mask, &target, action);
        }
        // Half of the binds and masks is unmounted one by one, as a runtime does
        // when it stops a container; the rest goes with the namespace.
        let own = plan.steps.iter().filter(|step| !step.target.to_bytes().starts_with(b"dev"));
        plan.detach = own.step_by(2).map(|step| step.target.clone()).collect();
        plan
    }

    fn step(&mut self, op: Op, target: &str, action: Action) {
        self.steps.push(Step { op, target: c_string(target), action });
    }
}

/// A path of the plan's own making.
pub(in crate::storm) fn c_string(path: &str) -> CString {
    CString::new(path).expect("the storm's own names have no NUL")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SOURCES: Sources<'_> = Sources { directory: "/s/d", file: "/s/f" };

    fn plan(binds: u32, masks: u32, mask_with: MaskWith) -> Plan {
        Plan::new(&Strategy { binds, masks, mask_with, ..Strategy::default() }, SOURCES)
    }

    fn mounted(plan: &Plan) -> impl Iterator<Item = &Step> {
        plan.steps.iter().filter(|step| step.action != Action::MakeDirectory)
    }

    #[test]
    fn a_plan_has_as_many_binds_and_masks_as_asked_and_every_second_bind_is_read_only() {
        for (binds, masks) in [(0, 0), (1, 1), (12, 8), (1001, 96)] {
            let plan = plan(binds, masks, MaskWith::Tmpfs);
            let count = |op| plan.steps.iter().filter(|step| step.op == op).count();
            assert_eq!(count(Op::Bind) + count(Op::BindFile), binds as usize);
            assert_eq!(count(Op::Mask), masks as usize);
            let read_only =
                |step: &&Step| matches!(step.action, Action::Bind { read_only, .. } if read_only);
            assert_eq!(plan.steps.iter().filter(read_only).count(), binds as usize / 2);
        }
    }

    #[test]
    fn shared_masks_have_one_superblock_and_others_one_each() {
        let fresh = |mask_with| {
            let plan = plan(0, 96, mask_with);
            let is_new = |step: &&Step| step.op == Op::Mask && step.action == Action::Mount(MASK);
            plan.steps.iter().filter(is_new).count()
        };
        assert_eq!((fresh(MaskWith::Tmpfs), fresh(MaskWith::SharedTmpfs)), (96, 1));
    }

    #[test]
    fn every_mount_point_is_made_once_and_before_it_is_used() {
        let plan = plan(500, 50, MaskWith::SharedTmpfs);
        let mut made: HashSet<_> = plan.dirs.iter().chain(&plan.files).collect();
        assert_eq!(made.len(), plan.dirs.len() + plan.files.len(), "a name twice");
        for step in &plan.steps {
            match &step.action {
                Action::MakeDirectory => assert!(made.insert(&step.target), "{step:?}"),
                Action::Bind { source: Source::Inside(source), .. } => {
                    assert!(made.contains(source) && made.contains(&step.target), "{step:?}");
                }
                _ => assert!(made.contains(&step.target), "{step:?}"),
            }
        }
        let targets: HashSet<_> = mounted(&plan).map(|step| &step.target).collect();
        assert_eq!(targets.len(), mounted(&plan).count(), "each at a place of its own");
    }

    #[test]
    fn only_mount_points_are_detached_each_once_and_none_that_others_lie_in() {
        let plan = plan(200, 20, MaskWith::Tmpfs);
        assert_eq!(plan.detach.len(), 110);
        let mut seen = HashSet::new();
        for target in &plan.detach {
            assert!(seen.insert(target), "{target:?} twice");
            assert!(mounted(&plan).any(|step| step.target == *target));
        }
    }
}
