//! Atomic operations on words of shared arrays.
//!
//! `AtomicU64` has no read-modify-write operations for the BPF target, but the
//! compiler does have the instructions (`BPF_XCHG`, `BPF_CMPXCHG`, `BPF_ADD`;
//! Linux 5.12). In BPF they are full barriers when they return a value.

use core::cell::UnsafeCell;
use core::intrinsics::{self, AtomicOrdering};

use profiler_common::inflight::Word;

/// A word in a shared array.
#[repr(transparent)]
pub(crate) struct SharedWord(UnsafeCell<u64>);

impl Word for SharedWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: aligned and alive: it lies in an array that outlives the
        // program; volatile keeps the compiler from caching it.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as in `load`; 64-bit stores do not tear.
        unsafe { self.0.get().write_volatile(value) }
    }

    #[inline(always)]
    fn store_release(&self, value: u64) {
        if cfg!(bpf_target_arch = "x86_64") {
            // This machine keeps stores in order.
            self.store(value);
        } else {
            // SAFETY: as in `load`.
            unsafe { swap(self.0.get(), value) };
        }
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u64, new: u64) -> bool {
        // SAFETY: as in `load`.
        let (_, exchanged) = unsafe {
            intrinsics::atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                self.0.get(),
                old,
                new,
            )
        };
        exchanged
    }

    #[inline(always)]
    fn add(&self, value: u64) {
        // SAFETY: as in `load`.
        unsafe { add(self.0.get(), value) }
    }
}

/// Writes `value` to the word at `word`, with a full barrier; what it held.
///
/// # Safety
///
/// `word` points into a shared array, aligned.
#[inline(always)]
pub(crate) unsafe fn swap(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { intrinsics::atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(word, value) }
}

/// Adds to the word at `word` in one step.
///
/// # Safety
///
/// `word` points into a shared array, aligned.
#[inline(always)]
pub(crate) unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, value) };
}

/// Writes `value` to the word at `word` if it is 0; true when the word holds
/// `value` afterwards, whoever wrote it.
///
/// # Safety
///
/// `word` points into a shared array, aligned.
#[inline(always)]
pub(crate) unsafe fn claim(word: *mut u64, value: u64) -> bool {
    // SAFETY: the caller's promise.
    let (held, exchanged) = unsafe {
        intrinsics::atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            word, 0, value,
        )
    };
    exchanged || held == value
}
