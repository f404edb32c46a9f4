//! The declarations, in the order of the exposition.

use std::time::UNIX_EPOCH;

use super::Value::{Number, Text};
use super::{Figure, Kind, Label, Metric, Row, Scrape, Unit, seconds};
use super::{attribution, containers, mounts, samples};
use crate::locks::Mode;
use crate::snapshot::{InFlight, LockHolds, LockWaits, Releases};

pub(super) const LOCK: Label = Label {
    name: "lock",
    about: "Name of the lock in the catalogue, the same on every kernel, or the name given in the configuration",
    bound: "the watched locks, at most 32",
};
const KNOWN_LOCK: Label = Label {
    bound: "the locks of the catalogue and the configuration that are switched on",
    ..LOCK
};
const MODE: Label = Label {
    name: "mode",
    about: "How the waiter wanted the lock; `optimistic` is a writer of a rwsem that got it by spinning, without \
            queueing",
    bound: "`read`, `write`, `spin`, `mutex`, `optimistic`; fixed by the kind of the lock and by what is hooked",
};
const HELD_MODE: Label = Label {
    name: "mode",
    about: "How the lock was held",
    bound: "`read`, `write`, `mutex`; fixed by the kind of the lock",
};
pub(super) const NUMA_NODE: Label = Label {
    name: "numa_node",
    about: "NUMA node of the CPU on which it ended",
    bound: "the NUMA nodes of the machine",
};
const FROM_NODE: Label = Label {
    name: "from_node",
    about: "NUMA node of the contended acquirer before",
    bound: "the NUMA nodes of the machine",
};
const TO_NODE: Label = Label {
    name: "to_node",
    about: "NUMA node of this contended acquirer",
    bound: "the NUMA nodes of the machine",
};
const SYSCALL: Label = Label {
    name: "syscall",
    about: "Name of the system call",
    bound: "the 17 calls of the mount path",
};
const ERRNO: Label = Label {
    name: "errno",
    about: "Symbolic name of the error (`EPERM`), or `other`",
    bound: "at most 128 pairs of call and error, and `other`",
};
const METHOD: Label = Label {
    name: "method",
    about: "How the address was found",
    bound: "`kallsyms`, `system_map`, `text`, `none`",
};
const HOOK: Label = Label {
    name: "hook",
    about: "What is observed, for instance `contention_begin`",
    bound: "the hooks of the program",
};
const BACKEND: Label = Label {
    name: "backend",
    about: "How it is observed",
    bound: "the kernel's ways to attach (`tp_btf`, `raw_tp`, `fentry`, `kprobe`, `tracepoint`, `iter`; `cycles` \
            and `cpu-clock` for samples), `none`",
};
const REASON: Label = Label {
    name: "reason",
    about: "Why the event was not booked, or not as it should be",
    bound: "the reasons in the table below",
};
const KERNEL: Label =
    Label { name: "kernel", about: "Release of the kernel, as `uname -r` says it", bound: "one" };
const VERSION: Label = Label { name: "version", about: "Version of lockprof", bound: "one" };
const ARCH: Label =
    Label { name: "arch", about: "Architecture that lockprof was compiled for", bound: "one" };

