//! The watch list: resolved locks laid out as series and as a filter table.

use profiler_common::watch::{
    HOLDS, MAX_SERIES, OPTIMISTIC, SHARED, SLEEPS, SeriesInfo, WatchEntry, WatchError, WatchTable,
    slow_path,
};

use crate::locks::{LockKind, Mode, ResolvedLock};

/// A lock in one mode: the unit in which waits are booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Index of the lock in the watch list.
    pub lock: usize,
    /// How the waiters want it.
    pub mode: Mode,
}

/// Locks to watch.
#[derive(Clone, Debug)]
pub struct WatchList {
    /// The locks; their position is their index everywhere.
    pub locks: Vec<ResolvedLock>,
    /// All series, those of a lock adjacent.
    pub series: Vec<Series>,
    /// Locks whose waiters sleep, by the modes in which they are held: those
    /// whose holders can be seen to release them.
    pub holds: Vec<Series>,
    pub(super) table: WatchTable,
}

/// Why locks cannot be watched together.
#[derive(Debug, thiserror::Error)]
pub enum WatchListError {
    /// Too many.
    #[error("{0} locks are too many to watch at once; at most {max} fit: disable some with --no-lock or `[locks] disable`", max = profiler_common::watch::MAX_LOCKS)]
    TooMany(usize),
    /// Two names for one address.
    #[error("the locks {0} and {1} are the same lock (one address); remove one of them")]
    Same(String, String),
    /// Not seen to happen.
    #[error(
        "no filter table fits these lock addresses; disable one lock with --no-lock and report this"
    )]
    NoTable,
}

impl WatchList {
    /// Lays out `locks`. On a kernel with `PREEMPT_RT` (`realtime`) waiters of
    /// spinlocks sleep. With `optimistic`, writers that get a rwsem by spinning
    /// have a series of their own.
    ///
    /// # Errors
    ///
    /// Too many locks, or two with one address.
    pub fn new(
        locks: Vec<ResolvedLock>,
        realtime: bool,
        optimistic: bool,
    ) -> Result<Self, WatchListError> {
        let mut series = Vec::new();
        let mut holds = Vec::new();
        let mut entries = Vec::new();
        for (index, lock) in locks.iter().enumerate() {
            let modes = lock.kind.modes();
            let shared = if modes.len() > 1 { SHARED } else { 0 };
            let sleeps = if lock.kind.sleeps() || realtime { SLEEPS } else { 0 };
            let spins_first = optimistic && lock.kind == LockKind::Rwsem;
            let optimistic = if spins_first { OPTIMISTIC } else { 0 };
            let first_hold = u8::try_from(holds.len()).unwrap_or(u8::MAX);
            // Real-time kernels build these locks in another way.
            let held = lock.kind.sleeps() && !realtime;
            if held {
                holds.extend(modes.iter().map(|mode| Series { lock: index, mode: *mode }));
            }
            let held = if held { HOLDS } else { 0 };
            entries.push(WatchEntry {
                address: lock.address,
                lock: u8::try_from(index).map_err(|_| WatchListError::TooMany(locks.len()))?,
                series: u8::try_from(series.len())
                    .map_err(|_| WatchListError::TooMany(locks.len()))?,
                traits: shared | sleeps | optimistic | held,
                hold: first_hold,
                ..WatchEntry::default()
            });
            series.extend(modes.iter().map(|mode| Series { lock: index, mode: *mode }));
            if spins_first {
                series.push(Series { lock: index, mode: Mode::Optimistic });
            }
        }
        let table = WatchTable::new(&entries).map_err(|error| match error {
            WatchError::TooMany(count) => WatchListError::TooMany(count),
            WatchError::Address(address) => {
                let mut names =
                    locks.iter().filter(|l| l.address == address).map(|l| l.name.clone());
                let first = names.next().unwrap_or_default();
                WatchListError::Same(names.next().unwrap_or_else(|| first.clone()), first)
            }
            WatchError::NoMultiplier => WatchListError::NoTable,
        })?;
        Ok(Self { locks, series, holds, table })
    }

