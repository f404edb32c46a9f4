//! The load that mount tables are: who reads them, how many superblocks are made,
//! and how many mounts there are.
//!
//! The first two are read from mapped arrays; [`mountinfo`](super::mountinfo) has
//! the first. The third takes a walk over all tasks, which a thread of its own
//! makes now and then: a snapshot shows the last one, and never waits for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use profiler_common::layout::maps;
use profiler_common::mounts::{MountTask, SUPERBLOCK_ROWS, SuperblockRow};

use super::ReaderError;
use super::mapping::{Mapping, load};
use super::mountinfo::Readers;
use crate::hooks::{MOUNTINFO_READ, Programs, SUPERBLOCKS, TaskIter};
use crate::snapshot::{MountTable, MountTables, MountinfoReader, Name, Party, Superblocks};

/// Namespaces that a snapshot has one by one.
const LARGEST: usize = 16;

/// Who tasks of a name in the cgroup with an id are.
pub type PartyOf = Arc<dyn Fn(&[u8; 16], u64) -> Party + Send + Sync>;

/// The arrays, and the last count of mounts.
pub(super) struct Mounts {
    /// Where reads are observed.
    readers: Option<Readers>,
    /// Where superblocks are.
    superblocks: Option<Mapping<SuperblockRow>>,
    tables: Option<Counter>,
    party_of: PartyOf,
}

impl Mounts {
    /// Maps the arrays of what is attached.
    pub(super) fn new(programs: &Programs, party_of: PartyOf) -> Result<Self, ReaderError> {
        let attached =
            |name: &str| programs.hooks().iter().any(|h| h.hook == name && h.backend.is_some());
        let entries = |name: &str| {
            let arrays = programs.arrays();
            arrays
                .iter()
                .find(|(n, _, _)| *n == name)
                .map_or(0, |(_, entries, _)| *entries as usize)
        };
        let readers = attached(MOUNTINFO_READ).then(|| -> Result<_, ReaderError> {
            let array = programs.array(maps::READERS)?;
            let rows = Mapping::writable(maps::READERS, array, entries(maps::READERS))?;
            Ok(Readers::new(rows, programs.claims()?))
        });
        let superblocks = SUPERBLOCKS.into_iter().any(attached).then(|| {
            let array = programs.array(maps::SUPERBLOCKS)?;
            Mapping::read_only(maps::SUPERBLOCKS, array, entries(maps::SUPERBLOCKS))
        });
        Ok(Self {
            readers: readers.transpose()?,
            superblocks: superblocks.transpose()?,
            tables: None,
            party_of,
        })
    }

    /// Counts mounts from now on, every `interval`.
    pub(super) fn count_tables(&mut self, iter: TaskIter, interval: Duration) {
        self.tables = Some(Counter::start(iter, interval, self.party_of.clone()));
    }

    /// Who reads mount tables.
    pub(super) fn readers(&mut self) -> Option<Vec<MountinfoReader>> {
        let readers = self.readers.as_mut()?;
        Some(readers.read(Instant::now(), &self.party_of))
    }

    /// Superblocks by type of file system.
    pub(super) fn superblocks(&self) -> Option<Vec<Superblocks>> {
        let rows = self.superblocks.as_ref()?;
        let mut counts: BTreeMap<Name, u64> = BTreeMap::new();
        for index in 0..rows.len() {
            let row = rows.element(index);
            // SAFETY: fields of a mapped element.
            let (name, count) = unsafe {
                (
                    [0, 1].map(|word| load((&raw const (*row).name).cast::<u64>().add(word))),
                    load(&raw const (*row).count),
                )
            };
            let name = if index < SUPERBLOCK_ROWS as usize {
                Name::from_bytes(&bytes(name))
            } else {
                "other".into()
            };
            if count != 0 && !name.as_str().is_empty() {
                *counts.entry(name).or_default() += count;
            }
        }
        let rows = counts.into_iter();
        Some(rows.map(|(filesystem, count)| Superblocks { filesystem, count }).collect())
    }

    /// The last count of mounts, with its age.
    pub(super) fn tables(&self) -> Option<MountTables> {
        self.tables.as_ref()?.latest()
    }
}

