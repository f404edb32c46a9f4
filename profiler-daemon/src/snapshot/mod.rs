//! The one data type that views know: what was measured, free of how.
//!
//! A snapshot holds totals since the programs were attached. Two snapshots
//! subtract into a window ([`Snapshot::since`]). Its JSON form is what
//! `stat --json` and `/api/v1/snapshot` print, and it reads back.

mod attribution;
pub mod containers;
mod histogram;
mod mounts;
mod samples;
mod who;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::attribution::{Basis, Blocker, Charge, MOUNTINFO_READ, SlowWait, SlowWaits, Waiter};
pub use self::histogram::Histogram;
pub use self::mounts::{MountTable, MountTables, MountinfoReader, Superblocks};
pub use self::samples::{Place, SampleCount, Samples};
pub use self::who::{Cgroup, Container, Name, Party, PartyKey, Runtime, Who};
use crate::locks::{Method, Mode};

/// Version of the JSON form. Keys are added without a new version; none is
/// renamed or removed under the same one.
pub const SCHEMA: u32 = 1;

/// Everything measured over `duration_ns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Time covered, in ns.
    pub duration_ns: u64,
    /// The machine.
    pub host: Host,
    /// Waits by lock, mode and NUMA node; every watched lock is there, with
    /// zeros if nobody waited.
    pub locks: Vec<LockWaits>,
    /// Waits that had not ended, by lock.
    pub inflight: Vec<InFlight>,
    /// How long contended locks were held, by lock, mode and NUMA node; empty
    /// where the kernel does not tell.
    #[serde(default)]
    pub holds: Vec<LockHolds>,
    /// Contended releases that ended no hold of known length, by lock; empty as
    /// `holds`.
    #[serde(default)]
    pub releases: Vec<Releases>,
    /// From which node to which a contended lock went.
    pub handoffs: Vec<Handoff>,
    /// Mount system calls by name and NUMA node.
    pub syscalls: Vec<SyscallCalls>,
    /// Errors of mount system calls by errno; all nodes together.
    #[serde(default)]
    pub syscall_errors: Vec<SyscallErrors>,
    /// Who waited for each lock; empty where it is not observed.
    #[serde(default)]
    pub waiters: Vec<Waiter>,
    /// Who made them wait; empty where it is not observed.
    #[serde(default)]
    pub blockers: Vec<Blocker>,
    /// The slowest waits; `None` where they are not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_waits: Option<SlowWaits>,
    /// Who reads mount tables through `/proc`; `None` where the kernel refuses
    /// the hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountinfo_readers: Option<Vec<MountinfoReader>>,
    /// Nanoseconds that these reads waited for each lock; locks with none are left
    /// out. `None` as the readers are. A wait inside another wait counts for both
    /// locks, and reads that have not returned are included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountinfo_lock_wait_ns: Option<BTreeMap<String, u64>>,
    /// Mount namespaces and how many mounts they have; `None` until counted, and
    /// where the kernel refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_tables: Option<MountTables>,
    /// Superblocks by type of file system; `None` where the kernel refuses the
    /// hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superblocks: Option<Vec<Superblocks>>,
    /// Where CPUs were when they were sampled; `None` where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Samples>,
    /// What lockprof itself takes; `None` when it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnCost>,
    /// What was lost, by reason; every reason is there.
    pub dropped: Vec<Dropped>,
    /// Which locks are watched and how their addresses were found.
    #[serde(default)]
    pub resolved: Vec<Resolution>,
    /// Which hooks are attached.
    #[serde(default)]
    pub hooks: Vec<Hook>,
}

/// What lockprof itself takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCost {
    /// CPU time of the process, in ns.
    pub cpu_ns: u64,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: u64,
    /// Arrays that programs write, in bytes.
    pub arrays_bytes: u64,
}

/// The machine that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    #[serde(default)]
    pub name: Name,
    /// Time since it booted, in ns.
    #[serde(default)]
    pub uptime_ns: u64,
    /// Release, as in `uname -r`.
    pub kernel: String,
    /// Possible CPUs.
    pub cpus: u32,
    /// NUMA nodes with their CPUs.
    pub numa_nodes: Vec<NumaNode>,
}

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumaNode {
    /// Number of the node.
    pub id: u32,
    /// Its CPUs.
    pub cpus: Vec<u32>,
}

/// Waits for one lock in one mode that ended on one NUMA node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockWaits {
    /// Label value of the lock.
    pub lock: String,
    /// How the waiters wanted it.
    pub mode: Mode,
    /// Where the waits ended.
    pub numa_node: u32,
    /// Waits and their times.
    #[serde(flatten)]
    pub waits: Times,
    /// Of these, waits that began on another node.
    #[serde(default)]
    pub migrated: u64,
    /// Of these, waits that ended without the lock (interrupted or killed).
    #[serde(default)]
    pub failed: u64,
}

