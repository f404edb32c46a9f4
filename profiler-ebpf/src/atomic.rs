//! Atomic operations on words of shared arrays.
//!
//! `AtomicU64` has no read-modify-write operations for the BPF target, but the
//! compiler does have the instructions (`BPF_XCHG`, `BPF_CMPXCHG`, `BPF_ADD`).
//! In BPF they are full barriers when they return a value.
//!
//! Before Linux 5.12 there is only the addition. The programs are built a second
//! time for those kernels, with the feature `no-compare-exchange`: a claim is
//! then an insertion in a hash map that fails if the key is there. That this
//! takes a bucket's lock is safe in these kernels, unlike in later ones:
//!
//! - They have no contention tracepoints, so that nothing here runs when the
//!   lock of a bucket is contended but the programs on the slow path of
//!   spinlocks, which find that it is not on the watch list and return.
//! - Only tasks that are about to sleep, or are in a system call, claim and free.
//!   No interrupt does; and the kernel holds the lock of a bucket with
//!   interrupts off (kernel/bpf/hashtab.c), so no task is interrupted with it.
//! - The entries are allocated when the map is made.

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
    fn add(&self, value: u64) {
        // SAFETY: as in `load`.
        unsafe { add(self.0.get(), value) }
    }
}

impl SharedWord {
    /// Writes `value` if the word is 0 and nobody else does; whether it did.
    /// `number` is the word's own among all that are claimed.
    #[inline(always)]
    pub(crate) fn claim(&self, number: u32, value: u64) -> bool {
        // SAFETY: as in `load`.
        unsafe { claim(self.0.get(), number, value) }
    }
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

#[cfg(not(feature = "no-compare-exchange"))]
pub(crate) use exchange::{claim, raise, swap, unclaim};
#[cfg(feature = "no-compare-exchange")]
pub(crate) use insertion::{claim, raise, swap, unclaim};

#[cfg(not(feature = "no-compare-exchange"))]
mod exchange {
    use core::intrinsics::{self, AtomicOrdering};

    use profiler_common::hold::StateWord;
    use profiler_common::inflight::Word;

    use super::SharedWord;

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

    /// Writes `value` to the word at `word` if it is 0; whether it did.
    ///
    /// # Safety
    ///
    /// `word` points into a shared array, aligned.
    #[inline(always)]
    pub(crate) unsafe fn claim(word: *mut u64, _number: u32, value: u64) -> bool {
        // SAFETY: the caller's promise.
        let (_, exchanged) = unsafe {
            intrinsics::atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word, 0, value,
            )
        };
        exchanged
    }

    /// Times that [`raise`] tries.
    const TRIES: u32 = 4;

    /// Writes `value` to the word at `word` if that is less. After some tries at
    /// once with others it gives up.
    ///
    /// # Safety
    ///
    /// `word` points into a shared array, aligned.
    #[inline(always)]
    pub(crate) unsafe fn raise(word: *mut u64, value: u64) {
        for _ in 0..TRIES {
            // SAFETY: the caller's promise.
            let held = unsafe { word.read_volatile() };
            if held >= value {
                return;
            }
            // SAFETY: the caller's promise.
            let (_, exchanged) = unsafe {
                intrinsics::atomic_cxchg::<
                    u64,
                    { AtomicOrdering::Relaxed },
                    { AtomicOrdering::Relaxed },
                >(word, held, value)
            };
            if exchanged {
                return;
            }
        }
    }

    /// The word with this number is 0 again.
    #[inline(always)]
    pub(crate) const fn unclaim(_number: u32) {}

    impl StateWord for SharedWord {
        #[inline(always)]
        fn load(&self) -> u64 {
            Word::load(self)
        }

        #[inline(always)]
        fn exchange(&self, old: u64, new: u64) -> bool {
            // SAFETY: aligned and alive: it lies in an array that outlives the
            // program.
            let (_, exchanged) = unsafe {
                intrinsics::atomic_cxchg::<
                    u64,
                    { AtomicOrdering::SeqCst },
                    { AtomicOrdering::SeqCst },
                >(self.0.get(), old, new)
            };
            exchanged
        }

        #[inline(always)]
        fn set(&self, new: u64) {
            // SAFETY: as above; an exchange, for its barrier.
            unsafe { swap(self.0.get(), new) };
        }
    }
}

#[cfg(feature = "no-compare-exchange")]
mod insertion {
    use aya_ebpf::bindings::BPF_NOEXIST;
    use aya_ebpf::macros::map;
    use aya_ebpf::maps::HashMap;

    /// Numbers of the words that are claimed.
    #[map]
    static CLAIMS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

    /// Writes `value` to the word at `word`; what it held. Two CPUs that do so at
    /// once may both see what was there before: the only use is the node where a
    /// lock was last acquired, and those who acquire it do so one after the
    /// other, but for readers.
    ///
    /// # Safety
    ///
    /// `word` points into a shared array, aligned.
    #[inline(always)]
    pub(crate) unsafe fn swap(word: *mut u64, value: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe {
            let held = word.read_volatile();
            word.write_volatile(value);
            held
        }
    }

    /// Writes `value` to the word at `word` if it is 0; whether it did.
    ///
    /// # Safety
    ///
    /// `word` points into a shared array, aligned.
    #[inline(always)]
    pub(crate) unsafe fn claim(word: *mut u64, number: u32, value: u64) -> bool {
        if CLAIMS.insert(number, 1, u64::from(BPF_NOEXIST)).is_err() {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { word.write_volatile(value) };
        true
    }

    /// Writes `value` to the word at `word` if that is less. Of two CPUs that do
    /// so at once the one with the lesser value may be the last.
    ///
    /// # Safety
    ///
    /// `word` points into a shared array, aligned.
    #[inline(always)]
    pub(crate) unsafe fn raise(word: *mut u64, value: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            if word.read_volatile() < value {
                word.write_volatile(value);
            }
        }
    }

    /// The word with this number is 0 again.
    #[inline(always)]
    pub(crate) fn unclaim(number: u32) {
        // It is there: whoever wrote the word had claimed it.
        let _ = CLAIMS.remove(number);
    }
}
