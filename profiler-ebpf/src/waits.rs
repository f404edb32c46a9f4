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

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use profiler_common::flags;
use profiler_common::histogram::bucket_index;
use profiler_common::inflight::{self, Begin, InCall, Wait};
use profiler_common::layout::{CpuState, Drop, WaitSeries};
use profiler_common::watch::{MAX_SERIES, SeriesInfo, WatchEntry};

use crate::arrays::{self, Tasks, count_drop, layout};
use crate::{atomic, attribution};

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
pub(crate) fn end(
    ctx: &impl EbpfContext,
    address: u64,
    failed: impl FnOnce() -> bool,
    programs: Programs,
) {
    if let Some(lock) = arrays::watched(address) {
        end_of(ctx, &lock, failed(), programs);
    }
}

/// The same for a lock of the watch list.
#[inline(always)]
pub(crate) fn end_of(ctx: &impl EbpfContext, lock: &WatchEntry, failed: bool, programs: Programs) {
    let _ = try_end(ctx.as_ptr(), lock, failed, programs);
}

/// A task wants the rwsem at `address` for itself and may get it by spinning.
#[inline(always)]
pub(crate) fn begin_optimistic(address: u64) {
    if let Some(lock) = arrays::watched(address)
        && let Some(series) = lock.optimistic_series()
    {
        let _ = begin_sleeping(&lock, series, false, None);
    }
}

/// A writer leaves the slow path of the rwsem at `address`. If it did not have to
/// queue, the tracepoints saw nothing of its wait, and it is booked here.
#[inline(always)]
pub(crate) fn end_optimistic(ctx: &impl EbpfContext, address: u64, failed: impl FnOnce() -> bool) {
    if let Some(lock) = arrays::watched(address)
        && let Some(series) = lock.optimistic_series()
    {
        let failed = failed();
        let _ = end_sleeping(ctx.as_ptr(), |waited| waited == series, |_| lock.lock, failed);
        #[cfg(not(feature = "no-compare-exchange"))]
        if !failed {
            crate::holds::acquired_by_writer(&lock);
        }
    }
}

/// A task leaves the slow path `path`, of a lock that the program cannot tell.
#[inline(always)]
pub(crate) fn end_in_slow_path(ctx: &impl EbpfContext, path: u8, failed: bool) {
    let is_it = |series| info(series).slow_path == path;
    let _ = end_sleeping(ctx.as_ptr(), is_it, |series| info(series).lock, failed);
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
    ctx: *mut c_void,
    is_it: impl FnOnce(u8) -> bool,
    lock_of: impl FnOnce(u8) -> u8,
    failed: bool,
) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    let wait = inflight::end_wait(&Tasks, tid, is_it, blocker_kept)?;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    let node = arrays::node(state);
    let end = End { ctx, now, cpu, node, lock: lock_of(wait.series), failed };
    finish(state, &wait, &end, Programs::Several)
}

