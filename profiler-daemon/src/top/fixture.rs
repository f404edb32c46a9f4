//! Totals made by hand for the tests of this room and of the built binary:
//! figures that fit together, every section, and names that would do harm.

use crate::findings::Finding;
use crate::locks::{Method, Mode};
use crate::snapshot::{
    Basis, Blocker, Cgroup, Charge, Container, Dropped, Handoff, Histogram, Hook, Host, InFlight,
    LockHolds, LockWaits, MOUNTINFO_READ, MountTable, MountTables, MountinfoReader, NumaNode,
    OwnCost, Party, Place, Releases, Resolution, Runtime, SCHEMA, SampleCount, Samples, SlowWait,
    SlowWaits, Snapshot, Superblocks, SyscallCalls, SyscallErrors, Times, Who,
};

/// Which totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixture {
    /// What [`Fixture::Rich`] was a second before: nothing had happened.
    Before,
    /// An incident, with every section.
    Rich,
    /// A kernel that refuses all that it can.
    Bare,
}

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// A task name that would clear the screen and then some, if it were let.
const HOSTILE: &str = "\u{1b}[2J\u{202e}\"x\n";

/// The totals.
pub(crate) fn totals_of(fixture: Fixture) -> Snapshot {
    match fixture {
        Fixture::Before => {
            let mut before = rich();
            let none = |times: &mut Times| *times = Times::default();
            before.duration_ns -= SECOND;
            before.host.uptime_ns -= SECOND;
            before.locks.iter_mut().for_each(|row| none(&mut row.waits));
            before.holds.iter_mut().for_each(|row| none(&mut row.holds));
            before.releases.clear();
            before.handoffs.clear();
            before.inflight.iter_mut().for_each(|row| (row.waiters, row.oldest_ns) = (0, 0));
            before.syscalls.clear();
            before.syscall_errors.clear();
            before.waiters.clear();
            before.blockers.clear();
            before.mountinfo_readers = Some(vec![]);
            before.mountinfo_lock_wait_ns = Some([].into());
            before.superblocks = Some(vec![]);
            let slow = SlowWaits { threshold_ns: 10 * MS, count: 0, recent: vec![] };
            before.slow_waits = Some(slow);
            before.dropped.iter_mut().for_each(|row| row.count = 0);
            if let Some(samples) = &mut before.samples {
                samples.counts.iter_mut().for_each(|row| row.count = 0);
            }
            if let Some(own) = &mut before.own {
                own.cpu_ns -= 3 * MS;
            }
            before
        }
        Fixture::Rich => rich(),
        Fixture::Bare => Snapshot {
            schema: SCHEMA,
            duration_ns: 5 * SECOND,
            host: Host { kernel: "5.10.0".into(), cpus: 1, ..Host::default() },
            locks: vec![waits("namespace_sem", Mode::Write, 0, &[(3, 40_000)])],
            hooks: vec![hook("contention_begin", "kprobe"), hook("sys_mount", "none")],
            resolved: vec![Resolution {
                lock: "mount_lock".into(),
                symbol: String::new(),
                method: None,
            }],
            ..Snapshot::default()
        },
    }
}

/// Findings as rules make them; which rules there are does not matter here.
pub(crate) fn findings() -> Vec<Finding> {
    vec![
        Finding {
            rule: "mountinfo-readers",
            title: "systemd reads mountinfo 24 times a second".into(),
            figures: vec![
                ("opens".into(), "24/s".into()),
                ("mounts in the table".into(), "20112".into()),
            ],
            cause: "every read walks the whole mount table and holds namespace_sem for reading",
            remedy: "run a systemd that listens with listmount (v258), or lower the mount count"
                .into(),
            weight: 0.69,
        },
        Finding {
            rule: "remote-handoffs",
            title: format!("namespace_sem goes to {HOSTILE} on another node"),
            figures: vec![],
            cause: "its cache line crosses the sockets with every handoff",
            remedy: "start containers from one node".into(),
            weight: 0.2,
        },
    ]
}

