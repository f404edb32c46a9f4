//! Cgroups by id: a cache, and what fills it.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::cache::Cache;
use super::handle::{self, Answer};
use super::hierarchy::{Hierarchy, HierarchyError};
use super::{container, walk};
use crate::snapshot::{Cgroup, Name};

/// Bytes of a path that are kept: with the capacity, what bounds the memory. A
/// path of a pod's container has about 250.
const PATH_BYTES: usize = 1024;

/// Of how many it is asked whether they still live before one of them goes.
const PROBES: usize = 8;

/// How much the cache holds, and how much a walk may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Cgroups in the cache.
    pub capacity: usize,
    /// Least time between two walks of the hierarchy.
    pub between_walks: Duration,
    /// Cgroups that a walk looks at.
    pub walk: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { capacity: 8192, between_walks: Duration::from_secs(10), walk: 32_768 }
    }
}

/// Cgroups by id.
///
/// [`get`](Self::get) is for the hot path: it waits for nothing but changes of
/// memory. Everything that asks the kernel does so without a lock.
pub struct Cgroups {
    hierarchy: Hierarchy,
    /// The hierarchy's root.
    root: OwnedFd,
    /// Whether the hierarchy knows handles that are made of ids.
    handles: bool,
    limits: Limits,
    cache: RwLock<Cache>,
    waiting: Mutex<Waiting>,
}

/// What the next walk looks for.
#[derive(Default)]
struct Waiting {
    ids: HashSet<u64>,
    walked: Option<Instant>,
}

impl Cgroups {
    /// Those of the hierarchy below `/sys/fs/cgroup` (see [`Hierarchy::find`]),
    /// within the default [`Limits`].
    ///
    /// # Errors
    /// There is none, or its root cannot be opened.
    pub fn of_system() -> Result<Self, HierarchyError> {
        Self::at(Hierarchy::find(Path::new("/sys/fs/cgroup"))?, Limits::default())
    }

    /// Those of `hierarchy`, within `limits`.
    ///
    /// # Errors
    /// Its root cannot be opened.
    pub fn at(hierarchy: Hierarchy, limits: Limits) -> Result<Self, HierarchyError> {
        let root = File::open(&hierarchy.root)
            .map_err(|source| HierarchyError::Open { root: hierarchy.root.clone(), source })?;
        let root = OwnedFd::from(root);
        Ok(Self {
            handles: handle::are_ids(root.as_fd()),
            root,
            hierarchy,
            limits,
            cache: RwLock::new(Cache::new(limits.capacity)),
            waiting: Mutex::default(),
        })
    }

    /// The hierarchy whose ids are meant.
    pub const fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Whether the kernel tells this thread a cgroup by its id, which takes
    /// `CAP_DAC_READ_SEARCH`.
    pub fn may_ask_by_id(&self) -> bool {
        let Ok(root) = rustix::fs::fstat(&self.root) else { return false };
        self.handles && handle::exists(self.root.as_fd(), root.st_ino) == Some(true)
    }

    /// How many are in the cache.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of the cgroup `id`. Asks nobody.
    pub fn get(&self, id: u64) -> Option<Cgroup> {
        self.read().get(id).cloned()
    }

    /// What is known of the cgroup `id`, asking the kernel if it is not in the
    /// cache. One that is gone has an empty path, and so has one that a walk did
    /// not come to. One whose path is too long to tell is called `…`.
    ///
    /// In general two system calls. Where the kernel refuses handles (see
    /// `handle`), `None` until the next walk: a call of this function makes it,
    /// for all ids that wait, when the last one is long enough ago.
    pub fn look_up(&self, id: u64) -> Option<Cgroup> {
        if let Some(known) = self.get(id) {
            return Some(known);
        }
        let answer =
            if self.handles { handle::path(self.root.as_fd(), id) } else { Answer::Refused };
        match answer {
            Answer::Path(path) => Some(self.keep(id, self.hierarchy.relative(&path), None, false)),
            Answer::TooLong => Some(self.keep(id, "…".as_bytes(), None, false)),
            Answer::Gone => Some(self.keep(id, b"", None, true)),
            Answer::Refused => self.walk_for(id),
            Answer::Failed => None,
        }
    }

    /// Whether the cgroup `id` exists, as far as this can be known: asks the
    /// kernel, in one or two system calls.
    pub fn is_alive(&self, id: u64) -> bool {
        if self.read().is_dead(id) {
            return false;
        }
        let asked = if self.handles { handle::exists(self.root.as_fd(), id) } else { None };
        let alive = asked.unwrap_or_else(|| {
            let folder = self.read().folder(id);
            folder.is_none_or(|folder| has_id(&folder, id))
        });
        if !alive {
            self.write().mark_dead(id);
        }
        alive
    }

    /// Drops what is known of the cgroup `id`.
    pub fn forget(&self, id: u64) {
        self.write().remove(id);
    }

    /// Looks for `id` and all that wait by a walk, unless the last was just now.
    fn walk_for(&self, id: u64) -> Option<Cgroup> {
        let wanted = {
            let mut waiting = self.waiting();
            if waiting.ids.len() < self.limits.capacity {
                waiting.ids.insert(id);
            }
            if waiting.walked.is_some_and(|at| at.elapsed() < self.limits.between_walks) {
                return None;
            }
            waiting.walked = Some(Instant::now());
            std::mem::take(&mut waiting.ids)
        };
        let mut found = walk::find(&self.hierarchy.root, &wanted, self.limits.walk);
        for id in wanted {
            match found.paths.remove(&id) {
                Some(path) => {
                    let relative = self.hierarchy.relative(path.as_os_str()).to_owned();
                    self.keep(id, &relative, Some(path), false);
                }
                None => drop(self.keep(id, b"", None, found.complete)),
            }
        }
        // From its end: a walk that takes long is not followed by the next.
        self.waiting().walked = Some(Instant::now());
        self.get(id)
    }

    /// Caches the cgroup `id`, making room for it if there is none.
    fn keep(&self, id: u64, path: &[u8], folder: Option<PathBuf>, dead: bool) -> Cgroup {
        let endangered = self.read().endangered(PROBES);
        for endangered in endangered {
            if self.is_alive(endangered) {
                self.write().renew(endangered);
            }
        }
        self.write().insert(cgroup(id, path), folder, dead)
    }

    // A panic leaves the data behind these locks as it was or without an entry.

    fn read(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cgroup(id: u64, path: &[u8]) -> Cgroup {
    let whole = Name::from_bytes(path);
    let container = container(whole.as_str());
    let path = match path.get(..PATH_BYTES) {
        Some(start) if path.len() > PATH_BYTES => {
            Name::from(format!("{}…", Name::from_bytes(start)))
        }
        _ => whole,
    };
    Cgroup { id, path, container }
}

fn has_id(folder: &Path, id: u64) -> bool {
    folder.symlink_metadata().is_ok_and(|metadata| metadata.ino() == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_takes_bounded_memory_and_its_container_is_told() {
        let id = "0".repeat(64);
        let deep = format!("/docker/{id}{}", "/\x1b".repeat(3000));
        let cgroup = cgroup(1, deep.as_bytes());
        assert_eq!(cgroup.container.expect("docker's").id.as_str(), id);
        assert!(cgroup.path.as_str().ends_with("\\x1b…"), "{}", cgroup.path);
        assert!(cgroup.path.as_str().len() < 5 * PATH_BYTES);
    }
}