/// Notes that a wait begins. `None` only if this CPU has no bank, which
/// sizing by possible CPUs rules out.
#[inline(always)]
fn try_begin(lock: &WatchEntry, contention_flags: u32) -> Option<()> {
    let series = lock.series_of(contention_flags);
    if lock.sleeps() {
        let may_continue = contention_flags & flags::MUTEX != 0;
        return begin_sleeping(lock, series, may_continue, lock.optimistic_series());
    }
    let state = arrays::cpu_state(arrays::cpu())?;
    // Before the clock, so that what it takes is not part of the wait.
    let blocker = if attribution::enabled() {
        attribution::blocker(state, bpf_get_current_pid_tgid() as u32, lock)
    } else {
        0
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !state.spins.push(series, blocker, now) {
        count_drop(state, Drop::SpinStackFull);
    }
    Some(())
}

/// Notes that this task begins a wait in which it may sleep.
#[inline(always)]
fn begin_sleeping(
    lock: &WatchEntry,
    series: u8,
    may_continue: bool,
    instead_of: Option<u8>,
) -> Option<()> {
    let state = arrays::cpu_state(arrays::cpu())?;
    let tid = bpf_get_current_pid_tgid() as u32;
    // Before the clock, so that what it takes is not part of the wait; and once for
    // a wait that goes on.
    let blocker =
        if attribution::enabled() && !(may_continue && inflight::waits(&Tasks, tid, series)) {
            attribution::blocker(state, tid, lock)
        } else {
            0
        };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let node = arrays::node(state);
    let (begun, position) =
        inflight::begin_wait(&Tasks, tid, series, node, now, may_continue, instead_of);
    match begun {
        Begin::Continued => return Some(()),
        Begin::Full => {
            count_drop(state, Drop::InflightFull);
            return Some(());
        }
        Begin::Replaced => count_drop(state, Drop::UnmatchedBegin),
        Begin::Started => {}
    }
    if attribution::enabled() {
        attribution::keep(position, blocker);
    }
    Some(())
}

/// Whom the wait of the task in slot `position` is charged to.
#[inline(always)]
fn blocker_kept(position: u32) -> u32 {
    if attribution::enabled() { attribution::kept(position) } else { 0 }
}

/// Ends a wait for `lock`.
#[inline(always)]
fn try_end(ctx: *mut c_void, lock: &WatchEntry, failed: bool, programs: Programs) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    let node = arrays::node(state);

    let wait = if lock.sleeps() {
        // A wait of another series stays: this is not its end.
        let is_it = |series: u8| series.wrapping_sub(lock.series) < lock.series_count();
        inflight::end_wait(&Tasks, tid, is_it, blocker_kept)
    } else if let Some(popped) = state.spins.pop(lock.series, lock.series_count()) {
        if popped.lost != 0 {
            count_drop(state, Drop::UnmatchedEnd);
        }
        Some(Wait {
            series: popped.series,
            node,
            start_ns: popped.start_ns,
            call: inflight::current_call(&Tasks, tid),
            blocker: popped.blocker,
        })
    } else {
        None
    };
    let Some(wait) = wait else {
        count_drop(state, Drop::UnmatchedEnd);
        return Some(());
    };
    finish(state, &wait, &End { ctx, now, cpu, node, lock: lock.lock, failed }, programs)
}

/// A wait that was booked, for whom it is charged to.
pub(crate) struct Ended {
    /// When and where it ended, and the program's context there, for those that
    /// list slow waits.
    #[cfg(not(feature = "no-compare-exchange"))]
    pub(crate) end: SlowEnd,
    /// Index of the lock in the watch list.
    pub(crate) lock: u8,
    pub(crate) series: u8,
    /// The mount call that the task is in.
    pub(crate) call: InCall,
    /// What [`attribution::blocker`] said when it began.
    pub(crate) blocker: u32,
    pub(crate) waited_ns: u64,
    /// Whether it ended without the lock.
    pub(crate) failed: bool,
}

/// See [`Ended::end`].
#[cfg(not(feature = "no-compare-exchange"))]
pub(crate) struct SlowEnd {
    pub(crate) ctx: *mut c_void,
    /// In ns of `CLOCK_MONOTONIC`.
    pub(crate) now: u64,
    pub(crate) cpu: u32,
}

/// The end of a wait.
struct End {
    #[cfg_attr(feature = "no-compare-exchange", expect(dead_code, reason = "no slow waits"))]
    ctx: *mut c_void,
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
    if let Some(call) = wait.call.get() {
        charge(end.cpu, call, end.lock, waited_ns)?;
    }
    if attribution::enabled() {
        let ended = Ended {
            #[cfg(not(feature = "no-compare-exchange"))]
            end: SlowEnd { ctx: end.ctx, now: end.now, cpu: end.cpu },
            lock: end.lock,
            series: wait.series,
            call: wait.call,
            blocker: wait.blocker,
            waited_ns,
            failed: end.failed,
        };
        attribution::ended(state, &ended)?;
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
