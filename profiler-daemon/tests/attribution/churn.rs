//! Cgroups that come and go, more than there are rows for.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockprof::commands::session::Session;
use lockprof::hooks::attribution::Wanted;
use lockprof::snapshot::{Charge, Party, Snapshot};

use super::cgroups;
use super::tasks::{StopOnDrop, Task};
use super::{PATIENCE, alone, common, described, mounts, path, session, settled};
use crate::needs_bpf;

/// How much of it there is.
struct Scale {
    /// Rows of the table.
    rows: u32,
    /// Cgroups that come and go at least.
    cgroups: usize,
    /// Looks that find more evicted than the one before, at least.
    evictions: usize,
    /// Mounts in a tree that a task copies again and again meanwhile, holding
    /// `namespace_sem`; 0 for none.
    tree: usize,
}

const SCALE: Scale = Scale { rows: 256, cgroups: 5_000, evictions: 2, tree: 0 };

/// The same on a machine that software emulates, which takes ten times as long
/// for each cgroup. Its CPUs run in turns, so that tasks meet at a lock by chance:
/// without somebody who holds it most of the time, few wait, and the table, whose
/// rows are for those who do, does not fill.
const EMULATED: Scale = Scale { rows: 64, cgroups: 200, evictions: 1, tree: 300 };

/// Cgroups at a time.
const AT_A_TIME: usize = 4;
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// How much more memory the process may have allocated at the end than when a
/// tenth of the cgroups had gone. Names of cgroups are kept, at most some thousand,
/// and each read makes rows that go again.
const GROWTH_BYTES: u64 = 6 << 20;

#[test]
fn cgroups_that_come_and_go_take_no_more_memory_and_everything_adds_up() {
    const TEST: &str = "cgroups_that_come_and_go_take_no_more_memory_and_everything_adds_up";
    needs_bpf!("cgroups_that_come_and_go_take_no_more_memory_and_everything_adds_up");
    let _alone = alone();
    let Some(folder) = cgroups::folder(TEST, "lockprof-churn") else { return };
    let scale = if common::emulated() { EMULATED } else { SCALE };
    let session = session(Wanted { rows: scale.rows, ..Wanted::default() });
    let first = settled(&session);

    // Somebody who waits, and whose cgroup then goes.
    let (remembered, its_path) = folder.add("remembered");
    for _ in 0..AT_A_TIME {
        burst(c"remembered", &its_path, AT_A_TIME);
        if of_cgroup(&session.fresh_snapshot(), remembered).count != 0 {
            break;
        }
    }
    cgroups::remove(&its_path);

    let holder = (scale.tree != 0)
        .then(|| Task::start(c"holder", None, |ready| mounts::keep_binding(ready, scale.tree)));
    holder.iter().for_each(Task::await_ready);
    let (gone, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Taken for a look: then nobody is at work.
    let gate = RwLock::new(());
    let mut looks = Looks::new(&first, remembered);
    std::thread::scope(|scope| {
        for worker in 0..AT_A_TIME {
            let (gone, stop, gate, folder) = (&gone, &stop, &gate, &folder);
            scope.spawn(move || {
                // One that fails ends the others, instead of being waited for.
                let _stop = StopOnDrop(stop);
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let _open = gate.read().expect("no look panics");
                    let (_, path) = folder.add(format!("{worker}-{number}"));
                    burst(c"short-lived", &path, 1);
                    cgroups::remove(&path);
                    gone.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        let mut progress = Progress::default();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(BETWEEN_LOOKS);
            let closed = gate.write();
            let look = settled(&session);
            drop(closed);
            let gone = gone.load(Ordering::Relaxed);
            looks.add(look, gone);
            if gone >= scale.cgroups && looks.evictions >= scale.evictions {
                return;
            }
            progress.check((gone.min(scale.cgroups), looks.evictions), &looks);
        }
    });
    drop(holder);
    eprintln!("{looks}");
    looks.check(&session, &scale);
}

/// Notices when what is waited for does not come nearer: however long it takes, it
/// gets there as long as something moves.
struct Progress {
    latest: (usize, usize),
    since: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { latest: (0, 0), since: Instant::now() }
    }
}

impl Progress {
    /// Cgroups that came and went, as far as they are wanted, and evictions.
    fn check(&mut self, now: (usize, usize), looks: &Looks) {
        if now != self.latest {
            *self = Self { latest: now, since: Instant::now() };
        }
        assert!(
            self.since.elapsed() < PATIENCE,
            "nothing has come, gone or been evicted for {PATIENCE:?}; {looks}"
        );
    }
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
    began: Instant,
    first: Snapshot,
    all: Vec<Snapshot>,
    remembered: u64,
    /// How often more was evicted than at the look before.
    evictions: usize,
    /// What each look found.
    found: Vec<Found>,
}

/// What one look found.
struct Found {
    /// Since the beginning.
    after: Duration,
    /// Cgroups that had come and gone.
    gone: usize,
    /// Rows of tasks.
    rows: usize,
    /// Waits of rows that are gone.
    evicted: u64,
    /// Bytes that the process has allocated.
    allocated: u64,
    /// Its bytes in memory.
    resident: u64,
}

impl std::fmt::Display for Looks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} evictions; seconds: gone, rows, evicted, KiB, KiB resident",
            self.evictions
        )?;
        for found in &self.found {
            let Found { after, gone, rows, evicted, allocated, resident } = found;
            let (allocated, resident) = (allocated >> 10, resident >> 10);
            let after = after.as_secs();
            writeln!(
                f,
                "{after:>5}: {gone:>5} {rows:>4} {evicted:>7} {allocated:>6} {resident:>6}"
            )?;
        }
        Ok(())
    }
}

