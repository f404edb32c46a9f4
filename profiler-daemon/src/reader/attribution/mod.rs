//! Charges -> who waited, who made them wait, and the slowest waits.
//!
//! Reading looks at memory alone: the names of cgroups and functions come from
//! caches that the [`keeper`] fills, which also frees rows when the table gets
//! full. What it frees goes on counting, as [`Party::Evicted`].

pub mod keeper;
pub mod names;
mod stack;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use profiler_common::charges::{About, Identity, READY, RESERVED, Role, Row};
use profiler_common::inflight::{InCall, Word as _};
use profiler_common::layout::{CpuState, maps};
use profiler_common::slow::{self, AttributionState};
use profiler_common::syscalls::MOUNT_SYSCALLS;

use self::names::Names;
use self::stack::UNNAMED;
use super::Extent;
use super::ReaderError;
use super::mapping::{Mapping, SharedWord, load};
use crate::hooks::{Claims, Programs, Series};
use crate::kernel::stacks::StackNames;
use crate::snapshot::{
    Basis, Blocker, Charge, MOUNTINFO_READ, Name, Party, Runtime, SlowWait, SlowWaits, Waiter,
};

/// What the reader and the keeper share.
pub struct Charges {
    rows: Mapping<Row<SharedWord>>,
    /// Rows before those that are claimed.
    reserved: usize,
    slow: Option<Mapping<slow::SlowWait>>,
    state: Mapping<AttributionState>,
    /// By slot of a task: the row that its wait is charged to, plus 1.
    blockers: Mapping<u32>,
    cpus: Mapping<CpuState>,
    locks: Vec<String>,
    series: Vec<Series>,
    threshold_ns: u64,
    names: Arc<Names>,
    stacks: StackNames,
    evicted: Mutex<Evicted>,
    /// Where rows are claimed, in kernels without a compare-exchange.
    claims: Option<Mutex<Claims>>,
}

/// What rows held that were freed, and which runtime the others were first shown
/// under.
#[derive(Default)]
struct Evicted {
    charges: HashMap<(u64, Runtime), Charge>,
    /// By row. It stays what it was when more becomes known of the cgroup, so that
    /// counters by runtime never go back.
    runtimes: HashMap<usize, Runtime>,
}

/// A row as it was read.
struct Read {
    index: usize,
    key: u64,
    about: About,
    who: Identity,
    charge: Charge,
}

impl Charges {
    /// Maps the arrays of `programs`; `None` when attribution is off.
    ///
    /// # Errors
    ///
    /// An array is missing or cannot be mapped.
    pub fn new(
        programs: &Programs,
        locks: &[String],
        series: &[Series],
        names: Arc<Names>,
    ) -> Result<Option<Self>, ReaderError> {
        let attribution = programs.attribution();
        if attribution.rows() == 0 {
            return Ok(None);
        }
        let arrays = programs.arrays();
        let entries = |name: &str| {
            arrays
                .iter()
                .find(|(n, _, _)| *n == name)
                .map_or(0, |(_, entries, _)| *entries as usize)
        };
        // Absent from the object for kernels without a compare-exchange.
        let slow = match (attribution.slow_places() as usize, programs.array(maps::SLOW)) {
            (0, _) | (_, Err(_)) => None,
            (places, Ok(fd)) => Some(Mapping::read_only(maps::SLOW, fd, places)?),
        };
        Ok(Some(Self {
            rows: Mapping::writable(
                maps::CHARGES,
                programs.array(maps::CHARGES)?,
                entries(maps::CHARGES),
            )?,
            reserved: attribution.reserved as usize,
            slow,
            state: Mapping::read_only(maps::ATTRIBUTED, programs.array(maps::ATTRIBUTED)?, 1)?,
            blockers: Mapping::read_only(
                maps::BLOCKERS,
                programs.array(maps::BLOCKERS)?,
                entries(maps::BLOCKERS),
            )?,
            cpus: Mapping::read_only(maps::CPUS, programs.array(maps::CPUS)?, entries(maps::CPUS))?,
            locks: locks.to_vec(),
            series: series.to_vec(),
            threshold_ns: attribution.slow_ns,
            names,
            stacks: StackNames::of_running_kernel(),
            evicted: Mutex::default(),
            claims: programs.claims()?.map(Mutex::new),
        }))
    }