/// The bytes of a name.
pub(super) fn bytes(words: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Counts mounts now and then, until it is dropped.
struct Counter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    latest: Mutex<Option<(Instant, MountTables)>>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Counter {
    fn start(iter: TaskIter, interval: Duration, party_of: PartyOf) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let run = move || count(iter, interval, &party_of, &of_thread);
        let thread = std::thread::Builder::new().name("lockprof-mounts".to_owned()).spawn(run);
        if let Err(error) = &thread {
            tracing::warn!("mounts are not counted: failed to start a thread ({error})");
        }
        Self { shared, thread: thread.ok() }
    }

    fn latest(&self) -> Option<MountTables> {
        let latest = self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, tables) = latest.as_ref()?;
        let age_ns = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Some(MountTables { age_ns, ..tables.clone() })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported.
            let _ = thread.join();
        }
    }
}

fn count(mut iter: TaskIter, interval: Duration, party_of: &PartyOf, shared: &Shared) {
    loop {
        let began = Instant::now();
        match iter.walk() {
            Ok(tasks) => {
                let tables = tables(&tasks, party_of);
                tracing::debug!(tasks = tasks.len(), took = ?began.elapsed(), "counted mounts");
                let latest = Some((Instant::now(), tables));
                *shared.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
            }
            Err(error) => tracing::warn!("failed to count mounts: {error}"),
        }
        let stop = shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = shared.stopped.wait_timeout_while(stop, interval, |stop| !*stop);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
    }
}

/// What a walk saw, by namespace.
fn tables(tasks: &[MountTask], party_of: &PartyOf) -> MountTables {
    /// A namespace: its mounts, its tasks, and the first of them.
    struct Seen<'a> {
        mounts: u64,
        tasks: u64,
        first: &'a MountTask,
    }
    let mut seen: BTreeMap<u32, Seen<'_>> = BTreeMap::new();
    for task in tasks {
        let mounts = u64::from(task.mounts);
        let namespace =
            seen.entry(task.namespace).or_insert(Seen { mounts, tasks: 0, first: task });
        namespace.tasks += 1;
        if task.process < namespace.first.process {
            namespace.first = task;
        }
    }
    let mut largest: Vec<_> = seen.iter().collect();
    largest.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.mounts));
    largest.truncate(LARGEST);
    MountTables {
        namespaces: seen.len() as u64,
        mounts: seen.values().map(|seen| seen.mounts).sum(),
        largest: largest
            .into_iter()
            .map(|(namespace, seen)| MountTable {
                namespace: u64::from(*namespace),
                mounts: seen.mounts,
                tasks: seen.tasks,
                owner: party_of(&bytes(seen.first.comm), seen.first.cgroup),
            })
            .collect(),
        age_ns: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::attribution::names::Names;

    fn task(namespace: u32, mounts: u32, process: u32, name: &[u8]) -> MountTask {
        let mut comm = [0; 16];
        comm[..name.len()].copy_from_slice(name);
        let word = |at: usize| u64::from_ne_bytes(*comm[at..].first_chunk().unwrap());
        let comm = [word(0), word(8)];
        MountTask { namespace, mounts, process, pad: 0, cgroup: 7, comm }
    }

    #[test]
    fn a_namespace_counts_once_and_belongs_to_its_first_process() {
        let tasks = [task(1, 30, 900, b"sh"), task(2, 500, 40, b"runc"), task(1, 30, 1, b"init")];
        let tables = tables(&tasks, &Arc::new(Names::new(None)).party_of());
        assert_eq!((tables.namespaces, tables.mounts), (2, 530));
        let rows: Vec<_> = tables
            .largest
            .iter()
            .map(|table| (table.namespace, table.mounts, table.tasks, table.owner.task()))
            .collect();
        assert_eq!(rows, [(2, 500, 1, "runc"), (1, 30, 2, "init")]);
    }

    #[test]
    fn only_the_largest_namespaces_are_named_and_all_are_counted() {
        let tasks: Vec<_> = (1..=1000).map(|n| task(n, n, n, b"pause")).collect();
        let tables = tables(&tasks, &Arc::new(Names::new(None)).party_of());
        assert_eq!((tables.namespaces, tables.mounts), (1000, 500_500));
        assert_eq!(tables.largest.len(), LARGEST);
        assert_eq!(tables.largest[0].mounts, 1000);
    }
}
