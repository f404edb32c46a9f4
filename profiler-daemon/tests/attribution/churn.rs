//! Cgroups that come and go, more than there are rows for.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockprof::commands::session::Session;
use lockprof::hooks::attribution::Wanted;
use lockprof::snapshot::{Charge, Party, Snapshot};

use super::cgroups::{self, Folder};
use super::tasks::{StopOnDrop, Task};
use super::{alone, common, described, mounts, path, session, settled};
use crate::needs_bpf;

/// Cgroups that come and go at least.
const CGROUPS: usize = 5_000;
/// The same on a machine that software emulates, which takes ten times as long
/// for each.
const CGROUPS_EMULATED: usize = 300;
/// Rows of the table.
const ROWS: u32 = 256;
/// Cgroups at a time.
const AT_A_TIME: usize = 4;
/// Looks that find more evicted than the one before, at least.
const EVICTIONS: usize = 2;
/// The same on a machine that software emulates.
const EVICTIONS_EMULATED: usize = 1;
/// How much the process may grow while they come and go. Names of cgroups are
/// kept, at most some thousand, and each read makes rows that go again.
const GROWTH_BYTES: u64 = 6 << 20;

#[test]
fn cgroups_that_come_and_go_take_no_more_memory_and_everything_adds_up() {
    const TEST: &str = "cgroups_that_come_and_go_take_no_more_memory_and_everything_adds_up";
    needs_bpf!("cgroups_that_come_and_go_take_no_more_memory_and_everything_adds_up");
    let _alone = alone();
    let Some(folder) = Folder::make(TEST, "lockprof-churn") else { return };
    let session = session(Wanted { rows: ROWS, ..Wanted::default() });
    let first = settled(&session);
    let (wanted, evictions) = match common::emulated() {
        true => (CGROUPS_EMULATED, EVICTIONS_EMULATED),
        false => (CGROUPS, EVICTIONS),
    };

    // Somebody who waits, and whose cgroup then goes.
    let (remembered, its_path) = folder.add("remembered");
    for _ in 0..AT_A_TIME {
        burst(c"remembered", &its_path, AT_A_TIME);
        if of_cgroup(&session.fresh_snapshot(), remembered).count != 0 {
            break;
        }
    }
    cgroups::remove(&its_path);

    let (gone, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Taken for a look: then nobody is at work.
    let gate = RwLock::new(());
    let looks = std::thread::scope(|scope| {
        for worker in 0..AT_A_TIME {
            let (gone, stop, gate, folder) = (&gone, &stop, &gate, &folder);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let _open = gate.read().expect("no look panics");
                    let (_, path) = folder.add(&format!("{worker}-{number}"));
                    burst(c"short-lived", &path, 1);
                    cgroups::remove(&path);
                    gone.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        let mut looks = Looks::new(&first, remembered);
        let deadline = Instant::now() + Duration::from_secs(500);
        while Instant::now() < deadline
            && (gone.load(Ordering::Relaxed) < wanted || looks.evictions < evictions)
        {
            std::thread::sleep(Duration::from_secs(2));
            let closed = gate.write();
            let look = settled(&session);
            drop(closed);
            looks.add(look);
        }
        looks
    });
    let gone = gone.load(Ordering::Relaxed);
    eprintln!("{gone} cgroups came and went, {} evictions: {:?}", looks.evictions, looks.resident);
    assert!(gone >= wanted, "only {gone} cgroups in the time that there was");
    looks.check(&session);
}

/// Several tasks in a cgroup that mount and unmount, all at once.
fn burst(name: &std::ffi::CStr, cgroup: &std::path::Path, tasks: usize) {
    let start = |_| {
        Task::start(name, Some(cgroup), |_| {
            mounts::own_namespace()?;
            mounts::mount_and_unmount(4)
        })
    };
    let tasks: Vec<_> = (0..tasks).map(start).collect();
    for task in tasks {
        assert!(task.join(), "a task did what it should");
    }
}

/// What was seen in looks at a machine at rest.
struct Looks {
    first: Snapshot,
    all: Vec<Snapshot>,
    remembered: u64,
    /// How often more was evicted than at the look before.
    evictions: usize,
    /// Bytes of the process that are in memory, by look.
    resident: Vec<u64>,
}

impl Looks {
    fn new(first: &Snapshot, remembered: u64) -> Self {
        let first = first.clone();
        Self { first, all: Vec::new(), remembered, evictions: 0, resident: Vec::new() }
    }

    fn add(&mut self, look: Snapshot) {
        common::charges_fit(&look);
        let before = self.all.last().unwrap_or(&self.first);
        if evicted(&look).count > evicted(before).count {
            self.evictions += 1;
        }
        // Whatever was freed between the two.
        for earlier in [before, &self.first] {
            let window = look.since(earlier);
            common::charges_fit(&window);
        }
        for (lock, now, then) in by_lock(&look, before) {
            assert!(now >= then, "{lock}: evicted charges went back from {then} to {now}");
        }
        // A cgroup that is gone has its name for as long as it has a row.
        for row in &look.waiters {
            let cgroup = row.party.who().and_then(|who| who.cgroup.as_ref());
            if cgroup.is_some_and(|cgroup| cgroup.id == self.remembered) {
                assert!(path(&row.party).ends_with("/remembered"), "{row:?}");
            }
        }
        let own = look.own.expect("a session knows its cost");
        self.resident.push(own.resident_bytes);
        // Those in the middle are enough to be compared with.
        if self.all.len() >= 8 {
            self.all.remove(1);
        }
        self.all.push(look);
    }

    fn check(&self, session: &Session) {
        let last = settled(session);
        common::charges_fit(&last);
        for earlier in &self.all {
            common::charges_fit(&last.since(earlier));
        }
        let evicted = evicted(&last);
        assert!(evicted.count > 0 && self.evictions >= 1, "{}", described(&last));
        // The table is what it was, and holds no more than it has rows.
        let (first, own) = (self.first.own.expect("known"), last.own.expect("known"));
        assert_eq!(first.arrays_bytes, own.arrays_bytes);
        let tasks = |party: &Party| party.who().is_some();
        let rows = last.waiters.iter().filter(|row| tasks(&row.party)).count()
            + last.blockers.iter().filter(|row| tasks(&row.party)).count();
        assert!(rows <= ROWS as usize, "{rows} rows");
        // What the first of them took, the others do not take again.
        let (start, end) = (self.resident[0], own.resident_bytes);
        assert!(end <= start + GROWTH_BYTES, "grew from {start} to {end} bytes");
    }
}

/// What was charged to rows that are gone.
fn evicted(look: &Snapshot) -> Charge {
    let mut sum = Charge::default();
    let is_it = |party: &Party| matches!(party, Party::Evicted { .. });
    look.waiters.iter().filter(|row| is_it(&row.party)).for_each(|row| sum.add(row.waits));
    look.blockers.iter().filter(|row| is_it(&row.party)).for_each(|row| sum.add(row.waits));
    sum
}

/// Evicted waits by lock: now and then.
fn by_lock(now: &Snapshot, then: &Snapshot) -> Vec<(String, u64, u64)> {
    let counts = |look: &Snapshot| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for row in look.waiters.iter().filter(|row| matches!(row.party, Party::Evicted { .. })) {
            *counts.entry(row.lock.clone()).or_default() += row.waits.count;
        }
        counts
    };
    let (now, then) = (counts(now), counts(then));
    let of = |lock: &String| now.get(lock).copied().unwrap_or(0);
    then.iter().map(|(lock, count)| (lock.clone(), of(lock), *count)).collect()
}

/// Waits of the tasks of a cgroup.
fn of_cgroup(look: &Snapshot, id: u64) -> Charge {
    let mut sum = Charge::default();
    for row in &look.waiters {
        if row.party.who().and_then(|who| who.cgroup.as_ref()).is_some_and(|c| c.id == id) {
            sum.add(row.waits);
        }
    }
    sum
}