/// Count, sum, maximum and distribution of durations.
///
/// In JSON the quantiles stand beside them; they come from the buckets and are
/// not read back.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "TimesJson")]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Exact sum, in ns.
    pub sum_ns: u64,
    /// Longest, in ns. Exact since attach; in a window without a new maximum,
    /// the upper bound of the highest bucket with a count.
    pub max_ns: u64,
    /// Distribution; its total is `count`.
    pub buckets: Histogram,
}

#[derive(Serialize, Deserialize)]
struct TimesJson {
    count: u64,
    sum_ns: u64,
    max_ns: u64,
    #[serde(default, skip_deserializing)]
    p50_ns: u64,
    #[serde(default, skip_deserializing)]
    p90_ns: u64,
    #[serde(default, skip_deserializing)]
    p99_ns: u64,
    buckets: Histogram,
}

impl From<TimesJson> for Times {
    fn from(json: TimesJson) -> Self {
        Self { count: json.count, sum_ns: json.sum_ns, max_ns: json.max_ns, buckets: json.buckets }
    }
}

impl Serialize for Times {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [p50_ns, p90_ns, p99_ns] = self.quantiles_ns([0.5, 0.9, 0.99]);
        TimesJson {
            count: self.count,
            sum_ns: self.sum_ns,
            max_ns: self.max_ns,
            p50_ns,
            p90_ns,
            p99_ns,
            buckets: self.buckets.clone(),
        }
        .serialize(serializer)
    }
}

impl Times {
    /// Quantiles in ns, each the upper bound of the bucket that holds it and at
    /// most `max_ns`; 0 when nothing was counted.
    pub fn quantiles_ns<const N: usize>(&self, quantiles: [f64; N]) -> [u64; N] {
        self.buckets.quantiles_ns(quantiles, self.max_ns)
    }

    /// Adds `other`, for totals over nodes or modes.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.buckets.add(&other.buckets);
    }

    fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.since(&earlier.buckets);
        let sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        let max_ns = if self.max_ns > earlier.max_ns {
            self.max_ns
        } else {
            buckets.highest_ns().unwrap_or(0).min(self.max_ns).min(sum_ns)
        };
        Self { count: buckets.total(), sum_ns, max_ns, buckets }
    }
}

/// Holds of one lock in one mode, while others were queued for it, that ended on
/// one NUMA node.
///
/// A hold begins with the acquisition if others were queued then, else with the
/// first that queues, and ends with the release. Readers hold a lock together,
/// until the last of them releases it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockHolds {
    /// Label value of the lock.
    pub lock: String,
    /// How it was held: `read`, `write` or `mutex`.
    pub mode: Mode,
    /// Where the holds ended.
    pub numa_node: u32,
    /// Holds and their times.
    #[serde(flatten)]
    pub holds: Times,
}

/// Releases of one lock, while others were queued for it, that are not in
/// [`LockHolds`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Releases {
    /// Label value of the lock.
    pub lock: String,
    /// After a hold of unknown length.
    pub unmeasured: u64,
    /// By a reader, while other readers held on.
    pub one_of_readers: u64,
}

/// Waits for one lock that had not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Label value of the lock.
    pub lock: String,
    /// Tasks that wait.
    pub waiters: u64,
    /// Age of the oldest wait, in ns; 0 without waiters.
    pub oldest_ns: u64,
}

/// How often a contended lock went from one NUMA node to another (or stayed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handoff {
    /// Label value of the lock.
    pub lock: String,
    /// Node of the contended acquirer before.
    pub from_node: u32,
    /// Node of this contended acquirer.
    pub to_node: u32,
    /// How often.
    pub count: u64,
}

/// Calls of one mount system call that ended on one NUMA node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyscallCalls {
    /// Name of the system call.
    pub syscall: String,
    /// Where the calls ended.
    pub numa_node: u32,
    /// Calls and their times.
    #[serde(flatten)]
    pub calls: Times,
    /// Calls that returned an error.
    pub errors: u64,
    /// Time in ns that these calls waited on each watched lock, zeros left out.
    /// Booked when a wait ends, so it includes calls that have not returned.
    pub lock_wait_ns: BTreeMap<String, u64>,
}

/// Errors of one system call with one errno.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyscallErrors {
    /// Name of the system call.
    pub syscall: String,
    /// Symbolic name (`EPERM`), or `other`.
    pub errno: String,
    /// How many.
    pub count: u64,
}

/// Events lost for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Label value of the reason.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// How a lock of the catalogue or the configuration was resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Label value of the lock.
    pub lock: String,
    /// Symbol and member on this kernel; empty when unresolved.
    pub symbol: String,
    /// How the address was found; `None` when it was not.
    pub method: Option<Method>,
}

