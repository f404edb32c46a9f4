use super::*;
use crate::locks::Mode;
use crate::snapshot::{Dropped, Histogram, LockWaits, Superblocks, SyscallCalls, Times};

fn times(values_ns: &[u64]) -> Times {
    Times {
        count: u64::try_from(values_ns.len()).unwrap(),
        sum_ns: values_ns.iter().sum(),
        max_ns: values_ns.iter().copied().max().unwrap_or(0),
        buckets: Histogram::from_values_ns(values_ns.iter().copied()),
    }
}

fn lock(lock: &str, mode: Mode, numa_node: u32, values_ns: &[u64]) -> LockWaits {
    let waits = times(values_ns);
    LockWaits { lock: lock.to_owned(), mode, numa_node, waits, migrated: 0, failed: 0 }
}

fn call(syscall: &str, numa_node: u32, values_ns: &[u64], waited: &[(&str, u64)]) -> SyscallCalls {
    SyscallCalls {
        syscall: syscall.to_owned(),
        numa_node,
        calls: times(values_ns),
        errors: 1,
        lock_wait_ns: waited.iter().map(|(lock, ns)| ((*lock).to_owned(), *ns)).collect(),
    }
}

fn later() -> Snapshot {
    Snapshot {
        duration_ns: 9_000,
        locks: vec![
            lock("namespace_sem", Mode::Write, 0, &[100, 200, 4_000]),
            lock("namespace_sem", Mode::Write, 1, &[50]),
            lock("mount_lock", Mode::Spin, 0, &[]),
        ],
        syscalls: vec![
            call("mount", 0, &[1_000, 2_000], &[("namespace_sem", 300), ("mount_lock", 20)]),
            call("mount", 1, &[500], &[("namespace_sem", 50)]),
        ],
        superblocks: Some(vec![Superblocks { filesystem: "tmpfs".into(), count: 9 }]),
        dropped: vec![
            Dropped { reason: "inflight_full".to_owned(), count: 2 },
            Dropped { reason: "unmatched_end".to_owned(), count: 3 },
        ],
        ..Snapshot::default()
    }
}

#[test]
fn a_window_is_condensed_to_what_was_counted_in_it() {
    let earlier = Snapshot {
        duration_ns: 1_000,
        locks: vec![lock("namespace_sem", Mode::Write, 0, &[100])],
        superblocks: Some(vec![Superblocks { filesystem: "tmpfs".into(), count: 4 }]),
        dropped: vec![Dropped { reason: "unmatched_end".to_owned(), count: 3 }],
        ..Snapshot::default()
    };
    let measured = Measured::of(&later().since(&earlier));
    assert_eq!(measured.window_ns, 8_000);
    assert_eq!(measured.dropped, [("inflight_full".to_owned(), 2)].into());
    assert_eq!(measured.superblocks, BTreeMap::from([("tmpfs".to_owned(), 5)]));
    let rows: Vec<_> = measured
        .waits
        .iter()
        .map(|row| (&*row.lock, &*row.mode, row.numa_node, row.count, row.sum_ns, row.max_ns))
        .collect();
    assert_eq!(
        rows,
        [("namespace_sem", "write", 0, 2, 4_200, 4_000), ("namespace_sem", "write", 1, 1, 50, 50)],
        "a lock that nobody waited for has no row"
    );
    assert_eq!(measured.waits[0].p99_ns, 4_000);
    assert_eq!(measured.by_lock(), BTreeMap::from([("namespace_sem", (3, 4_250))]));
}

#[test]
fn calls_of_all_nodes_are_added_up_with_what_they_waited() {
    let measured = Measured::of(&later());
    let mount = Calls { count: 3, errors: 2, sum_ns: 3_500, lock_wait_ns: 370 };
    assert_eq!(measured.syscalls, BTreeMap::from([("mount".to_owned(), mount)]));
}

#[test]
fn a_kernel_that_shows_nothing_gives_an_empty_window() {
    assert_eq!(Measured::of(&Snapshot::default()), Measured::default());
}
