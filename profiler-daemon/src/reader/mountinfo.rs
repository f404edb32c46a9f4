//! Who reads mount tables: rows of a mapped array, one for each file, task name
//! and cgroup.
//!
//! Cgroups come and go, and rows are few. When most are taken, those that have
//! stood still the longest are freed: what they counted stays under the runtime
//! that they are of ([`Party::Evicted`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use profiler_common::inflight::{Exchange as _, Word as _};
use profiler_common::layout::READER_CLAIMS;
use profiler_common::mounts::{FILES, READER_ROWS, ReaderRow};

use super::mapping::{Mapping, SharedWord, load};
use super::mounts::{PartyOf, bytes};
use crate::hooks::Claims;
use crate::snapshot::{Charge, MountinfoReader, Party};

/// Rows that may be taken before some are freed.
const MANY: usize = READER_ROWS as usize / 4 * 3;
/// Rows that are freed at once.
const BATCH: usize = READER_ROWS as usize / 8;
/// How long a row stands still before it may be freed.
const IDLE: Duration = Duration::from_secs(60);
/// How long after its key went a program may still be adding to a row.
const GRACE: Duration = Duration::from_secs(2);
/// In place of the key of a row that is being freed: neither free nor anybody's,
/// as keys are odd.
const LEAVING: u64 = 2;

/// The rows, and what was counted in those that were freed.
pub(super) struct Readers {
    rows: Mapping<ReaderRow>,
    /// Where rows are claimed, in kernels without a compare-exchange.
    claims: Option<Claims>,
    /// By row, what it had counted when it last changed, and when that was.
    seen: Vec<(u64, Instant)>,
    /// Rows that are being freed, and since when.
    leaving: Vec<(usize, Instant)>,
    gone: Vec<MountinfoReader>,
}

/// A row that was read.
struct Seen {
    /// Whether somebody has it.
    taken: bool,
    /// What it has counted; `None` if nothing.
    row: Option<MountinfoReader>,
}

impl Readers {
    /// `rows` can be written.
    pub(super) fn new(rows: Mapping<ReaderRow>, claims: Option<Claims>) -> Self {
        let seen = vec![(0, Instant::now()); rows.len()];
        Self { rows, claims, seen, leaving: Vec::new(), gone: Vec::new() }
    }

    /// Who has read what since the programs were attached.
    pub(super) fn read(&mut self, now: Instant, party_of: &PartyOf) -> Vec<MountinfoReader> {
        self.free(now, party_of);
        let (mut taken, mut rows) = (0, self.gone.clone());
        for index in 0..self.rows.len() {
            let seen = self.row(index, party_of);
            taken += usize::from(seen.taken);
            if let Some(row) = seen.row {
                let counted = row.opens + row.reads.count;
                if self.seen[index].0 != counted {
                    self.seen[index] = (counted, now);
                }
                rows.push(row);
            }
        }
        if taken > MANY {
            self.dismiss(now);
        }
        joined(rows)
    }

    fn row(&self, index: usize, party_of: &PartyOf) -> Seen {
        let row = self.rows.element(index);
        // SAFETY: fields of a mapped element.
        let (key, file, comm, cgroup, opens, count, entries, sum_ns, max_ns) = unsafe {
            (
                load(&raw const (*row).key),
                load(&raw const (*row).file_plus_one),
                [0, 1].map(|word| load((&raw const (*row).comm).cast::<u64>().add(word))),
                load(&raw const (*row).cgroup),
                load(&raw const (*row).opens),
                load(&raw const (*row).reads),
                load(&raw const (*row).entries),
                load(&raw const (*row).sum_ns),
                load(&raw const (*row).max_ns),
            )
        };
        let (file, party): (_, &dyn Fn() -> Party) = match index.checked_sub(READER_ROWS as usize) {
            Some(file) => (Some(file), &|| Party::Other),
            // Without a file it is being taken at this moment.
            None => (usize::try_from(file).ok().and_then(|file| file.checked_sub(1)), &|| {
                party_of(&bytes(comm), cgroup)
            }),
        };
        let file = file.filter(|_| opens != 0 || count != 0).and_then(|file| FILES.get(file));
        let row = file.map(|file| {
            let reads = Charge { count, sum_ns, max_ns };
            MountinfoReader { file: (*file).to_owned(), party: party(), opens, entries, reads }
        });
        Seen { taken: key != 0, row }
    }

    /// Takes the keys of the rows that have stood still the longest.
    fn dismiss(&mut self, now: Instant) {
        let idle = |(_, at): &(u64, Instant)| now.duration_since(*at) >= IDLE;
        let mut oldest: Vec<_> = (0..READER_ROWS as usize)
            .filter(|index| idle(&self.seen[*index]))
            .filter(|index| self.leaving.iter().all(|(leaving, _)| leaving != index))
            .collect();
        oldest.sort_by_key(|index| self.seen[*index].1);
        for index in oldest.into_iter().take(BATCH) {
            let key = self.word(index, 0);
            let held = key.load();
            if held != 0 && key.compare_exchange(held, LEAVING) {
                self.leaving.push((index, now));
            }
        }
    }

