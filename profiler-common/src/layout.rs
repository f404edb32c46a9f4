//! Records in the shared arrays, and how large the arrays are.
//!
//! Every array is a `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE`. Counters of a
//! CPU are written by programs on that CPU alone, so they need no atomics, and
//! every record is a multiple of a cache line, so no two CPUs share a line.

use crate::charges::{Identity, Row};
use crate::histogram;
use crate::inflight::{GROUP, Line, SLOTS};
use crate::mounts::{
    FILES, MOUNTINFO_READ, READER_ROWS, ReaderRow, SUPERBLOCK_ROWS, SuperblockRow,
};
use crate::samples::SampleBank;
use crate::slow::{Attribution, AttributionState, SlowWait};
use crate::spin_stack::SpinStack;
use crate::syscalls::SYSCALLS;

/// Bytes of a cache line.
pub const CACHE_LINE: usize = 64;

/// Names of the arrays in the BPF object.
pub mod maps {
    /// [`WaitSeries`](super::WaitSeries), CPU-major: `cpu * series + series`.
    pub const WAITS: &str = "WAITS";
    /// [`SyscallSeries`](super::SyscallSeries), CPU-major: `cpu * 17 + syscall`.
    pub const SYSCALLS: &str = "SYSCALLS";
    /// [`CpuState`](super::CpuState), by CPU.
    pub const CPUS: &str = "CPUS";
    /// `u64` counters: `cpu * handoff_stride + lock * nodes + from_node`.
    pub const HANDOFFS: &str = "HANDOFFS";
    /// `u64` nanoseconds: `cpu * syscall_wait_stride + syscall * locks + lock`;
    /// after the mount calls comes
    /// [`MOUNTINFO_READ`](crate::mounts::MOUNTINFO_READ).
    pub const SYSCALL_WAITS: &str = "SYSCALL_WAITS";
    /// [`LockState`](super::LockState), by lock.
    pub const LOCKS: &str = "LOCKS";
    /// `inflight::Line<u64>`: tasks that wait or are in a mount call.
    pub const TASKS: &str = "TASKS";
    /// [`CallState`](super::CallState), by the number of the task's slot.
    pub const CALLS: &str = "CALLS";
    /// [`HoldSeries`](super::HoldSeries), CPU-major: `cpu * holds + series`; one
    /// entry where holds are not observed.
    pub const HOLDS: &str = "HOLDS";
    /// [`ErrnoSlot`](super::ErrnoSlot).
    pub const ERRNOS: &str = "ERRNOS";
    /// `charges::Row<u64>`: who waited, and who made them wait.
    pub const CHARGES: &str = "CHARGES";
    /// `u32`: number of the row in [`CHARGES`] that a sleeping wait is charged to,
    /// plus 1, by the number of the task's slot.
    pub const BLOCKERS: &str = "BLOCKERS";
    /// [`Identity`](crate::charges::Identity) of the task in a mount call, by the
    /// number of the task's slot.
    pub const CALLERS: &str = "CALLERS";
    /// [`SlowWait`](crate::slow::SlowWait): the ring.
    pub const SLOW: &str = "SLOW";
    /// [`AttributionState`](crate::slow::AttributionState): one.
    pub const ATTRIBUTED: &str = "ATTRIBUTED";
    /// [`SampleBank`](crate::samples::SampleBank), by CPU.
    pub const SAMPLES: &str = "SAMPLES";
    /// [`ReaderRow`](crate::mounts::ReaderRow).
    pub const READERS: &str = "READERS";
    /// [`FileKinds`](crate::mounts::FileKinds): one.
    pub const FILE_KINDS: &str = "FILE_KINDS";
    /// [`SuperblockRow`](crate::mounts::SuperblockRow).
    pub const SUPERBLOCKS: &str = "SUPERBLOCKS";
    /// [`TextWindow`](super::TextWindow): one, for reading kernel text.
    pub const TEXT: &str = "TEXT";
    /// A hash map whose keys are the numbers of claimed words; only in the
    /// object for kernels without a compare-exchange.
    pub const CLAIMS: &str = "CLAIMS";
}

