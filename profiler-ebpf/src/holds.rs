//! How long contended locks are held: `lock:contended_release` (Linux 7.2), and
//! what it takes of the other contention events.
//!
//! In: the release by a holder for whose lock others are queued; that a task
//! queued, and that a wait ended. Out: `HOLDS`. Locks whose waiters sleep alone;
//! some kernels let queued spinlocks tell of their releases as well, which are
//! none of ours. The reasoning is in [`profiler_common::hold`].
//!
//! Where releases are not observed, `LAYOUT.holds` is 0, and the verifier leaves
//! out what other programs do here.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use profiler_common::flags;
use profiler_common::hold::{self, Holder, Released, Rwsem, mutex};
use profiler_common::layout::{HoldSeries, hold_bucket_index};
use profiler_common::watch::{HOLDS, SHARED, WatchEntry};

use crate::arrays::{self, layout};
use crate::atomic::SharedWord;
use crate::owner::{self, offset, word};

#[btf_tracepoint(function = "contended_release")]
fn contended_release_btf(ctx: BtfTracePointContext) -> i32 {
    released(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "contended_release")]
fn contended_release_raw(ctx: RawTracePointContext) -> i32 {
    released(&ctx);
    0
}

/// `contended_release(void *lock)`.
#[inline(always)]
fn released(ctx: &impl EbpfContext) {
    // SAFETY: for both program types the context is an array of `u64`, and the
    // tracepoint has one argument.
    let address = unsafe { *ctx.as_ptr().cast::<u64>() };
    if let Some(lock) = arrays::watched(address)
        && lock.traits & HOLDS != 0
    {
        let _ = try_released(&lock);
    }
}

/// Books what a release ended. `None` only if this CPU has no bank, which sizing
/// by possible CPUs rules out.
#[inline(always)]
fn try_released(lock: &WatchEntry) -> Option<()> {
    let now_ns = now();
    let look = || if is_rwsem(lock) { rwsem(lock.address) } else { None };
    let released = hold::released(state(lock)?, thread(), now_ns, look);

    let mut series = u32::from(lock.hold);
    if let Released::Exclusive(_) = released
        && is_rwsem(lock)
    {
        series += 1;
    }
    let cpu = arrays::cpu();
    let bank = arrays::HOLDS.get_ptr_mut(cpu * layout!(holds) + series)?;
    // SAFETY: a live array element that only this program on this CPU writes:
    // locks that sleep are released in tasks, and the kernel does not run a
    // program of a tracepoint twice at once on a CPU.
    book(unsafe { &mut *bank }, released);

    let state = arrays::cpu_state(cpu)?;
    arrays::node(state);
    // Last, hence volatile: a reader that sees the new number finds the release
    // in the bank.
    let booked = &raw mut state.releases;
    // SAFETY: a field of a live array element that, as above, nobody else writes.
    unsafe { booked.write_volatile(booked.read_volatile() + 1) };
    Some(())
}

/// Adds a release to a bank of this CPU.
#[inline(always)]
fn book(bank: &mut HoldSeries, released: Released) {
    let finished = bank.finished + 1;
    // SAFETY: volatile keeps the compiler from moving the two marks that tell a
    // reader whether it caught the bank half written.
    unsafe { (&raw mut bank.started).write_volatile(finished) };
    match released {
        Released::Exclusive(held_ns) | Released::LastReader(held_ns) => {
            bank.sum_ns += held_ns;
            if held_ns > bank.max_ns {
                bank.max_ns = held_ns;
            }
            if let Some(bucket) = bank.buckets.get_mut(hold_bucket_index(held_ns)) {
                *bucket += 1;
            }
        }
        Released::OneOfReaders => bank.one_of_readers += 1,
        Released::Unmeasured => bank.unmeasured += 1,
    }
    // SAFETY: as above.
    unsafe { (&raw mut bank.finished).write_volatile(finished) };
}

