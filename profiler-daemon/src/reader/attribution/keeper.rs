//! The thread that keeps the table of charges readable and from filling up.
//!
//! It gives names to new cgroups and stacks, so that whoever reads does not have
//! to, and takes rows away from tasks that are gone when others need them.
//!
//! Freeing a row, while programs may hold its number: it is retired, so that none
//! finds it any more; after a grace period of the kernel those that had found it
//! before are done, and whoever waits in its name is in the arrays; if nobody
//! does, then after another grace period nobody adds to it any more, and it is
//! free.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use profiler_common::charges::{READY, RETIRED};
use profiler_common::inflight::{Exchange as _, Word as _};
use profiler_common::layout::CHARGE_CLAIMS;
use profiler_common::slow::NEWCOMERS;
use profiler_common::spin_stack::DEPTH;
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};

use super::{Charges, UNNAMED, frames, read_slow};
use crate::reader::mapping::load;

/// How often it looks whether there is anything to do: at one cache line.
const TICK: Duration = Duration::from_millis(250);
/// The same while there are newcomers, whose cgroups may not live long.
const QUICK_TICK: Duration = Duration::from_millis(20);
/// How long it stays quick after a newcomer.
const QUICK: Duration = Duration::from_secs(2);
/// Time between two looks for functions: they stay, and a call chain that was never
/// seen before costs a pass over the kernel's symbols.
const FUNCTIONS: Duration = Duration::from_secs(2);
/// Time between two looks at all rows, for newcomers that were missed and for how
/// full the table is.
const ROUND: Duration = Duration::from_secs(10);

/// The running thread. Dropping it ends the thread.
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system has no room for another thread.
    pub fn start(charges: Arc<Charges>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || {
            let mut work = Work::default();
            let (mut newcomer_at, mut round_at) = (Instant::now(), Instant::now());
            loop {
                let now = Instant::now();
                if work.names_of_new(&charges) {
                    newcomer_at = now;
                }
                if now - round_at >= ROUND {
                    round_at = now;
                    charges.look_up_cgroups();
                    work.evict(&charges);
                }
                let tick = if now - newcomer_at < QUICK { QUICK_TICK } else { TICK };
                match stopped.recv_timeout(tick) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; either way it is gone.
            let _ = thread.join();
        }
    }
}

/// What one look remembers for the next.
#[derive(Default)]
struct Work {
    claimed: u64,
    slow: u64,
    /// When functions were looked up last.
    functions_at: Option<Instant>,
    /// Count of each row at the last look at how full the table is.
    counts: HashMap<usize, (u64, u64)>,
    /// Whether the kernel refuses the grace periods without which no row is freed.
    refused: bool,
}

impl Work {
    /// Looks up names if anybody is new; whether anybody is.
    fn names_of_new(&mut self, charges: &Charges) -> bool {
        let state = charges.state.element(0);
        // SAFETY: fields of a mapped element.
        let (claimed, slow) =
            unsafe { (load(&raw const (*state).claimed), load(&raw const (*state).slow)) };
        let newcomers = claimed - self.claimed;
        if newcomers > NEWCOMERS as u64 {
            charges.look_up_cgroups();
        } else {
            for number in self.claimed..claimed {
                let at = usize::try_from(number).unwrap_or(0) % NEWCOMERS;
                // SAFETY: a field of a mapped element, and `at` is in range.
                let id = unsafe { load((&raw const (*state).newcomers).cast::<u64>().add(at)) };
                // Who cannot be looked up yet is so in the next round.
                charges.names.look_up(id);
            }
        }
        self.claimed = claimed;
        charges.names.look_up_wanted();
        let recently = self.functions_at.is_some_and(|at| at.elapsed() < FUNCTIONS);
        if slow != self.slow && !recently {
            self.slow = slow;
            self.functions_at = Some(Instant::now());
            charges.look_up_functions();
        }
        newcomers != 0
    }

    /// Frees rows if more than half of them are taken: those of cgroups that are
    /// gone, and if that is not enough, those that nobody was charged to since the
    /// last look, least charged first.
    fn evict(&mut self, charges: &Charges) {
        let rows: Vec<_> = charges.described().collect();
        let all = charges.rows.len() - charges.reserved;
        let earlier = std::mem::take(&mut self.counts);
        self.counts = rows.iter().map(|row| (row.index, (row.key, row.charge.count))).collect();
        if rows.len() <= all / 2 || self.refused {
            return;
        }
        // Asked before any row is retired that then could not be freed.
        if !membarrier_query().contains_command(MembarrierCommand::Global) {
            self.refuse("the kernel has no MEMBARRIER_CMD_GLOBAL", all);
            return;
        }
        let mut alive: HashMap<u64, bool> = HashMap::new();
        let mut is_alive = |id| *alive.entry(id).or_insert_with(|| charges.names.is_alive(id));
        let (mut gone, mut idle) = (Vec::new(), Vec::new());
        for row in &rows {
            if row.key == RETIRED || row.who.cgroup != 0 && !is_alive(row.who.cgroup) {
                gone.push(row.index);
            } else if earlier.get(&row.index) == Some(&(row.key, row.charge.count)) {
                idle.push((row.charge.sum_ns, row.index));
            }
        }
        idle.sort_unstable();
        let missing = (rows.len() - gone.len()).saturating_sub(all / 2);
        gone.extend(idle.into_iter().take(missing).map(|(_, index)| index));
        let freed = match free(charges, &gone) {
            Ok(freed) => freed,
            Err(why) => {
                self.refuse(&format!("membarrier(2) fails: {why}"), all);
                return;
            }
        };
        let cgroups: HashSet<u64> = charges.described().map(|row| row.who.cgroup).collect();
        for (id, _) in alive.into_iter().filter(|(id, alive)| !alive && !cgroups.contains(id)) {
            charges.names.forget(id);
        }
        tracing::debug!(taken = rows.len(), of = all, freed, "freed rows of charges");
    }