    /// Who waited, and who made them wait, since attach.
    pub(super) fn read(&self) -> (Vec<Waiter>, Vec<Blocker>) {
        let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiters: HashMap<Waiting, (Party, Charge)> = HashMap::new();
        let mut blockers: HashMap<Blocking, (Party, Charge)> = HashMap::new();
        let mut add = |about: About, party: Party, charge: Charge| {
            let Some(role) = about.role() else { return };
            let (lock, call, key) = (about.lock(), about.call().get(), party.key());
            let sum = if role == Role::Waiter {
                let series = (party != Party::Other).then(|| about.series());
                &mut waiters
                    .entry((lock, series, call, key))
                    .or_insert((party, Charge::default()))
                    .1
            } else {
                &mut blockers
                    .entry((lock, role as u8, call, key))
                    .or_insert((party, Charge::default()))
                    .1
            };
            sum.add(charge);
        };
        for row in self.described() {
            let party = self.party(&row, &mut evicted.runtimes);
            add(row.about, party, row.charge);
        }
        for (index, row) in (0..self.reserved).zip(0u32..) {
            let charge = self.charge(index);
            if charge.count != 0 {
                let lock = u8::try_from(row / RESERVED).unwrap_or(u8::MAX);
                let (about, party) = match row % RESERVED {
                    0 => (About::waiter(lock, 0, InCall::NONE), Party::Other),
                    1 => (About::blocker(lock, Role::Owner, InCall::NONE), Party::Other),
                    _ => (About::blocker(lock, Role::Unknown, InCall::NONE), Party::Unknown),
                };
                add(about, party, charge);
            }
        }
        for ((about, runtime), charge) in &evicted.charges {
            add(About(*about), Party::Evicted { runtime: *runtime }, *charge);
        }
        drop(evicted);
        (self.waiters(waiters), self.blockers(blockers))
    }

    fn waiters(&self, rows: HashMap<Waiting, (Party, Charge)>) -> Vec<Waiter> {
        let mut rows: Vec<_> = rows
            .into_iter()
            .filter_map(|((lock, series, call, _), (party, waits))| {
                Some(Waiter {
                    lock: self.locks.get(usize::from(lock))?.clone(),
                    mode: match series {
                        Some(series) => Some(self.series.get(usize::from(series))?.mode),
                        None => None,
                    },
                    call: call.and_then(call_name),
                    party,
                    waits,
                })
            })
            .collect();
        longest_first(&mut rows, |row| (row.waits.sum_ns, &row.party));
        rows
    }

    fn blockers(&self, rows: HashMap<Blocking, (Party, Charge)>) -> Vec<Blocker> {
        let mut rows: Vec<_> = rows
            .into_iter()
            .filter_map(|((lock, role, call, _), (party, waits))| {
                Some(Blocker {
                    lock: self.locks.get(usize::from(lock))?.clone(),
                    basis: basis(Role::ALL.get(usize::from(role)).copied()?),
                    call: call.and_then(call_name),
                    party,
                    waits,
                })
            })
            .collect();
        longest_first(&mut rows, |row| (row.waits.sum_ns, &row.party));
        rows
    }

    /// The most recent slow waits, newest first, if `extent` has them; `None` where
    /// they are not listed.
    pub(super) fn slow_waits(&self, extent: Extent) -> Option<SlowWaits> {
        let places = self.slow.as_ref()?;
        // SAFETY: a field of a mapped element.
        let count = unsafe { load(&raw const (*self.state.element(0)).slow) };
        let offset_ns = unix_offset_ns();
        let listed = if extent == Extent::Whole { places.len() } else { 0 };
        let mut recent: Vec<_> = (0..listed)
            .filter_map(|place| self.slow_wait(&read_slow(places, place)?, offset_ns))
            .collect();
        recent.sort_by_key(|wait| std::cmp::Reverse(wait.number));
        Some(SlowWaits { threshold_ns: self.threshold_ns, count, recent })
    }

    fn slow_wait(&self, record: &slow::SlowWait, offset_ns: u64) -> Option<SlowWait> {
        let (waiter, blocker) = (About(record.waiter_about), About(record.blocker_about));
        let role = blocker.role()?;
        let series = self.series.get(usize::from(waiter.series()))?;
        Some(SlowWait {
            number: record.number,
            lock: self.locks.get(usize::from(waiter.lock()))?.clone(),
            mode: series.mode,
            numa_node: self.node_of(record.cpu),
            cpu: record.cpu,
            tid: record.tid,
            waiter: self.named(&record.waiter),
            waiter_call: waiter.call().get().and_then(call_name),
            blocker: if role == Role::Unknown || record.blocker == Identity::default() {
                Party::Unknown
            } else {
                self.named(&record.blocker)
            },
            blocker_basis: basis(role),
            blocker_call: blocker.call().get().and_then(call_name),
            duration_ns: record.waited_ns,
            ended_unix_ns: record.ended_ns.saturating_add(offset_ns),
            stack: self.stack(record),
        })
    }

