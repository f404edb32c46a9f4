//! The functions that samples are told apart by, and where they are in this
//! kernel.

use profiler_common::samples::{CodePlace, CodeRange, NO_RANGE, RANGES};

use crate::kernel::kallsyms::{Kallsyms, KallsymsError};
use crate::kernel::ranges::{self, FunctionRange};
use crate::snapshot::Place;

/// A function of the kernel, by its name in the source.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name. Copies that the compiler made of it count as well.
    pub name: &'static str,
    /// The file that it is in.
    pub file: &'static str,
    /// Where a sample in it was.
    pub place: Place,
    /// What it does there.
    pub why: &'static str,
}

const fn seqcount(name: &'static str, file: &'static str, why: &'static str) -> Function {
    Function { name, file, place: Place::MountSeqcount, why }
}

const fn slow_path(name: &'static str, file: &'static str, why: &'static str) -> Function {
    Function { name, file, place: Place::LockSlowPath, why }
}

const QSPINLOCK: &str = "kernel/locking/qspinlock.c";
const QRWLOCK: &str = "kernel/locking/qrwlock.c";
const RWSEM: &str = "kernel/locking/rwsem.c";
const MUTEX: &str = "kernel/locking/mutex.c";
const OSQ_LOCK: &str = "kernel/locking/osq_lock.c";
const RTMUTEX: &str = "kernel/locking/rtmutex.c";
const RWBASE: &str = "kernel/locking/rwbase_rt.c";
const NAMEI: &str = "fs/namei.c";
const NAMESPACE: &str = "fs/namespace.c";

/// All of them. No kernel has each: some depend on its version, configuration
/// and architecture, some are inlined by one compiler and not by another.
///
/// Left out on purpose, as their time is mostly not about `mount_lock`:
/// - `step_into` and `handle_dots` (fs/namei.c), into which compilers inline
///   `__follow_mount_rcu` and `choose_mountpoint_rcu`: every walk spends its
///   time there, and these look at the sequence count without waiting for it;
/// - `prepend_path` (fs/d_path.c): it waits for one writer at most, then takes
///   the lock, and otherwise copies names, for every reader of mountinfo too;
/// - `path_is_under`, `follow_up` and others that take the spinlock of
///   `mount_lock`: their waits are in the slow path of spinlocks.
pub const FUNCTIONS: &[Function] = &[
    seqcount("path_init", NAMEI, "begins every path walk; spins while a writer is active"),
    seqcount(
        "choose_mountpoint",
        NAMEI,
        "goes up from the root of a mount; spins while a writer is active, and again after one",
    ),
    seqcount(
        "lookup_mnt",
        NAMESPACE,
        "finds what is mounted on a path; spins while a writer is active, and again after one",
    ),
    seqcount("__lookup_mnt", NAMESPACE, "walks a chain of the hash of mounts"),
    seqcount(
        "__legitimize_mnt",
        NAMESPACE,
        "takes a reference to a mount, unless a writer came in between",
    ),
    seqcount(
        "legitimize_mnt",
        NAMESPACE,
        "takes a reference to a mount, unless a writer came in between",
    ),
    seqcount(
        "path_is_mountpoint",
        NAMESPACE,
        "asks for autofs; spins while a writer is active, and again after one",
    ),
    slow_path("native_queued_spin_lock_slowpath", QSPINLOCK, "waits for a spinlock"),
    slow_path("__pv_queued_spin_lock_slowpath", QSPINLOCK, "waits for a spinlock in a guest"),
    slow_path("queued_spin_lock_slowpath", QSPINLOCK, "waits for a spinlock, not on x86"),
    slow_path("kvm_wait", "arch/x86/kernel/kvm.c", "halts a CPU that waits for a spinlock"),
    slow_path(
        "resilient_queued_spin_lock_slowpath",
        "kernel/bpf/rqspinlock.c",
        "waits for a spinlock of a BPF map (Linux 6.15)",
    ),
    slow_path("queued_read_lock_slowpath", QRWLOCK, "waits for a rwlock"),
    slow_path("queued_write_lock_slowpath", QRWLOCK, "waits for a rwlock"),
    slow_path("rwsem_down_read_slowpath", RWSEM, "waits for a rwsem"),
    slow_path("rwsem_down_write_slowpath", RWSEM, "waits for a rwsem"),
    slow_path("rwsem_optimistic_spin", RWSEM, "spins for a rwsem"),
    slow_path("rwsem_spin_on_owner", RWSEM, "spins for a rwsem while its owner runs"),
    slow_path("osq_lock", OSQ_LOCK, "queues to spin for a rwsem or mutex"),
    slow_path("osq_wait_next", OSQ_LOCK, "leaves that queue"),
    slow_path("__mutex_lock", MUTEX, "waits for a mutex"),
    slow_path("__mutex_lock_common", MUTEX, "waits for a mutex"),
    slow_path("__mutex_lock_slowpath", MUTEX, "waits for a mutex"),
    slow_path("__mutex_lock_killable_slowpath", MUTEX, "waits for a mutex"),
    slow_path("__mutex_lock_interruptible_slowpath", MUTEX, "waits for a mutex"),
    slow_path("mutex_optimistic_spin", MUTEX, "spins for a mutex"),
    slow_path("mutex_spin_on_owner", MUTEX, "spins for a mutex while its owner runs"),
    slow_path("rt_mutex_slowlock", RTMUTEX, "waits for a lock with PREEMPT_RT"),
    slow_path("__rt_mutex_slowlock", RTMUTEX, "waits for a lock with PREEMPT_RT"),
    slow_path("__rt_mutex_slowlock_locked", RTMUTEX, "waits for a lock with PREEMPT_RT"),
    slow_path("rtlock_slowlock_locked", RTMUTEX, "waits for a spinlock with PREEMPT_RT"),
    slow_path("__rwbase_read_lock", RWBASE, "waits for a rwsem or rwlock with PREEMPT_RT"),
    slow_path("rwbase_write_lock", RWBASE, "waits for a rwsem or rwlock with PREEMPT_RT"),
];