/// Counters and histogram of the waits of one series on one CPU.
///
/// A series is a lock in one mode. `started` is written before the rest and
/// `finished` after it: a reader that finds them equal, having read `finished`
/// first and `started` last, has a consistent copy.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct WaitSeries {
    /// Waits whose booking has begun.
    pub started: u64,
    /// Waits whose booking is complete.
    pub finished: u64,
    /// Time waited, in ns.
    pub sum_ns: u64,
    /// Longest wait, in ns.
    pub max_ns: u64,
    /// Waits that ended on another NUMA node than they began.
    pub migrated: u64,
    /// Waits that ended without the lock (interrupted or killed).
    pub failed: u64,
    /// Contended acquisitions after one on the same node; those after one on
    /// another node are in [`maps::HANDOFFS`].
    pub handoffs_within_node: u64,
    /// Waits by [`histogram::bucket_index`].
    pub buckets: [u64; histogram::BUCKETS],
}

const _: () = assert!(size_of::<WaitSeries>() == 35 * CACHE_LINE);

/// Values up to this one, in ns, share the first bucket of a system call's
/// histogram: no mount call is faster, and the array is a fifth smaller.
pub const SYSCALL_FLOOR_NS: u64 = 256;
/// Buckets of [`histogram`] that the floor folds away.
pub const SYSCALL_FLOOR: usize = histogram::bucket_index(SYSCALL_FLOOR_NS);
/// Buckets of a system call's histogram; index `i` has the bounds of
/// `histogram` bucket `i + SYSCALL_FLOOR`, the first one starts at 0.
pub const SYSCALL_BUCKETS: usize = histogram::BUCKETS - SYSCALL_FLOOR;

/// Bucket of a system call that took `value_ns`; below [`SYSCALL_BUCKETS`].
#[inline(always)]
pub const fn syscall_bucket_index(value_ns: u64) -> usize {
    histogram::bucket_index(value_ns).saturating_sub(SYSCALL_FLOOR)
}

/// Counters and histogram of one mount system call on one CPU; `started` and
/// `finished` as in [`WaitSeries`].
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct SyscallSeries {
    /// Calls whose booking has begun.
    pub started: u64,
    /// Calls whose booking is complete.
    pub finished: u64,
    /// Time spent, in ns.
    pub sum_ns: u64,
    /// Longest call, in ns.
    pub max_ns: u64,
    /// Calls that returned an error.
    pub errors: u64,
    /// Calls by [`syscall_bucket_index`].
    pub buckets: [u64; SYSCALL_BUCKETS],
}

const _: () = assert!(size_of::<SyscallSeries>() == 29 * CACHE_LINE);

/// Buckets of the histogram of holds: those of a system call.
pub const HOLD_BUCKETS: usize = SYSCALL_BUCKETS;
/// Buckets of [`histogram`] that are one in that of holds.
pub const HOLD_FLOOR: usize = SYSCALL_FLOOR;

/// Bucket of a hold of `value_ns`; below [`HOLD_BUCKETS`].
#[inline(always)]
pub const fn hold_bucket_index(value_ns: u64) -> usize {
    syscall_bucket_index(value_ns)
}

/// Counters and histogram of the time that a lock was held in one mode while
/// others were queued, on one CPU; `started` and `finished` as in
/// [`WaitSeries`], of contended releases of every kind.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct HoldSeries {
    /// Releases whose booking has begun.
    pub started: u64,
    /// Releases whose booking is complete.
    pub finished: u64,
    /// Time held, in ns.
    pub sum_ns: u64,
    /// Longest hold, in ns.
    pub max_ns: u64,
    /// Releases after a hold of unknown length. As their mode is not known, the
    /// first series of a lock has them all.
    pub unmeasured: u64,
    /// Releases by a reader while other readers held on; in the first series of
    /// a lock.
    pub one_of_readers: u64,
    /// Holds by [`hold_bucket_index`].
    pub buckets: [u64; HOLD_BUCKETS],
}

const _: () = assert!(size_of::<HoldSeries>() == 29 * CACHE_LINE);

/// A mount call, or a read of a mount table, in flight, beside its task's slot.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CallState {
    /// Start in ns of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// Of a call that counts only when the task has left its mount namespace,
    /// that namespace; of a read, [`ReadState`](crate::mounts::ReadState). Else 0.
    pub before: u64,
}

/// What a CPU keeps between events. What every event touches comes first, in
/// one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct CpuState {
    /// NUMA node of the CPU plus 1, as the kernel told a program on it; 0
    /// before the first one.
    pub node_plus_one: u64,
    /// Waits booked on this CPU: tells a reader whether to look at its banks.
    pub waits: u64,
    /// Mount calls booked on this CPU.
    pub calls: u64,
    /// Spin waits in flight.
    pub spins: SpinStack,
    /// Losses, by [`Drop`].
    pub drops: [u64; DROPS],
    /// Contended releases booked on this CPU.
    pub releases: u64,
}

