//! A fixed snapshot for the tests of this room and for the samples on the
//! reference page. The figures are made up; what they must fit is checked by
//! the tests that use them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use profiler_common::layout::DROP_NAMES;

use super::exposition::{self, Figures, Format};
use super::metrics::Scrape;
use super::process::Process;
use super::{Health, SnapshotSource};
use crate::locks::{Method, Mode};
use crate::snapshot::containers::{ContainerTime, ContainerTimes, NONE, OTHER};
use crate::snapshot::{
    Basis, Blocker, Cgroup, Charge, Container, Dropped, Handoff, Histogram, Hook, Host, InFlight,
    LockHolds, LockWaits, MOUNTINFO_READ, MountTable, MountTables, MountinfoReader, NumaNode,
    Party, Place, Releases, Resolution, Runtime, SCHEMA, SampleCount, Samples, SlowWaits, Snapshot,
    Superblocks, SyscallCalls, SyscallErrors, Times, Waiter, Who,
};

/// When the counters of the example were zero.
pub(super) fn since() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_750_000_000)
}

const PROCESS: Process = Process {
    cpu_seconds: Some(1.25),
    resident_bytes: Some(9 << 20),
    virtual_bytes: Some(140 << 20),
    open_fds: Some(41),
    max_fds: Some(1024),
    start_seconds: Some(1_749_999_999.5),
};

/// A container of the example.
const CONTAINER_ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn times(values_ns: &[u64]) -> Times {
    Times {
        count: values_ns.len() as u64,
        sum_ns: values_ns.iter().sum(),
        max_ns: values_ns.iter().copied().max().unwrap_or(0),
        buckets: Histogram::from_values_ns(values_ns.iter().copied()),
    }
}

fn waits(lock: &str, mode: Mode, numa_node: u32, values_ns: &[u64]) -> LockWaits {
    LockWaits {
        lock: lock.into(),
        mode,
        numa_node,
        waits: times(values_ns),
        migrated: 0,
        failed: 0,
    }
}

fn runc(id: &str) -> Party {
    let path = format!("/system.slice/docker-{id}.scope");
    let container = Container { manager: "docker".into(), id: id.into(), pod_uid: None, qos: None };
    let cgroup = Cgroup { id: 4321, path: path.into(), container: Some(container) };
    Party::Task(Who { task: "runc".into(), runtime: Runtime::Runc, cgroup: Some(cgroup) })
}

fn party(task: &str, runtime: Runtime) -> Party {
    Party::Task(Who { task: task.into(), runtime, cgroup: None })
}

fn reader(file: &str, task: &str, runtime: Runtime, opens: u64, entries: u64) -> MountinfoReader {
    let reads = Charge { count: 3 * opens, sum_ns: 250_000 * opens, max_ns: 900_000 };
    MountinfoReader { file: file.into(), party: party(task, runtime), opens, entries, reads }
}

