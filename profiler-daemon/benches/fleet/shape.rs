//! How many series a host exposes: a formula, made of terms that each cover some
//! metrics, and all of them every metric.
//!
//! In: a [`Shape`], what a machine has that label values come from. Out: rows,
//! and series as a Prometheus stores them.

use std::collections::BTreeSet;

use lockprof::locks::Mode;
use lockprof::serve::metrics::{Kind, METRICS, REASONS};
use lockprof::snapshot::{Basis, Place, Runtime, Snapshot};
use profiler_common::syscalls::MOUNT_SYSCALLS;

/// Series of a classic histogram: 15 finite buckets, `+Inf`, `_sum`, `_count`.
/// A native one is a single series.
pub(crate) const CLASSIC_SERIES: u64 = 15 + 1 + 2;

/// Series that a Prometheus adds to each target: `up`, `scrape_duration_seconds`,
/// `scrape_samples_scraped`, `scrape_samples_post_metric_relabeling`,
/// `scrape_series_added`.
pub(crate) const OF_TARGET: u64 = 5;

/// What label values come from, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// NUMA nodes.
    pub(crate) nodes: u64,
    /// Locks that are watched.
    pub(crate) locks: u64,
    /// Pairs of a watched lock and a mode: a rwsem has two, and a third where
    /// spinning writers are seen.
    pub(crate) lock_modes: u64,
    /// Pairs of a lock and the runtime of a waiter that were seen.
    pub(crate) waiters: u64,
    /// Locks, runtimes of blockers, and their calls that were seen together.
    pub(crate) blockers: u64,
    /// Pairs of a lock and a basis that were seen.
    pub(crate) bases: u64,
    /// `metrics.containers` in the configuration, when there are as many.
    pub(crate) containers: u64,
    /// Locks and pairs of nodes with a handoff.
    pub(crate) handoffs: u64,
    /// Pairs of a lock and a mode whose holds are measured (Linux 7.2).
    pub(crate) hold_modes: u64,
    /// Locks whose contended releases are measured.
    pub(crate) held_locks: u64,
    /// Of these, the ones that readers share.
    pub(crate) shared_locks: u64,
    /// Mount calls that were seen.
    pub(crate) calls: u64,
    /// Pairs of a mount call and a node on which one ended.
    pub(crate) calls_on_nodes: u64,
    /// Pairs of a mount call and an error that were seen.
    pub(crate) errors: u64,
    /// Whether CPUs are sampled, 0 or 1.
    pub(crate) sampled: u64,
    /// Whether reads of mount tables are seen, 0 or 1.
    pub(crate) reads_seen: u64,
    /// Pairs of a file and the runtime of a reader that were seen.
    pub(crate) readers: u64,
    /// Whether mount namespaces are counted, 0 or 1.
    pub(crate) tables: u64,
    /// File systems of new superblocks.
    pub(crate) filesystems: u64,
    /// Whether slow waits are recorded, 0 or 1.
    pub(crate) slow_waits: u64,
    /// Locks that are switched on, whether found or not.
    pub(crate) known_locks: u64,
    /// Hooks that this kernel could have.
    pub(crate) hooks: u64,
    /// Figures about the daemon's process: one less where its file descriptors
    /// are unlimited.
    pub(crate) process: u64,
}

/// Some metrics that have the same number of rows.
pub(crate) struct Term {
    /// The number in words.
    pub(crate) words: &'static str,
    /// The number.
    pub(crate) rows: fn(&Shape) -> u64,
    /// Which metrics.
    pub(crate) metrics: &'static [&'static str],
}

