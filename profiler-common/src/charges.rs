//! Who is charged with what was waited: a fixed table of rows, each for the
//! tasks of one name in one cgroup that waited for a lock, or made others wait.
//!
//! All CPUs share the rows. A program looks a row up by a hash of what it is
//! about, within a group of neighbouring rows; if it is not there, it claims a
//! free one. Where all of the group are taken, the first rows of the table, one
//! for each lock and [`Role`], take the charge, so that the rows of a lock always
//! add up to its waits.
//!
//! A row is written by whoever claimed it: first the key, which finds it, then
//! the description, whose [`READY`] bit comes last. Charges may be added in
//! between. User space frees rows ([`RETIRED`]): see the reader.
//!
//! Two descriptions with the same 64-bit hash would share a row. The hash starts
//! from a random seed, so that nobody can look for such a pair.

use crate::inflight::{InCall, Word};

/// Rows of a group: as far as a search goes.
pub const GROUP: u32 = 8;
/// Key of a row that is being freed: nobody finds or claims it.
pub const RETIRED: u64 = 2;
/// Set in [`Row::about`] when the row is described in full.
pub const READY: u64 = 1 << 63;

/// Tasks of one name in one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Identity {
    /// The name's 16 bytes (`TASK_COMM_LEN` in include/linux/sched.h), as words of
    /// this machine.
    pub comm: [u64; 2],
    /// Id of the cgroup; 0 when it is not known.
    pub cgroup: u64,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// They waited.
    Waiter = 0,
    /// They held the lock when others began to wait.
    Owner = 1,
    /// The lock named them as a reader: a hint.
    ReaderHint = 2,
    /// They were the last to get the lock after waiting.
    LastAcquirer = 3,
    /// Nobody could be named: the row is one of the first.
    Unknown = 4,
}

/// How many rows at the beginning of the table each lock has: one for waiters
/// and one for blockers that found no room, and one for blockers that nobody
/// could name.
pub const RESERVED: u32 = 3;

impl Role {
    /// All of them, by their number.
    pub const ALL: [Self; 5] =
        [Self::Waiter, Self::Owner, Self::ReaderHint, Self::LastAcquirer, Self::Unknown];

    /// Row of `lock` that takes what finds no other.
    #[inline(always)]
    pub const fn reserved_row(self, lock: u8) -> u32 {
        let row = match self {
            Self::Waiter => 0,
            Self::Owner | Self::ReaderHint | Self::LastAcquirer => 1,
            Self::Unknown => 2,
        };
        lock as u32 * RESERVED + row
    }
}

/// What a row is about, in one word.
///
/// | bits | meaning |
/// | --- | --- |
/// | 0..8 | lock |
/// | 8..16 | series of the waits, of a [`Role::Waiter`] |
/// | 16..24 | call that the tasks were in plus 1; 0 outside of any |
/// | 24..32 | [`Role`] |
/// | 63 | [`READY`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About(pub u64);

impl About {
    /// Of tasks that waited.
    #[inline(always)]
    pub const fn waiter(lock: u8, series: u8, call: InCall) -> Self {
        Self(lock as u64 | (series as u64) << 8 | (call.0 as u64) << 16)
    }

    /// Of tasks that made others wait.
    #[inline(always)]
    pub const fn blocker(lock: u8, role: Role, call: InCall) -> Self {
        Self(lock as u64 | (call.0 as u64) << 16 | (role as u64) << 24)
    }

    /// The lock.
    #[inline(always)]
    pub const fn lock(self) -> u8 {
        self.0 as u8
    }