/// [`FUNCTIONS`] in the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledFunctions {
    /// In the order of the table, each with its code; none for one that this
    /// kernel does not have as a function of its own.
    found: Vec<(&'static Function, Vec<FunctionRange>)>,
}

impl SampledFunctions {
    /// Looks them up in `/proc/kallsyms`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or hides addresses.
    pub fn of_running_kernel() -> Result<Self, KallsymsError> {
        Ok(Self::find(&Kallsyms::collect(FUNCTIONS.iter().map(|function| function.name))?))
    }

    /// Looks them up in a table that was collected with their names.
    pub fn find(kallsyms: &Kallsyms) -> Self {
        let mut room = RANGES;
        let found = FUNCTIONS.iter().map(|function| {
            let mut found = ranges::of_function(kallsyms, function.name);
            found.truncate(room);
            room -= found.len();
            (function, found)
        });
        Self { found: found.collect() }
    }

    /// All functions, with the names under which this kernel has them.
    pub fn all(&self) -> impl Iterator<Item = (&'static Function, Vec<&str>)> {
        self.found.iter().map(|(function, ranges)| {
            (*function, ranges.iter().map(|range| range.name.as_str()).collect())
        })
    }

    /// Functions of `place` that this kernel has, by their names in the source.
    pub fn names(&self, place: Place) -> impl Iterator<Item = &'static str> {
        self.found
            .iter()
            .filter(move |(function, ranges)| function.place == place && !ranges.is_empty())
            .map(|(function, _)| function.name)
    }

    /// The table for the program.
    pub(in crate::hooks) fn ranges(&self) -> [CodeRange; RANGES] {
        let mut ranges: Vec<CodeRange> = self
            .found
            .iter()
            .flat_map(|(function, ranges)| {
                ranges.iter().map(|range| CodeRange {
                    start: range.start,
                    bytes: u32::try_from(range.end - range.start).unwrap_or(u32::MAX),
                    place: code_place(function.place) as u32,
                })
            })
            .collect();
        ranges.sort_by_key(|range| range.start);
        // Two names of one function are one range.
        ranges.dedup_by_key(|range| range.start);
        let mut table = [NO_RANGE; RANGES];
        for (entry, range) in table.iter_mut().zip(ranges) {
            *entry = range;
        }
        table
    }
}

/// How the program numbers a place.
pub const fn code_place(place: Place) -> CodePlace {
    match place {
        Place::Elsewhere => CodePlace::Elsewhere,
        Place::MountSeqcount => CodePlace::MountSeqcount,
        Place::LockSlowPath => CodePlace::LockSlowPath,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn find(lines: &str) -> SampledFunctions {
        let table = format!("1000 T _stext\n{lines}90000 T _etext\n");
        let names = FUNCTIONS.iter().map(|function| function.name);
        SampledFunctions::find(&Kallsyms::collect_from(table.as_bytes(), "table", names).unwrap())
    }

    #[test]
    fn every_function_is_named_once() {
        let names: BTreeSet<_> = FUNCTIONS.iter().map(|function| function.name).collect();
        assert_eq!(names.len(), FUNCTIONS.len());
    }

    #[test]
    fn ranges_are_ascending_and_carry_the_place_of_their_function() {
        let found = find(
            "2000 t osq_lock\n2040 t other\n3000 t path_init\n3000 t alias\n3400 t other\n\
             4000 t path_init.cold\n4010 t other\n",
        );
        let ranges = found.ranges();
        let used: Vec<_> = ranges.iter().take(4).map(|r| (r.start, r.bytes, r.place)).collect();
        let [seqcount, slow] = [CodePlace::MountSeqcount as u32, CodePlace::LockSlowPath as u32];
        assert_eq!(
            used,
            [
                (0x2000, 0x40, slow),
                (0x3000, 0x400, seqcount),
                (0x4000, 0x10, seqcount),
                (u64::MAX, 0, 0)
            ]
        );
        assert_eq!(found.names(Place::MountSeqcount).collect::<Vec<_>>(), ["path_init"]);
        let of_path_init = found.all().find(|(function, _)| function.name == "path_init");
        assert_eq!(of_path_init.unwrap().1, ["path_init", "path_init.cold"]);
    }

    #[test]
    fn more_copies_than_there_is_room_for_are_left_out() {
        let copies: Vec<_> =
            (0..100).map(|n| format!("{:x} t path_init.part.{n}\n", 0x2000 + n * 16)).collect();
        let found = find(&copies.concat());
        assert!(found.ranges().iter().all(|range| range.bytes == 16));
    }
}
