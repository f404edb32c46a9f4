//! A storm of one strategy, with what lockprof's own programs saw of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::engine::Summary;

/// One storm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// What the storm itself counted.
    #[serde(flatten)]
    pub summary: Summary,
    /// What the hooks saw meanwhile, in the whole system; `None` where nothing
    /// was hooked.
    pub measured: Option<Measured>,
}

/// A window of the kernel, condensed. Times are in ns.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Time between the two readings.
    pub window_ns: u64,
    /// Waits by lock, mode and node.
    pub waits: Vec<Waits>,
    /// Calls that were made, by name, with the part of their time that went
    /// into lock waits.
    pub syscalls: BTreeMap<String, Calls>,
    /// Superblocks that were made, by type of file system.
    pub superblocks: BTreeMap<String, u64>,
    /// Events that were lost: then waits are missing.
    pub dropped: u64,
}

/// Waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// Its name.
    pub lock: String,
    /// `read`, `write`, `spin` or `mutex`.
    pub mode: String,
    /// NUMA node where the waits ended.
    pub numa_node: u32,
    /// How many.
    pub count: u64,
    /// Sum.
    pub sum_ns: u64,
    /// Longest in the window.
    pub max_ns: u64,
    /// Upper bound of the 99th percentile.
    pub p99_ns: u64,
}

/// Calls of one system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// That failed.
    pub errors: u64,
    /// Sum of their times.
    pub sum_ns: u64,
    /// Of it, spent waiting for watched locks.
    pub lock_wait_ns: u64,
}