fn times(values: &[(u64, u64)]) -> Times {
    let all = || values.iter().flat_map(|(count, ns)| (0..*count).map(|_| *ns));
    Times {
        count: all().count() as u64,
        sum_ns: all().sum(),
        max_ns: all().max().unwrap_or(0),
        buckets: Histogram::from_values_ns(all()),
    }
}

fn waits(lock: &str, mode: Mode, numa_node: u32, values: &[(u64, u64)]) -> LockWaits {
    LockWaits { lock: lock.into(), mode, numa_node, waits: times(values), migrated: 0, failed: 0 }
}

fn hook(hook: &str, backend: &str) -> Hook {
    Hook { hook: hook.into(), backend: backend.into() }
}

fn task(name: &str, runtime: Runtime, path: &str) -> Party {
    let id = path.rsplit('/').next().unwrap_or_default();
    let container = (id.len() > 30).then(|| Container {
        manager: "containerd".into(),
        id: id.into(),
        pod_uid: Some("0b6f2d8c-51a7-4c1e-9c0d-2f1f6f1f7a10".into()),
        qos: Some("burstable".into()),
    });
    let cgroup = Some(Cgroup { id: path.len() as u64, path: path.into(), container });
    Party::Task(Who { task: name.into(), runtime, cgroup })
}

fn runc() -> Party {
    task(
        "runc:[2:INIT]",
        Runtime::Runc,
        "/kubepods/burstable/pod0b6f2d8c/3fa1b2c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f80",
    )
}

fn systemd() -> Party {
    task("systemd", Runtime::Systemd, "/init.scope")
}

fn hostile() -> Party {
    task(HOSTILE, Runtime::Other, "/user.slice/🦀\u{200b}crab.scope")
}

fn charge(count: u64, sum_ns: u64, max_ns: u64) -> Charge {
    Charge { count, sum_ns, max_ns }
}

fn rich() -> Snapshot {
    let write = [(120, 2 * MS), (40, 14 * MS), (3, 480 * MS)];
    let read = [(400, 30_000), (90, 4 * MS), (8, 61 * MS)];
    let spin = [(9000, 700), (400, 12_000), (2, MS)];
    Snapshot {
        schema: SCHEMA,
        duration_ns: 3600 * SECOND,
        host: Host {
            name: "web-17".into(),
            uptime_ns: 273_600 * SECOND,
            kernel: "6.18.44".into(),
            cpus: 8,
            numa_nodes: vec![
                NumaNode { id: 0, cpus: vec![0, 1, 2, 3] },
                NumaNode { id: 1, cpus: vec![4, 5, 6, 7] },
            ],
        },
        locks: vec![
            waits("namespace_sem", Mode::Write, 0, &write),
            waits("namespace_sem", Mode::Write, 1, &[(30, 9 * MS), (1, 1200 * MS)]),
            waits("namespace_sem", Mode::Read, 0, &read),
            waits("namespace_sem", Mode::Read, 1, &read[1..]),
            waits("namespace_sem", Mode::Optimistic, 0, &[(12, 40_000)]),
            waits("mount_lock", Mode::Spin, 0, &spin),
            waits("mount_lock", Mode::Spin, 1, &spin[..2]),
            waits("shrinker_rwsem", Mode::Mutex, 0, &[(7, 900_000)]),
            waits("tasklist_lock", Mode::Read, 0, &[]),
            waits("tasklist_lock", Mode::Write, 0, &[]),
        ],
        inflight: vec![
            InFlight { lock: "namespace_sem".into(), waiters: 14, oldest_ns: 640 * MS },
            InFlight { lock: "mount_lock".into(), waiters: 1, oldest_ns: 3_000 },
        ],
        holds: vec![LockHolds {
            lock: "namespace_sem".into(),
            mode: Mode::Write,
            numa_node: 0,
            holds: times(&[(60, 3 * MS), (1, 470 * MS)]),
        }],
        releases: vec![Releases {
            lock: "namespace_sem".into(),
            unmeasured: 2,
            one_of_readers: 30,
        }],
        handoffs: vec![handoff(0, 0, 90), handoff(0, 1, 60), handoff(1, 0, 58)],
        syscalls: calls(),
        syscall_errors: vec![
            SyscallErrors { syscall: "umount2".into(), errno: "EBUSY".into(), count: 3 },
            SyscallErrors { syscall: "umount2".into(), errno: "other".into(), count: 1 },
        ],
        waiters: waiters(),
        blockers: blockers(),
        slow_waits: Some(slow_waits()),
        mountinfo_readers: Some(vec![
            reader("mountinfo", systemd(), 24, 96_000, charge(240, 610 * MS, 48 * MS)),
            reader("mounts", runc(), 6, 1200, charge(12, 9 * MS, 2 * MS)),
            reader("mountstats", hostile(), 1, 10, charge(1, 40_000, 40_000)),
        ]),
        mountinfo_lock_wait_ns: Some([("namespace_sem".into(), 420 * MS)].into()),
        mount_tables: Some(mount_tables()),
        superblocks: Some(vec![
            Superblocks { filesystem: "tmpfs".into(), count: 96 },
            Superblocks { filesystem: "overlay".into(), count: 8 },
            Superblocks { filesystem: HOSTILE.into(), count: 1 },
        ]),
        samples: Some(samples()),
        own: Some(OwnCost { cpu_ns: 9 * SECOND, resident_bytes: 31 << 20, arrays_bytes: 3 << 20 }),
        dropped: [("inflight_full", 0), ("unmatched_end", 0), ("recursion_miss", 12)]
            .map(|(reason, count)| Dropped { reason: reason.into(), count })
            .into(),
        resolved: vec![
            resolved("namespace_sem", "namespace_sem", Some(Method::Kallsyms)),
            resolved("mount_lock", "mount_lock.lock", Some(Method::Text)),
            resolved("sb_lock", "", None),
        ],
        hooks: vec![
            hook("contention_begin", "tp_btf"),
            hook("contention_end", "tp_btf"),
            hook("sys_mount", "tracepoint"),
            hook("contended_release", "none"),
            // Keys of another host's JSON are no names.
            hook("x\u{1b}]0;title\u{7}", "fentry\r"),
        ],
    }
}