const _: () = assert!(size_of::<CpuState>() == 3 * CACHE_LINE);

/// Why something that happened was not booked, or not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// A sleeping wait found no slot in the table of tasks.
    InflightFull = 0,
    /// A spin wait found its CPU's stack full.
    SpinStackFull = 1,
    /// A wait ended whose begin was not seen.
    UnmatchedEnd = 2,
    /// A wait was left behind by its task: its end was not seen.
    UnmatchedBegin = 3,
    /// A wait ended before it began, by the clocks of two CPUs; booked as 0.
    ClockBackwards = 4,
    /// A mount call, or a read of a mount table, found no slot in the table of
    /// tasks.
    SyscallInflightFull = 5,
    /// A mount call, or a read of a mount table, returned whose entry was not
    /// seen.
    UnmatchedSyscall = 6,
    /// An error found no slot in the table of errors by errno; it counts under
    /// the errno `other`.
    ErrnoTableFull = 7,
    /// The arguments of `clone3` could not be read, so it was not counted.
    CloneArgsUnreadable = 8,
    /// Whoever waited, or made others wait, found no row in the table of charges;
    /// it counts as `other`.
    ChargesFull = 9,
    /// A slow wait found its place in the ring being written; it counts, but is
    /// not listed.
    SlowWaitNotListed = 10,
}

/// How many kinds of loss there are.
pub const DROPS: usize = 11;

/// Label values of the losses, by [`Drop`].
pub const DROP_NAMES: [&str; DROPS] = [
    "inflight_full",
    "spin_stack_full",
    "unmatched_end",
    "unmatched_begin",
    "clock_backwards",
    "syscall_inflight_full",
    "unmatched_syscall",
    "errno_table_full",
    "clone_args_unreadable",
    "charges_full",
    "slow_wait_not_listed",
];

/// What all CPUs share about a lock.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct LockState {
    /// NUMA node of the last contended acquirer plus 1; 0 before the first.
    pub last_node_plus_one: u64,
    /// Who holds it and since when it is contended: see [`hold`](crate::hold).
    pub hold: u64,
    /// Row in [`maps::CHARGES`] of the last contended acquirer plus 1; 0 before the
    /// first.
    pub last_acquirer: u64,
    #[doc(hidden)]
    pub pad: [u64; 5],
}

const _: () = assert!(size_of::<LockState>() == CACHE_LINE);

/// Errors of one system call with one errno, added up atomically.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ErrnoSlot {
    /// [`errno_key`]; 0 for a free slot.
    pub key: u64,
    /// Errors.
    pub count: u64,
}

/// Slots in the table of errors.
pub const ERRNO_SLOTS: u32 = 64;
/// Slots that an error looks at before it counts as `other`.
pub const ERRNO_PROBES: u32 = 8;

/// Number of the first error slot among all words that are claimed, in kernels
/// without a compare-exchange; those of the table of tasks are below.
pub const ERRNO_CLAIMS: u32 = 1 << 31;
/// The same for the first row in the table of charges.
pub const CHARGE_CLAIMS: u32 = 1 << 30;
/// Number of the first row for readers of mount tables among them.
pub const READER_CLAIMS: u32 = ERRNO_CLAIMS + ERRNO_SLOTS;
/// Number of the first row for types of file systems among them.
pub const SUPERBLOCK_CLAIMS: u32 = READER_CLAIMS + READER_ROWS;

/// Key of an [`ErrnoSlot`]: never 0.
#[inline(always)]
pub const fn errno_key(syscall: u8, errno: u16) -> u64 {
    1 << 32 | (syscall as u64) << 16 | errno as u64
}

/// System call and errno of a key.
pub const fn errno_of_key(key: u64) -> (u8, u16) {
    ((key >> 16) as u8, key as u16)
}

/// Slot where the search for a key starts.
#[inline(always)]
pub const fn errno_slot(key: u64) -> u32 {
    (key as u32).wrapping_mul(0x9e37_79b1) >> 16 & (ERRNO_SLOTS - 1)
}

/// Bytes of kernel text that one run of the reading program copies.
pub const TEXT_WINDOW: usize = 256;

/// What the text-reading program copied.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct TextWindow {
    /// The bytes.
    pub bytes: [u8; TEXT_WINDOW],
}

