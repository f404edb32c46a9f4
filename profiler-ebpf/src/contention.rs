//! Lock waits: `lock:contention_begin` and `lock:contention_end`.
//!
//! In: both tracepoints, as `tp_btf` or as `raw_tp`, with the same body. Out:
//! see [`waits`](crate::waits).

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};

use crate::waits::{self, Programs};
use crate::{arrays, holds};

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
        let flags = arg(ctx, 1) as u32;
        waits::begin_of(&lock, flags);
        holds::queued(&lock, flags);
    }
}

/// `contention_end(void *lock, int ret)`.
#[inline(always)]
fn end(ctx: &impl EbpfContext) {
    if let Some(lock) = arrays::watched(arg(ctx, 0)) {
        let failed = arg(ctx, 1) as i32 != 0;
        waits::end_of(ctx, &lock, failed, Programs::One);
        holds::wait_ended(&lock, failed);
    }
}
