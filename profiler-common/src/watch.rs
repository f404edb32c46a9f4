//! The watch list: a perfect hash over the addresses of the watched locks.
//!
//! Almost every contended lock on a host is another one, so the question "is
//! this one ours?" has to cost next to nothing, and the same for one watched
//! lock as for thirty. User space searches a multiplier under which no two
//! watched addresses share a table entry; a program then multiplies, shifts,
//! loads one entry and compares.

use crate::flags;

/// Entries in the table, a power of two.
pub const TABLE_LEN: usize = 1 << TABLE_BITS;
const TABLE_BITS: u32 = 6;
const _: () = assert!(TABLE_LEN == u64::BITS as usize);
/// Most locks that one watch list can hold.
pub const MAX_LOCKS: usize = 32;

/// Set in [`WatchEntry::traits`]: readers and writers are booked apart.
pub const SHARED: u8 = 1 << 0;
/// Set in [`WatchEntry::traits`]: waiters sleep, hence can change CPU while
/// they wait.
pub const SLEEPS: u8 = 1 << 1;
/// Set in [`WatchEntry::traits`]: writers that get the lock by optimistic
/// spinning, which the tracepoints do not see, are booked apart from others.
pub const OPTIMISTIC: u8 = 1 << 2;
/// Set in [`WatchEntry::traits`]: how long it is held is observed. It is a mutex
/// or, if [`SHARED`], a rwsem.
pub const HOLDS: u8 = 1 << 3;

/// One watched lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchEntry {
    /// Address that the contention tracepoints carry; 0 for a free entry.
    pub address: u64,
    /// Index of the lock in the watch list.
    pub lock: u8,
    /// First series of the lock; writers of a [`SHARED`] lock use the next one,
    /// and [`OPTIMISTIC`] ones the third.
    pub series: u8,
    /// [`SHARED`], [`SLEEPS`], [`OPTIMISTIC`] and [`HOLDS`].
    pub traits: u8,
    /// First series of its holds; those by writers of a [`SHARED`] lock use the
    /// next one.
    pub hold: u8,
    #[doc(hidden)]
    pub pad: [u8; 4],
}

const _: () = assert!(size_of::<WatchEntry>() == 16);

impl WatchEntry {
    /// Series of a wait that began with `contention_flags`.
    #[inline(always)]
    pub const fn series_of(&self, contention_flags: u32) -> u8 {
        if self.traits & SHARED != 0 && contention_flags & flags::READ == 0 {
            self.series + 1
        } else {
            self.series
        }
    }

    /// Whether waiters sleep.
    #[inline(always)]
    pub const fn sleeps(&self) -> bool {
        self.traits & SLEEPS != 0
    }

    /// Series of writers that get the lock by optimistic spinning, if they are
    /// booked apart.
    #[inline(always)]
    pub const fn optimistic_series(&self) -> Option<u8> {
        if self.traits & OPTIMISTIC != 0 { Some(self.series + 2) } else { None }
    }

    /// Series that the tracepoints feed: 2 if readers and writers are booked
    /// apart, else 1.
    #[inline(always)]
    pub const fn series_count(&self) -> u8 {
        if self.traits & SHARED != 0 { 2 } else { 1 }
    }
}

/// What a program needs to know of a series when it has not got the address of
/// the lock: a kretprobe cannot see the arguments of the function that returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesInfo {
    /// Index of the lock in the watch list.
    pub lock: u8,
    /// Slow path through which its waits go: [`slow_path`]; 0 for none.
    pub slow_path: u8,
}

/// Slow paths that have a return probe.
pub mod slow_path {
    /// `rwsem_down_read_slowpath`.
    pub const RWSEM_READ: u8 = 1;
    /// `rwsem_down_write_slowpath`.
    pub const RWSEM_WRITE: u8 = 2;
    /// `__mutex_lock_slowpath` and its killable and interruptible twins.
    pub const MUTEX: u8 = 3;
}

/// Most series of one watch list: three for each lock, rounded up to a power of
/// two so that an index can be cut to fit.
pub const MAX_SERIES: usize = 128;

/// Table entry that `address` would have under `multiplier`; below
/// [`TABLE_LEN`].
#[inline(always)]
pub const fn table_index(address: u64, multiplier: u64) -> usize {
    (address.wrapping_mul(multiplier) >> (64 - TABLE_BITS)) as usize
}

/// A watch list laid out for the programs.
#[derive(Clone, Debug)]
pub struct WatchTable {
    /// Multiplier without collisions.
    pub multiplier: u64,
    /// Bit `i` is set when entry `i` is in use: most events of other locks end
    /// at this word, without a look at the table.
    pub occupied: u64,
    /// Entries, at their [`table_index`].
    pub entries: [WatchEntry; TABLE_LEN],
}