/// What the programs get as read-only data, in one cache line: every event
/// reads the first two words.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// See [`WatchTable::multiplier`](crate::watch::WatchTable::multiplier).
    pub watch_multiplier: u64,
    /// See [`WatchTable::occupied`](crate::watch::WatchTable::occupied).
    pub watch_occupied: u64,
    /// Possible CPUs.
    pub cpus: u32,
    /// Possible NUMA nodes.
    pub nodes: u32,
    /// Watched locks.
    pub locks: u32,
    /// Series of all watched locks together.
    pub series: u32,
    /// `u64`s per CPU in [`maps::HANDOFFS`].
    pub handoff_stride: u32,
    /// `u64`s per CPU in [`maps::SYSCALL_WAITS`].
    pub syscall_wait_stride: u32,
    /// Lines in [`maps::TASKS`] less one.
    pub tasks_mask: u32,
    /// [`GROUP`].
    pub tasks_group: u32,
    /// Offset of `nsproxy` in `task_struct`, in bytes; 0 when unknown.
    pub task_nsproxy: u32,
    /// Offset of `mnt_ns` in `nsproxy`, in bytes.
    pub nsproxy_mnt_ns: u32,
    /// Series of holds of all watched locks together; 0 where holds are not
    /// observed.
    pub holds: u32,
    /// Whether waits are charged to those who wait and those who block: here, so
    /// that where they are not, no other line of read-only data is touched.
    pub attribution: u32,
}

const _: () = assert!(size_of::<Layout>() == CACHE_LINE);

/// Where a lock says who holds it, as read-only data: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerFields {
    /// Of `count` in `rw_semaphore`.
    pub rwsem_count: u32,
    /// Of `owner` in `rw_semaphore`.
    pub rwsem_owner: u32,
    /// Of `owner` in `mutex`.
    pub mutex_owner: u32,
    /// Of `pid` in `task_struct`.
    pub task_pid: u32,
}

const WORDS_PER_LINE: u32 = (CACHE_LINE / size_of::<u64>()) as u32;

impl Layout {
    /// Layout for a machine and a watch list. `tasks` may wait or be in a mount
    /// call at once; it is rounded up.
    pub const fn new(cpus: u32, nodes: u32, locks: u32, series: u32, tasks: u32) -> Self {
        Self {
            watch_multiplier: 0,
            watch_occupied: 0,
            cpus,
            nodes,
            locks,
            series,
            handoff_stride: (locks * nodes).next_multiple_of(WORDS_PER_LINE),
            syscall_wait_stride: ((MOUNTINFO_READ as u32 + 1) * locks)
                .next_multiple_of(WORDS_PER_LINE),
            tasks_mask: lines(tasks) - 1,
            tasks_group: GROUP,
            task_nsproxy: 0,
            nsproxy_mnt_ns: 0,
            holds: 0,
            attribution: 0,
        }
    }

    /// Tasks that may wait or be in a mount call at once on a machine with
    /// `cpus` CPUs, unless configured otherwise.
    pub const fn default_tasks(cpus: u32) -> u32 {
        let n = cpus.saturating_mul(192);
        if n < 384 { 384 } else { n }
    }

    /// Words that can be claimed: the slots for tasks, those for errors, and the
    /// rows of charges, readers and superblocks.
    pub const fn claims(&self, attribution: &Attribution) -> u32 {
        (self.tasks_mask + 1) * SLOTS as u32
            + ERRNO_SLOTS
            + READER_ROWS
            + SUPERBLOCK_ROWS
            + attribution.rows_mask
            + 1
    }