/// Reasons for which events are lost, with what each means. All of them are
/// exposed from the first scrape.
pub const REASONS: &[(&str, &str)] = &[
    (
        "inflight_full",
        "A sleeping wait found no place in the table of tasks in flight (`limits.tasks_in_flight`), so it was \
         not measured; its end then counts as `unmatched_end`.",
    ),
    (
        "spin_stack_full",
        "A spin wait found the stack of its CPU full, so it was not measured; its end then counts as \
         `unmatched_end`.",
    ),
    (
        "unmatched_end",
        "A wait ended whose begin was not seen. Waits that began before lockprof was attached count here, so a \
         start on a busy machine shows a few.",
    ),
    (
        "unmatched_begin",
        "A wait was left behind by its task: the task began another one first, so the end was not seen.",
    ),
    (
        "clock_backwards",
        "A wait ended before it began, by the clocks of two CPUs; it is booked as 0.",
    ),
    (
        "syscall_inflight_full",
        "A mount call, or a read of a mount table, found no place in the table of tasks in flight \
         (`limits.tasks_in_flight`), so it was not measured.",
    ),
    (
        "unmatched_syscall",
        "A mount call returned whose entry was not seen, or a task entered one, or read a mount table, whose \
         previous call or read was not seen to return. Calls that began before lockprof was attached count here, so a start on a busy machine \
         shows a few.",
    ),
    (
        "errno_table_full",
        "An error found no slot in the table of errors; it counts under the errno `other`.",
    ),
    (
        "clone_args_unreadable",
        "The arguments of `clone3` could not be read, so the call was not counted.",
    ),
    (
        "charges_full",
        "Whoever waited, or made others wait, found no row in the table of charges (`attribution.rows`); the wait \
         counts, under the task `other`.",
    ),
    (
        "slow_wait_not_listed",
        "A slow wait found its place in the ring of slow waits (`attribution.slow_waits`) being written; it \
         counts, but is not listed.",
    ),
    (
        "recursion_miss",
        "The kernel skipped a program because it was already running on that CPU (counted since Linux 5.12). \
         It does not say which lock \
         the skipped event was about. A wait for a watched lock of which one event was skipped also counts as \
         `unmatched_end` or `unmatched_begin`; if those stand still, no such wait was half seen. Programs of \
         mount calls are skipped while a task that was preempted on that CPU is in the middle of the same one; \
         the call then is missing, and mostly counts as `unmatched_syscall` too.",
    ),
    ("task_gone", "A wait or call in flight was dropped because its task no longer exists."),
];

