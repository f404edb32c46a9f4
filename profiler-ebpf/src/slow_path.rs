//! Lock waits: fentry and fexit, or kprobe and kretprobe, on the slow paths of
//! the locks.
//!
//! For kernels without the contention tracepoints (before 5.19), and, of
//! writers of a rwsem, for what those tracepoints do not see. In: the functions
//! named below (kernel/locking/{rwsem,mutex,qspinlock,qrwlock}.c). Out: see
//! [`waits`](crate::waits).
//!
//! A wait here is the whole time in the slow path. A tracepoint's wait begins
//! only when the writer of a rwsem queues, and a spinlock's when the waiter does:
//! that is less by the spinning before.
//!
//! Return probes do not tell which lock a function was about, and the kernel has
//! a limited number of them at a time, so by kprobe only the locks are observed
//! whose waiters sleep: a task is in one such wait at most.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use profiler_common::flags::{MUTEX, READ, SPIN, WRITE};
use profiler_common::watch::slow_path;

use crate::waits::{self, Programs};

/// Where a function's result is among its arguments, and what it is.
enum Result {
    /// Nothing is returned, and the lock is always acquired.
    None,
    /// 0, or a negative errno.
    Int(usize),
    /// The lock, or an errno as a pointer.
    Pointer(usize),
}

impl Result {
    /// Whether the function returned without the lock.
    #[inline(always)]
    fn failed(&self, ctx: &impl EbpfContext) -> bool {
        match *self {
            Self::None => false,
            Self::Int(at) => argument(ctx, at) as i32 != 0,
            Self::Pointer(at) => is_error(argument(ctx, at)),
        }
    }
}

/// Whether a pointer is an errno: `IS_ERR` in include/linux/err.h.
#[inline(always)]
pub(crate) const fn is_error(pointer: u64) -> bool {
    const MAX_ERRNO: u64 = 4095;
    pointer >= MAX_ERRNO.wrapping_neg()
}

/// Argument `n` of the function; the one after the last is the result.
#[inline(always)]
pub(crate) fn argument(ctx: &impl EbpfContext, n: usize) -> u64 {
    // SAFETY: the context is an array of `u64`, and the kernel refuses a program
    // that reads past its end.
    number(unsafe { *ctx.as_ptr().cast::<u64>().add(n) })
}

/// A pointer as a number. The verifier knows that an argument is a pointer and
/// allows no multiplication of one; what it has negated is a number to it.
#[inline(always)]
pub(crate) fn number(pointer: u64) -> u64 {
    let mut value = pointer;
    // SAFETY: two negations change nothing.
    unsafe {
        core::arch::asm!("{0} = -{0}", "{0} = -{0}", inout(reg) value, options(pure, nomem, nostack));
    }
    value
}

/// Programs on the entry and the return of a slow path whose first argument is
/// the lock.
macro_rules! observed {
    ($enter:ident, $exit:ident, $flags:expr, $result:expr) => {
        #[fentry]
        fn $enter(ctx: FEntryContext) -> i32 {
            waits::begin(argument(&ctx, 0), || $flags);
            0
        }

        #[fexit]
        fn $exit(ctx: FExitContext) -> i32 {
            waits::end(&ctx, argument(&ctx, 0), || $result.failed(&ctx), Programs::Several);
            0
        }
    };
}

observed!(rwsem_read_enter, rwsem_read_exit, READ, Result::Pointer(3));
observed!(rwsem_write_enter, rwsem_write_exit, WRITE, Result::Pointer(2));
observed!(mutex_enter, mutex_exit, MUTEX, Result::None);
observed!(mutex_killable_enter, mutex_killable_exit, MUTEX, Result::Int(1));
observed!(mutex_interruptible_enter, mutex_interruptible_exit, MUTEX, Result::Int(1));
observed!(spin_enter, spin_exit, SPIN, Result::None);
observed!(spin_paravirtual_enter, spin_paravirtual_exit, SPIN, Result::None);
observed!(rwlock_read_enter, rwlock_read_exit, SPIN | READ, Result::None);
observed!(rwlock_write_enter, rwlock_write_exit, SPIN | WRITE, Result::None);

/// Return of `rwsem_down_read_slowpath` where it has two arguments (to 5.10).
#[fexit]
fn rwsem_read_exit_of_two(ctx: FExitContext) -> i32 {
    waits::end(&ctx, argument(&ctx, 0), || Result::Pointer(2).failed(&ctx), Programs::Several);
    0
}

/// `rwsem_down_write_slowpath`, beside the tracepoints.
#[fentry]
fn optimistic_enter(ctx: FEntryContext) -> i32 {
    waits::begin_optimistic(argument(&ctx, 0));
    0
}

/// See [`optimistic_enter`].
#[fexit]
fn optimistic_exit(ctx: FExitContext) -> i32 {
    waits::end_optimistic(&ctx, argument(&ctx, 0), || Result::Pointer(2).failed(&ctx));
    0
}

/// Return of `rwsem_down_read_slowpath`, beside the tracepoints, which do not see
/// a reader that goes ahead of those that are queued.
#[cfg(not(feature = "no-compare-exchange"))]
#[fexit]
fn reader_exit(ctx: FExitContext) -> i32 {
    if !Result::Pointer(3).failed(&ctx) {
        crate::holds::acquired_by_reader(argument(&ctx, 0));
    }
    0
}

/// The same by probes.
macro_rules! probed {
    ($enter:ident, $exit:ident, $flags:expr, $path:expr, $failed:expr) => {
        #[kprobe]
        fn $enter(ctx: ProbeContext) -> u32 {
            if let Some(lock) = ctx.arg::<u64>(0) {
                waits::begin_if_it_sleeps(lock, $flags);
            }
            0
        }

        #[kretprobe]
        fn $exit(ctx: RetProbeContext) -> u32 {
            let failed: fn(u64) -> bool = $failed;
            waits::end_in_slow_path(&ctx, $path, failed(ctx.ret::<u64>()));
            0
        }
    };
}

probed!(rwsem_read_probe, rwsem_read_return, READ, slow_path::RWSEM_READ, is_error);
probed!(rwsem_write_probe, rwsem_write_return, WRITE, slow_path::RWSEM_WRITE, is_error);
probed!(mutex_probe, mutex_return, MUTEX, slow_path::MUTEX, |_| false);
probed!(mutex_errno_probe, mutex_errno_return, MUTEX, slow_path::MUTEX, |ret| ret as i32 != 0);