/// Two nodes, three locks, of which one was not found.
pub(super) fn snapshot() -> Snapshot {
    let mut read = waits("namespace_sem", Mode::Read, 0, &[700, 18_000, 2_500_000, 31_000_000]);
    read.migrated = 1;
    read.failed = 1;
    let resolved = |lock: &str, symbol: &str, method| Resolution {
        lock: lock.into(),
        symbol: symbol.into(),
        method,
    };
    let hook = |hook: &str, backend: &str| Hook { hook: hook.into(), backend: backend.into() };
    Snapshot {
        schema: SCHEMA,
        duration_ns: 10_000_000_000,
        host: Host {
            name: "host-a".into(),
            uptime_ns: 86_400_000_000_000,
            kernel: "6.18.0".into(),
            cpus: 4,
            numa_nodes: vec![
                NumaNode { id: 0, cpus: vec![0, 1] },
                NumaNode { id: 1, cpus: vec![2, 3] },
            ],
        },
        locks: vec![
            read,
            waits("namespace_sem", Mode::Read, 1, &[]),
            waits("namespace_sem", Mode::Write, 0, &[40_000, 900_000]),
            waits("namespace_sem", Mode::Write, 1, &[5_000_000]),
            waits("mount_lock", Mode::Spin, 0, &[180, 420, 1_900]),
            waits("mount_lock", Mode::Spin, 1, &[]),
        ],
        inflight: vec![
            InFlight { lock: "namespace_sem".into(), waiters: 3, oldest_ns: 5_000_000 },
            InFlight { lock: "mount_lock".into(), waiters: 0, oldest_ns: 0 },
        ],
        holds: vec![
            LockHolds {
                lock: "namespace_sem".into(),
                mode: Mode::Read,
                numa_node: 0,
                holds: times(&[12_000]),
            },
            LockHolds {
                lock: "namespace_sem".into(),
                mode: Mode::Write,
                numa_node: 1,
                holds: times(&[30_000, 800_000]),
            },
        ],
        releases: vec![Releases { lock: "namespace_sem".into(), unmeasured: 1, one_of_readers: 2 }],
        handoffs: vec![Handoff {
            lock: "namespace_sem".into(),
            from_node: 0,
            to_node: 1,
            count: 7,
        }],
        syscalls: vec![
            SyscallCalls {
                syscall: "mount".into(),
                numa_node: 0,
                calls: times(&[90_000, 1_300_000]),
                errors: 1,
                lock_wait_ns: BTreeMap::from([("namespace_sem".into(), 940_000)]),
            },
            SyscallCalls {
                syscall: "mount".into(),
                numa_node: 1,
                calls: times(&[6_000_000]),
                errors: 0,
                lock_wait_ns: BTreeMap::from([
                    ("namespace_sem".into(), 5_000_000),
                    ("mount_lock".into(), 2_500),
                ]),
            },
        ],
        syscall_errors: vec![SyscallErrors {
            syscall: "mount".into(),
            errno: "EBUSY".into(),
            count: 1,
        }],
        samples: Some(Samples {
            frequency_hz: 99,
            source: "cpu-clock".into(),
            functions: vec!["path_init".into(), "__lookup_mnt".into()],
            counts: [[310, 45, 120], [12, 30, 95]]
                .into_iter()
                .zip(0..)
                .flat_map(|(counts, numa_node)| {
                    let row = move |(place, count)| SampleCount { numa_node, place, count };
                    Place::ALL.into_iter().zip(counts).map(row)
                })
                .collect(),
        }),
        mountinfo_readers: Some(vec![
            reader("mountinfo", "runc:[2:INIT]", Runtime::Runc, 12, 2_800),
            reader("mountinfo", "runc", Runtime::Runc, 1, 210),
            reader("mounts", "node-exporter", Runtime::Other, 40, 9_000),
        ]),
        mountinfo_lock_wait_ns: Some(BTreeMap::from([("namespace_sem".into(), 2_400_000)])),
        mount_tables: Some(MountTables {
            namespaces: 42,
            mounts: 3_100,
            largest: vec![MountTable {
                namespace: 4_026_531_840,
                mounts: 620,
                tasks: 180,
                owner: party("systemd", Runtime::Systemd),
            }],
            age_ns: 3_000_000_000,
        }),
        superblocks: Some(vec![
            Superblocks { filesystem: "overlay".into(), count: 4 },
            Superblocks { filesystem: "tmpfs".into(), count: 17 },
        ]),
        dropped: DROP_NAMES
            .iter()
            .map(|reason| Dropped {
                reason: (*reason).into(),
                count: u64::from(*reason == "unmatched_end"),
            })
            .collect(),
        resolved: vec![
            resolved("namespace_sem", "namespace_sem", Some(Method::Text)),
            resolved("mount_lock", "mount_lock.lock", Some(Method::Kallsyms)),
            resolved("sb_lock", "", None),
        ],
        hooks: vec![
            hook("contention_begin", "tp_btf"),
            hook("contention_end", "tp_btf"),
            hook("contended_release", "tp_btf"),
            hook("sys_mount", "tracepoint"),
            hook("sys_open_tree_attr", "none"),
            hook("kernel_samples", "cpu-clock"),
        ],
        waiters: vec![
            Waiter {
                lock: "namespace_sem".into(),
                mode: Some(Mode::Write),
                call: Some("mount".into()),
                party: runc("9f86d081884c"),
                waits: Charge { count: 2, sum_ns: 940_000, max_ns: 900_000 },
            },
            Waiter {
                lock: "namespace_sem".into(),
                mode: None,
                call: None,
                party: Party::Other,
                waits: Charge { count: 4, sum_ns: 33_518_700, max_ns: 31_000_000 },
            },
        ],
        blockers: vec![
            Blocker {
                lock: "namespace_sem".into(),
                basis: Basis::ReaderHint,
                call: Some(MOUNTINFO_READ.into()),
                party: runc("9f86d081884c"),
                waits: Charge { count: 5, sum_ns: 34_458_000, max_ns: 31_000_000 },
            },
            Blocker {
                lock: "namespace_sem".into(),
                basis: Basis::Unknown,
                call: None,
                party: Party::Unknown,
                waits: Charge { count: 1, sum_ns: 700, max_ns: 700 },
            },
        ],
        slow_waits: Some(SlowWaits { threshold_ns: 10_000_000, count: 1, recent: vec![] }),
        ..Snapshot::default()
    }
}