fn resolved(lock: &str, symbol: &str, method: Option<Method>) -> Resolution {
    Resolution { lock: lock.into(), symbol: symbol.into(), method }
}

fn handoff(from_node: u32, to_node: u32, count: u64) -> Handoff {
    Handoff { lock: "namespace_sem".into(), from_node, to_node, count }
}

fn calls() -> Vec<SyscallCalls> {
    let call = |syscall: &str, numa_node, values: &[(u64, u64)], errors, waits: &[(&str, u64)]| {
        SyscallCalls {
            syscall: syscall.into(),
            numa_node,
            calls: times(values),
            errors,
            lock_wait_ns: waits.iter().map(|(lock, ns)| ((*lock).into(), *ns)).collect(),
        }
    };
    vec![
        call(
            "mount",
            0,
            &[(160, 3 * MS), (40, 16 * MS), (3, 490 * MS)],
            0,
            &[("namespace_sem", 1900 * MS), ("mount_lock", 9 * MS)],
        ),
        call("mount", 1, &[(30, 10 * MS)], 0, &[("namespace_sem", 270 * MS)]),
        call("umount2", 0, &[(80, MS)], 4, &[("namespace_sem", 30 * MS)]),
        call("pivot_root", 0, &[(4, 200_000)], 0, &[]),
    ]
}

fn waiters() -> Vec<crate::snapshot::Waiter> {
    let waiter = |lock: &str, mode, call: Option<&str>, party, waits| crate::snapshot::Waiter {
        lock: lock.into(),
        mode,
        call: call.map(Into::into),
        party,
        waits,
    };
    let write = Some(Mode::Write);
    vec![
        waiter("namespace_sem", write, Some("mount"), runc(), charge(150, 2900 * MS, 1200 * MS)),
        waiter("namespace_sem", write, Some("umount2"), systemd(), charge(30, 400 * MS, 90 * MS)),
        waiter("namespace_sem", write, None, hostile(), charge(14, 200 * MS, 40 * MS)),
        waiter(
            "namespace_sem",
            Some(Mode::Read),
            Some(MOUNTINFO_READ),
            systemd(),
            charge(596, 1744 * MS, 61 * MS),
        ),
        waiter("mount_lock", Some(Mode::Spin), Some("mount"), runc(), charge(9402, 13 * MS, MS)),
        waiter("namespace_sem", None, None, Party::Other, charge(3, 2 * MS, MS)),
    ]
}