    /// Series of the waits, if it is about waiters.
    #[inline(always)]
    pub const fn series(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The call that the tasks were in.
    #[inline(always)]
    pub const fn call(self) -> InCall {
        InCall((self.0 >> 16) as u8)
    }

    /// Number of the [`Role`].
    #[inline(always)]
    pub const fn role_number(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// What the tasks did; `None` for a number that no role has.
    pub fn role(self) -> Option<Role> {
        Role::ALL.get(self.role_number() as usize).copied()
    }
}

/// A row of the table, in one cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Row<W> {
    /// Hash of what it is about; 0 when it is free, or [`RETIRED`].
    pub key: W,
    /// [`About`] with [`READY`]; 0 until the row is described.
    pub about: W,
    /// [`Identity::cgroup`].
    pub cgroup: W,
    /// [`Identity::comm`].
    pub comm: [W; 2],
    /// Waits.
    pub count: W,
    /// Time waited, in ns.
    pub sum_ns: W,
    /// Longest wait, in ns.
    pub max_ns: W,
}

const _: () = assert!(size_of::<Row<u64>>() == 64);

/// The table.
pub trait Rows {
    /// The machine word.
    type Word: Word;
    /// Rows that are claimed, a power of two and at least [`GROUP`], less one.
    fn mask(&self) -> u32;
    /// [`GROUP`], from memory: see [`Table::group`](crate::inflight::Table::group).
    fn group(&self) -> u32 {
        GROUP
    }
    /// Rows before those that are claimed: [`RESERVED`] for each lock.
    fn reserved(&self) -> u32;
    /// What the hash starts from.
    fn seed(&self) -> u64;
    /// Row `index`; `None` only if there is none.
    fn row(&self, index: u32) -> Option<&Row<Self::Word>>;
    /// Writes `key` to row `index` unless somebody else is first; whether it did.
    fn claim(&self, row: &Row<Self::Word>, index: u32, key: u64) -> bool;
    /// Writes `value` to `word` if that holds less.
    fn raise(&self, word: &Self::Word, value: u64);
}

/// A row that was found or claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was there.
    Known(u32),
    /// It is new.
    Claimed(u32),
    /// There was no room.
    Full,
}

/// Key of the row of `who` in the matter of `about`: neither 0 nor [`RETIRED`].
#[inline(always)]
pub const fn key(who: &Identity, about: About, seed: u64) -> u64 {
    let mut hash = mix(seed ^ who.comm[0]);
    hash = mix(hash ^ who.comm[1]);
    hash = mix(hash ^ who.cgroup);
    mix(hash ^ about.0) | 1
}

#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value ^ (value >> 32)
}

/// The row of `who` in the matter of `about`.
#[inline(always)]
pub fn find_or_claim<T: Rows>(table: &T, who: &Identity, about: About) -> Found {
    let key = key(who, about, table.seed());
    // Low bits of a product say little.
    let first = (key >> 20) as u32 & table.mask();
    let mut probe = 0;
    while probe < table.group() {
        let index = table.reserved() + (first ^ probe);
        let Some(row) = table.row(index) else { return Found::Full };
        let held = row.key.load();
        if held == key {
            return Found::Known(index);
        }
        if held == 0 && table.claim(row, index, key) {
            row.cgroup.store(who.cgroup);
            row.comm[0].store(who.comm[0]);
            row.comm[1].store(who.comm[1]);
            row.about.store_release(about.0 | READY);
            return Found::Claimed(index);
        }
        probe += 1;
    }
    Found::Full
}

/// Adds a wait to row `index`.
#[inline(always)]
pub fn charge<T: Rows>(table: &T, index: u32, waited_ns: u64) {
    let Some(row) = table.row(index) else { return };
    row.count.add(1);
    row.sum_ns.add(waited_ns);
    if row.max_ns.load() < waited_ns {
        table.raise(&row.max_ns, waited_ns);
    }
}