impl Looks {
    fn new(first: &Snapshot, remembered: u64) -> Self {
        let (began, first) = (Instant::now(), first.clone());
        Self { began, first, all: Vec::new(), remembered, evictions: 0, found: Vec::new() }
    }

    fn add(&mut self, look: Snapshot, gone: usize) {
        common::charges_fit(&look);
        let before = self.all.last().unwrap_or(&self.first);
        let evicted = evicted(&look).count;
        if evicted > self::evicted(before).count {
            self.evictions += 1;
        }
        // Whatever was freed between the two.
        for earlier in [before, &self.first] {
            let window = look.since(earlier);
            common::charges_fit(&window);
        }
        for (lock, now, then) in by_lock(&look, before) {
            assert!(now >= then, "{lock}: evicted charges went back from {then} to {now}; {self}");
        }
        // A cgroup that is gone has its name for as long as it has a row.
        for row in &look.waiters {
            let cgroup = row.party.who().and_then(|who| who.cgroup.as_ref());
            if cgroup.is_some_and(|cgroup| cgroup.id == self.remembered) {
                assert!(path(&row.party).ends_with("/remembered"), "{row:?}; {self}");
            }
        }
        let own = look.own.expect("a session knows its cost");
        self.found.push(Found {
            after: self.began.elapsed(),
            gone,
            rows: rows(&look),
            evicted,
            allocated: allocated(),
            resident: own.resident_bytes,
        });
        // Those in the middle are enough to be compared with.
        if self.all.len() >= 8 {
            self.all.remove(1);
        }
        self.all.push(look);
    }

    fn check(&self, session: &Session, scale: &Scale) {
        let last = settled(session);
        common::charges_fit(&last);
        for earlier in &self.all {
            common::charges_fit(&last.since(earlier));
        }
        let evicted = evicted(&last);
        assert!(evicted.count > 0 && self.evictions >= 1, "{}; {self}", described(&last));
        // The table is what it was, and holds no more than it has rows.
        let (first, own) = (self.first.own.expect("known"), last.own.expect("known"));
        assert_eq!(first.arrays_bytes, own.arrays_bytes);
        let rows = rows(&last);
        assert!(rows <= scale.rows as usize, "{rows} rows; {self}");
        // What the first of them took, the others do not take again. What is in
        // memory would be the wrong thing to compare: it depends on what the kernel
        // has put into pages of 2 MiB meanwhile, and on code that ran first.
        let warm = self.found.iter().find(|found| found.gone >= scale.cgroups / 10);
        let (start, end) = (warm.expect("it went on to the end").allocated, allocated());
        assert!(end <= start + GROWTH_BYTES, "grew from {start} to {end} bytes; {self}");
    }
}

/// Bytes that this process has allocated and not given back.
fn allocated() -> u64 {
    // SAFETY: no arguments; it adds up the allocator's own figures.
    let now = unsafe { libc::mallinfo2() };
    u64::try_from(now.uordblks + now.hblkhd).expect("bytes of memory")
}

/// Rows of tasks, as waiters and as blockers.
fn rows(look: &Snapshot) -> usize {
    let waiters = look.waiters.iter().filter(|row| row.party.who().is_some()).count();
    waiters + look.blockers.iter().filter(|row| row.party.who().is_some()).count()
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
