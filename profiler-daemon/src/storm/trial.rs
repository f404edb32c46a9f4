//! A storm of one strategy, with what lockprof's own programs saw of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::engine::Summary;
use crate::snapshot::{Name, Snapshot};

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

impl Trial {
    /// `total` of the trial by start; `None` without any start.
    pub(super) fn per_start(&self, total: u64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
        let (total, starts) = (total as f64, self.summary.starts as f64);
        (starts > 0.0).then(|| total / starts)
    }
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
    /// Events that were not booked, or not as they should be, by reason: those that
    /// happened.
    pub dropped: BTreeMap<String, u64>,
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

impl Measured {
    /// What a window ([`Snapshot::since`]) says of a storm. Rows without a count
    /// are left out, and of calls all nodes are added up. Names of locks, which a
    /// configuration may add to, are made harmless ([`Name`]).
    pub fn of(window: &Snapshot) -> Self {
        let waited = window.locks.iter().filter(|row| row.waits.count != 0);
        let waits = waited.map(|row| {
            let [p99_ns] = row.waits.quantiles_ns([0.99]);
            Waits {
                lock: Name::from(row.lock.as_str()).as_str().to_owned(),
                mode: row.mode.to_string(),
                numa_node: row.numa_node,
                count: row.waits.count,
                sum_ns: row.waits.sum_ns,
                max_ns: row.waits.max_ns,
                p99_ns,
            }
        });
        let mut syscalls: BTreeMap<String, Calls> = BTreeMap::new();
        for row in &window.syscalls {
            let waited_ns =
                row.lock_wait_ns.values().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
            // A wait is booked when it ends, which may be before the call does.
            if row.calls.count == 0 && row.errors == 0 && waited_ns == 0 {
                continue;
            }
            let calls = syscalls.entry(row.syscall.clone()).or_default();
            calls.count += row.calls.count;
            calls.errors += row.errors;
            calls.sum_ns = calls.sum_ns.saturating_add(row.calls.sum_ns);
            calls.lock_wait_ns = calls.lock_wait_ns.saturating_add(waited_ns);
        }
        let mut superblocks: BTreeMap<String, u64> = BTreeMap::new();
        for row in window.superblocks.iter().flatten().filter(|row| row.count != 0) {
            *superblocks.entry(row.filesystem.as_str().to_owned()).or_default() += row.count;
        }
        let dropped = window.dropped.iter().filter(|row| row.count != 0);
        let dropped = dropped.map(|row| (row.reason.clone(), row.count));
        Self {
            window_ns: window.duration_ns,
            waits: waits.collect(),
            syscalls,
            superblocks,
            dropped: dropped.collect(),
        }
    }

    /// Waits by lock, all modes and nodes together: how many, and their sum in
    /// ns.
    pub(super) fn by_lock(&self) -> BTreeMap<&str, (u64, u64)> {
        let mut locks: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for row in &self.waits {
            let (count, sum_ns) = locks.entry(&row.lock).or_default();
            *count += row.count;
            *sum_ns = sum_ns.saturating_add(row.sum_ns);
        }
        locks
    }
}

#[cfg(test)]
mod tests;