/// The formula: the series of a host are the sum over all terms of rows times
/// the metrics of the term, a classic histogram counting [`CLASSIC_SERIES`]
/// times.
pub(crate) const TERMS: &[Term] = &[
    Term {
        words: "lock modes x nodes",
        rows: |s| s.lock_modes * s.nodes,
        metrics: &[
            "lockprof_lock_wait_seconds",
            "lockprof_lock_wait_max_seconds",
            "lockprof_lock_waits_migrated_total",
            "lockprof_lock_waits_failed_total",
        ],
    },
    Term {
        words: "mount calls seen, on each node",
        rows: |s| s.calls_on_nodes,
        metrics: &["lockprof_mount_syscall_duration_seconds"],
    },
    Term {
        words: "hold modes x nodes (Linux 7.2)",
        rows: |s| s.hold_modes * s.nodes,
        metrics: &["lockprof_lock_contended_hold_seconds"],
    },
    Term {
        words: "locks held, where holds are measured",
        rows: |s| s.held_locks,
        metrics: &["lockprof_lock_contended_releases_unmeasured_total"],
    },
    Term {
        words: "of these, rwsems",
        rows: |s| s.shared_locks,
        metrics: &["lockprof_lock_contended_reader_releases_total"],
    },
    Term {
        words: "handoffs seen, at most locks x nodes x nodes",
        rows: |s| s.handoffs,
        metrics: &["lockprof_lock_handoffs_total"],
    },
    Term {
        words: "mount calls seen x locks",
        rows: |s| s.calls * s.locks,
        metrics: &["lockprof_mount_syscall_lock_wait_seconds_total"],
    },
    Term {
        words: "locks",
        rows: |s| s.locks,
        metrics: &["lockprof_lock_waiters", "lockprof_lock_oldest_wait_seconds"],
    },
    Term {
        words: "locks, where reads of mount tables are seen",
        rows: |s| s.locks * s.reads_seen,
        metrics: &["lockprof_mountinfo_lock_wait_seconds_total"],
    },
    Term {
        words: "locks x runtimes that waited",
        rows: |s| s.waiters,
        metrics: &["lockprof_lock_waiter_seconds_total", "lockprof_lock_waiter_waits_total"],
    },
    Term {
        words: "locks x runtimes x calls that blocked",
        rows: |s| s.blockers,
        metrics: &["lockprof_lock_blocker_seconds_total"],
    },
    Term {
        words: "locks x ways to find the blocker",
        rows: |s| s.bases,
        metrics: &["lockprof_lock_blocker_basis_seconds_total"],
    },
    Term {
        words: "locks x (containers + 2), none if containers is 0",
        rows: |s| if s.containers == 0 { 0 } else { s.locks * (s.containers + 2) },
        metrics: &[
            "lockprof_container_lock_waiter_seconds_total",
            "lockprof_container_lock_blocker_seconds_total",
        ],
    },
    Term { words: "containers", rows: |s| s.containers, metrics: &["lockprof_container_info"] },
    Term {
        words: "mount calls x errors seen",
        rows: |s| s.errors,
        metrics: &["lockprof_mount_syscall_errors_total"],
    },
    Term {
        words: "3 places x nodes",
        rows: |s| s.sampled * s.nodes * Place::ALL.len() as u64,
        metrics: &["lockprof_kernel_samples_total"],
    },
    Term {
        words: "files x runtimes that read mount tables",
        rows: |s| s.readers,
        metrics: &[
            "lockprof_mountinfo_opens_total",
            "lockprof_mountinfo_reads_total",
            "lockprof_mountinfo_entries_total",
            "lockprof_mountinfo_read_seconds_total",
        ],
    },
    Term {
        words: "file systems of new superblocks",
        rows: |s| s.filesystems,
        metrics: &["lockprof_superblocks_created_total"],
    },
    Term {
        words: "1, where mount namespaces are counted",
        rows: |s| s.tables,
        metrics: &[
            "lockprof_mount_namespaces",
            "lockprof_mount_namespace_mounts",
            "lockprof_mount_namespace_mounts_max",
        ],
    },
    Term {
        words: "locks that are switched on",
        rows: |s| s.known_locks,
        metrics: &["lockprof_lock_resolved"],
    },
    Term { words: "hooks of the kernel", rows: |s| s.hooks, metrics: &["lockprof_hook_attached"] },
    Term {
        words: "reasons",
        rows: |_| REASONS.len() as u64,
        metrics: &["lockprof_events_dropped_total"],
    },
    Term {
        words: "1, where slow waits are recorded",
        rows: |s| s.slow_waits,
        metrics: &["lockprof_slow_waits_total"],
    },
    Term {
        words: "1, where CPUs are sampled",
        rows: |s| s.sampled,
        metrics: &["lockprof_sampling_frequency_hertz"],
    },
    Term {
        words: "1",
        rows: |_| 1,
        metrics: &["lockprof_build_info", "lockprof_host_info", "lockprof_start_time_seconds"],
    },
    Term {
        words: "1 each, `process_max_fds` only where there is a limit",
        // The number is of all metrics of this term together.
        rows: |s| s.process,
        metrics: PROCESS,
    },
];

