//! Since when a contended lock is held, and by whom: one word for each lock.
//!
//! `lock:contended_release` tells that a holder let go of a lock for which others
//! had queued, and nothing else. What it takes to make a time of that is kept
//! here, from the other contention events:
//!
//! - A task queues: if nobody had queued before, the lock has been contended
//!   since now, and the lock itself says who holds it.
//! - A task that waited has the lock: if others are still queued, it holds a
//!   contended lock since now.
//! - A holder releases: it is known how long it held the contended lock if it is
//!   the holder that was noted. As the event may come after the release, the lock
//!   may have another holder by then, and it is not known.
//!
//! While anybody is queued, every release has its event (kernel/locking/rwsem.c
//! and mutex.c: `RWSEM_FLAG_WAITERS`, `MUTEX_FLAG_WAITERS`), so a holder that was
//! noted is the holder until its own event. What breaks this chain makes the word
//! [`UNKNOWN`], and it stays so until the next acquisition that is seen.
//!
//! One gap is left: a waiter for a rwsem that is killed leaves the queue some
//! instructions before its event. Were the lock released, acquired again by the
//! same task, waited for by another one and released within them, the hold would
//! be taken to have begun with the first of the two.

/// A word that all CPUs change in one step, with full barriers.
pub trait StateWord {
    /// Reads it.
    fn load(&self) -> u64;
    /// Writes `new` if it holds `old`; whether it did.
    fn exchange(&self, old: u64, new: u64) -> bool;
    /// Writes `new`.
    fn set(&self, new: u64);
}

/// Others may be queued; since when, or who holds the lock, is not known. What a
/// word is before the first event.
pub const UNKNOWN: u64 = 0;
/// Nobody is queued.
pub const FREE: u64 = 1;

/// Bits of the time: in units of 16 ns, 19 hours. Thread ids have the other 22
/// (`PID_MAX_LIMIT` in include/linux/threads.h).
const TIME_BITS: u32 = 42;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const UNIT_BITS: u32 = 4;

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This thread, alone.
    Task(u32),
    /// One or several readers.
    Readers,
    /// Nobody, or it cannot be told.
    Unknown,
}

/// The word for a contended lock held by `holder` since `now_ns`.
#[inline(always)]
const fn held_since(holder: Holder, now_ns: u64) -> u64 {
    let time = now_ns >> UNIT_BITS & TIME_MASK;
    match holder {
        Holder::Task(0) | Holder::Unknown => UNKNOWN,
        Holder::Task(tid) => (tid as u64) << TIME_BITS | time,
        Holder::Readers => {
            if time > FREE {
                time
            } else {
                FREE + 1
            }
        }
    }
}

/// Who holds the lock, as the word says.
#[inline(always)]
const fn holder(word: u64) -> Holder {
    match (word >> TIME_BITS) as u32 {
        0 if word <= FREE => Holder::Unknown,
        0 => Holder::Readers,
        tid => Holder::Task(tid),
    }
}

/// Time in ns since that in the word; `None` if that lies ahead.
#[inline(always)]
const fn elapsed_ns(word: u64, now_ns: u64) -> Option<u64> {
    const RANGE: u64 = 1 << (TIME_BITS + UNIT_BITS);
    let elapsed = now_ns.wrapping_sub((word & TIME_MASK) << UNIT_BITS) & (RANGE - 1);
    if elapsed < RANGE / 2 { Some(elapsed) } else { None }
}

/// What a rwsem says about itself (kernel/locking/rwsem.c, since Linux 5.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Rwsem {
    /// `rw_semaphore.count`.
    pub count: u64,
    /// `rw_semaphore.owner`.
    pub owner: u64,
}

impl Rwsem {
    const WRITER_LOCKED: u64 = 1 << 0;
    /// In `count`: somebody is queued.
    pub const WAITERS: u64 = 1 << 1;
    const READER_SHIFT: u32 = 8;
    /// In `owner`: the last who acquired it is a reader.
    const READER_OWNED: u64 = 1 << 0;
    /// Flags in `owner`.
    const OWNER_FLAGS: u64 = 3;

    /// Whether a writer has it.
    #[inline(always)]
    pub const fn writer(&self) -> bool {
        self.count & Self::WRITER_LOCKED != 0
    }

    /// Whether readers acquired it last, and no writer since.
    #[inline(always)]
    const fn was_readers(&self) -> bool {
        !self.writer() && self.owner & Self::READER_OWNED != 0
    }

    /// Whether readers have it. A reader that finds out that it has to wait
    /// counts for a moment; that alone is not enough.
    #[inline(always)]
    pub const fn readers(&self) -> bool {
        self.was_readers() && self.count >> Self::READER_SHIFT != 0
    }

    /// The `task_struct` of the writer that has it; 0 if that cannot be told.
    #[inline(always)]
    pub const fn writer_task(&self) -> u64 {
        if self.writer() && self.owner & Self::OWNER_FLAGS == 0 { self.owner } else { 0 }
    }
}

