//! The in-flight table: which task is in the middle of something, and since when.
//!
//! A fixed array of buckets, four slots each. A task looks in two buckets that
//! its id picks, so at most eight slots are read. Only the task itself writes
//! a slot that carries its id (events of one task never run at the same time),
//! so the one race is between tasks that claim the same empty slot, and a
//! compare-exchange settles it. User space reads the table while it changes.
//!
//! Protocol, per slot: a claim sets the key and then the start; a release
//! clears the start and then the key. A reader that sees the same key before
//! and after a start other than 0 has a start that was valid under that key.
//!
//! The code is generic over the machine word so that the very same protocol
//! runs in BPF, over mapped memory in user space, and under loom.

/// An aligned 64-bit word that several CPUs access.
pub trait Word {
    /// Reads the word.
    fn load(&self) -> u64;
    /// Writes the word. Ordered after earlier accesses only where the machine
    /// does so.
    fn store(&self, value: u64);
    /// Writes the word, with a full barrier, and returns what it held.
    fn swap(&self, value: u64) -> u64;
    /// Writes `new` if the word holds `old`, with a full barrier; whether it did.
    fn compare_exchange(&self, old: u64, new: u64) -> bool;
}

/// Slots in a bucket: one cache line.
pub const SLOTS: usize = 4;

/// One slot. The key is 0 when the slot is free.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slot<W> {
    /// See [`Key`].
    pub key: W,
    /// Start in ns of `CLOCK_MONOTONIC`, 0 while the slot changes hands.
    pub start_ns: W,
}

/// Four slots that share a cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket<W> {
    /// The slots.
    pub slots: [Slot<W>; SLOTS],
}

const _: () = assert!(size_of::<Bucket<u64>>() == 64);

/// What a slot is about, in one word: the task, and 30 bits about what it does.
///
/// | bits | meaning |
/// | --- | --- |
/// | 0..32 | thread id, as the initial pid namespace numbers it |
/// | 32..40 | `what`: series of the wait, or the system call |
/// | 40..62 | `detail`: node where the wait began, or a namespace fingerprint |
/// | 63 | set in every key |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64);

const VALID: u64 = 1 << 63;
/// Key of a slot that is being reclaimed: not free, and no task's.
const RECLAIMING: u64 = 1 << 62;
const OWNER: u64 = VALID | 0xffff_ffff;
const WHAT_SHIFT: u32 = 32;
const DETAIL_SHIFT: u32 = 40;
/// The bits of [`Key::detail`].
pub const DETAIL_MASK: u32 = (1 << 22) - 1;

impl Key {
    /// Key of thread `tid`. `detail` is cut to 22 bits.
    #[inline(always)]
    pub const fn new(tid: u32, what: u8, detail: u32) -> Self {
        Self(
            VALID
                | tid as u64
                | (what as u64) << WHAT_SHIFT
                | ((detail & DETAIL_MASK) as u64) << DETAIL_SHIFT,
        )
    }

    /// Thread id.
    #[inline(always)]
    pub const fn tid(self) -> u32 {
        self.0 as u32
    }

    /// Series of the wait, or the system call.
    #[inline(always)]
    pub const fn what(self) -> u8 {
        (self.0 >> WHAT_SHIFT) as u8
    }

    /// Node where the wait began, or a namespace fingerprint.
    #[inline(always)]
    pub const fn detail(self) -> u32 {
        (self.0 >> DETAIL_SHIFT) as u32 & DETAIL_MASK
    }

    #[inline(always)]
    const fn owner(self) -> u64 {
        self.0 & OWNER
    }
}

/// The two buckets in which thread `tid` looks; `mask` is the number of
/// buckets, a power of two, less one.
#[inline(always)]
pub const fn bucket_indices(tid: u32, mask: u32) -> (u32, u32) {
    let hash = tid.wrapping_mul(0x9e37_79b1);
    let first = hash >> 8 & mask;
    // Never the same as the first when there are two buckets or more.
    let second = (first ^ ((hash >> 20) | 1)) & mask;
    (first, second)
}

/// Outcome of [`begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The slot was claimed.
    Started,
    /// The task was already in the same thing; its first start stands.
    Continued,
    /// The task left something behind that never ended; replaced.
    Replaced,
    /// No free slot in either bucket.
    Full,
}

#[inline(always)]
fn find_in<W: Word>(bucket: &Bucket<W>, owner: u64) -> Option<(&Slot<W>, u64)> {
    for slot in &bucket.slots {
        let key = slot.key.load();
        if key & OWNER == owner {
            return Some((slot, key));
        }
    }
    None
}

#[inline(always)]
fn claim_in<W: Word>(bucket: &Bucket<W>, key: Key, start_ns: u64) -> bool {
    for slot in &bucket.slots {
        if slot.key.load() == 0 && slot.key.compare_exchange(0, key.0) {
            slot.start_ns.store(start_ns);
            return true;
        }
    }
    false
}

