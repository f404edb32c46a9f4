//! Mapped arrays -> [`Snapshot`]. The only room that knows the memory layout.
//!
//! The arrays are mapped once; reading them takes no system call. A read looks
//! at one cache line per CPU, and one more where CPUs are sampled, and visits the banks of those CPUs alone on which
//! something was booked since the last read.

pub mod attribution;
mod banks;
mod inflight;
mod mapping;
mod misses;
mod mountinfo;
mod mounts;
mod samples;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler_common::layout::{
    CpuState, DROP_NAMES, ERRNO_SLOTS, ErrnoSlot, Layout, errno_of_key, maps,
};
use profiler_common::mounts::MOUNTINFO_READ;
use profiler_common::syscalls::MOUNT_SYSCALLS;

use self::attribution::Charges;
use self::attribution::names::Names;
use self::banks::Banks;
use self::inflight::InFlight;
use self::mapping::Mapping;
use self::misses::Misses;
use self::mounts::Mounts;
pub use self::mounts::PartyOf;
use self::samples::SampleBanks;
use crate::hooks::{CONTENDED_RELEASE, LoadError, Programs, Series, TaskIter, WatchList};
use crate::snapshot::{
    self, Dropped, Handoff, Hook, Host, LockHolds, LockWaits, OwnCost, Releases, Resolution,
    SCHEMA, Snapshot, SyscallCalls, SyscallErrors,
};
use crate::who::Cgroups;

/// Why the arrays cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// An array is missing.
    #[error(transparent)]
    Array(#[from] LoadError),
    /// An array cannot be mapped.
    #[error(
        "failed to map the array {0} of {1} bytes ({2}); if memory is short, lower `[limits]` in the config or watch fewer locks"
    )]
    Map(&'static str, usize, #[source] std::io::Error),
}

/// Facts that do not change while the programs are attached.
#[derive(Clone)]
pub struct Subject {
    /// The machine.
    pub host: Host,
    /// NUMA node by CPU, as sysfs says; used until the kernel tells a program.
    pub node_of_cpu: Vec<u32>,
    /// How each wanted lock was resolved.
    pub resolved: Vec<Resolution>,
    /// Tells cgroups apart; `None` where there is no hierarchy of them.
    pub cgroups: Option<Arc<Cgroups>>,
}

/// How much of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Without the list of slow waits, each with the names of its stack: what a
    /// scrape shows.
    Counters,
    /// All of it.
    Whole,
}

/// Reads snapshots from attached programs.
pub struct Reader {
    subject: Subject,
    hooks: Vec<Hook>,
    locks: Vec<String>,
    series: Vec<Series>,
    hold_series: Vec<Series>,
    layout: Layout,
    cpus: Mapping<CpuState>,
    handoffs: Mapping<u64>,
    syscall_waits: Mapping<u64>,
    errnos: Mapping<ErrnoSlot>,
    banks: Banks,
    inflight: InFlight,
    samples: Option<SampleBanks>,
    misses: Misses,
    charges: Option<Arc<Charges>>,
    arrays_bytes: u64,
    mounts: Mounts,
    started: Instant,
}

