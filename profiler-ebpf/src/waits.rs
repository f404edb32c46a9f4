//! Lock waits: what the beginning and the end of one do, whichever hook saw it.
//!
//! In: the address of a lock. Out: `WAITS`, `HANDOFFS`, `SYSCALL_WAITS`, and
//! what is in flight.
//!
//! What may be touched here: read-only data, arrays, the clock, the task id,
//! the CPU and the node. No hash map, ring buffer or log: their locks fire the
//! contention tracepoints (Linux 6.15 and later). The one exception is the claim
//! of a slot in kernels that have neither those tracepoints nor a
//! compare-exchange: see [`atomic`](crate::atomic).

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use profiler_common::flags;
use profiler_common::histogram::bucket_index;
use profiler_common::inflight::{self, Begin, Wait};
use profiler_common::layout::{CpuState, Drop, WaitSeries};
use profiler_common::watch::{MAX_SERIES, SeriesInfo, WatchEntry};

use crate::arrays::{self, Tasks, count_drop, layout};
use crate::atomic;

/// [`SeriesInfo`] by series. Set at load time.
#[unsafe(no_mangle)]
static SERIES: [SeriesInfo; MAX_SERIES] = [SeriesInfo { lock: 0, slow_path: 0 }; MAX_SERIES];

/// Which programs book waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Programs {
    /// One: the kernel does not run it inside itself on one CPU.
    #[cfg(not(feature = "no-compare-exchange"))]
    One,
    /// Several, of which one may interrupt another.
    Several,
}

/// A task begins to wait for the lock at `address`.
#[inline(always)]
pub(crate) fn begin(address: u64, contention_flags: impl FnOnce() -> u32) {
    if let Some(lock) = arrays::watched(address) {
        begin_of(&lock, contention_flags());
    }
}

/// The same for a lock of the watch list.
#[inline(always)]
pub(crate) fn begin_of(lock: &WatchEntry, contention_flags: u32) {
    let _ = try_begin(lock, contention_flags);
}

/// The same, unless waiters for it spin.
#[inline(always)]
pub(crate) fn begin_if_it_sleeps(address: u64, contention_flags: u32) {
    if let Some(lock) = arrays::watched(address)
        && lock.sleeps()
    {
        let _ = try_begin(&lock, contention_flags);
    }
}

/// A task's wait for the lock at `address` ends; `failed` says whether without
/// the lock.
#[inline(always)]
pub(crate) fn end(address: u64, failed: impl FnOnce() -> bool, programs: Programs) {
    if let Some(lock) = arrays::watched(address) {
        end_of(&lock, failed(), programs);
    }
}

/// The same for a lock of the watch list.
#[inline(always)]
pub(crate) fn end_of(lock: &WatchEntry, failed: bool, programs: Programs) {
    let _ = try_end(lock, failed, programs);
}

/// A task wants the rwsem at `address` for itself and may get it by spinning.
#[inline(always)]
pub(crate) fn begin_optimistic(address: u64) {
    if let Some(lock) = arrays::watched(address)
        && let Some(series) = lock.optimistic_series()
    {
        let _ = begin_sleeping(series, false, None);
    }
}

/// A writer leaves the slow path of the rwsem at `address`. If it did not have to
/// queue, the tracepoints saw nothing of its wait, and it is booked here.
#[inline(always)]
pub(crate) fn end_optimistic(address: u64, failed: impl FnOnce() -> bool) {
    if let Some(lock) = arrays::watched(address)
        && let Some(series) = lock.optimistic_series()
    {
        let failed = failed();
        let _ = end_sleeping(|waited| waited == series, |_| lock.lock, failed);
        #[cfg(not(feature = "no-compare-exchange"))]
        if !failed {
            crate::holds::acquired_by_writer(&lock);
        }
    }
}

/// A task leaves the slow path `path`, of a lock that the program cannot tell.
#[inline(always)]
pub(crate) fn end_in_slow_path(path: u8, failed: bool) {
    let _ =
        end_sleeping(|series| info(series).slow_path == path, |series| info(series).lock, failed);
}

#[inline(always)]
fn info(series: u8) -> SeriesInfo {
    let index = series as usize & (MAX_SERIES - 1);
    // SAFETY: in bounds; volatile because user space sets the value.
    unsafe { (&raw const SERIES).cast::<SeriesInfo>().add(index).read_volatile() }
}

/// Books the sleeping wait of this task, if it is in one of a series that
/// `is_it` knows.
#[inline(always)]
fn end_sleeping(
    is_it: impl FnOnce(u8) -> bool,
    lock_of: impl FnOnce(u8) -> u8,
    failed: bool,
) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let wait = inflight::end_wait(&Tasks, bpf_get_current_pid_tgid() as u32, is_it)?;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    let node = arrays::node(state);
    let end = End { now, cpu, node, lock: lock_of(wait.series), failed };
    finish(state, &wait, &end, Programs::Several)
}

/// Notes that a wait begins. `None` only if this CPU has no bank, which
/// sizing by possible CPUs rules out.
#[inline(always)]
fn try_begin(lock: &WatchEntry, contention_flags: u32) -> Option<()> {
    let series = lock.series_of(contention_flags);
    if lock.sleeps() {
        let may_continue = contention_flags & flags::MUTEX != 0;
        return begin_sleeping(series, may_continue, lock.optimistic_series());
    }
    let state = arrays::cpu_state(arrays::cpu())?;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !state.spins.push(series, now) {
        count_drop(state, Drop::SpinStackFull);
    }
    Some(())
}

