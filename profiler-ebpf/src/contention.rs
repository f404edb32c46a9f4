//! Lock waits: `lock:contention_begin` and `lock:contention_end`.
//!
//! In: both tracepoints, as `tp_btf` or as `raw_tp`, with the same body. Out:
//! `WAITS`, `HANDOFFS`, `SYSCALL_WAITS`, and what is in flight.
//!
//! What a program here may touch: read-only data, arrays, the clock, the task
//! id, the CPU and the node. No hash map, ring buffer or log: their locks fire
//! these very tracepoints (Linux 6.15 and later).

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use profiler_common::flags;
use profiler_common::histogram::bucket_index;
use profiler_common::inflight::{self, Begin, Wait};
use profiler_common::layout::{Drop, WaitSeries};
use profiler_common::watch::WatchEntry;

use crate::arrays::{self, Tasks, count_drop, layout};
use crate::atomic;

#[btf_tracepoint(function = "contention_begin")]
fn contention_begin_btf(ctx: BtfTracePointContext) -> i32 {
    begin(&ctx);
    0
}

#[btf_tracepoint(function = "contention_end")]
fn contention_end_btf(ctx: BtfTracePointContext) -> i32 {
    end(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "contention_begin")]
fn contention_begin_raw(ctx: RawTracePointContext) -> i32 {
    begin(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "contention_end")]
fn contention_end_raw(ctx: RawTracePointContext) -> i32 {
    end(&ctx);
    0
}

/// Argument `n`. For both program types the context is an array of `u64`.
#[inline(always)]
fn arg(ctx: &impl EbpfContext, n: usize) -> u64 {
    // SAFETY: both tracepoints have two arguments, and `n` is 0 or 1.
    unsafe { *ctx.as_ptr().cast::<u64>().add(n) }
}

/// `contention_begin(void *lock, unsigned int flags)`.
#[inline(always)]
fn begin(ctx: &impl EbpfContext) {
    if let Some(lock) = arrays::watched(arg(ctx, 0)) {
        let _ = try_begin(&lock, arg(ctx, 1) as u32);
    }
}

/// `contention_end(void *lock, int ret)`.
#[inline(always)]
fn end(ctx: &impl EbpfContext) {
    if let Some(lock) = arrays::watched(arg(ctx, 0)) {
        let _ = try_end(&lock, arg(ctx, 1) as i32);
    }
}

/// Notes that a wait begins. `None` only if this CPU has no bank, which
/// sizing by possible CPUs rules out.
#[inline(always)]
fn try_begin(lock: &WatchEntry, contention_flags: u32) -> Option<()> {
    let series = lock.series_of(contention_flags);
    let state = arrays::cpu_state(arrays::cpu())?;
    if !lock.sleeps() {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        if !state.spins.push(series, now) {
            count_drop(state, Drop::SpinStackFull);
        }
        return Some(());
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    let may_continue = contention_flags & flags::MUTEX != 0;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let node = arrays::node(state);
    let lost = match inflight::begin_wait(&Tasks, tid, series, node, now, may_continue) {
        Begin::Started | Begin::Continued => return Some(()),
        Begin::Replaced => Drop::UnmatchedBegin,
        Begin::Full => Drop::InflightFull,
    };
    count_drop(state, lost);
    Some(())
}

/// Books a wait that ends: on the CPU, hence the node, where it ends.
#[inline(always)]
fn try_end(lock: &WatchEntry, ret: i32) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    let node = arrays::node(state);

    let wait = if lock.sleeps() {
        let wait = inflight::end_wait(&Tasks, tid);
        // A slot about another lock: the end of that wait was not seen.
        wait.filter(|wait| wait.series.wrapping_sub(lock.series) < lock.series_count())
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

    let waited_ns = if now >= wait.start_ns {
        now - wait.start_ns
    } else {
        count_drop(state, Drop::ClockBackwards);
        0
    };
    let bank = book(cpu, wait.series, waited_ns, ret != 0, node != wait.node)?;
    if ret == 0 {
        hand_off(bank, cpu, node, lock.lock)?;
    }
    if let Some(call) = wait.call {
        charge(cpu, call, lock.lock, waited_ns)?;
    }
    // Last, hence volatile: a reader that sees the new number finds the wait in
    // the bank.
    // SAFETY: a field of a live array element that only this program writes.
    unsafe { (&raw mut state.waits).write_volatile(state.waits + 1) };
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