impl Reader {
    /// Maps the arrays of `programs`, which must outlive the reader.
    ///
    /// # Errors
    ///
    /// An array is missing or cannot be mapped.
    pub fn new(
        programs: &Programs,
        watch: &WatchList,
        subject: Subject,
    ) -> Result<Self, ReaderError> {
        let layout = *programs.layout();
        let hooks = programs
            .hooks()
            .iter()
            // There is nothing to measure, hence nothing that is not.
            .filter(|h| !h.absent)
            .map(|h| Hook { hook: h.hook.clone(), backend: h.backend_name().to_owned() })
            .collect();
        let array = |name| -> Result<BorrowedFd<'_>, ReaderError> { Ok(programs.array(name)?) };
        let entries = programs.arrays();
        let entries_of = |name: &str| {
            entries
                .iter()
                .find(|(n, _, _)| *n == name)
                .map_or(0, |(_, entries, _)| *entries as usize)
        };
        let mut releases = programs.hooks().iter().filter(|h| h.hook == CONTENDED_RELEASE);
        let holds = if releases.any(|hook| hook.backend.is_some()) {
            let entries = entries_of(maps::HOLDS);
            Some(Mapping::read_only(maps::HOLDS, array(maps::HOLDS)?, entries)?)
        } else {
            None
        };
        let locks: Vec<_> = watch.locks.iter().map(|lock| lock.name.clone()).collect();
        let names = Arc::new(Names::new(subject.cgroups.clone()));
        let charges = Charges::new(programs, &locks, &watch.series, names.clone())?;
        Ok(Self {
            hooks,
            charges: charges.map(Arc::new),
            arrays_bytes: programs.bytes(),
            locks,
            series: watch.series.clone(),
            hold_series: watch.holds.clone(),
            cpus: Mapping::read_only(maps::CPUS, array(maps::CPUS)?, entries_of(maps::CPUS))?,
            handoffs: Mapping::read_only(
                maps::HANDOFFS,
                array(maps::HANDOFFS)?,
                entries_of(maps::HANDOFFS),
            )?,
            syscall_waits: Mapping::read_only(
                maps::SYSCALL_WAITS,
                array(maps::SYSCALL_WAITS)?,
                entries_of(maps::SYSCALL_WAITS),
            )?,
            errnos: Mapping::read_only(maps::ERRNOS, array(maps::ERRNOS)?, ERRNO_SLOTS as usize)?,
            banks: Banks::new(
                Mapping::read_only(maps::WAITS, array(maps::WAITS)?, entries_of(maps::WAITS))?,
                Mapping::read_only(
                    maps::SYSCALLS,
                    array(maps::SYSCALLS)?,
                    entries_of(maps::SYSCALLS),
                )?,
                holds,
                &layout,
                &subject.node_of_cpu,
            ),
            inflight: InFlight::new(
                Mapping::writable(maps::TASKS, array(maps::TASKS)?, entries_of(maps::TASKS))?,
                programs.claims()?,
            ),
            samples: programs
                .sampler()
                .map(|sampler| -> Result<_, ReaderError> {
                    let entries = entries_of(maps::SAMPLES);
                    let banks = Mapping::read_only(maps::SAMPLES, array(maps::SAMPLES)?, entries)?;
                    Ok(SampleBanks::new(banks, sampler))
                })
                .transpose()?,
            misses: Misses::new(programs.program_fds()),
            mounts: Mounts::new(programs, names.party_of())?,
            layout,
            subject,
            started: Instant::now(),
        })
    }

    /// The table of charges, for a [`Keeper`](attribution::keeper::Keeper); `None`
    /// when attribution is off.
    pub fn charges(&self) -> Option<Arc<Charges>> {
        self.charges.clone()
    }

    /// Counts mounts from now on, every `interval`, in a thread of its own.
    pub fn count_mount_tables(&mut self, iter: TaskIter, interval: Duration) {
        self.mounts.count_tables(iter, interval);
    }

    /// Totals since the programs were attached.
    pub fn read(&mut self, extent: Extent) -> Snapshot {
        let now_ns = monotonic_ns();
        self.banks.refresh(&self.cpus);
        let (waiters, blockers) =
            self.charges.as_ref().map(|charges| charges.read()).unwrap_or_default();
        let inflight = self.inflight.read(&self.cpus, &self.series, self.locks.len(), now_ns);
        let lock_waits = self.lock_waits_of_calls();
        let mountinfo_readers = self.mounts.readers();
        let mountinfo_lock_wait_ns =
            mountinfo_readers.is_some().then(|| mountinfo_lock_waits(&lock_waits));
        Snapshot {
            schema: SCHEMA,
            duration_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            host: Host { uptime_ns: boot_ns(), ..self.subject.host.clone() },
            locks: self.lock_waits(),
            inflight: self
                .locks
                .iter()
                .zip(inflight)
                .map(|(lock, (waiters, oldest_ns))| snapshot::InFlight {
                    lock: lock.clone(),
                    waiters,
                    oldest_ns,
                })
                .collect(),
            holds: self.lock_holds(),
            releases: self.releases(),
            waiters,
            blockers,
            slow_waits: self.charges.as_ref().and_then(|charges| charges.slow_waits(extent)),
            own: Some(self.own_cost()),
            handoffs: self.handoff_counts(),
            syscalls: self.syscall_calls(lock_waits),
            syscall_errors: self.syscall_errors(),
            samples: self.samples.as_ref().map(|samples| samples.read(&self.banks)),
            mountinfo_readers,
            mountinfo_lock_wait_ns,
            mount_tables: self.mounts.tables(),
            superblocks: self.mounts.superblocks(),
            dropped: self.dropped(),
            resolved: self.subject.resolved.clone(),
            hooks: self.hooks.clone(),
        }
    }