/// Notes that this task begins a wait in which it may sleep.
#[inline(always)]
fn begin_sleeping(series: u8, may_continue: bool, instead_of: Option<u8>) -> Option<()> {
    let state = arrays::cpu_state(arrays::cpu())?;
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let node = arrays::node(state);
    let begun = inflight::begin_wait(&Tasks, tid, series, node, now, may_continue, instead_of);
    let lost = match begun {
        Begin::Started | Begin::Continued => return Some(()),
        Begin::Replaced => Drop::UnmatchedBegin,
        Begin::Full => Drop::InflightFull,
    };
    count_drop(state, lost);
    Some(())
}

/// Ends a wait for `lock`.
#[inline(always)]
fn try_end(lock: &WatchEntry, failed: bool, programs: Programs) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    let node = arrays::node(state);

    let wait = if lock.sleeps() {
        // A wait of another series stays: this is not its end.
        inflight::end_wait(&Tasks, tid, |series| {
            series.wrapping_sub(lock.series) < lock.series_count()
        })
    } else if let Some((series, start_ns, lost)) = state.spins.pop(lock.series, lock.series_count())
    {
        if lost != 0 {
            count_drop(state, Drop::UnmatchedEnd);
        }
        Some(Wait { series, node, start_ns, call: inflight::current_call(&Tasks, tid) })
    } else {
        None
    };
    let Some(wait) = wait else {
        count_drop(state, Drop::UnmatchedEnd);
        return Some(());
    };
    finish(state, &wait, &End { now, cpu, node, lock: lock.lock, failed }, programs)
}

/// The end of a wait.
struct End {
    /// In ns of `CLOCK_MONOTONIC`.
    now: u64,
    cpu: u32,
    node: u32,
    /// Index of the lock in the watch list.
    lock: u8,
    /// Whether it ended without the lock.
    failed: bool,
}

/// Books a wait that ended: on the CPU, hence the node, where it ended.
#[inline(always)]
fn finish(state: &mut CpuState, wait: &Wait, end: &End, programs: Programs) -> Option<()> {
    let waited_ns = if end.now >= wait.start_ns {
        end.now - wait.start_ns
    } else {
        count_drop(state, Drop::ClockBackwards);
        0
    };
    let migrated = end.node != wait.node;
    let bank = book(end.cpu, wait.series, waited_ns, end.failed, migrated)?;
    if !end.failed {
        hand_off(bank, end.cpu, end.node, end.lock)?;
    }
    if let Some(call) = wait.call {
        charge(end.cpu, call, end.lock, waited_ns)?;
    }
    // Last, hence volatile: a reader that sees the new number finds the wait in
    // the bank.
    let booked = &raw mut state.waits;
    // SAFETY: a field of a live array element of this CPU. An addition in one
    // step is needed only where one program may interrupt another.
    unsafe {
        match programs {
            #[cfg(not(feature = "no-compare-exchange"))]
            Programs::One => booked.write_volatile(booked.read_volatile() + 1),
            Programs::Several => atomic::add(booked, 1),
        }
    }
    Some(())
}

/// Adds a wait to this CPU's bank.
#[inline(always)]
fn book(
    cpu: u32,
    series: u8,
    waited: u64,
    failed: bool,
    migrated: bool,
) -> Option<&'static mut WaitSeries> {
    let bank = arrays::WAITS.get_ptr_mut(cpu * layout!(series) + u32::from(series))?;
    // SAFETY: a live array element that only the end program on this CPU
    // writes, and the kernel does not run that twice at once on a CPU.
    let bank = unsafe { &mut *bank };
    let finished = bank.finished + 1;
    // SAFETY: volatile keeps the compiler from moving the two marks that tell
    // a reader whether it caught the bank half written.
    unsafe { (&raw mut bank.started).write_volatile(finished) };
    bank.sum_ns += waited;
    if waited > bank.max_ns {
        bank.max_ns = waited;
    }
    bank.failed += u64::from(failed);
    bank.migrated += u64::from(migrated);
    if let Some(bucket) = bank.buckets.get_mut(bucket_index(waited)) {
        *bucket += 1;
    }
    // SAFETY: as above.
    unsafe { (&raw mut bank.finished).write_volatile(finished) };
    Some(bank)
}

/// Counts from which node to which the lock went.
///
/// The shared word is written only when the lock changes node, so that CPUs of
/// one node can all keep its cache line; and the commonest handoff, within a
/// node, is counted in the bank, whose line is at hand.
#[inline(always)]
fn hand_off(bank: &mut WaitSeries, cpu: u32, node: u32, lock: u8) -> Option<()> {
    let shared = arrays::LOCKS.get_ptr_mut(u32::from(lock))?;
    let to = u64::from(node) + 1;
    // SAFETY: a word of a live array element.
    let from = unsafe {
        let last = &raw mut (*shared).last_node_plus_one;
        if last.read_volatile() == to { to } else { atomic::swap(last, to) }
    };
    if from == to {
        bank.handoffs_within_node += 1;
    } else if from != 0 {
        let index =
            cpu * layout!(handoff_stride) + u32::from(lock) * layout!(nodes) + (from as u32 - 1);
        let counter = arrays::HANDOFFS.get_ptr_mut(index)?;
        // SAFETY: a live array element of this CPU.
        unsafe { *counter += 1 };
    }
    Some(())
}

/// Charges a wait to the mount call that the task is in.
#[inline(always)]
fn charge(cpu: u32, call: u8, lock: u8, waited_ns: u64) -> Option<()> {
    let index =
        cpu * layout!(syscall_wait_stride) + u32::from(call) * layout!(locks) + u32::from(lock);
    let counter = arrays::SYSCALL_WAITS.get_ptr_mut(index)?;
    // SAFETY: a live array element of this CPU.
    unsafe { *counter += waited_ns };
    Some(())
}
