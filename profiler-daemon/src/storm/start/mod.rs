//! What one container-like start does, by strategy.
//!
//! - `op`: the steps, as errors name them;
//! - `plan`: the mounts of every start, as data, laid out once;
//! - `run`: a start, step by step;
//! - `classic`, `fd`: mounts by `mount(2)` and by file descriptors;
//! - `layers`, `users`: an overlayfs as root, and what its layers are mapped by;
//! - `table`: asking for the mount table;
//! - `probe`: whether the kernel has what a strategy takes;
//! - `sys`: system calls that rustix does not wrap.

mod classic;
mod fd;
mod layers;
mod op;
mod plan;
mod probe;
mod run;
mod sys;
mod table;
mod users;

use std::ffi::CStr;
use std::fs;
use std::io;
use std::ops::Add;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::layers::Layers;
pub(in crate::storm) use self::op::Missing;
pub use self::op::Op;
use self::plan::{Plan, Sources};
use self::run::Start;
pub(in crate::storm) use self::table::Table;
use super::strategy::{RootFs, Strategy};

/// Source of the storm's mounts: what a mount table shows for them.
pub(in crate::storm) const TMPFS_SOURCE: &CStr = c"lockprof-storm";

/// A step that failed, and why.
pub(in crate::storm) type Failure = (Op, io::Error);

/// Whoever wants to know how a start goes.
pub(in crate::storm) trait Observer {
    /// Something was done.
    fn did(&self, done: Tally);
    /// A step failed that the rest does not need.
    fn failed(&self, op: Op, error: &io::Error);
    /// The root is in place.
    fn in_place(&self);
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::storm) struct Tally {
    /// Mounts that were attached or changed, by whichever call.
    pub(in crate::storm) mounts: u64,
    /// Mounts removed.
    pub(in crate::storm) umounts: u64,
    /// Roots changed by `pivot_root(2)`.
    pub(in crate::storm) pivots: u64,
    /// Roots changed by `chroot(2)`.
    pub(in crate::storm) chroots: u64,
    /// Looks at the whole mount table.
    pub(in crate::storm) mountinfo_reads: u64,
    /// Bytes that came of them.
    pub(in crate::storm) mountinfo_bytes: u64,
}

impl Tally {
    /// A mount removed.
    const UMOUNT: Self = Self {
        mounts: 0,
        umounts: 1,
        pivots: 0,
        chroots: 0,
        mountinfo_reads: 0,
        mountinfo_bytes: 0,
    };

    /// A look at the whole mount table.
    pub(in crate::storm) const fn asked(bytes: u64) -> Self {
        Self { umounts: 0, mountinfo_reads: 1, mountinfo_bytes: bytes, ..Self::UMOUNT }
    }

    const fn mounts(mounts: u64) -> Self {
        Self { mounts, umounts: 0, ..Self::UMOUNT }
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            mounts: self.mounts + other.mounts,
            umounts: self.umounts + other.umounts,
            pivots: self.pivots + other.pivots,
            chroots: self.chroots + other.chroots,
            mountinfo_reads: self.mountinfo_reads + other.mountinfo_reads,
            mountinfo_bytes: self.mountinfo_bytes + other.mountinfo_bytes,
        }
    }
}

/// All that starts of a strategy have in common.
pub(in crate::storm) struct Prepared {
    strategy: Strategy,
    plan: Plan,
    layers: Option<Layers>,
}

impl Prepared {
    /// Makes what the starts share below `base`, a directory of a tmpfs that
    /// goes with the storm's mount namespace. Called in that namespace, once.
    ///
    /// # Errors
    ///
    /// The step that failed, or that the kernel does not have ([`Op::missing`]).
    pub(in crate::storm) fn new(strategy: &Strategy, base: &str) -> Result<Self, Failure> {
        probe::probe(strategy)?;
        let (directory, file) = (format!("{base}/volume"), format!("{base}/hosts"));
        fs::create_dir(&directory)
            .and_then(|()| fs::write(&file, "127.0.0.1 localhost\n"))
            .map_err(|e| (Op::MakeTargets, e))?;
        let plan = Plan::new(strategy, Sources { directory: &directory, file: &file });
        let layers = (strategy.layers > 0).then(|| Layers::new(strategy, base, &plan));
        let layers = layers.transpose()?;
        if let Some(layers) = &layers {
            layers.probe(strategy.rootfs != RootFs::Legacy)?;
        }
        if strategy.rootfs == RootFs::OpenTreeNamespace {
            allow_many_files();
        }
        Ok(Self { strategy: strategy.clone(), plan, layers })
    }

    /// One start, in a process of its own, whose mounts end with it. `dir` is an
    /// empty directory that no other start uses meanwhile.
    ///
    /// # Errors
    ///
    /// A step failed that the rest needs; any other is told to `observer`.
    pub(in crate::storm) fn run(&self, dir: &str, observer: &dyn Observer) -> Result<(), Failure> {
        Start { prepared: self, dir, observer }.run()
    }
}

/// Allows as many open files as may be: such starts open the sources of all
/// binds before they enter their namespace. Where that is too few, a bind fails
/// and is told.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