/// Every metric.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "lockprof_lock_wait_seconds",
        help: "Time that tasks waited for a contended lock, booked where the wait ended.",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[LOCK, MODE, NUMA_NODE],
        note: "Every watched lock is there from the first scrape. An acquisition without contention is no wait \
               and is not counted. `_count` and `_sum` are exact. Waits that ended without the lock (see \
               `lockprof_lock_waits_failed_total`) are included. Waits still in flight are not: see \
               `lockprof_lock_waiters`. No wait is in two modes: `write` are the writers that queued, \
               `optimistic` those that did not have to, and only where `rwsem_down_write_slowpath` is hooked \
               beside the tracepoints. Where the slow paths are hooked instead of the tracepoints, `write` has \
               both.",
        rows: |s| lock_rows(s, |l| Figure::Times(&l.waits)),
    },
    Metric {
        name: "lockprof_lock_wait_max_seconds",
        help: "Longest wait for the lock since lockprof was attached.",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[LOCK, MODE, NUMA_NODE],
        note: "Exact. It never falls while the daemon runs; for the worst wait of a period, use the buckets of \
               `lockprof_lock_wait_seconds`.",
        rows: |s| lock_rows(s, |l| Figure::Number(seconds(l.waits.max_ns))),
    },
    Metric {
        name: "lockprof_lock_waits_migrated_total",
        help: "Waits that ended on another NUMA node than they began.",
        kind: Kind::Counter,
        unit: None,
        labels: &[LOCK, MODE, NUMA_NODE],
        note: "A part of the waits in `lockprof_lock_wait_seconds`. Spin waits cannot migrate.",
        rows: |s| lock_rows(s, |l| Figure::Count(l.migrated)),
    },
    Metric {
        name: "lockprof_lock_waits_failed_total",
        help: "Waits that ended without the lock, because the waiter was interrupted or killed.",
        kind: Kind::Counter,
        unit: None,
        labels: &[LOCK, MODE, NUMA_NODE],
        note: "A part of the waits in `lockprof_lock_wait_seconds`.",
        rows: |s| lock_rows(s, |l| Figure::Count(l.failed)),
    },
    Metric {
        name: "lockprof_lock_waiters",
        help: "Tasks that wait for the lock at this moment.",
        kind: Kind::Gauge,
        unit: None,
        labels: &[LOCK],
        note: "A hang shows here while it lasts: waits that never end never reach the histogram.",
        rows: |s| inflight_rows(s, |i| Figure::Count(i.map_or(0, |i| i.waiters))),
    },
    Metric {
        name: "lockprof_lock_oldest_wait_seconds",
        help: "Age of the oldest wait that has not ended; 0 without waiters.",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[LOCK],
        note: "",
        rows: |s| inflight_rows(s, |i| Figure::Number(seconds(i.map_or(0, |i| i.oldest_ns)))),
    },
    attribution::WAITER_SECONDS,
    attribution::WAITER_WAITS,
    attribution::BLOCKER_SECONDS,
    attribution::BLOCKER_BASIS_SECONDS,
    attribution::SLOW_WAITS,
    containers::CONTAINER_WAITER_SECONDS,
    containers::CONTAINER_BLOCKER_SECONDS,
    containers::CONTAINER_INFO,
    Metric {
        name: "lockprof_lock_handoffs_total",
        help: "Times that the contended lock went from an acquirer on one NUMA node to one on another, or stayed.",
        kind: Kind::Counter,
        unit: None,
        labels: &[LOCK, FROM_NODE, TO_NODE],
        note: "Contended acquisitions only: an owner that did not have to wait is not seen. A pair of nodes \
               appears with its first handoff.",
        rows: |s| {
            Box::new(s.snapshot.handoffs.iter().map(|h| {
                Row::new(
                    [Text(&h.lock), Number(h.from_node), Number(h.to_node)],
                    Figure::Count(h.count),
                )
            }))
        },
    },
    Metric {
        name: "lockprof_lock_contended_hold_seconds",
        help: "Time that the lock was held while others were queued for it, booked where it was released.",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[LOCK, HELD_MODE, NUMA_NODE],
        note: "Where the kernel has the tracepoint `lock:contended_release` (Linux 7.2). Locks whose waiters sleep \
               alone. A hold begins with the acquisition, if others were queued then, else with the first that \
               queues; the time before that, when nobody was kept waiting, does not count. It ends with the \
               release, or when a writer becomes a reader. Readers hold a lock together: theirs is one hold, that \
               ends with the release by the last of them, on whose node it is booked. Tasks that spin for the \
               lock are not queued. `_count` is of holds of known length alone: see \
               `lockprof_lock_contended_releases_unmeasured_total`. Times are to 16 ns; one beyond 9 hours \
               is unmeasured.",
        rows: |s| {
            Box::new(s.snapshot.holds.iter().map(|h| {
                Row::new(
                    [Text(&h.lock), Text(h.mode.as_str()), Number(h.numa_node)],
                    Figure::Times(&h.holds),
                )
            }))
        },
    },
    Metric {
        name: "lockprof_lock_contended_releases_unmeasured_total",
        help: "Releases of the lock, while others were queued for it, after a hold of unknown length.",
        kind: Kind::Counter,
        unit: None,
        labels: &[LOCK],
        note: "The tracepoint comes after the release, so that the lock may have another holder by then; or the \
               holder acquired the lock unseen while others were queued: by a trylock, or, where fentry cannot be \
               attached, a writer by spinning or a reader by going ahead of the queue, which readers that come \
               back at once do often; or somebody gave up waiting. Nothing is guessed then. With this counter, the holds of \
               `lockprof_lock_contended_hold_seconds` and the releases by one of several readers are all events \
               of the tracepoint.",
        rows: |s| {
            Box::new(
                s.snapshot
                    .releases
                    .iter()
                    .map(|r| Row::new([Text(&r.lock)], Figure::Count(r.unmeasured))),
            )
        },
    },
    Metric {
        name: "lockprof_lock_contended_reader_releases_total",
        help: "Releases of the lock by a reader, while others were queued for it and other readers held on.",
        kind: Kind::Counter,
        unit: None,
        labels: &[LOCK],
        note: "They end no hold.",
        rows: |s| {
            let shared = |r: &&Releases| {
                let held = |h: &LockHolds| h.lock == r.lock && h.mode == Mode::Read;
                s.snapshot.holds.iter().any(held)
            };
            Box::new(
                s.snapshot
                    .releases
                    .iter()
                    .filter(shared)
                    .map(|r| Row::new([Text(&r.lock)], Figure::Count(r.one_of_readers))),
            )
        },
    },
    Metric {
        name: "lockprof_mount_syscall_duration_seconds",
        help: "Duration of the system calls of the mount path, booked where the call returned.",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &[SYSCALL, NUMA_NODE],
        note: "`unshare`, `clone` and `clone3` count when they ask for a new mount namespace (`CLONE_NEWNS`), \
               `setns` when it enters one. Failed calls are included. A call appears when it is first seen.",
        rows: |s| {
            Box::new(s.snapshot.syscalls.iter().map(|c| {
                Row::new([Text(&c.syscall), Number(c.numa_node)], Figure::Times(&c.calls))
            }))
        },
    },
    Metric {
        name: "lockprof_mount_syscall_errors_total",
        help: "System calls of the mount path that returned an error.",
        kind: Kind::Counter,
        unit: None,
        labels: &[SYSCALL, ERRNO],
        note: "All NUMA nodes together. An error appears when it is first seen.",
        rows: |s| {
            Box::new(
                s.snapshot
                    .syscall_errors
                    .iter()
                    .map(|e| Row::new([Text(&e.syscall), Text(&e.errno)], Figure::Count(e.count))),
            )
        },
    },
    Metric {
        name: "lockprof_mount_syscall_lock_wait_seconds_total",
        help: "Time that system calls of the mount path spent waiting for the lock.",
        kind: Kind::Counter,
        unit: Some(Unit::Seconds),
        labels: &[SYSCALL, LOCK],
        note: "All NUMA nodes together. Booked when a wait ends, so calls that have not returned are included. \
               A wait inside another wait counts for both locks.",
        rows: syscall_lock_rows,
    },
    samples::KERNEL_SAMPLES,
    samples::SAMPLING_FREQUENCY,
    mounts::MOUNTINFO_OPENS,
    mounts::MOUNTINFO_READS,
    mounts::MOUNTINFO_ENTRIES,
    mounts::MOUNTINFO_READ_SECONDS,
    mounts::MOUNTINFO_LOCK_WAIT,
    mounts::MOUNT_NAMESPACES,
    mounts::MOUNTS,
    mounts::MOUNTS_MAX,
    mounts::SUPERBLOCKS_CREATED,
    Metric {
        name: "lockprof_lock_resolved",
        help: "Whether the address of the lock is known on this kernel (1) or not (0).",
        kind: Kind::Gauge,
        unit: None,
        labels: &[KNOWN_LOCK, METHOD],
        note: "A lock with 0 is not measured; its method is `none`.",
        rows: |s| {
            Box::new(s.snapshot.resolved.iter().map(|r| {
                let method = r.method.map_or("none", |m| m.as_str());
                Row::new(
                    [Text(&r.lock), Text(method)],
                    Figure::Count(u64::from(r.method.is_some())),
                )
            }))
        },
    },
    Metric {
        name: "lockprof_hook_attached",
        help: "Whether the hook is attached (1) or not (0), and by which backend.",
        kind: Kind::Gauge,
        unit: None,
        labels: &[HOOK, BACKEND],
        note: "A hook with 0 measures nothing; its backend is `none`.",
        rows: |s| {
            Box::new(s.snapshot.hooks.iter().map(|h| {
                Row::new(
                    [Text(&h.hook), Text(&h.backend)],
                    Figure::Count(u64::from(h.backend != "none")),
                )
            }))
        },
    },
    Metric {
        name: "lockprof_events_dropped_total",
        help: "Events that were not booked, or not as they should be.",
        kind: Kind::Counter,
        unit: None,
        labels: &[REASON],
        note: "Every reason is there from the first scrape, at zero.",
        rows: dropped_rows,
    },
    Metric {
        name: "lockprof_build_info",
        help: "Which lockprof this is; always 1.",
        kind: Kind::Info,
        unit: None,
        labels: &[VERSION, ARCH],
        note: "",
        rows: |s| one(Row::new([Text(s.version), Text(s.arch)], Figure::Count(1))),
    },
    Metric {
        name: "lockprof_host_info",
        help: "Which kernel the machine runs; always 1.",
        kind: Kind::Info,
        unit: None,
        labels: &[KERNEL],
        note: "Joins with the other metrics on `instance`, to compare kernels over a fleet: \
               `sum by (kernel) (rate(lockprof_lock_wait_seconds_sum[5m]) * on (instance) group_left (kernel) \
               lockprof_host_info)`.",
        rows: |s| one(Row::new([Text(&s.snapshot.host.kernel)], Figure::Count(1))),
    },
    Metric {
        name: "lockprof_start_time_seconds",
        help: "When measuring began, in seconds since the epoch: all counters were zero then.",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        note: "",
        rows: |s| {
            Box::new(
                s.since
                    .duration_since(UNIX_EPOCH)
                    .ok()
                    .into_iter()
                    .map(|since| Row::new([], Figure::Number(since.as_secs_f64()))),
            )
        },
    },
    Metric {
        name: "process_cpu_seconds_total",
        help: "CPU time that the daemon used, in user and kernel mode.",
        kind: Kind::Counter,
        unit: Some(Unit::Seconds),
        labels: &[],
        note: "The time of the programs inside the kernel is not in it: it belongs to the tasks that they observe.",
        rows: |s| number(s.process.cpu_seconds),
    },
    Metric {
        name: "process_resident_memory_bytes",
        help: "Resident memory of the daemon, with the kernel arrays that it has mapped.",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        note: "",
        rows: |s| count(s.process.resident_bytes),
    },
    Metric {
        name: "process_virtual_memory_bytes",
        help: "Virtual memory of the daemon.",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        note: "",
        rows: |s| count(s.process.virtual_bytes),
    },
    Metric {
        name: "process_open_fds",
        help: "Open file descriptors of the daemon.",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        note: "",
        rows: |s| count(s.process.open_fds),
    },
    Metric {
        name: "process_max_fds",
        help: "Most file descriptors that the daemon may have open.",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        note: "Absent when unlimited.",
        rows: |s| count(s.process.max_fds),
    },
    Metric {
        name: "process_start_time_seconds",
        help: "When the daemon started, in seconds since the epoch.",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        note: "",
        rows: |s| number(s.process.start_seconds),
    },
];