/// Notes that the task of `key` begins. `start_ns` must not be 0.
///
/// `may_continue` says that a second begin for the same `what` goes on with what
/// began first: a mutex fires `contention_begin` again each time the waiter goes
/// from spinning to sleeping. Anything else begins once.
#[inline(always)]
pub fn begin<W: Word>(
    first: &Bucket<W>,
    second: &Bucket<W>,
    key: Key,
    start_ns: u64,
    may_continue: bool,
) -> Begin {
    let found = match find_in(first, key.owner()) {
        Some(found) => Some(found),
        None => find_in(second, key.owner()),
    };
    if let Some((slot, held)) = found {
        if may_continue && Key(held).what() == key.what() {
            return Begin::Continued;
        }
        slot.start_ns.store(0);
        slot.key.swap(key.0);
        slot.start_ns.store(start_ns);
        return Begin::Replaced;
    }
    if claim_in(first, key, start_ns) || claim_in(second, key, start_ns) {
        Begin::Started
    } else {
        Begin::Full
    }
}

/// What thread `tid` is in the middle of, if anything.
#[inline(always)]
pub fn find<W: Word>(first: &Bucket<W>, second: &Bucket<W>, tid: u32) -> Option<Key> {
    let owner = Key::new(tid, 0, 0).owner();
    match find_in(first, owner) {
        Some((_, key)) => Some(Key(key)),
        None => find_in(second, owner).map(|(_, key)| Key(key)),
    }
}

/// Ends what thread `tid` was in the middle of: its key and start in ns.
#[inline(always)]
pub fn end<W: Word>(first: &Bucket<W>, second: &Bucket<W>, tid: u32) -> Option<(Key, u64)> {
    let owner = Key::new(tid, 0, 0).owner();
    let found = match find_in(first, owner) {
        Some(found) => Some(found),
        None => find_in(second, owner),
    };
    let (slot, key) = found?;
    let start_ns = slot.start_ns.load();
    slot.start_ns.store(0);
    slot.key.swap(0);
    Some((Key(key), start_ns))
}

/// Reads a slot that others may be changing: its key and start in ns, or
/// `None` when it is free or changing hands.
#[inline]
pub fn observe<W: Word>(slot: &Slot<W>) -> Option<(Key, u64)> {
    let key = slot.key.load();
    if key & VALID == 0 {
        return None;
    }
    let start_ns = slot.start_ns.load();
    (start_ns != 0 && slot.key.load() == key).then_some((Key(key), start_ns))
}