/// Parts of `mutex.owner` (kernel/locking/mutex.h).
pub mod mutex {
    /// Somebody is queued.
    pub const WAITERS: u64 = 1 << 0;
    /// Flags beside the `task_struct`.
    const FLAGS: u64 = 7;

    /// The `task_struct` of the owner; 0 for none.
    #[inline(always)]
    pub const fn task(owner: u64) -> u64 {
        owner & !FLAGS
    }
}

/// A task has queued; `look` tells who holds the lock.
#[inline(always)]
pub fn queued(word: &impl StateWord, now: impl FnOnce() -> u64, look: impl FnOnce() -> Holder) {
    if word.load() == FREE {
        // In this order: a hold never begins before its holder had the lock.
        let holder = look();
        word.exchange(FREE, held_since(holder, now()));
    }
}

/// A task that was queued is so no longer, and has not got the lock.
#[inline(always)]
pub fn gave_up(word: &impl StateWord) {
    word.set(UNKNOWN);
}

/// Thread `tid`, in its own context, has the lock for itself; `waiters` tells
/// whether anybody is queued, if it can.
#[inline(always)]
pub fn acquired(
    word: &impl StateWord,
    tid: u32,
    now: impl FnOnce() -> u64,
    waiters: impl FnOnce() -> Option<bool>,
) {
    // In this order: who queues after the look finds the word free.
    word.set(FREE);
    match waiters() {
        Some(false) => {}
        Some(true) => {
            // One who queued may have been quicker. If it did not find this task
            // it had looked before this task was there.
            if !word.exchange(FREE, held_since(Holder::Task(tid), now()))
                && holder(word.load()) != Holder::Task(tid)
            {
                word.set(UNKNOWN);
            }
        }
        None => word.set(UNKNOWN),
    }
}

/// As [`acquired`], seen a second time, or for the first.
#[inline(always)]
pub fn acquired_perhaps_again(
    word: &impl StateWord,
    tid: u32,
    now: impl FnOnce() -> u64,
    waiters: impl FnOnce() -> Option<bool>,
) {
    if holder(word.load()) != Holder::Task(tid) {
        acquired(word, tid, now, waiters);
    }
}

/// A reader, in its own context, has the lock; `look` is at the rwsem, if that
/// can be read.
#[inline(always)]
pub fn acquired_shared(
    word: &impl StateWord,
    now: impl FnOnce() -> u64,
    look: impl Fn() -> Option<Rwsem>,
) {
    let waiters = || look().map(|rwsem| rwsem.count & Rwsem::WAITERS != 0);
    let before = word.load();
    if holder(before) == Holder::Readers && waiters() == Some(true) {
        // It joins others.
        return;
    }
    // Of several readers at once, one.
    if word.exchange(before, FREE) {
        match waiters() {
            Some(false) => {}
            Some(true) => {
                word.exchange(FREE, held_since(Holder::Readers, now()));
            }
            None => word.set(UNKNOWN),
        }
    }
}

/// What a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// A hold of the contended lock by one task, of so many ns.
    Exclusive(u64),
    /// A hold by readers, of so many ns: this one was the last of them.
    LastReader(u64),
    /// Nothing: other readers hold on.
    OneOfReaders,
    /// A hold of unknown length.
    Unmeasured,
}

/// Thread `tid`, in its own context, has released a lock for which others are
/// queued, or is about to; `look` is at the rwsem, if it is one.
#[inline(always)]
pub fn released(
    word: &impl StateWord,
    tid: u32,
    now_ns: u64,
    look: impl FnOnce() -> Option<Rwsem>,
) -> Released {
    let before = word.load();
    match holder(before) {
        Holder::Task(noted) if noted == tid => {
            // A writer may have become a reader (`downgrade_write`).
            let next = match look() {
                Some(rwsem) if rwsem.readers() => held_since(Holder::Readers, now_ns),
                _ => UNKNOWN,
            };
            word.exchange(before, next);
            elapsed_ns(before, now_ns).map_or(Released::Unmeasured, Released::Exclusive)
        }
        // It has another holder already.
        Holder::Task(_) => Released::Unmeasured,
        Holder::Readers => match look() {
            Some(rwsem) if rwsem.readers() => Released::OneOfReaders,
            Some(rwsem) if rwsem.was_readers() => {
                if !word.exchange(before, UNKNOWN) {
                    return Released::Unmeasured;
                }
                elapsed_ns(before, now_ns).map_or(Released::Unmeasured, Released::LastReader)
            }
            // A writer has it, or it was a writer that released it.
            _ => {
                word.exchange(before, UNKNOWN);
                Released::Unmeasured
            }
        },
        Holder::Unknown => {
            if before == FREE {
                // Somebody is queued whose event is still to come.
                word.exchange(FREE, UNKNOWN);
            }
            Released::Unmeasured
        }
    }
}

#[cfg(test)]
mod tests;
