//! Who tasks are, from what the cache of cgroups has.
//!
//! Whoever reads never looks a cgroup up: one that is not in the cache is noted,
//! and the [`keeper`](super::keeper) looks it up a moment later.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::reader::PartyOf;
use crate::snapshot::{Cgroup, Party};
use crate::who::{self, Cgroups};

/// Most cgroups that wait for being looked up: more come up again.
const WANTED: usize = 1024;

/// The cache, and what is missing in it.
pub struct Names {
    /// `None` where there is no hierarchy of cgroups.
    cgroups: Option<Arc<Cgroups>>,
    wanted: Mutex<HashSet<u64>>,
}

impl Names {
    /// Those of `cgroups`.
    pub fn new(cgroups: Option<Arc<Cgroups>>) -> Self {
        Self { cgroups, wanted: Mutex::default() }
    }

    /// Tasks called `comm` in the cgroup `id`; 0 for an unknown one.
    pub fn party(&self, comm: &[u8; 16], id: u64) -> Party {
        if id == 0 {
            return Party::Task(who::who(comm, None));
        }
        let known = self.cgroups.as_ref().and_then(|cgroups| cgroups.get(id));
        let cgroup = known.unwrap_or_else(|| {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.len() < WANTED {
                wanted.insert(id);
            }
            Cgroup { id, ..Cgroup::default() }
        });
        Party::Task(who::who(comm, Some(&cgroup)))
    }

    /// The same as a function.
    pub(in crate::reader) fn party_of(self: &Arc<Self>) -> PartyOf {
        let names = self.clone();
        Arc::new(move |comm, id| names.party(comm, id))
    }

    /// Looks `id` up, and keeps what was found.
    pub(super) fn look_up(&self, id: u64) {
        if let Some(cgroups) = self.cgroups.as_ref().filter(|_| id != 0) {
            cgroups.look_up(id);
        }
    }

    /// Looks up those that were missing.
    pub(super) fn look_up_wanted(&self) {
        let wanted =
            std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for id in wanted {
            self.look_up(id);
        }
    }

    /// Whether the cgroup `id` exists, as far as can be told.
    pub(super) fn is_alive(&self, id: u64) -> bool {
        self.cgroups.as_ref().is_none_or(|cgroups| cgroups.is_alive(id))
    }

    /// Drops what is known of `id`.
    pub(super) fn forget(&self, id: u64) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.forget(id);
        }
    }
}