    /// What a return probe needs to know of each series.
    pub(super) fn series_infos(&self) -> [SeriesInfo; MAX_SERIES] {
        let mut infos = [SeriesInfo::default(); MAX_SERIES];
        for (info, series) in infos.iter_mut().zip(&self.series) {
            let kind = self.locks.get(series.lock).map(|lock| lock.kind);
            let slow_path = match (kind, series.mode) {
                (Some(LockKind::Rwsem), Mode::Read) => slow_path::RWSEM_READ,
                (Some(LockKind::Rwsem), Mode::Write) => slow_path::RWSEM_WRITE,
                (Some(LockKind::Mutex), Mode::Mutex) => slow_path::MUTEX,
                _ => 0,
            };
            *info = SeriesInfo { lock: u8::try_from(series.lock).unwrap_or(u8::MAX), slow_path };
        }
        infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::{LockKind, Method};

    fn lock(name: &str, kind: LockKind, address: u64) -> ResolvedLock {
        ResolvedLock {
            name: name.into(),
            symbol: name.into(),
            kind,
            address,
            method: Method::Kallsyms,
        }
    }

    #[test]
    fn shared_locks_have_a_series_for_readers_and_one_for_writers() {
        let list = WatchList::new(
            vec![lock("a", LockKind::Rwsem, 0x1000), lock("b", LockKind::Spinlock, 0x2000)],
            false,
            false,
        )
        .unwrap();
        let series: Vec<_> = list.series.iter().map(|s| (s.lock, s.mode)).collect();
        assert_eq!(series, [(0, Mode::Read), (0, Mode::Write), (1, Mode::Spin)]);
        let b = list.table.find(0x2000).unwrap();
        assert_eq!((b.lock, b.series, b.sleeps()), (1, 2, false));
        assert!(list.table.find(0x1000).unwrap().sleeps());
    }

    #[test]
    fn writers_that_spin_have_a_series_of_their_own_where_they_are_seen() {
        let locks = vec![lock("a", LockKind::Rwsem, 0x1000), lock("b", LockKind::Mutex, 0x2000)];
        let list = WatchList::new(locks, false, true).unwrap();
        let series: Vec<_> = list.series.iter().map(|s| (s.lock, s.mode)).collect();
        let expected = [(0, Mode::Read), (0, Mode::Write), (0, Mode::Optimistic), (1, Mode::Mutex)];
        assert_eq!(series, expected);
        assert_eq!(list.table.find(0x1000).unwrap().optimistic_series(), Some(2));
        let paths: Vec<_> =
            list.series_infos().iter().take(5).map(|i| (i.lock, i.slow_path)).collect();
        assert_eq!(paths, [(0, 1), (0, 2), (0, 0), (1, 3), (0, 0)], "no return probe spins");
    }

    #[test]
    fn holds_are_of_locks_that_sleep() {
        let locks = || {
            vec![
                lock("a", LockKind::Spinlock, 0x1000),
                lock("b", LockKind::Mutex, 0x2000),
                lock("c", LockKind::Rwsem, 0x3000),
            ]
        };
        let list = WatchList::new(locks(), false, true).unwrap();
        let holds: Vec<_> = list.holds.iter().map(|s| (s.lock, s.mode)).collect();
        assert_eq!(holds, [(1, Mode::Mutex), (2, Mode::Read), (2, Mode::Write)]);
        let entry = |address| *list.table.find(address).unwrap();
        assert_eq!(entry(0x1000).traits & HOLDS, 0);
        assert_eq!((entry(0x2000).traits & HOLDS, entry(0x2000).hold), (HOLDS, 0));
        assert_eq!((entry(0x3000).traits & HOLDS, entry(0x3000).hold), (HOLDS, 1));
        assert!(WatchList::new(locks(), true, true).unwrap().holds.is_empty());
    }

    #[test]
    fn waiters_of_spinlocks_sleep_on_a_realtime_kernel() {
        let list =
            WatchList::new(vec![lock("b", LockKind::Spinlock, 0x2000)], true, false).unwrap();
        assert!(list.table.find(0x2000).unwrap().sleeps());
    }

    #[test]
    fn two_names_for_one_lock_are_refused_by_name() {
        let error = WatchList::new(
            vec![lock("a", LockKind::Rwsem, 0x1000), lock("b", LockKind::Rwsem, 0x1000)],
            false,
            false,
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains('a') && text.contains(" b ") || text.contains("b and a"), "{text}");
    }
}
