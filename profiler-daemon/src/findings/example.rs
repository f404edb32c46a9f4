//! Windows for tests: rows by name and milliseconds.

use std::collections::BTreeMap;

use crate::locks::Mode;
use crate::snapshot::{
    Basis, Blocker, Cgroup, Charge, Container, Dropped, Handoff, Histogram, Host, InFlight,
    LockWaits, MOUNTINFO_READ, MountTable, MountTables, MountinfoReader, NumaNode, Party, Place,
    Runtime, SCHEMA, SampleCount, Samples, SlowWait, SlowWaits, Snapshot, Superblocks,
    SyscallCalls, Times, Waiter, Who,
};

pub(crate) const fn ms(n: u64) -> u64 {
    n * 1_000_000
}

/// Waits of a tenth of a second each, and one of what is left.
fn charge(total_ms: u64) -> Charge {
    Charge { count: total_ms / 100 + 1, sum_ns: ms(total_ms), max_ns: ms(total_ms.min(200)) }
}

fn times(count: u64, total_ms: u64) -> Times {
    let mean_ns = ms(total_ms) / count;
    let each = std::iter::repeat_n(mean_ns, usize::try_from(count).unwrap_or(0));
    let buckets = Histogram::from_values_ns(each);
    Times { count, sum_ns: ms(total_ms), max_ns: ms(total_ms).min(ms(200)), buckets }
}

pub(crate) fn wait(lock: &str, mode: Mode, total_ms: u64) -> LockWaits {
    LockWaits {
        lock: lock.into(),
        mode,
        numa_node: 0,
        waits: times(total_ms / 100 + 1, total_ms),
        migrated: 0,
        failed: 0,
    }
}

pub(crate) fn call(syscall: &str, count: u64, total_ms: u64) -> SyscallCalls {
    SyscallCalls {
        syscall: syscall.into(),
        numa_node: 0,
        calls: times(count, total_ms),
        errors: 0,
        lock_wait_ns: BTreeMap::new(),
    }
}

pub(crate) fn call_waiting(
    syscall: &str,
    count: u64,
    total_ms: u64,
    lock: &str,
    waited_ms: u64,
) -> SyscallCalls {
    let lock_wait_ns = BTreeMap::from([(lock.to_owned(), ms(waited_ms))]);
    SyscallCalls { lock_wait_ns, ..call(syscall, count, total_ms) }
}

pub(crate) fn task(name: &str) -> Party {
    Party::Task(Who { task: name.into(), ..Who::default() })
}

pub(crate) fn runtime(name: &str, runtime: Runtime) -> Party {
    Party::Task(Who { task: name.into(), runtime, cgroup: None })
}

pub(crate) fn container(name: &str, id: &str) -> Party {
    let container =
        Container { manager: "containerd".into(), id: id.into(), pod_uid: None, qos: None };
    let path = format!("/kubepods/{id}").as_str().into();
    let cgroup = Cgroup { id: 1, path, container: Some(container) };
    Party::Task(Who { task: name.into(), runtime: Runtime::Other, cgroup: Some(cgroup) })
}

pub(crate) fn blocker(
    lock: &str,
    basis: Basis,
    call: Option<&str>,
    party: Party,
    total_ms: u64,
) -> Blocker {
    let call = call.map(str::to_owned);
    Blocker { lock: lock.into(), basis, call, party, waits: charge(total_ms) }
}

pub(crate) fn waiter(
    lock: &str,
    mode: Mode,
    call: Option<&str>,
    party: Party,
    count: u64,
    total_ms: u64,
) -> Waiter {
    let waits = Charge { count, ..charge(total_ms) };
    Waiter { lock: lock.into(), mode: Some(mode), call: call.map(str::to_owned), party, waits }
}

pub(crate) fn reader(
    file: &str,
    party: Party,
    opens: u64,
    entries: u64,
    total_ms: u64,
) -> MountinfoReader {
    MountinfoReader { file: file.into(), party, opens, entries, reads: charge(total_ms) }
}

pub(crate) fn superblocks(filesystem: &str, count: u64) -> Superblocks {
    Superblocks { filesystem: filesystem.into(), count }
}

pub(crate) fn table(owner: Party, mounts: u64) -> MountTable {
    MountTable { namespace: 4_026_531_841, mounts, tasks: 3, owner }
}

pub(crate) fn tables(largest: Vec<MountTable>) -> MountTables {
    let mounts = largest.iter().map(|table| table.mounts).sum();
    MountTables { namespaces: largest.len() as u64, mounts, largest, age_ns: 0 }
}

pub(crate) fn samples(there: u64, slow_path: u64, elsewhere: u64) -> Samples {
    let count = |place, count| SampleCount { numa_node: 0, place, count };
    Samples {
        frequency_hz: 99,
        source: "cpu-clock".into(),
        functions: vec!["path_init".into()],
        counts: vec![
            count(Place::MountSeqcount, there),
            count(Place::LockSlowPath, slow_path),
            count(Place::Elsewhere, elsewhere),
        ],
    }
}

