//! Figures that many frames show, computed once for each window: quantiles cost
//! more than everything else on the screen.

use std::collections::BTreeMap;

use super::state::LockKey;
use crate::snapshot::{Charge, MOUNTINFO_READ, Snapshot, Times};

/// Durations, all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// How many.
    pub(crate) count: u64,
    /// Sum, in ns.
    pub(crate) sum_ns: u64,
    /// Median, in ns.
    pub(crate) p50_ns: u64,
    /// In ns.
    pub(crate) p99_ns: u64,
    /// Longest, in ns.
    pub(crate) max_ns: u64,
}

impl From<&Times> for Figures {
    fn from(times: &Times) -> Self {
        let [p50_ns, p99_ns] = times.quantiles_ns([0.5, 0.99]);
        let Times { count, sum_ns, max_ns, .. } = *times;
        Self { count, sum_ns, p50_ns, p99_ns, max_ns }
    }
}

/// A lock in one mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LockRow {
    /// Waits that ended.
    pub(crate) waits: Figures,
    /// Tasks that wait for the lock now, in whichever mode.
    pub(crate) waiters: u64,
    /// Age of the oldest of these waits, in ns.
    pub(crate) oldest_ns: u64,
}

/// The locks of a window.
pub(crate) fn locks(window: &Snapshot) -> BTreeMap<LockKey, LockRow> {
    let mut all: BTreeMap<LockKey, Times> = BTreeMap::new();
    for row in &window.locks {
        all.entry((row.lock.clone(), row.mode)).or_default().add(&row.waits);
    }
    let rows = all.into_iter().map(|(key, waits)| {
        let inflight = window.inflight.iter().find(|inflight| inflight.lock == key.0);
        let row = LockRow {
            waits: (&waits).into(),
            waiters: inflight.map_or(0, |inflight| inflight.waiters),
            oldest_ns: inflight.map_or(0, |inflight| inflight.oldest_ns),
        };
        (key, row)
    });
    rows.collect()
}

/// A mount system call, or reads of mount tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallRow {
    /// Calls that returned.
    pub(crate) calls: Figures,
    /// Whether quantiles are known: not of reads of mount tables.
    pub(crate) has_quantiles: bool,
    /// Of these, calls that returned an error.
    pub(crate) errors: u64,
    /// Time in ns that they waited for each lock, the longest first.
    pub(crate) waited_ns: Vec<(String, u64)>,
}

impl CallRow {
    /// Time in ns that they waited for any lock.
    pub(crate) fn waited_total_ns(&self) -> u64 {
        self.waited_ns.iter().map(|(_, ns)| ns).sum()
    }
}

/// The calls of a window by name, and reads of mount tables as one of them.
pub(crate) fn calls(window: &Snapshot) -> BTreeMap<String, CallRow> {
    let mut all: BTreeMap<String, (Times, u64, BTreeMap<String, u64>)> = BTreeMap::new();
    for row in &window.syscalls {
        let (calls, errors, waited) = all.entry(row.syscall.clone()).or_default();
        calls.add(&row.calls);
        *errors += row.errors;
        for (lock, ns) in &row.lock_wait_ns {
            *waited.entry(lock.clone()).or_default() += ns;
        }
    }
    let mut rows: BTreeMap<_, _> = all
        .into_iter()
        .map(|(name, (calls, errors, waited))| {
            let (calls, waited_ns) = ((&calls).into(), longest_first(waited));
            (name, CallRow { calls, has_quantiles: true, errors, waited_ns })
        })
        .collect();
    if let (Some(readers), Some(waited)) =
        (&window.mountinfo_readers, &window.mountinfo_lock_wait_ns)
    {
        let mut reads = Charge::default();
        readers.iter().for_each(|row| reads.add(row.reads));
        if reads.count != 0 {
            let Charge { count, sum_ns, max_ns } = reads;
            let calls = Figures { count, sum_ns, max_ns, ..Figures::default() };
            let waited_ns = longest_first(waited.clone());
            let row = CallRow { calls, waited_ns, ..CallRow::default() };
            rows.insert(MOUNTINFO_READ.to_owned(), row);
        }
    }
    rows
}

fn longest_first(waited: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut waited: Vec<_> = waited.into_iter().collect();
    waited.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    waited
}