/// Times of one container of the snapshot; the sums are those of its waiters and
/// blockers.
pub(super) fn containers() -> Arc<ContainerTimes> {
    let container = Container {
        manager: "containerd".into(),
        id: CONTAINER_ID.into(),
        pod_uid: Some("0f2ab1c5-7f55-4a0a-8ba0-3c2a2a7f2f0b".into()),
        qos: Some("burstable".into()),
    };
    let row = |container: &str, waited_ns, blocked_ns| ContainerTime {
        lock: "namespace_sem".into(),
        container: container.into(),
        waited_ns,
        blocked_ns,
    };
    Arc::new(ContainerTimes {
        selected: vec![container],
        rows: vec![
            row(CONTAINER_ID, 940_000, 34_458_000),
            row(NONE, 0, 0),
            row(OTHER, 33_518_700, 700),
        ],
    })
}

/// The example as a scrape.
pub(super) fn scrape(snapshot: &Snapshot) -> Scrape<'_> {
    static CONTAINERS: LazyLock<Arc<ContainerTimes>> = LazyLock::new(containers);
    Scrape {
        snapshot,
        containers: &CONTAINERS,
        since: since(),
        process: PROCESS,
        version: "0.1.0",
        arch: "x86_64",
    }
}

/// `snapshot` as the body of `/metrics`.
pub(super) fn body(snapshot: Snapshot, format: Format) -> Vec<u8> {
    exposition::encode(Figures {
        snapshot: Arc::new(snapshot),
        containers: containers(),
        since: since(),
        process: PROCESS,
        version: "0.1.0",
        arch: "x86_64",
        format,
    })
    .unwrap()
}

/// As [`body`], for the two formats that are text.
pub(super) fn text(snapshot: Snapshot, format: Format) -> String {
    String::from_utf8(body(snapshot, format)).unwrap()
}

/// A source that stands still, for the tests of the endpoints.
pub(super) struct Still {
    pub(super) snapshot: Snapshot,
    pub(super) health: Health,
}

impl Still {
    /// The example, measured without trouble.
    pub(super) fn healthy() -> Self {
        let health = Health { since: since(), since_tick: Duration::from_secs(1), attached: true };
        Self { snapshot: snapshot(), health }
    }
}

impl SnapshotSource for Still {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.snapshot.clone())
    }

    fn with_containers(&self) -> (Arc<Snapshot>, Arc<ContainerTimes>) {
        (self.snapshot(), containers())
    }

    fn health(&self) -> Health {
        self.health
    }
}
