//! Cgroups by id, at most so many: in memory alone, no system calls.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::snapshot::Cgroup;

/// The cache. When it is full, the oldest of those known to be dead makes room,
/// else the oldest of all.
pub(super) struct Cache {
    capacity: usize,
    /// Number of the next entry; entries are ordered by it.
    next: u64,
    entries: HashMap<u64, Entry>,
    /// Ids by number of their entries.
    living: BTreeMap<u64, u64>,
    dead: BTreeMap<u64, u64>,
}

struct Entry {
    number: u64,
    dead: bool,
    cgroup: Cgroup,
    folder: Option<PathBuf>,
}

impl Cache {
    /// One of at most `capacity` cgroups, and at least one.
    pub(super) fn new(capacity: usize) -> Self {
        let (living, dead) = (BTreeMap::new(), BTreeMap::new());
        Self { capacity: capacity.max(1), next: 0, entries: HashMap::new(), living, dead }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Cgroup> {
        self.entries.get(&id).map(|entry| &entry.cgroup)
    }

    /// The directory that was given with it.
    pub(super) fn folder(&self, id: u64) -> Option<PathBuf> {
        self.entries.get(&id)?.folder.clone()
    }

    /// Whether it is in and known to be dead.
    pub(super) fn is_dead(&self, id: u64) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.dead)
    }

    /// Puts a cgroup in, and returns what is known of it from now on: one that
    /// has a path keeps it.
    pub(super) fn insert(&mut self, cgroup: Cgroup, folder: Option<PathBuf>, dead: bool) -> Cgroup {
        let id = cgroup.id;
        match self.entries.get(&id) {
            Some(known) if cgroup.path.as_str().is_empty() => {
                let known = known.cgroup.clone();
                if dead {
                    self.mark_dead(id);
                }
                return known;
            }
            Some(_) => self.remove(id),
            None => {}
        }
        while self.entries.len() >= self.capacity {
            let oldest = self.dead.values().next().or_else(|| self.living.values().next());
            let Some(oldest) = oldest.copied() else { break };
            self.remove(oldest);
        }
        let number = self.next;
        self.next += 1;
        if dead { &mut self.dead } else { &mut self.living }.insert(number, id);
        self.entries.insert(id, Entry { number, dead, cgroup: cgroup.clone(), folder });
        cgroup
    }

    pub(super) fn mark_dead(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !entry.dead
        {
            entry.dead = true;
            self.living.remove(&entry.number);
            self.dead.insert(entry.number, id);
        }
    }

    /// Makes a living one the youngest.
    pub(super) fn renew(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !entry.dead
        {
            self.living.remove(&entry.number);
            entry.number = self.next;
            self.next += 1;
            self.living.insert(entry.number, id);
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            self.living.remove(&entry.number);
            self.dead.remove(&entry.number);
        }
    }

    /// The oldest that may be alive, if one of them has to go for the next one.
    pub(super) fn endangered(&self, count: usize) -> Vec<u64> {
        if self.entries.len() < self.capacity || !self.dead.is_empty() {
            return Vec::new();
        }
        self.living.values().take(count).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(id: u64, path: &str) -> Cgroup {
        Cgroup { id, path: path.into(), container: None }
    }

    fn ids(cache: &Cache) -> Vec<u64> {
        let mut ids: Vec<_> = cache.entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_oldest_dead_one_goes_first_then_the_oldest() {
        let mut cache = Cache::new(3);
        for id in 1..=3 {
            cache.insert(cgroup(id, "/a"), None, false);
        }
        cache.mark_dead(3);
        cache.mark_dead(2);
        cache.insert(cgroup(4, "/a"), None, false);
        assert_eq!(ids(&cache), [1, 3, 4]);
        cache.insert(cgroup(5, "/a"), None, false);
        assert_eq!(ids(&cache), [1, 4, 5]);
        assert_eq!(cache.endangered(2), [1, 4]);
        cache.renew(1);
        cache.insert(cgroup(6, "/a"), None, false);
        assert_eq!(ids(&cache), [1, 5, 6]);
    }

    #[test]
    fn one_that_died_keeps_its_name_until_it_is_removed() {
        let mut cache = Cache::new(2);
        cache.insert(cgroup(1, "/a"), None, false);
        assert_eq!(cache.insert(cgroup(1, ""), None, true).path.as_str(), "/a");
        assert!(cache.is_dead(1));
        assert_eq!(cache.get(1), Some(&cgroup(1, "/a")));
        cache.remove(1);
        assert_eq!((cache.get(1), cache.len(), cache.is_dead(1)), (None, 0, false));
    }

    proptest::proptest! {
        #[test]
        fn the_orders_have_what_the_entries_have(
            capacity in 0..5usize,
            steps in proptest::collection::vec((0..5u8, 0..8u64), 0..200),
        ) {
            let mut cache = Cache::new(capacity);
            for (step, id) in steps {
                match step {
                    0 => drop(cache.insert(cgroup(id, "/a"), None, false)),
                    1 => drop(cache.insert(cgroup(id, ""), None, true)),
                    2 => cache.mark_dead(id),
                    3 => cache.renew(id),
                    _ => cache.remove(id),
                }
                proptest::prop_assert!(cache.len() <= capacity.max(1));
                proptest::prop_assert_eq!(cache.living.len() + cache.dead.len(), cache.len());
                for (dead, order) in [(false, &cache.living), (true, &cache.dead)] {
                    for (number, id) in order {
                        let entry = &cache.entries[id];
                        proptest::prop_assert_eq!((entry.number, entry.dead), (*number, dead));
                    }
                }
            }
        }
    }
}
