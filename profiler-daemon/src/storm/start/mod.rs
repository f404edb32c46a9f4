//! What one container-like start does, by strategy.
//!
//! - `plan`: the mounts of every start, as data, laid out once;
//! - `legacy`: a start by `mount(2)` and `pivot_root(2)`;
//! - `table`: asking for the mount table.

mod legacy;
mod plan;
mod table;

use std::io;
use std::ops::Add;

pub(in crate::storm) use self::legacy::TMPFS_SOURCE;
pub use self::plan::Op;
use self::plan::{Plan, Step};
pub(in crate::storm) use self::table::Table;
use super::strategy::Strategy;

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
    /// Mounts made or changed.
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
    plan: Plan,
}

impl Prepared {
    /// Makes what the starts share below `base`, a directory of a tmpfs that
    /// goes with the storm's mount namespace. Called in that namespace, once.
    ///
    /// # Errors
    ///
    /// The step that failed.
    pub(in crate::storm) fn new(strategy: &Strategy, _base: &str) -> Result<Self, Failure> {
        Ok(Self { plan: Plan::new(strategy.binds + strategy.masks) })
    }

    /// One start, in a process of its own, whose mounts end with it. `dir` is an
    /// empty directory that no other start uses meanwhile.
    ///
    /// # Errors
    ///
    /// A step failed that the rest needs; any other is told to `observer`.
    pub(in crate::storm) fn run(&self, dir: &str, observer: &dyn Observer) -> Result<(), Failure> {
        legacy::Start { plan: &self.plan, observer }.run(dir)
    }
}
