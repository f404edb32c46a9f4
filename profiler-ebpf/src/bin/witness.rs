//! Programs for tests and benchmarks; not part of the product.
//!
//! `witness_*` count waits in the most naive way there is, sharing no code with
//! the programs that they check: a linear search over the watched addresses,
//! one start per thread and lock in a plain array, atomic sums. `empty_*` do
//! nothing, which is the least that an attached program can cost, and `clock_*`
//! read the clock, which is the least that one can cost that measures time.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has no stable atomic addition")]

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};

/// Addresses that one run can watch.
const LOCKS: usize = 16;

/// Watched addresses; 0 ends the list. Set at load time.
#[unsafe(no_mangle)]
static ADDRESSES: [u64; LOCKS] = [0; LOCKS];
/// Thread ids are below this. Set at load time.
#[unsafe(no_mangle)]
static PID_MAX: u32 = 0;

/// Start in ns by `thread * 16 + lock`; 0 when not waiting. Idle threads, which
/// all have the id 0, come after `PID_MAX`, by CPU.
#[map]
static STARTS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// `[waits, ns]` by lock.
#[map]
static TOTALS: Array<[u64; 2]> = Array::with_max_entries(LOCKS as u32, BPF_F_MMAPABLE);

/// Contended releases by lock.
#[map]
static RELEASES: Array<u64> = Array::with_max_entries(LOCKS as u32, BPF_F_MMAPABLE);

#[btf_tracepoint(function = "contended_release")]
fn witness_release(ctx: BtfTracePointContext) -> i32 {
    if let Some(count) = lock_index(ctx.arg(0)).and_then(|lock| RELEASES.get_ptr_mut(lock)) {
        // SAFETY: a live array element; shared, hence atomic.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(count, 1) };
    }
    0
}

#[btf_tracepoint(function = "contention_begin")]
fn witness_begin(ctx: BtfTracePointContext) -> i32 {
    let _ = begin(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "contention_end")]
fn witness_end(ctx: BtfTracePointContext) -> i32 {
    let _ = end(ctx.arg(0));
    0
}

/// The same on the entry and the return of a function whose first argument is
/// the lock.
macro_rules! slow_path {
    ($($enter:ident $exit:ident),*) => {$(
        #[fentry]
        fn $enter(ctx: FEntryContext) -> i32 {
            let _ = begin(ctx.arg(0));
            0
        }

        #[fexit]
        fn $exit(ctx: FExitContext) -> i32 {
            let _ = end(ctx.arg(0));
            0
        }
    )*};
}

slow_path!(
    rwsem_down_read_slowpath_enter rwsem_down_read_slowpath_exit,
    rwsem_down_write_slowpath_enter rwsem_down_write_slowpath_exit,
    __mutex_lock_slowpath_enter __mutex_lock_slowpath_exit,
    __mutex_lock_killable_slowpath_enter __mutex_lock_killable_slowpath_exit,
    __mutex_lock_interruptible_slowpath_enter __mutex_lock_interruptible_slowpath_exit,
    native_queued_spin_lock_slowpath_enter native_queued_spin_lock_slowpath_exit,
    __pv_queued_spin_lock_slowpath_enter __pv_queued_spin_lock_slowpath_exit,
    queued_read_lock_slowpath_enter queued_read_lock_slowpath_exit,
    queued_write_lock_slowpath_enter queued_write_lock_slowpath_exit
);

#[inline(always)]
fn begin(address: u64) -> Option<()> {
    let start = lock_index(address).and_then(start_of)?;
    // SAFETY: a live array element that only this thread uses. The mutex slow
    // path begins several times; the first one counts.
    unsafe {
        if *start == 0 {
            *start = bpf_ktime_get_ns();
        }
    }
    Some(())
}

#[inline(always)]
fn end(address: u64) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let lock = lock_index(address)?;
    let start = start_of(lock)?;
    let totals = TOTALS.get_ptr_mut(lock)?;
    // SAFETY: live array elements; the totals are shared, hence atomic.
    unsafe {
        if *start != 0 {
            let words = totals.cast::<u64>();
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(words, 1);
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(words.add(1), now - *start);
            *start = 0;
        }
    }
    Some(())
}

#[btf_tracepoint(function = "contention_begin")]
fn empty_begin(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "contention_end")]
fn empty_end(_ctx: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "contention_begin")]
fn clock_begin(_ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_ktime_get_ns() }) as i32
}

#[btf_tracepoint(function = "contention_end")]
fn clock_end(_ctx: BtfTracePointContext) -> i32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_ktime_get_ns() }) as i32
}

#[inline(always)]
fn lock_index(address: u64) -> Option<u32> {
    for index in 0..LOCKS {
        // SAFETY: in bounds; volatile because user space sets the value.
        let watched = unsafe { (&raw const ADDRESSES).cast::<u64>().add(index).read_volatile() };
        if watched == address {
            return Some(index as u32);
        }
        if watched == 0 {
            return None;
        }
    }
    None
}

#[inline(always)]
fn start_of(lock: u32) -> Option<*mut u64> {
    let thread = match bpf_get_current_pid_tgid() as u32 {
        // SAFETY: a static; a helper without arguments.
        0 => unsafe { (&raw const PID_MAX).read_volatile() + bpf_get_smp_processor_id() },
        thread => thread,
    };
    STARTS.get_ptr_mut(thread * LOCKS as u32 + lock)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