/// Why a watch list cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchError {
    /// More than [`MAX_LOCKS`] locks.
    TooMany(usize),
    /// Two locks have this address, or a lock has the address 0.
    Address(u64),
    /// No multiplier without collisions was found.
    NoMultiplier,
}

impl WatchTable {
    /// Lays out `locks`, searching a multiplier without collisions.
    ///
    /// # Errors
    ///
    /// Too many locks, or an address that is 0 or occurs twice.
    pub fn new(locks: &[WatchEntry]) -> Result<Self, WatchError> {
        if locks.len() > MAX_LOCKS {
            return Err(WatchError::TooMany(locks.len()));
        }
        for (i, lock) in locks.iter().enumerate() {
            if lock.address == 0 || locks.iter().take(i).any(|other| other.address == lock.address)
            {
                return Err(WatchError::Address(lock.address));
            }
        }
        // SplitMix64 from a fixed seed: the same list has the same table in
        // every run. 32 locks take some thousand tries, 11 take three.
        let mut state = 0u64;
        'search: for _ in 0..10_000_000u32 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let multiplier = (z ^ (z >> 31)) | 1;
            let mut entries = [WatchEntry::default(); TABLE_LEN];
            let mut occupied = 0;
            for lock in locks {
                let index = table_index(lock.address, multiplier);
                match entries.get_mut(index) {
                    Some(entry) if entry.address == 0 => *entry = *lock,
                    _ => continue 'search,
                }
                occupied |= 1 << index;
            }
            return Ok(Self { multiplier, occupied, entries });
        }
        Err(WatchError::NoMultiplier)
    }

    /// The watched lock at `address`: what a program does, for tests.
    pub fn find(&self, address: u64) -> Option<&WatchEntry> {
        let index = table_index(address, self.multiplier);
        self.entries
            .get(index)
            .filter(|entry| self.occupied >> index & 1 == 1 && entry.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lock(address: u64) -> WatchEntry {
        WatchEntry { address, ..WatchEntry::default() }
    }

    proptest! {
        #[test]
        fn every_watched_address_is_found_and_no_other(
            addresses in proptest::collection::hash_set(
                0xffff_ffff_8000_0000u64..0xffff_ffff_a000_0000, 1..=MAX_LOCKS),
            other in 0xffff_ffff_8000_0000u64..0xffff_ffff_a000_0000,
        ) {
            let locks: Vec<_> = addresses.iter().map(|a| lock(*a)).collect();
            let table = WatchTable::new(&locks).unwrap();
            for address in &addresses {
                prop_assert_eq!(table.find(*address).map(|e| e.address), Some(*address));
            }
            prop_assert_eq!(table.find(other).is_some(), addresses.contains(&other));
        }
    }

    #[test]
    fn adjacent_locks_do_not_collide() {
        let locks: Vec<_> =
            (0..MAX_LOCKS as u64).map(|i| lock(0xffff_ffff_8210_0000 + 4 * i)).collect();
        let table = WatchTable::new(&locks).unwrap();
        assert!(locks.iter().all(|l| table.find(l.address).is_some()));
    }

    #[test]
    fn a_free_entry_is_not_a_lock_at_address_zero() {
        assert!(WatchTable::new(&[]).unwrap().find(0).is_none());
    }

    #[test]
    fn bad_lists_are_refused() {
        assert_eq!(WatchTable::new(&[lock(0)]).unwrap_err(), WatchError::Address(0));
        assert_eq!(WatchTable::new(&[lock(8), lock(8)]).unwrap_err(), WatchError::Address(8));
        let many: Vec<_> = (1..=33).map(lock).collect();
        assert_eq!(WatchTable::new(&many).unwrap_err(), WatchError::TooMany(33));
    }

    #[test]
    fn optimistic_writers_have_the_third_series_and_no_tracepoint_feeds_it() {
        let rwsem = WatchEntry { series: 4, traits: SHARED | SLEEPS | OPTIMISTIC, ..lock(8) };
        assert_eq!(rwsem.optimistic_series(), Some(6));
        assert_eq!(rwsem.series_count(), 2);
        assert_eq!(rwsem.series_of(flags::WRITE), 5);
        assert_eq!(WatchEntry { traits: SHARED, ..rwsem }.optimistic_series(), None);
    }

    #[test]
    fn only_shared_locks_book_writers_apart() {
        let shared = WatchEntry { series: 4, traits: SHARED | SLEEPS, ..lock(8) };
        assert_eq!(shared.series_of(flags::READ), 4);
        assert_eq!(shared.series_of(flags::WRITE), 5);
        assert_eq!(shared.series_of(flags::SPIN | flags::READ), 4);
        let mutex = WatchEntry { series: 4, traits: SLEEPS, ..lock(8) };
        assert_eq!(mutex.series_of(flags::MUTEX | flags::SPIN), 4);
        assert_eq!(mutex.series_of(flags::MUTEX), 4);
    }
}