    /// Says that no row is freed, and tries it no more: what the system call
    /// refuses once it refuses until the next boot (`sys_membarrier` in
    /// kernel/sched/membarrier.c; it does where `tick_nohz_full_enabled()`).
    fn refuse(&mut self, why: &str, rows: usize) {
        self.refused = true;
        tracing::warn!(
            rows,
            "rows of the table of who waits are never given to others: {why}; once they are all \
             taken, whoever is new counts as `other` (lockprof_events_dropped_total with reason \
             charges_full). Give attribution.rows in the configuration more, start the kernel \
             without nohz_full, or allow the service the system call membarrier"
        );
    }
}

impl Charges {
    /// Looks up every name that a snapshot would show.
    pub fn look_up_names(&self) {
        self.look_up_cgroups();
        self.names.look_up_wanted();
        self.look_up_functions();
    }

    fn look_up_cgroups(&self) {
        let ids: HashSet<u64> = self.described().map(|row| row.who.cgroup).collect();
        for id in ids {
            self.names.look_up(id);
        }
    }

    fn look_up_functions(&self) {
        let Some(places) = &self.slow else { return };
        let records = (0..places.len()).filter_map(|place| read_slow(places, place));
        let addresses: HashSet<u64> = records.flat_map(|record| frames(&record).to_vec()).collect();
        if let Err(error) = self.stacks.look_up(addresses) {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    "functions in stacks of slow waits have no names and show as `{UNNAMED}`: \
                     {error:#}. Waits are counted and charged all the same"
                );
            });
        }
    }
}

/// Frees the rows `indices`, as far as nobody waits in their name; how many.
///
/// # Errors
///
/// The kernel refuses a grace period. The rows then stay as they are, retired.
fn free(charges: &Charges, indices: &[usize]) -> Result<usize, Errno> {
    for index in indices {
        let row = charges.words(*index);
        let key = row.key.load();
        if key != 0 && key != RETIRED {
            row.key.compare_exchange(key, RETIRED);
        }
    }
    grace_period()?;
    let held = held(charges);
    let indices: Vec<_> = indices.iter().filter(|index| !held.contains(index)).collect();
    grace_period()?;
    let mut evicted = charges.evicted.lock().unwrap_or_else(PoisonError::into_inner);
    for index in &indices {
        let Some(read) = charges.row(**index) else { continue };
        let runtime = charges.party(&read, &mut evicted.runtimes).runtime();
        evicted.charges.entry((read.about.0, runtime)).or_default().add(read.charge);
        evicted.runtimes.remove(*index);
        let row = charges.words(**index);
        for word in [&row.about, &row.count, &row.sum_ns, &row.max_ns] {
            word.store(0);
        }
        debug_assert_eq!(row.about.load() & READY, 0);
        row.key.store_release(0);
        if let Some(claims) = &charges.claims {
            let number = CHARGE_CLAIMS + u32::try_from(**index).unwrap_or(0);
            claims.lock().unwrap_or_else(PoisonError::into_inner).remove(number);
        }
    }
    Ok(indices.len())
}

/// Rows that waits in flight are charged to.
fn held(charges: &Charges) -> HashSet<usize> {
    let mut held = HashSet::new();
    let mut add = |plus_one: u32| {
        if let Some(row) = plus_one.checked_sub(1) {
            held.insert(row as usize);
        }
    };
    for slot in 0..charges.blockers.len() {
        // SAFETY: a mapped element; a word of 32 bits does not tear.
        add(unsafe { charges.blockers.element(slot).read_volatile() });
    }
    for cpu in 0..charges.cpus.len() {
        let state = charges.cpus.element(cpu);
        for entry in 0..DEPTH {
            // SAFETY: a field of a mapped element, and `entry` is below `DEPTH`.
            add(unsafe { (&raw const (*state).spins.waits[entry].blocker).read_volatile() });
        }
    }
    held
}

/// Waits until every program that is running now has ended: `membarrier(2)`
/// waits for a grace period of RCU, and programs run within one.
fn grace_period() -> Result<(), Errno> {
    membarrier(MembarrierCommand::Global)
}
