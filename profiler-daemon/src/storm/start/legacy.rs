//! A start by `mount(2)` and `pivot_root(2)`.

use rustix::fs::{CWD, FileType, Mode, mkdirat, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_move, mount_remount, unmount,
};
use rustix::process::{chdir, chroot, pivot_root};

use super::{Failure, Observer, Op, Plan, Step, Tally};
use crate::storm::sys::unshare_mounts;

/// Source of the storm's tmpfs mounts: what a mount table shows for them.
pub(in crate::storm) const TMPFS_SOURCE: &std::ffi::CStr = c"lockprof-storm";

const ONE_MOUNT: Tally =
    Tally { mounts: 1, umounts: 0, pivots: 0, chroots: 0, mountinfo_reads: 0, mountinfo_bytes: 0 };

pub(super) struct Start<'a> {
    pub(super) plan: &'a Plan,
    pub(super) observer: &'a dyn Observer,
}

impl Start<'_> {
    /// Prepares a root, changes to it and takes part of it down.
    pub(super) fn run(&self, dir: &str) -> Result<(), Failure> {
        unshare_mounts().map_err(|e| (Op::Unshare, e))?;
        let everything = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        self.essential_mount(Op::MakePrivate, mount_change("/", everything))?;
        let made = mount(TMPFS_SOURCE, dir, c"tmpfs", MountFlags::empty(), c"mode=755");
        self.essential_mount(Op::RootTmpfs, made)?;
        self.make_targets(dir).map_err(|e| (Op::MakeTargets, e.into()))?;
        for step in &self.plan.steps {
            match carry_out(step) {
                Ok(()) => self.observer.did(ONE_MOUNT),
                Err(error) => self.observer.failed(step.op, &error.into()),
            }
        }
        self.change_root().map_err(|e| (Op::ChangeRoot, e.into()))?;
        self.observer.in_place();
        for target in &self.plan.detach {
            self.count_umount(Op::Detach, unmount(target.as_c_str(), UnmountFlags::DETACH));
        }
        Ok(())
    }

    fn essential_mount(&self, op: Op, result: rustix::io::Result<()>) -> Result<(), Failure> {
        result.map_err(|e| (op, e.into()))?;
        self.observer.did(ONE_MOUNT);
        Ok(())
    }

    fn count_umount(&self, op: Op, result: rustix::io::Result<()>) {
        match result {
            Ok(()) => self.observer.did(Tally { umounts: 1, ..Tally::default() }),
            Err(error) => self.observer.failed(op, &error.into()),
        }
    }

    /// Enters the new root and makes what the plan mounts on.
    fn make_targets(&self, dir: &str) -> rustix::io::Result<()> {
        chdir(dir)?;
        for dir in &self.plan.dirs {
            mkdirat(CWD, dir.as_c_str(), Mode::from_raw_mode(0o755))?;
        }
        for file in &self.plan.files {
            let mode = Mode::from_raw_mode(0o644);
            mknodat(CWD, file.as_c_str(), FileType::RegularFile, mode, 0)?;
        }
        Ok(())
    }

    /// Makes the working directory the root and drops the old one.
    fn change_root(&self) -> rustix::io::Result<()> {
        match pivot_root(c".", c".") {
            Ok(()) => {
                // Both roots are at `.` now, the old one on top.
                self.count_umount(Op::DetachOldRoot, unmount(c".", UnmountFlags::DETACH));
                self.observer.did(Tally { pivots: 1, ..Tally::default() });
            }
            // Before Linux 7.0 the initramfs root cannot be pivoted away from
            // (`pivot_root`, fs/namespace.c: the root must have a parent mount).
            Err(Errno::INVAL) => {
                mount_move(c".", c"/")?;
                chroot(c".")?;
                self.observer.did(Tally { mounts: 1, chroots: 1, ..Tally::default() });
            }
            Err(error) => return Err(error),
        }
        chdir(c"/")
    }
}

/// Makes one `mount(2)` call.
fn carry_out(step: &Step) -> rustix::io::Result<()> {
    let (source, target) = (step.source.as_c_str(), step.target.as_c_str());
    let guarded = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match step.op {
        Op::Tmpfs => mount(TMPFS_SOURCE, target, c"tmpfs", guarded, c"size=64k,mode=755"),
        Op::Mask => {
            let flags = guarded | MountFlags::RDONLY;
            mount(TMPFS_SOURCE, target, c"tmpfs", flags, c"size=4k")
        }
        Op::RemountReadOnly => mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c""),
        Op::BindRecursive => mount_bind_recursive(source, target),
        Op::MakeSlave => {
            let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_change(target, flags)
        }
        // `Op::Bind` and `Op::BindFile`: the plan has nothing else.
        _ => mount_bind(source, target),
    }
}