/// The metrics about the daemon's process.
const PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

/// How histograms are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Histograms {
    /// A series for each bucket.
    Classic,
    /// One series.
    Native,
}

impl Term {
    /// Series of all metrics of the term.
    pub(crate) fn series(&self, shape: &Shape, histograms: Histograms) -> u64 {
        let rows = (self.rows)(shape);
        if self.metrics == PROCESS {
            return rows;
        }
        let each = |name: &&str| {
            let kind = METRICS.iter().find(|m| m.name == *name).map(|metric| metric.kind);
            match (kind, histograms) {
                (Some(Kind::Histogram), Histograms::Classic) => CLASSIC_SERIES,
                _ => 1,
            }
        };
        rows * self.metrics.iter().map(each).sum::<u64>()
    }
}

impl Shape {
    /// Of a snapshot, with `containers` selected.
    pub(crate) fn of(snapshot: &Snapshot, containers: u64) -> Self {
        let blockers = &snapshot.blockers;
        let readers = || snapshot.mountinfo_readers.iter().flatten();
        let shared = |lock: &&str| {
            snapshot.holds.iter().any(|hold| hold.lock == **lock && hold.mode == Mode::Read)
        };
        let held: BTreeSet<&str> = snapshot.releases.iter().map(|r| r.lock.as_str()).collect();
        Self {
            nodes: distinct(snapshot.locks.iter().map(|row| row.numa_node)),
            locks: distinct(snapshot.locks.iter().map(|row| &row.lock)),
            lock_modes: distinct(snapshot.locks.iter().map(|row| (&row.lock, row.mode.as_str()))),
            waiters: distinct(snapshot.waiters.iter().map(|w| (&w.lock, w.party.runtime()))),
            blockers: distinct(blockers.iter().map(|b| (&b.lock, b.party.runtime(), &b.call))),
            bases: distinct(blockers.iter().map(|b| (&b.lock, b.basis))),
            containers,
            handoffs: snapshot.handoffs.len() as u64,
            hold_modes: distinct(snapshot.holds.iter().map(|h| (&h.lock, h.mode.as_str()))),
            held_locks: held.len() as u64,
            shared_locks: held.iter().filter(|lock| shared(lock)).count() as u64,
            calls: distinct(snapshot.syscalls.iter().map(|c| &c.syscall)),
            calls_on_nodes: snapshot.syscalls.len() as u64,
            errors: snapshot.syscall_errors.len() as u64,
            sampled: u64::from(snapshot.samples.is_some()),
            reads_seen: u64::from(snapshot.mountinfo_lock_wait_ns.is_some()),
            readers: distinct(readers().map(|r| (&r.file, r.party.runtime()))),
            tables: u64::from(snapshot.mount_tables.is_some()),
            filesystems: snapshot.superblocks.iter().flatten().count() as u64,
            slow_waits: u64::from(snapshot.slow_waits.is_some()),
            known_locks: snapshot.resolved.len() as u64,
            hooks: snapshot.hooks.len() as u64,
            process: PROCESS.len() as u64,
        }
    }

    /// The same machine after whatever load: every label has all the values that
    /// it can have, but for errors and file systems, which nothing but the tables
    /// in the kernel bounds: they stay as they are. `files` are those that show
    /// mount tables.
    pub(crate) fn at_most(self) -> Self {
        let runtimes = Runtime::ALL.len() as u64;
        let calls = MOUNT_SYSCALLS.len() as u64;
        let bases = [Basis::Owner, Basis::ReaderHint, Basis::Inferred, Basis::Unknown];
        Self {
            waiters: self.locks * runtimes,
            // Beside the calls: reads of mount tables, and no call.
            blockers: self.locks * runtimes * (calls + 2),
            bases: self.locks * bases.len() as u64,
            handoffs: self.locks * self.nodes * self.nodes,
            calls,
            calls_on_nodes: calls * self.nodes,
            readers: self.reads_seen * 3 * runtimes,
            ..self
        }
    }

    /// Series that the host exposes.
    pub(crate) fn series(&self, histograms: Histograms) -> u64 {
        TERMS.iter().map(|term| term.series(self, histograms)).sum()
    }
}

fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> u64 {
    values.collect::<BTreeSet<_>>().len() as u64
}