type Boxed<'a> = super::Rows<'a>;

fn lock_rows<'a>(scrape: &'a Scrape<'a>, figure: fn(&'a LockWaits) -> Figure<'a>) -> Boxed<'a> {
    Box::new(scrape.snapshot.locks.iter().map(move |l| {
        Row::new([Text(&l.lock), Text(l.mode.as_str()), Number(l.numa_node)], figure(l))
    }))
}

/// One row for each watched lock, also for those that nobody waits for.
fn inflight_rows<'a>(
    scrape: &'a Scrape<'a>,
    figure: fn(Option<&'a InFlight>) -> Figure<'a>,
) -> Boxed<'a> {
    Box::new(watched(scrape).into_iter().map(move |lock| {
        let waits = scrape.snapshot.inflight.iter().find(|i| i.lock == lock);
        Row::new([Text(lock)], figure(waits))
    }))
}

/// One row for each call that was seen and each watched lock, zeros included:
/// a counter that appears at its first wait would hide that wait from `rate()`.
fn syscall_lock_rows<'a>(scrape: &'a Scrape<'a>) -> Boxed<'a> {
    let locks = watched(scrape);
    let calls = &scrape.snapshot.syscalls;
    let names = distinct(calls.iter().map(|c| c.syscall.as_str()));
    Box::new(names.into_iter().flat_map(move |name| {
        locks.clone().into_iter().map(move |lock| {
            let ns = calls
                .iter()
                .filter(|c| c.syscall == name)
                .filter_map(|c| c.lock_wait_ns.get(lock))
                .fold(0u64, |sum, ns| sum.saturating_add(*ns));
            Row::new([Text(name), Text(lock)], Figure::Number(seconds(ns)))
        })
    }))
}