    fn own_cost(&self) -> OwnCost {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        OwnCost {
            cpu_ns: ns(cpu),
            resident_bytes: resident_bytes().unwrap_or(0),
            arrays_bytes: self.arrays_bytes,
        }
    }

    fn lock_waits(&self) -> Vec<LockWaits> {
        let mut rows = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            for node in self.banks.nodes() {
                let waits = self.banks.waits(node, index);
                rows.push(LockWaits {
                    lock: self.locks[series.lock].clone(),
                    mode: series.mode,
                    numa_node: node,
                    waits: waits.times.clone(),
                    migrated: waits.migrated,
                    failed: waits.failed,
                });
            }
        }
        rows
    }

    fn lock_holds(&self) -> Vec<LockHolds> {
        let mut rows = Vec::new();
        for (index, series) in self.hold_series.iter().enumerate() {
            for node in self.banks.nodes() {
                let Some(holds) = self.banks.holds(node, index) else { continue };
                rows.push(LockHolds {
                    lock: self.locks[series.lock].clone(),
                    mode: series.mode,
                    numa_node: node,
                    holds: holds.times.clone(),
                });
            }
        }
        rows
    }

    fn releases(&self) -> Vec<Releases> {
        let mut rows: Vec<Releases> = Vec::new();
        for (index, series) in self.hold_series.iter().enumerate() {
            let lock = &self.locks[series.lock];
            for holds in self.banks.nodes().filter_map(|node| self.banks.holds(node, index)) {
                if rows.last().is_none_or(|row| row.lock != *lock) {
                    rows.push(Releases { lock: lock.clone(), unmeasured: 0, one_of_readers: 0 });
                }
                if let Some(row) = rows.last_mut() {
                    row.unmeasured += holds.unmeasured;
                    row.one_of_readers += holds.one_of_readers;
                }
            }
        }
        rows
    }

    /// Time that mount calls, and reads of mount tables, waited for each lock.
    fn lock_waits_of_calls(&self) -> LockWaitsOfCalls {
        let mut lock_waits = LockWaitsOfCalls::new();
        for cpu in 0..self.layout.cpus as usize {
            let node = self.banks.node_of(cpu);
            for call in 0..=READ {
                for (index, lock) in self.locks.iter().enumerate() {
                    let word = cpu * self.layout.syscall_wait_stride as usize
                        + call * self.locks.len()
                        + index;
                    let ns = self.syscall_waits.word(word);
                    if ns != 0 {
                        *lock_waits
                            .entry((node, call))
                            .or_default()
                            .entry(lock.clone())
                            .or_default() += ns;
                    }
                }
            }
        }
        lock_waits
    }

    fn syscall_calls(&self, mut lock_waits: LockWaitsOfCalls) -> Vec<SyscallCalls> {
        let mut rows = Vec::new();
        for (index, call) in MOUNT_SYSCALLS.iter().enumerate() {
            for node in self.banks.nodes() {
                let (calls, errors) = self.banks.calls(node, index);
                let lock_wait_ns = lock_waits.remove(&(node, index)).unwrap_or_default();
                if calls.count != 0 || !lock_wait_ns.is_empty() {
                    rows.push(SyscallCalls {
                        syscall: call.name.to_owned(),
                        numa_node: node,
                        calls,
                        errors,
                        lock_wait_ns,
                    });
                }
            }
        }
        rows
    }

    fn handoff_counts(&self) -> Vec<Handoff> {
        let mut counts: BTreeMap<(usize, u32, u32), u64> = BTreeMap::new();
        let nodes = self.layout.nodes;
        for (index, series) in self.series.iter().enumerate() {
            for node in self.banks.nodes() {
                let within = self.banks.waits(node, index).handoffs_within_node;
                if within != 0 {
                    *counts.entry((series.lock, node, node)).or_default() += within;
                }
            }
        }
        for cpu in 0..self.layout.cpus as usize {
            let to = self.banks.node_of(cpu);
            for lock in 0..self.locks.len() {
                for from in 0..nodes {
                    let word = cpu * self.layout.handoff_stride as usize
                        + lock * nodes as usize
                        + from as usize;
                    let count = self.handoffs.word(word);
                    if count != 0 {
                        *counts.entry((lock, from, to)).or_default() += count;
                    }
                }
            }
        }
        counts
            .into_iter()
            .map(|((lock, from_node, to_node), count)| Handoff {
                lock: self.locks[lock].clone(),
                from_node,
                to_node,
                count,
            })
            .collect()
    }

    fn syscall_errors(&self) -> Vec<SyscallErrors> {
        let mut counts: BTreeMap<(usize, String), u64> = BTreeMap::new();
        for index in 0..ERRNO_SLOTS as usize {
            let slot = self.errnos.element(index);
            // SAFETY: fields of a mapped element.
            let (key, count) = unsafe {
                (mapping::load(&raw const (*slot).key), mapping::load(&raw const (*slot).count))
            };
            if key == 0 || count == 0 {
                continue;
            }
            let (call, errno) = errno_of_key(key);
            *counts.entry((usize::from(call), errno_name(errno))).or_default() += count;
        }
        // What the table had no room for still counts.
        for (index, _) in MOUNT_SYSCALLS.iter().enumerate() {
            let all: u64 = self.banks.nodes().map(|node| self.banks.calls(node, index).1).sum();
            let named: u64 =
                counts.iter().filter(|((call, _), _)| *call == index).map(|(_, n)| n).sum();
            if self.errno_table_full() && all > named {
                *counts.entry((index, "other".to_owned())).or_default() += all - named;
            }
        }
        counts
            .into_iter()
            .filter_map(|((call, errno), count)| {
                let syscall = MOUNT_SYSCALLS.get(call)?.name.to_owned();
                Some(SyscallErrors { syscall, errno, count })
            })
            .collect()
    }

    fn errno_table_full(&self) -> bool {
        self.drop_count(profiler_common::layout::Drop::ErrnoTableFull as usize) != 0
    }

    fn drop_count(&self, reason: usize) -> u64 {
        (0..self.layout.cpus as usize)
            .map(|cpu| {
                let state = self.cpus.element(cpu);
                // SAFETY: a field of a mapped element; `reason` is a `Drop`.
                unsafe { mapping::load((&raw const (*state).drops).cast::<u64>().add(reason)) }
            })
            .sum()
    }

    fn dropped(&self) -> Vec<Dropped> {
        let counted = DROP_NAMES
            .iter()
            .enumerate()
            .map(|(reason, name)| ((*name).to_owned(), self.drop_count(reason)));
        let rest = [
            ("recursion_miss".to_owned(), self.misses.total()),
            ("task_gone".to_owned(), self.inflight.reclaimed()),
        ];
        counted.chain(rest).map(|(reason, count)| Dropped { reason, count }).collect()
    }
}