/// This task begins to wait for `lock`.
#[inline(always)]
pub(crate) fn queued(lock: &WatchEntry, contention_flags: u32) {
    // Who spins for a mutex is not queued: the owner releases it without an event.
    if observed(lock)
        && contention_flags & flags::SPIN == 0
        && let Some(state) = state(lock)
    {
        hold::queued(state, now, || holder(lock));
    }
}

/// This task's wait for `lock` ended.
#[inline(always)]
pub(crate) fn wait_ended(lock: &WatchEntry, failed: bool) {
    if !observed(lock) {
        return;
    }
    let Some(state) = state(lock) else { return };
    if failed {
        return hold::gave_up(state);
    }
    if !is_rwsem(lock) {
        return hold::acquired(state, thread(), now, || waiters(lock));
    }
    // As this task holds it, it says in which way. What cannot be read is as good
    // as a holder that is not known.
    let Some(found) = rwsem(lock.address) else { return hold::gave_up(state) };
    if found.writer() {
        hold::acquired(state, thread(), now, || waiters(lock));
    } else {
        hold::acquired_shared(state, now, || rwsem(lock.address));
    }
}

/// This task left the slow path of a rwsem as a writer, and may have done so
/// without an event.
#[inline(always)]
pub(crate) fn acquired_by_writer(lock: &WatchEntry) {
    if observed(lock)
        && let Some(state) = state(lock)
    {
        hold::acquired_perhaps_again(state, thread(), now, || waiters(lock));
    }
}

/// This task left the slow path of the rwsem at `address` as a reader, and may
/// have done so without an event.
#[inline(always)]
pub(crate) fn acquired_by_reader(address: u64) {
    if let Some(lock) = arrays::watched(address)
        && observed(&lock)
        && let Some(state) = state(&lock)
    {
        hold::acquired_shared(state, now, || rwsem(lock.address));
    }
}

/// Whether anything is to be noted of `lock`. What is the same for every lock
/// comes first, so that the verifier sees where nothing is.
#[inline(always)]
fn observed(lock: &WatchEntry) -> bool {
    layout!(holds) != 0 && lock.traits & HOLDS != 0
}

#[inline(always)]
fn is_rwsem(lock: &WatchEntry) -> bool {
    lock.traits & SHARED != 0
}

/// The word about `lock` that all CPUs share.
#[inline(always)]
fn state(lock: &WatchEntry) -> Option<&'static SharedWord> {
    let shared = arrays::LOCKS.get_ptr_mut(u32::from(lock.lock))?;
    // SAFETY: a word of a live array element; `SharedWord` has the layout of `u64`
    // and allows for other writers.
    Some(unsafe { &*(&raw const (*shared).hold).cast::<SharedWord>() })
}

/// Whether anybody is queued for `lock`.
#[inline(always)]
fn waiters(lock: &WatchEntry) -> Option<bool> {
    if is_rwsem(lock) {
        word(lock.address + offset!(rwsem_count)).map(|count| count & Rwsem::WAITERS != 0)
    } else {
        word(lock.address + offset!(mutex_owner)).map(|owner| owner & mutex::WAITERS != 0)
    }
}

/// Who holds `lock`, as it says itself.
#[inline(always)]
fn holder(lock: &WatchEntry) -> Holder {
    let task = if is_rwsem(lock) {
        let Some(rwsem) = rwsem(lock.address) else { return Holder::Unknown };
        if rwsem.readers() {
            return Holder::Readers;
        }
        rwsem.writer_task()
    } else {
        word(lock.address + offset!(mutex_owner)).map_or(0, mutex::task)
    };
    if task == 0 {
        return Holder::Unknown;
    }
    owner::pid(task).map_or(Holder::Unknown, Holder::Task)
}

/// What the rwsem at `address` says about itself.
#[inline(always)]
fn rwsem(address: u64) -> Option<Rwsem> {
    let count = word(address + offset!(rwsem_count))?;
    let owner = word(address + offset!(rwsem_owner))?;
    Some(Rwsem { count, owner })
}

/// Now, in ns of `CLOCK_MONOTONIC`.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Id of this thread.
#[inline(always)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}