/// What the snapshot says, then every known reason that it lacks, at zero.
fn dropped_rows<'a>(scrape: &'a Scrape<'a>) -> Boxed<'a> {
    let dropped = &scrape.snapshot.dropped;
    let lacking = REASONS
        .iter()
        .map(|(reason, _)| *reason)
        .filter(|reason| !dropped.iter().any(|d| d.reason == *reason));
    Box::new(
        dropped
            .iter()
            .map(|d| Row::new([Text(&d.reason)], Figure::Count(d.count)))
            .chain(lacking.map(|reason| Row::new([Text(reason)], Figure::Count(0)))),
    )
}

/// Label values of the watched locks, in the order of the snapshot.
pub(super) fn watched<'a>(scrape: &'a Scrape<'a>) -> Vec<&'a str> {
    distinct(scrape.snapshot.locks.iter().map(|l| l.lock.as_str()))
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn one(row: Row<'_>) -> Boxed<'_> {
    Box::new(std::iter::once(row))
}

pub(super) fn count<'a>(value: Option<u64>) -> Boxed<'a> {
    Box::new(value.into_iter().map(|v| Row::new([], Figure::Count(v))))
}

fn number<'a>(value: Option<f64>) -> Boxed<'a> {
    Box::new(value.into_iter().map(|v| Row::new([], Figure::Number(v))))
}

#[cfg(test)]
mod tests {
    use profiler_common::layout::DROP_NAMES;

    use super::*;
    use crate::serve::example;

    #[test]
    fn every_loss_that_the_programs_count_is_explained() {
        for name in DROP_NAMES {
            assert!(REASONS.iter().any(|(reason, _)| *reason == name), "{name}");
        }
    }

    #[test]
    fn every_reason_is_exposed_once_even_if_the_snapshot_lacks_it() {
        let mut snapshot = example::snapshot();
        snapshot.dropped.retain(|d| d.reason == "unmatched_end");
        let scrape = example::scrape(&snapshot);
        let rows: Vec<_> = dropped_rows(&scrape).map(|row| row.values().to_vec()).collect();
        assert_eq!(rows.len(), REASONS.len());
        for (reason, _) in REASONS {
            assert!(rows.contains(&vec![Text(reason)]), "{reason}");
        }
    }

    #[test]
    fn a_lock_without_waiters_is_exposed_at_zero() {
        let mut snapshot = example::snapshot();
        snapshot.inflight.clear();
        let scrape = example::scrape(&snapshot);
        let rows: Vec<_> =
            inflight_rows(&scrape, |i| Figure::Count(i.map_or(0, |i| i.waiters))).collect();
        assert_eq!(rows.len(), watched(&scrape).len());
        assert!(rows.iter().all(|row| matches!(row.figure, Figure::Count(0))));
    }

    #[test]
    fn lock_waits_of_a_call_add_up_over_nodes() {
        let snapshot = example::snapshot();
        let scrape = example::scrape(&snapshot);
        let labels = [Text("mount"), Text("namespace_sem")];
        let row = syscall_lock_rows(&scrape).find(|row| row.values() == labels).unwrap();
        let expected: u64 = snapshot
            .syscalls
            .iter()
            .filter(|c| c.syscall == "mount")
            .map(|c| c.lock_wait_ns["namespace_sem"])
            .sum();
        assert!(matches!(row.figure, Figure::Number(n) if n == seconds(expected)));
    }
}