/// Frees the slot of a task that no longer exists, from user space; whether it
/// was still there. Meanwhile the slot is neither free nor anybody's.
#[inline]
pub fn reclaim<W: Word>(slot: &Slot<W>, key: Key) -> bool {
    if !slot.key.compare_exchange(key.0, RECLAIMING) {
        return false;
    }
    slot.start_ns.store(0);
    slot.key.swap(0);
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    impl Word for AtomicU64 {
        fn load(&self) -> u64 {
            self.load(SeqCst)
        }
        fn store(&self, value: u64) {
            self.store(value, SeqCst);
        }
        fn swap(&self, value: u64) -> u64 {
            self.swap(value, SeqCst)
        }
        fn compare_exchange(&self, old: u64, new: u64) -> bool {
            self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
        }
    }

    type Table = [Bucket<AtomicU64>; 2];

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        let key = Key::new(u32::MAX, 200, DETAIL_MASK);
        assert_eq!((key.tid(), key.what(), key.detail()), (u32::MAX, 200, DETAIL_MASK));
        assert_eq!(Key::new(7, 1, u32::MAX).detail(), DETAIL_MASK);
        assert_ne!(Key::new(0, 0, 0).0, 0, "thread 0 is not a free slot");
    }

    #[test]
    fn the_first_start_of_a_wait_stands() {
        let table = Table::default();
        let key = Key::new(10, 3, 1);
        assert_eq!(begin(&table[0], &table[1], key, 100, true), Begin::Started);
        assert_eq!(begin(&table[0], &table[1], key, 200, true), Begin::Continued);
        assert_eq!(end(&table[0], &table[1], 10), Some((key, 100)));
        assert_eq!(end(&table[0], &table[1], 10), None);
    }

    #[test]
    fn a_wait_that_never_ended_is_replaced_and_said_so() {
        let table = Table::default();
        begin(&table[0], &table[1], Key::new(10, 3, 1), 100, true);
        assert_eq!(begin(&table[0], &table[1], Key::new(10, 4, 1), 200, true), Begin::Replaced);
        assert_eq!(end(&table[0], &table[1], 10), Some((Key::new(10, 4, 1), 200)));
    }

    #[test]
    fn only_a_mutex_may_begin_twice() {
        let table = Table::default();
        let key = Key::new(10, 3, 1);
        begin(&table[0], &table[1], key, 100, false);
        assert_eq!(begin(&table[0], &table[1], key, 200, false), Begin::Replaced);
        assert_eq!(end(&table[0], &table[1], 10), Some((key, 200)));
    }

    #[test]
    fn a_full_table_says_full_and_keeps_what_it_has() {
        let table = Table::default();
        for tid in 1..=8 {
            assert_eq!(begin(&table[0], &table[1], Key::new(tid, 0, 0), 1, true), Begin::Started);
        }
        assert_eq!(begin(&table[0], &table[1], Key::new(9, 0, 0), 1, true), Begin::Full);
        for tid in 1..=8 {
            assert!(find(&table[0], &table[1], tid).is_some(), "thread {tid}");
            assert!(end(&table[0], &table[1], tid).is_some(), "thread {tid}");
        }
        assert_eq!(end(&table[0], &table[1], 9), None);
    }

    #[test]
    fn a_slot_that_changes_hands_is_not_observed() {
        let slot = Slot { key: AtomicU64::new(Key::new(5, 0, 0).0), start_ns: AtomicU64::new(0) };
        assert_eq!(observe(&slot), None);
        slot.start_ns.store(9, SeqCst);
        assert_eq!(observe(&slot), Some((Key::new(5, 0, 0), 9)));
    }

    #[test]
    fn the_slot_of_a_task_that_is_gone_can_be_freed_once() {
        let table = Table::default();
        begin(&table[0], &table[1], Key::new(5, 2, 0), 9, false);
        let slot = &table[0].slots[0];
        assert!(!reclaim(slot, Key::new(6, 2, 0)), "another task's");
        assert!(reclaim(slot, Key::new(5, 2, 0)));
        assert!(!reclaim(slot, Key::new(5, 2, 0)), "twice");
        assert_eq!(slot.start_ns.load(SeqCst), 0, "the next owner must not inherit the start");
        assert_eq!(begin(&table[0], &table[1], Key::new(6, 2, 0), 10, false), Begin::Started);
    }

    #[test]
    fn thread_ids_spread_over_buckets_and_the_two_choices_differ() {
        let mask = 127;
        let mut load = [0u32; 128];
        for tid in 1000..1000 + 512 {
            let (first, second) = bucket_indices(tid, mask);
            assert_ne!(first, second, "thread {tid}");
            load[first as usize] += 1;
        }
        assert!(load.iter().all(|n| *n <= 12), "{load:?}");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use loom::thread;

    impl Word for AtomicU64 {
        fn load(&self) -> u64 {
            self.load(SeqCst)
        }
        fn store(&self, value: u64) {
            self.store(value, SeqCst);
        }
        fn swap(&self, value: u64) -> u64 {
            self.swap(value, SeqCst)
        }
        fn compare_exchange(&self, old: u64, new: u64) -> bool {
            self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
        }
    }

    fn bucket(free: usize) -> Bucket<AtomicU64> {
        let taken = |i: usize| if i < SLOTS - free { Key::new(90 + i as u32, 0, 0).0 } else { 0 };
        Bucket {
            slots: core::array::from_fn(|i| Slot {
                key: AtomicU64::new(taken(i)),
                start_ns: AtomicU64::new(taken(i)),
            }),
        }
    }

    #[test]
    fn two_tasks_that_claim_the_last_slot_never_both_get_it() {
        loom::model(|| {
            let table = Arc::new((bucket(1), bucket(0)));
            let other = {
                let table = table.clone();
                thread::spawn(move || begin(&table.0, &table.1, Key::new(1, 0, 0), 11, true))
            };
            let mine = begin(&table.0, &table.1, Key::new(2, 0, 0), 22, true);
            let other = other.join().unwrap();
            assert!(matches!(
                (mine, other),
                (Begin::Started, Begin::Full) | (Begin::Full, Begin::Started)
            ));
            let ended = (end(&table.0, &table.1, 2), end(&table.0, &table.1, 1));
            match mine {
                Begin::Started => assert_eq!(ended, (Some((Key::new(2, 0, 0), 22)), None)),
                _ => assert_eq!(ended, (None, Some((Key::new(1, 0, 0), 11)))),
            }
        });
    }

    #[test]
    fn a_reader_never_sees_one_tasks_start_under_another_tasks_key() {
        loom::model(|| {
            let table = Arc::new((bucket(1), bucket(0)));
            let writer = {
                let table = table.clone();
                thread::spawn(move || {
                    assert_eq!(
                        begin(&table.0, &table.1, Key::new(1, 0, 0), 11, true),
                        Begin::Started
                    );
                    assert_eq!(end(&table.0, &table.1, 1), Some((Key::new(1, 0, 0), 11)));
                    assert_eq!(
                        begin(&table.0, &table.1, Key::new(2, 0, 0), 22, true),
                        Begin::Started
                    );
                })
            };
            match observe(&table.0.slots[SLOTS - 1]) {
                None => {}
                Some((key, start)) if key == Key::new(1, 0, 0) => assert_eq!(start, 11),
                Some((key, start)) => assert_eq!((key, start), (Key::new(2, 0, 0), 22)),
            }
            writer.join().unwrap();
        });
    }
}