    /// Names of the frames of the lock's slow path and below.
    fn stack(&self, record: &slow::SlowWait) -> Vec<Name> {
        let names = frames(record).iter().map(|address| match self.stacks.get(*address) {
            Some(name) => Name::from(&*name),
            None => Name::from(UNNAMED),
        });
        stack::from_slow_path(names.collect())
    }

    /// NUMA node of a CPU, as the kernel told a program on it.
    fn node_of(&self, cpu: u32) -> u32 {
        let index = cpu as usize;
        if index >= self.cpus.len() {
            return 0;
        }
        // SAFETY: a field of a mapped element.
        let plus_one = unsafe { load(&raw const (*self.cpus.element(index)).node_plus_one) };
        u32::try_from(plus_one.saturating_sub(1)).unwrap_or(0)
    }

    /// Rows that say whom they are about.
    fn described(&self) -> impl Iterator<Item = Read> + '_ {
        (self.reserved..self.rows.len()).filter_map(|index| self.row(index))
    }

    fn row(&self, index: usize) -> Option<Read> {
        let row = self.words(index);
        let key = row.key.load();
        let about = row.about.load();
        if key == 0 || about & READY == 0 {
            return None;
        }
        let who =
            Identity { comm: [row.comm[0].load(), row.comm[1].load()], cgroup: row.cgroup.load() };
        Some(Read { index, key, about: About(about & !READY), who, charge: self.charge(index) })
    }

    fn charge(&self, index: usize) -> Charge {
        let row = self.words(index);
        Charge { count: row.count.load(), sum_ns: row.sum_ns.load(), max_ns: row.max_ns.load() }
    }

    fn words(&self, index: usize) -> &Row<SharedWord> {
        // SAFETY: an element of the mapping, which is writable; `SharedWord` allows
        // for other writers.
        unsafe { &*self.rows.element(index) }
    }

    /// Who the row is about, under the runtime that it was first shown under.
    fn party(&self, row: &Read, runtimes: &mut HashMap<usize, Runtime>) -> Party {
        let mut party = self.named(&row.who);
        if let Party::Task(who) = &mut party {
            who.runtime = *runtimes.entry(row.index).or_insert(who.runtime);
        }
        party
    }

    fn named(&self, identity: &Identity) -> Party {
        let mut comm = [0; 16];
        for (bytes, word) in comm.chunks_exact_mut(8).zip(identity.comm) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        self.names.party(&comm, identity.cgroup)
    }
}

/// Lock, series, call and party of a waiter.
type Waiting = (u8, Option<u8>, Option<u8>, crate::snapshot::PartyKey);
/// Lock, role, call and party of a blocker.
type Blocking = (u8, u8, Option<u8>, crate::snapshot::PartyKey);

/// Sorts rows by the sum of their waits, then by party.
fn longest_first<R>(rows: &mut [R], of: impl Fn(&R) -> (u64, &Party)) {
    rows.sort_by(|a, b| {
        let ((a_ns, a), (b_ns, b)) = (of(a), of(b));
        b_ns.cmp(&a_ns).then_with(|| a.cmp(b))
    });
}

/// The record in a place of the ring, if it is whole.
fn read_slow(places: &Mapping<slow::SlowWait>, place: usize) -> Option<slow::SlowWait> {
    let at = places.element(place);
    // SAFETY: fields of a mapped element. The copy may be torn; whether it was is
    // checked afterwards, and any bits make a record.
    unsafe {
        let number = load(&raw const (*at).number);
        if number == 0 || load(&raw const (*at).writer) != 0 {
            return None;
        }
        let copy = at.read_volatile();
        let whole = load(&raw const (*at).writer) == 0 && load(&raw const (*at).number) == number;
        whole.then_some(copy)
    }
}

/// Return addresses of a record's stack.
fn frames(record: &slow::SlowWait) -> &[u64] {
    let len = usize::try_from(record.stack_bytes).unwrap_or(0) / size_of::<u64>();
    &record.stack[..len.min(slow::FRAMES)]
}

/// Name of a call by its number in the programs.
fn call_name(call: u8) -> Option<String> {
    match MOUNT_SYSCALLS.get(usize::from(call)) {
        Some(call) => Some(call.name.to_owned()),
        None if usize::from(call) == MOUNT_SYSCALLS.len() => Some(MOUNTINFO_READ.to_owned()),
        None => None,
    }
}

const fn basis(role: Role) -> Basis {
    match role {
        Role::Waiter | Role::Unknown => Basis::Unknown,
        Role::Owner => Basis::Owner,
        Role::ReaderHint => Basis::ReaderHint,
        Role::LastAcquirer => Basis::Inferred,
    }
}

/// What to add to `CLOCK_MONOTONIC` for the time since 1970, in ns.
fn unix_offset_ns() -> u64 {
    let unix = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    super::ns(unix).saturating_sub(super::monotonic_ns())
}