    /// Frees the rows whose keys went long enough ago.
    fn free(&mut self, now: Instant, party_of: &PartyOf) {
        let leaving = std::mem::take(&mut self.leaving);
        let (over, leaving): (Vec<_>, Vec<_>) =
            leaving.into_iter().partition(|(_, since)| now.duration_since(*since) >= GRACE);
        self.leaving = leaving;
        for (index, _) in over {
            if let Some(row) = self.row(index, party_of).row {
                let party = Party::Evicted { runtime: row.party.runtime() };
                self.gone.push(MountinfoReader { party, ..row });
            }
            // The key is the first word, and the last that is cleared.
            for word in (0..size_of::<ReaderRow>() / size_of::<u64>()).rev() {
                self.word(index, word).store_release(0);
            }
            if let (Some(claims), Ok(number)) = (&self.claims, u32::try_from(index)) {
                claims.remove(READER_CLAIMS + number);
            }
            self.seen[index] = (0, now);
        }
        self.gone = joined(std::mem::take(&mut self.gone));
    }

    /// A word of a row; the first is its key.
    fn word(&self, index: usize, word: usize) -> &SharedWord {
        assert!(word < size_of::<ReaderRow>() / size_of::<u64>(), "word {word} of a row");
        // SAFETY: a word of an element of the mapping, which is writable;
        // `SharedWord` allows for other writers.
        unsafe { &*self.rows.element(index).cast::<SharedWord>().add(word) }
    }
}

/// Rows of the same party and file as one.
fn joined(rows: Vec<MountinfoReader>) -> Vec<MountinfoReader> {
    let mut sums: BTreeMap<(String, Party), MountinfoReader> = BTreeMap::new();
    for row in rows {
        match sums.entry((row.file.clone(), row.party.clone())) {
            Entry::Vacant(free) => drop(free.insert(row)),
            Entry::Occupied(mut sum) => {
                let sum = sum.get_mut();
                sum.opens += row.opens;
                sum.entries += row.entries;
                sum.reads.add(row.reads);
            }
        }
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use profiler_common::layout::maps;
    use profiler_common::mounts::FILES;

    use super::*;
    use std::sync::Arc;

    use crate::reader::attribution::names::Names;

    /// An array as programs leave it: every row taken by a cgroup of its own that
    /// opened `mountinfo` once, and one open of somebody who found no row.
    fn full() -> Readers {
        let mut file = tempfile::tempfile().unwrap();
        let words = |words: [u64; 16]| words.map(u64::to_ne_bytes).concat();
        for row in 0..u64::from(READER_ROWS) {
            let comm = u64::from_ne_bytes(*b"runc\0\0\0\0");
            let [key, cgroup] = [2 * row + 1, row + 100];
            let taken = [key, 1, comm, 0, cgroup, 1, 2, 30, 400, 300, 0, 0, 0, 0, 0, 0];
            file.write_all(&words(taken)).unwrap();
        }
        for _ in FILES {
            file.write_all(&words([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
        }
        let entries = READER_ROWS as usize + FILES.len();
        Readers::new(Mapping::writable(maps::READERS, file.as_fd(), entries).unwrap(), None)
    }

    fn opens(rows: &[MountinfoReader]) -> u64 {
        rows.iter().map(|row| row.opens).sum()
    }

    fn taken(readers: &Readers) -> usize {
        (0..READER_ROWS as usize).filter(|index| readers.word(*index, 0).load() != 0).count()
    }

    #[test]
    fn every_row_is_shown_and_those_that_found_none_as_others() {
        let rows = full().read(Instant::now(), &Arc::new(Names::new(None)).party_of());
        assert_eq!(rows.len(), READER_ROWS as usize + FILES.len());
        assert_eq!(opens(&rows), u64::from(READER_ROWS) + FILES.len() as u64);
        let others = rows.iter().filter(|row| row.party == Party::Other);
        assert_eq!(others.count(), FILES.len());
        let row = rows.iter().find(|row| row.party.task() == "runc").unwrap();
        assert_eq!((row.file.as_str(), row.opens, row.entries), ("mountinfo", 1, 30));
        assert_eq!(row.reads, Charge { count: 2, sum_ns: 400, max_ns: 300 });
    }

    #[test]
    fn rows_that_stand_still_are_freed_and_what_they_counted_stays() {
        let (mut readers, party_of) = (full(), Arc::new(Names::new(None)).party_of());
        let start = Instant::now();
        let all = opens(&readers.read(start, &party_of));
        assert_eq!(taken(&readers), READER_ROWS as usize, "none has stood still for long");
        let later = start + IDLE + Duration::from_secs(1);
        let before = readers.read(later, &party_of);
        assert_eq!(opens(&before), all);
        // A program that had found the row before its key went.
        let (leaving, _) = readers.leaving[0];
        readers.word(leaving, 5).add(1);
        let rows = readers.read(later + GRACE, &party_of);
        assert_eq!(opens(&rows), all + 1);
        assert_eq!(taken(&readers), READER_ROWS as usize - BATCH);
        let window =
            crate::snapshot::Snapshot { mountinfo_readers: Some(rows), ..Default::default() }
                .since(&crate::snapshot::Snapshot {
                    mountinfo_readers: Some(before),
                    ..Default::default()
                });
        assert_eq!(opens(&window.mountinfo_readers.unwrap()), 1, "nothing is counted twice");
    }

    #[test]
    fn a_row_that_moves_is_not_freed() {
        let (mut readers, party_of) = (full(), Arc::new(Names::new(None)).party_of());
        let start = Instant::now();
        readers.read(start, &party_of);
        let later = start + IDLE + Duration::from_secs(1);
        for index in 0..READER_ROWS as usize {
            readers.word(index, 5).add(1);
        }
        readers.read(later, &party_of);
        assert!(readers.leaving.is_empty());
    }
}
