//! What workers and readers do, over and over: a container-like start, or a
//! read of the mount table.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mkdirat, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_move, mount_remount, unmount,
};
use rustix::process::{WaitOptions, chdir, chroot, pivot_root, waitpid};

use super::plan::{Op, Step};
use super::shared::Record;
use super::supervisor::{Supervisor, TMPFS_SOURCE, name_process};
use super::sys::{Forked, exit, fork, unshare_mounts};

type StepResult = Result<(), (Op, io::Error)>;

/// Exit status of a start that failed and has said so.
const FAILED: i32 = 1;

/// Starts one container after the other below `dir` until told to stop.
pub(super) fn start_containers(storm: &Supervisor<'_>, dir: &str) {
    while !storm.counters.must_stop() {
        let forked_at = Instant::now();
        match fork() {
            Ok(Forked::Child) => {
                name_process(c"storm-start");
                let mut start = Start { storm, mounts: 0, umounts: 0 };
                let end = start.run(dir, forked_at);
                start.count();
                if let Err((op, error)) = end {
                    storm.counters.failed_starts.fetch_add(1, Ordering::Relaxed);
                    storm.report_failure(op, &error);
                    exit(FAILED);
                }
                exit(0)
            }
            Ok(Forked::Parent(pid)) => loop {
                match waitpid(Some(pid), WaitOptions::empty()) {
                    Err(Errno::INTR) => {}
                    Ok(Some((_, status))) if !matches!(status.exit_status(), Some(0 | FAILED)) => {
                        storm.count_lost();
                        break;
                    }
                    _ => break,
                }
            },
            Err(error) => {
                storm.report_failure(Op::Fork, &error);
                return;
            }
        }
    }
}

/// Reads the mount table, in a namespace that has the host's mounts, until told
/// to stop.
pub(super) fn read_mountinfo(storm: &Supervisor<'_>) {
    if let Err(error) = unshare_mounts() {
        return storm.report_failure(Op::Unshare, &error);
    }
    let mut buffer = vec![0; 64 * 1024];
    while !storm.counters.must_stop() {
        match read_once(&mut buffer) {
            Ok(bytes) => {
                storm.counters.mountinfo_reads.fetch_add(1, Ordering::Relaxed);
                storm.counters.mountinfo_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => return storm.report_failure(Op::ReadMountinfo, &error),
        }
    }
}

/// Opens and reads the whole table, as runtimes and agents do; its bytes.
fn read_once(buffer: &mut [u8]) -> io::Result<u64> {
    let mut table = File::open("/proc/self/mountinfo")?;
    let mut bytes = 0;
    loop {
        match table.read(buffer)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

/// One start, in a process of its own. Its mounts end with it.
struct Start<'a> {
    storm: &'a Supervisor<'a>,
    mounts: u64,
    umounts: u64,
}

impl Start<'_> {
    /// Prepares a root, changes to it and takes part of it down. Fails only
    /// when a step that the rest needs fails; any other is counted.
    fn run(&mut self, dir: &str, forked_at: Instant) -> StepResult {
        unshare_mounts().map_err(|e| (Op::Unshare, e))?;
        let everything = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        self.essential_mount(Op::MakePrivate, mount_change("/", everything))?;
        let made = mount(TMPFS_SOURCE, dir, c"tmpfs", MountFlags::empty(), c"mode=755");
        self.essential_mount(Op::RootTmpfs, made)?;
        self.make_targets(dir).map_err(|e| (Op::MakeTargets, e.into()))?;
        for step in &self.storm.plan.steps {
            match carry_out(step) {
                Ok(()) => self.mounts += 1,
                Err(error) => self.storm.counters.count_error(step.op, &error.into()),
            }
        }
        self.change_root().map_err(|e| (Op::ChangeRoot, e.into()))?;
        let latency_ns = u64::try_from(forked_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.storm.send(Record::Started { latency_ns });
        for target in &self.storm.plan.detach {
            self.count_umount(Op::Detach, unmount(target.as_c_str(), UnmountFlags::DETACH));
        }
        Ok(())
    }

    fn essential_mount(&mut self, op: Op, result: rustix::io::Result<()>) -> StepResult {
        result.map_err(|e| (op, e.into()))?;
        self.mounts += 1;
        Ok(())
    }

    fn count_umount(&mut self, op: Op, result: rustix::io::Result<()>) {
        match result {
            Ok(()) => self.umounts += 1,
            Err(error) => self.storm.counters.count_error(op, &error.into()),
        }
    }

    /// Enters the new root and makes what the plan mounts on.
    fn make_targets(&self, dir: &str) -> rustix::io::Result<()> {
        chdir(dir)?;
        for dir in &self.storm.plan.dirs {
            mkdirat(CWD, dir.as_c_str(), Mode::from_raw_mode(0o755))?;
        }
        for file in &self.storm.plan.files {
            let mode = Mode::from_raw_mode(0o644);
            mknodat(CWD, file.as_c_str(), FileType::RegularFile, mode, 0)?;
        }
        Ok(())
    }

    /// Makes the working directory the root and drops the old one.
    fn change_root(&mut self) -> rustix::io::Result<()> {
        let counters = self.storm.counters;
        match pivot_root(c".", c".") {
            Ok(()) => {
                // Both roots are at `.` now, the old one on top.
                self.count_umount(Op::DetachOldRoot, unmount(c".", UnmountFlags::DETACH));
                counters.pivots.fetch_add(1, Ordering::Relaxed);
            }
            // Before Linux 7.0 the initramfs root cannot be pivoted away from
            // (`pivot_root`, fs/namespace.c: the root must have a parent mount).
            Err(Errno::INVAL) => {
                mount_move(c".", c"/")?;
                self.mounts += 1;
                chroot(c".")?;
                counters.chroots.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        chdir(c"/")
    }

    /// Adds what this start did to the totals.
    fn count(&self) {
        self.storm.counters.mounts.fetch_add(self.mounts, Ordering::Relaxed);
        self.storm.counters.umounts.fetch_add(self.umounts, Ordering::Relaxed);
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