/// State of a hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hook {
    /// What it observes: `contention_begin`, `sys_mount`, ...
    pub hook: String,
    /// How: `tp_btf`, `raw_tp`, `fentry`, `kprobe`, `tracepoint`, `cycles`,
    /// `cpu-clock`; `none` when nothing attached.
    pub backend: String,
}

impl Snapshot {
    /// The window between `earlier` and this snapshot of the same source.
    /// In-flight waits, resolution and hooks are those of now.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut window = self.clone();
        window.duration_ns = self.duration_ns.saturating_sub(earlier.duration_ns);
        for now in &mut window.locks {
            let same = |e: &&LockWaits| {
                e.lock == now.lock && e.mode == now.mode && e.numa_node == now.numa_node
            };
            if let Some(then) = earlier.locks.iter().find(same) {
                now.waits = now.waits.since(&then.waits);
                now.migrated = now.migrated.saturating_sub(then.migrated);
                now.failed = now.failed.saturating_sub(then.failed);
            }
        }
        for now in &mut window.holds {
            let same = |e: &&LockHolds| {
                e.lock == now.lock && e.mode == now.mode && e.numa_node == now.numa_node
            };
            if let Some(then) = earlier.holds.iter().find(same) {
                now.holds = now.holds.since(&then.holds);
            }
        }
        for now in &mut window.releases {
            if let Some(then) = earlier.releases.iter().find(|e| e.lock == now.lock) {
                now.unmeasured = now.unmeasured.saturating_sub(then.unmeasured);
                now.one_of_readers = now.one_of_readers.saturating_sub(then.one_of_readers);
            }
        }
        for now in &mut window.handoffs {
            let same = |e: &&Handoff| {
                e.lock == now.lock && e.from_node == now.from_node && e.to_node == now.to_node
            };
            if let Some(then) = earlier.handoffs.iter().find(same) {
                now.count = now.count.saturating_sub(then.count);
            }
        }
        window.handoffs.retain(|h| h.count != 0);
        for now in &mut window.syscalls {
            let same = |e: &&SyscallCalls| e.syscall == now.syscall && e.numa_node == now.numa_node;
            if let Some(then) = earlier.syscalls.iter().find(same) {
                now.calls = now.calls.since(&then.calls);
                now.errors = now.errors.saturating_sub(then.errors);
                subtract_lock_waits(&mut now.lock_wait_ns, &then.lock_wait_ns);
            }
        }
        for now in &mut window.syscall_errors {
            let same = |e: &&SyscallErrors| e.syscall == now.syscall && e.errno == now.errno;
            if let Some(then) = earlier.syscall_errors.iter().find(same) {
                now.count = now.count.saturating_sub(then.count);
            }
        }
        window.syscall_errors.retain(|e| e.count != 0);
        attribution::waiters_since(&mut window.waiters, &earlier.waiters);
        attribution::blockers_since(&mut window.blockers, &earlier.blockers);
        if let (Some(now), Some(then)) = (&mut window.slow_waits, &earlier.slow_waits) {
            *now = now.since(then);
        }
        if let (Some(now), Some(then)) = (&mut window.mountinfo_readers, &earlier.mountinfo_readers)
        {
            mounts::readers_since(now, then);
        }
        if let (Some(now), Some(then)) =
            (&mut window.mountinfo_lock_wait_ns, &earlier.mountinfo_lock_wait_ns)
        {
            subtract_lock_waits(now, then);
        }
        if let (Some(now), Some(then)) = (&mut window.superblocks, &earlier.superblocks) {
            mounts::superblocks_since(now, then);
        }
        if let (Some(now), Some(then)) = (&mut window.samples, &earlier.samples) {
            *now = now.since(then);
        }
        if let (Some(now), Some(then)) = (&mut window.own, &earlier.own) {
            now.cpu_ns = now.cpu_ns.saturating_sub(then.cpu_ns);
        }
        for now in &mut window.dropped {
            if let Some(then) = earlier.dropped.iter().find(|e| e.reason == now.reason) {
                now.count = now.count.saturating_sub(then.count);
            }
        }
        window
    }

    /// Everything lost, for all reasons.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|d| d.count).sum()
    }
}

/// Subtracts what was waited for each lock, and drops what nothing is left of.
fn subtract_lock_waits(now: &mut BTreeMap<String, u64>, then: &BTreeMap<String, u64>) {
    for (lock, ns) in now.iter_mut() {
        *ns = ns.saturating_sub(then.get(lock).copied().unwrap_or(0));
    }
    now.retain(|_, ns| *ns != 0);
}

#[cfg(test)]
mod tests;
