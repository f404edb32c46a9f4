//! The shared arrays and the read-only data, and how programs reach them.
//!
//! The sizes here are placeholders of one entry: user space sets the real ones
//! at load time, from the machine's CPUs and the watch list.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::{bpf_get_numa_node_id, bpf_get_smp_processor_id};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use profiler_common::inflight::{self, Key, Line, Slot};
#[cfg(not(feature = "no-compare-exchange"))]
use profiler_common::layout::HoldSeries;
use profiler_common::layout::{
    CallState, CpuState, Drop, ErrnoSlot, Layout, LockState, SyscallSeries, TextWindow, WaitSeries,
};
use profiler_common::mounts::{FileKinds, ReaderRow, SuperblockRow};
use profiler_common::samples::SampleBank;
use profiler_common::watch::{self, TABLE_LEN, WatchEntry};

use crate::atomic::{self, SharedWord};

#[map]
pub(crate) static WAITS: Array<WaitSeries> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static SYSCALLS: Array<SyscallSeries> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static HANDOFFS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static SYSCALL_WAITS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static LOCKS: Array<LockState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static TASKS: Array<Line<u64>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static CALLS: Array<CallState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static ERRNOS: Array<ErrnoSlot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static SAMPLES: Array<SampleBank> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[cfg(not(feature = "no-compare-exchange"))]
#[map]
pub(crate) static HOLDS: Array<HoldSeries> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static READERS: Array<ReaderRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static FILE_KINDS: Array<FileKinds> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static SUPERBLOCKS: Array<SuperblockRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static TEXT: Array<TextWindow> = Array::with_max_entries(1, 0);

#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout {
    watch_multiplier: 0,
    watch_occupied: 0,
    cpus: 0,
    nodes: 0,
    locks: 0,
    series: 0,
    handoff_stride: 0,
    syscall_wait_stride: 0,
    tasks_mask: 0,
    tasks_group: 0,
    task_nsproxy: 0,
    nsproxy_mnt_ns: 0,
    holds: 0,
    attribution: 0,
};
#[unsafe(no_mangle)]
static WATCH_TABLE: [WatchEntry; TABLE_LEN] =
    [WatchEntry { address: 0, lock: 0, series: 0, traits: 0, hold: 0, pad: [0; 4] }; TABLE_LEN];

/// A field of the read-only [`LAYOUT`].
macro_rules! layout {
    ($field:ident) => {{
        // SAFETY: a static; volatile because user space sets its value at load
        // time, and the compiler must not take the zeros above.
        unsafe { (&raw const crate::arrays::LAYOUT.$field).read_volatile() }
    }};
}
pub(crate) use layout;

/// The watched lock at `address`: one multiplication, and for most other locks
/// one test of a bit, however many locks are watched.
#[inline(always)]
pub(crate) fn watched(address: u64) -> Option<WatchEntry> {
    let index = watch::table_index(address, layout!(watch_multiplier));
    if layout!(watch_occupied) >> index & 1 == 0 {
        return None;
    }
    // SAFETY: `table_index` is below `TABLE_LEN`, the length of the table.
    let entry = unsafe { (&raw const WATCH_TABLE).cast::<WatchEntry>().add(index) };
    // SAFETY: as above; volatile because user space sets the value at load time.
    unsafe {
        if (&raw const (*entry).address).read_volatile() != address {
            return None;
        }
        Some(WatchEntry {
            address,
            lock: (&raw const (*entry).lock).read_volatile(),
            series: (&raw const (*entry).series).read_volatile(),
            traits: (&raw const (*entry).traits).read_volatile(),
            hold: (&raw const (*entry).hold).read_volatile(),
            pad: [0; 4],
        })
    }
}

/// This CPU's number.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// The state of CPU `cpu`.
///
/// The borrow is unique as far as it matters: only programs on this CPU write
/// it, and where one may interrupt another the writer says why that is safe.
#[inline(always)]
pub(crate) fn cpu_state(cpu: u32) -> Option<&'static mut CpuState> {
    // SAFETY: a live array element; see above for aliasing.
    CPUS.get_ptr_mut(cpu).map(|state| unsafe { &mut *state })
}

/// NUMA node of this CPU, whose state is `state`. It never changes, so the
/// kernel is asked once: a call of a helper costs as much as a missed cache line.
#[inline(always)]
pub(crate) fn node(state: &mut CpuState) -> u32 {
    if state.node_plus_one == 0 {
        // SAFETY: a helper without arguments.
        state.node_plus_one = (unsafe { bpf_get_numa_node_id() }) as u32 as u64 + 1;
    }
    (state.node_plus_one - 1) as u32
}

/// Counts a loss. A program that counts one may be interrupted by another.
#[inline(always)]
pub(crate) fn count_drop(state: &mut CpuState, why: Drop) {
    if let Some(counter) = state.drops.get_mut(why as usize) {
        // SAFETY: a word of a live array element.
        unsafe { atomic::add(counter, 1) };
    }
}

/// The table of tasks that wait or are in a mount call.
pub(crate) struct Tasks;

impl inflight::Table for Tasks {
    type Word = SharedWord;

    #[inline(always)]
    fn mask(&self) -> u32 {
        layout!(tasks_mask)
    }

    #[inline(always)]
    fn group(&self) -> u32 {
        layout!(tasks_group)
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line<SharedWord>> {
        let line = TASKS.get_ptr(index)?.cast::<Line<SharedWord>>();
        // SAFETY: a live array element; `SharedWord` has the layout of `u64` and
        // allows for other writers.
        Some(unsafe { &*line })
    }

    #[inline(always)]
    fn freed(&self, position: u32) {
        atomic::unclaim(position);
    }
}

impl inflight::Claim for Tasks {
    #[inline(always)]
    fn claim(&self, slot: &Slot<SharedWord>, position: u32, key: Key) -> bool {
        slot.key.claim(position, key.0)
    }
}