/// Whom a row is about: who, and in what matter. `None` for a row that is free,
/// not described yet, or being freed.
#[inline(always)]
pub fn described<T: Rows>(table: &T, index: u32) -> Option<(Identity, About)> {
    let row = table.row(index)?;
    let about = row.about.load();
    if about & READY == 0 {
        return None;
    }
    let comm = [row.comm[0].load(), row.comm[1].load()];
    Some((Identity { comm, cgroup: row.cgroup.load() }, About(about & !READY)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;

    struct Table(Vec<Row<AtomicU64>>, u32);

    impl Table {
        fn new(rows: usize, locks: u32) -> Self {
            let reserved = locks * RESERVED;
            Self((0..rows + reserved as usize).map(|_| Row::default()).collect(), reserved)
        }

        fn charge(&self, who: &Identity, about: About, role: Role, ns: u64) -> Found {
            let found = find_or_claim(self, who, about);
            let index = match found {
                Found::Known(index) | Found::Claimed(index) => index,
                Found::Full => role.reserved_row(about.lock()),
            };
            charge(self, index, ns);
            found
        }
    }

    impl Rows for Table {
        type Word = AtomicU64;
        fn mask(&self) -> u32 {
            self.0.len() as u32 - self.1 - 1
        }
        fn reserved(&self) -> u32 {
            self.1
        }
        fn seed(&self) -> u64 {
            7
        }
        fn row(&self, index: u32) -> Option<&Row<AtomicU64>> {
            self.0.get(index as usize)
        }
        fn claim(&self, row: &Row<AtomicU64>, _index: u32, key: u64) -> bool {
            row.key.compare_exchange(0, key, SeqCst, SeqCst).is_ok()
        }
        fn raise(&self, word: &AtomicU64, value: u64) {
            word.fetch_max(value, SeqCst);
        }
    }

    fn task(name: u64, cgroup: u64) -> Identity {
        Identity { comm: [name, 0], cgroup }
    }

    #[test]
    fn a_row_says_what_it_is_about() {
        let about = About::waiter(31, 127, InCall::of(17));
        assert_eq!((about.lock(), about.series(), about.call().get()), (31, 127, Some(17)));
        assert_eq!(about.role(), Some(Role::Waiter));
        let about = About::blocker(3, Role::ReaderHint, InCall::NONE);
        assert_eq!(
            (about.lock(), about.call().get(), about.role()),
            (3, None, Some(Role::ReaderHint))
        );
        assert_eq!(About(0xff << 24).role(), None);
    }

    #[test]
    fn the_same_task_in_the_same_matter_is_one_row() {
        let table = Table::new(16, 2);
        let about = About::waiter(1, 2, InCall::NONE);
        assert!(matches!(table.charge(&task(5, 6), about, Role::Waiter, 30), Found::Claimed(_)));
        let Found::Known(index) = table.charge(&task(5, 6), about, Role::Waiter, 10) else {
            panic!("it is known");
        };
        let row = &table.0[index as usize];
        assert_eq!(Word::load(&row.count), 2);
        assert_eq!((Word::load(&row.sum_ns), Word::load(&row.max_ns)), (40, 30));
        assert_eq!(described(&table, index), Some((task(5, 6), about)));
    }

    #[test]
    fn reserved_rows_of_locks_do_not_overlap() {
        let mut rows: Vec<_> = (0..4)
            .flat_map(|lock| {
                [Role::Waiter, Role::Owner, Role::Unknown].map(|role| role.reserved_row(lock))
            })
            .collect();
        rows.dedup();
        assert_eq!(rows, (0..4 * RESERVED).collect::<Vec<_>>());
    }

    #[test]
    fn no_key_is_that_of_a_free_row_or_of_one_being_freed() {
        for n in 0..10_000 {
            let key = key(&task(n, n), About(n), n);
            assert!(key != 0 && key != RETIRED);
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_the_rows_of_a_lock_add_up(
            waits in proptest::collection::vec((0u64..60, 0u64..4, 0u8..2, 1u64..1000), 0..400)
        ) {
            let table = Table::new(16, 2);
            let mut expected: HashMap<u8, (u64, u64)> = HashMap::new();
            for (name, cgroup, lock, ns) in waits {
                table.charge(&task(name, cgroup), About::waiter(lock, lock, InCall::NONE), Role::Waiter, ns);
                let total = expected.entry(lock).or_default();
                *total = (total.0 + 1, total.1 + ns);
            }
            for lock in 0..2 {
                let mut total = (0, 0);
                for (index, row) in table.0.iter().enumerate() {
                    let of = match described(&table, index as u32) {
                        Some((_, about)) => about.lock(),
                        None => (index as u32 / RESERVED) as u8,
                    };
                    if of == lock {
                        total = (total.0 + Word::load(&row.count), total.1 + Word::load(&row.sum_ns));
                    }
                }
                prop_assert_eq!(total, expected.get(&lock).copied().unwrap_or_default());
            }
        }
    }

    #[test]
    fn threads_that_race_for_rows_lose_no_wait() {
        let table = Table::new(32, 1);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..2000u64 {
                        let who = task(n % 40, 0);
                        table.charge(&who, About::waiter(0, 0, InCall::NONE), Role::Waiter, n);
                    }
                });
            }
        });
        let count: u64 = table.0.iter().map(|row| Word::load(&row.count)).sum();
        let sum: u64 = table.0.iter().map(|row| Word::load(&row.sum_ns)).sum();
        assert_eq!((count, sum), (4 * 2000, 4 * (0..2000).sum::<u64>()));
    }
}