    /// Every array with its entries and the bytes of an entry.
    pub const fn arrays(&self, attribution: &Attribution) -> [(&'static str, u32, usize); 18] {
        let slots = (self.tasks_mask + 1) * SLOTS as u32;
        let on = attribution.rows_mask != 0;
        [
            (maps::WAITS, self.cpus * self.series, size_of::<WaitSeries>()),
            (maps::SYSCALLS, self.cpus * SYSCALLS as u32, size_of::<SyscallSeries>()),
            (maps::CPUS, self.cpus, size_of::<CpuState>()),
            (maps::HANDOFFS, self.cpus * self.handoff_stride, size_of::<u64>()),
            (maps::SYSCALL_WAITS, self.cpus * self.syscall_wait_stride, size_of::<u64>()),
            (maps::LOCKS, self.locks, size_of::<LockState>()),
            (maps::TASKS, self.tasks_mask + 1, size_of::<Line<u64>>()),
            (maps::CALLS, slots, size_of::<CallState>()),
            (maps::HOLDS, self.cpus * self.holds, size_of::<HoldSeries>()),
            (maps::ERRNOS, ERRNO_SLOTS, size_of::<ErrnoSlot>()),
            (maps::CHARGES, attribution.rows(), size_of::<Row<u64>>()),
            (maps::BLOCKERS, if on { slots } else { 0 }, size_of::<u32>()),
            (maps::CALLERS, if on { slots } else { 0 }, size_of::<Identity>()),
            (maps::SLOW, attribution.slow_places(), size_of::<SlowWait>()),
            (maps::ATTRIBUTED, 1, size_of::<AttributionState>()),
            (maps::SAMPLES, self.cpus, size_of::<SampleBank>()),
            (maps::READERS, READER_ROWS + FILES.len() as u32, size_of::<ReaderRow>()),
            (maps::SUPERBLOCKS, SUPERBLOCK_ROWS + 1, size_of::<SuperblockRow>()),
        ]
    }

    /// Bytes of all arrays together.
    pub fn bytes(&self, attribution: &Attribution) -> u64 {
        self.arrays(attribution)
            .iter()
            .map(|(_, entries, size)| u64::from(*entries) * *size as u64)
            .sum()
    }
}

const fn lines(tasks: u32) -> u32 {
    let lines = tasks.div_ceil(SLOTS as u32).next_power_of_two();
    if lines < GROUP { GROUP } else { lines }
}

#[cfg(feature = "user")]
mod plain_data {
    // SAFETY: `repr(C)`, integers only, no implicit padding.
    unsafe impl aya::Pod for super::Layout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::OwnerFields {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::slow::Attribution {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::watch::WatchEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::watch::SeriesInfo {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::TextWindow {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_locks_take_at_most_64_kib_per_possible_cpu_beside_tables_of_fixed_size() {
        for cpus in [2, 4, 64, 512, 1024] {
            for nodes in [1, 8] {
                if nodes * 4 > cpus && nodes > 1 {
                    continue;
                }
                // The series of the default locks: eight locks, three of
                // them shared (the shrinker lock is a rwsem to 6.6).
                let layout = Layout::new(cpus, nodes, 8, 11, Layout::default_tasks(cpus));
                let fixed = [maps::READERS, maps::SUPERBLOCKS, maps::ATTRIBUTED, maps::ERRNOS];
                let off = Attribution::default();
                let fixed: u64 = layout
                    .arrays(&off)
                    .iter()
                    .filter(|(name, _, _)| fixed.contains(name))
                    .map(|(_, entries, size)| u64::from(*entries) * *size as u64)
                    .sum();
                assert!(fixed <= 140 * 1024, "{fixed}");
                assert!(
                    layout.bytes(&off) - fixed <= 64 * 1024 * u64::from(cpus),
                    "{cpus} CPUs, {nodes} nodes"
                );
            }
        }
    }

    #[test]
    fn syscall_buckets_keep_the_bounds_of_the_histogram() {
        assert_eq!(histogram::bucket_upper_ns(SYSCALL_FLOOR), SYSCALL_FLOOR_NS);
        assert_eq!(syscall_bucket_index(0), 0);
        assert_eq!(syscall_bucket_index(256), 0);
        assert_eq!(syscall_bucket_index(257), 1);
        assert_eq!(syscall_bucket_index(u64::MAX), SYSCALL_BUCKETS - 1);
    }

    #[test]
    fn errno_keys_are_never_zero_and_come_back() {
        assert_ne!(errno_key(0, 0), 0);
        assert_eq!(errno_of_key(errno_key(16, 4095)), (16, 4095));
        assert!(errno_slot(errno_key(16, 4095)) < ERRNO_SLOTS);
    }

    #[test]
    fn banks_of_two_cpus_share_no_cache_line() {
        for locks in 1..=32 {
            for nodes in 1..=8 {
                let layout = Layout::new(4, nodes, locks, locks, 1);
                assert_eq!(layout.handoff_stride % WORDS_PER_LINE, 0);
                assert_eq!(layout.syscall_wait_stride % WORDS_PER_LINE, 0);
                assert!(layout.handoff_stride >= locks * nodes);
                assert!(layout.syscall_wait_stride >= locks * 18);
            }
        }
    }
}