fn blockers() -> Vec<Blocker> {
    let blocker = |lock: &str, basis, call: Option<&str>, party, waits| Blocker {
        lock: lock.into(),
        basis,
        call: call.map(Into::into),
        party,
        waits,
    };
    let (owner, hint) = (Basis::Owner, Basis::ReaderHint);
    vec![
        blocker(
            "namespace_sem",
            hint,
            Some(MOUNTINFO_READ),
            systemd(),
            charge(500, 3600 * MS, 1200 * MS),
        ),
        blocker("namespace_sem", owner, Some("mount"), runc(), charge(240, 1200 * MS, 90 * MS)),
        blocker("namespace_sem", owner, None, hostile(), charge(40, 300 * MS, 40 * MS)),
        blocker("namespace_sem", Basis::Unknown, None, Party::Unknown, charge(13, 146 * MS, MS)),
        blocker("mount_lock", Basis::Inferred, Some("mount"), runc(), charge(9402, 13 * MS, MS)),
        blocker("shrinker_rwsem", owner, None, Party::Other, charge(7, 6_300_000, 900_000)),
    ]
}

fn slow_waits() -> SlowWaits {
    let wait = |number, waiter, blocker, blocker_basis, duration_ns, stack: &[&str]| SlowWait {
        number,
        lock: "namespace_sem".into(),
        mode: Mode::Write,
        numa_node: 1,
        cpu: 5,
        tid: 4242,
        waiter,
        waiter_call: Some("mount".into()),
        blocker,
        blocker_basis,
        blocker_call: Some(MOUNTINFO_READ.into()),
        duration_ns,
        ended_unix_ns: 1_763_732_401_250_000_000 + number * 40 * MS,
        stack: stack.iter().map(|function| (*function).into()).collect(),
    };
    let stack = [
        "rwsem_down_write_slowpath+0x1a4",
        "down_write+0x5d",
        "lock_mount+0x5b",
        "do_new_mount_fc+0xa1",
        "path_mount+0x4c3",
        "__x64_sys_mount+0x112",
        "do_syscall_64+0x82",
        "entry_SYSCALL_64_after_hwframe+0x76",
    ];
    SlowWaits {
        threshold_ns: 10 * MS,
        count: 44,
        recent: vec![
            wait(44, runc(), systemd(), Basis::ReaderHint, 1200 * MS, &stack),
            wait(43, systemd(), runc(), Basis::Owner, 90 * MS, &stack[..4]),
            wait(42, hostile(), Party::Unknown, Basis::Unknown, 14 * MS, &[]),
        ],
    }
}

fn reader(file: &str, party: Party, opens: u64, entries: u64, reads: Charge) -> MountinfoReader {
    MountinfoReader { file: file.into(), party, opens, entries, reads }
}

fn mount_tables() -> MountTables {
    let table = |namespace, mounts, tasks, owner| MountTable { namespace, mounts, tasks, owner };
    MountTables {
        namespaces: 112,
        mounts: 61_400,
        largest: vec![
            table(4_026_531_841, 20_112, 310, systemd()),
            table(4_026_532_207, 1210, 4, runc()),
            table(4_026_532_300, 40, 1, hostile()),
        ],
        age_ns: 12 * SECOND,
    }
}

fn samples() -> Samples {
    let count = |numa_node, place, count| SampleCount { numa_node, place, count };
    Samples {
        frequency_hz: 99,
        source: "cycles".into(),
        functions: ["path_init", "__legitimize_mnt", "lookup_mnt"].map(Into::into).into(),
        counts: vec![
            count(0, Place::MountSeqcount, 61),
            count(0, Place::LockSlowPath, 22),
            count(0, Place::Elsewhere, 40),
            count(1, Place::MountSeqcount, 190),
            count(1, Place::LockSlowPath, 31),
            count(1, Place::Elsewhere, 52),
        ],
    }
}