/// Name of an errno, or `other` for a number without one.
fn errno_name(errno: u16) -> String {
    let name = match i32::from(errno) {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::E2BIG => "E2BIG",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::ENOTBLK => "ENOTBLK",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EMLINK => "EMLINK",
        libc::ERANGE => "ERANGE",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENOSYS => "ENOSYS",
        libc::ELOOP => "ELOOP",
        libc::ENODATA => "ENODATA",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EUSERS => "EUSERS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ESTALE => "ESTALE",
        libc::EUCLEAN => "EUCLEAN",
        libc::ESRCH => "ESRCH",
        libc::EDQUOT => "EDQUOT",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ECONNREFUSED => "ECONNREFUSED",
        // Kernel-internal: the call is restarted after a signal
        // (include/linux/errno.h); the tracepoint sees these.
        512 => "ERESTARTSYS",
        513 => "ERESTARTNOINTR",
        514 => "ERESTARTNOHAND",
        516 => "ERESTART_RESTARTBLOCK",
        _ => "other",
    };
    name.to_owned()
}

/// Nanoseconds by node and number of the call, and by lock.
type LockWaitsOfCalls = BTreeMap<(u32, usize), BTreeMap<String, u64>>;

/// Number that stands for a read of a mount table among those of calls.
const READ: usize = MOUNTINFO_READ as usize;

/// What reads of mount tables waited for each lock, all nodes together.
fn mountinfo_lock_waits(lock_waits: &LockWaitsOfCalls) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (_, by_lock) in lock_waits.iter().filter(|((_, call), _)| *call == READ) {
        for (lock, ns) in by_lock {
            *sums.entry(lock.clone()).or_default() += ns;
        }
    }
    sums
}

/// Resident memory of this process, in bytes: the second figure of
/// `/proc/self/statm`, which the kernel has at hand.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Time since boot, in ns.
fn boot_ns() -> u64 {
    ns(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

/// Now, in ns of `CLOCK_MONOTONIC`: the clock of `bpf_ktime_get_ns`.
fn monotonic_ns() -> u64 {
    ns(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
}

fn ns(time: rustix::time::Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}