pub(crate) fn slow_wait(
    number: u64,
    lock: &str,
    mode: Mode,
    waiter: Party,
    total_ms: u64,
    stack: &[&str],
) -> SlowWait {
    SlowWait {
        number,
        lock: lock.into(),
        mode,
        numa_node: 0,
        cpu: 0,
        tid: 1,
        waiter,
        waiter_call: None,
        blocker: Party::Unknown,
        blocker_basis: Basis::Unknown,
        blocker_call: None,
        duration_ns: ms(total_ms),
        ended_unix_ns: 0,
        stack: stack.iter().map(|frame| (*frame).into()).collect(),
    }
}

pub(crate) fn slow(recent: Vec<SlowWait>) -> Option<SlowWaits> {
    Some(SlowWaits { threshold_ns: ms(10), count: recent.len() as u64, recent })
}

/// Ten seconds of a machine with two nodes on which a container starts now and
/// then.
pub(crate) fn quiet() -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        duration_ns: ms(10_000),
        host: Host {
            name: "host-a".into(),
            uptime_ns: 0,
            kernel: "6.18.0".into(),
            cpus: 4,
            numa_nodes: vec![
                NumaNode { id: 0, cpus: vec![0, 1] },
                NumaNode { id: 1, cpus: vec![2, 3] },
            ],
        },
        locks: vec![
            wait("namespace_sem", Mode::Read, 2),
            wait("namespace_sem", Mode::Write, 4),
            wait("rcu_exp_mutex", Mode::Mutex, 3),
        ],
        inflight: vec![InFlight { lock: "namespace_sem".into(), waiters: 1, oldest_ns: ms(1) }],
        syscalls: vec![
            call_waiting("mount", 40, 9, "namespace_sem", 4),
            call_waiting("umount2", 40, 9, "rcu_exp_mutex", 3),
            call("pivot_root", 10, 1),
            call("clone3", 10, 2),
        ],
        blockers: vec![blocker("namespace_sem", Basis::Owner, Some("mount"), task("runc"), 6)],
        mountinfo_readers: Some(vec![reader("mountinfo", task("runc"), 90, 4_000, 4)]),
        mountinfo_lock_wait_ns: Some(BTreeMap::from([("namespace_sem".to_owned(), ms(1))])),
        mount_tables: Some(tables(vec![table(task("systemd"), 40)])),
        superblocks: Some(vec![superblocks("tmpfs", 30), superblocks("overlay", 10)]),
        samples: Some(samples(9, 1, 500)),
        dropped: vec![Dropped { reason: "unmatched_end".into(), count: 2 }],
        ..Snapshot::default()
    }
}

/// Ten seconds of one on which everything is wrong at once.
pub(crate) fn busy() -> Snapshot {
    let (runc, cat) = (container("runc", "0123456789abcdef"), container("cat", "fedcba9876543210"));
    let write = Mode::Write;
    Snapshot {
        locks: vec![
            wait("namespace_sem", Mode::Read, 500),
            wait("namespace_sem", write, 4_000),
            wait("namespace_sem", Mode::Optimistic, 1_500),
            wait("rcu_exp_mutex", Mode::Mutex, 1_500),
            wait("shrinker_rwsem", Mode::Mutex, 1_500),
            wait("tasklist_lock", write, 1_000),
        ],
        inflight: vec![InFlight {
            lock: "namespace_sem".into(),
            waiters: 40,
            oldest_ns: ms(42_000),
        }],
        handoffs: vec![Handoff {
            lock: "namespace_sem".into(),
            from_node: 0,
            to_node: 1,
            count: 900,
        }],
        syscalls: vec![
            call_waiting("mount", 4_000, 6_000, "namespace_sem", 4_500),
            call_waiting("umount2", 400, 1_800, "rcu_exp_mutex", 1_400),
            call_waiting("pivot_root", 100, 1_200, "tasklist_lock", 1_000),
            call_waiting("clone3", 100, 800, "namespace_sem", 100),
        ],
        waiters: vec![
            waiter("namespace_sem", Mode::Read, Some(MOUNTINFO_READ), cat.clone(), 90, 500),
            waiter("namespace_sem", write, Some("mount"), runc.clone(), 700, 5_500),
        ],
        blockers: vec![
            blocker("namespace_sem", Basis::ReaderHint, Some(MOUNTINFO_READ), cat.clone(), 3_200),
            blocker("namespace_sem", Basis::Owner, Some("mount"), runc.clone(), 1_700),
            blocker("namespace_sem", Basis::Owner, Some("clone3"), runc.clone(), 1_100),
            blocker("tasklist_lock", Basis::Unknown, None, Party::Unknown, 1_000),
        ],
        mountinfo_readers: Some(vec![
            reader("mountinfo", cat, 3_000, 6_000_000, 3_000),
            reader("mounts", runc.clone(), 200, 4_000, 4),
        ]),
        mount_tables: Some(tables(vec![table(runc, 20_000), table(task("systemd"), 700)])),
        superblocks: Some(vec![superblocks("tmpfs", 9_600), superblocks("overlay", 100)]),
        samples: Some(samples(600, 100, 300)),
        dropped: vec![Dropped { reason: "inflight_full".into(), count: 900 }],
        ..quiet()
    }
}
