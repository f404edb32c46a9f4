//! Waits that have not ended: how many per lock, and how old the oldest is.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use profiler_common::inflight::{self, Line, Table};
use profiler_common::layout::CpuState;
use profiler_common::spin_stack::DEPTH;

use super::mapping::{Mapping, SharedWord, load};
use crate::hooks::{Claims, Series};

/// Age from which a wait's task is checked for being alive.
const SUSPECT_AGE_NS: u64 = 2_000_000_000;
/// Inode of the initial pid namespace (`PROC_PID_INIT_INO` in
/// include/linux/proc_ns.h): thread ids in the table are those of that one.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The table of tasks that wait or are in a mount call.
pub(super) struct InFlight {
    tasks: Tasks,
    /// `/proc`, if it shows the thread ids that the kernel side uses.
    proc: Option<PathBuf>,
    /// Keys of calls without a wait at the last read.
    calls_seen: HashSet<u64>,
    reclaimed: u64,
}

struct Tasks {
    lines: Mapping<Line<SharedWord>>,
    /// Where slots are claimed, in kernels without a compare-exchange.
    claims: Option<Claims>,
}

impl Table for Tasks {
    type Word = SharedWord;

    fn mask(&self) -> u32 {
        u32::try_from(self.lines.len()).unwrap_or(u32::MAX) - 1
    }

    fn line(&self, index: u32) -> Option<&Line<SharedWord>> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.lines.len())?;
        // SAFETY: an element of the mapping, which is writable; `SharedWord`
        // allows for other writers.
        Some(unsafe { &*self.lines.element(index) })
    }

    fn freed(&self, position: u32) {
        if let Some(claims) = &self.claims {
            claims.remove(position);
        }
    }
}

impl InFlight {
    pub(super) fn new(lines: Mapping<Line<SharedWord>>, claims: Option<Claims>) -> Self {
        let initial = std::fs::read_link("/proc/self/ns/pid")
            .is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE);
        Self {
            tasks: Tasks { lines, claims },
            proc: initial.then(|| PathBuf::from("/proc")),
            calls_seen: HashSet::new(),
            reclaimed: 0,
        }
    }

    /// Slots freed because their task was gone.
    pub(super) const fn reclaimed(&self) -> u64 {
        self.reclaimed
    }

    /// By lock: waiters, and age of the oldest wait in ns.
    pub(super) fn read(
        &mut self,
        cpus: &Mapping<CpuState>,
        series: &[Series],
        locks: usize,
        now_ns: u64,
    ) -> Vec<(u64, u64)> {
        let mut totals = vec![(0u64, 0u64); locks];
        let mut count = |index: usize, start_ns: u64| {
            if let Some((waiters, oldest)) =
                series.get(index).and_then(|series| totals.get_mut(series.lock))
            {
                *waiters += 1;
                *oldest = (*oldest).max(now_ns.saturating_sub(start_ns));
            }
        };
        self.reclaimed +=
            visit(&self.tasks, self.proc.as_deref(), now_ns, &mut self.calls_seen, &mut count);
        for cpu in 0..cpus.len() {
            let state = cpus.element(cpu);
            // SAFETY: fields of a mapped element; `entry` is below `DEPTH`.
            unsafe {
                let stack = &raw const (*state).spins;
                let depth = usize::try_from(load(&raw const (*stack).depth)).unwrap_or(0);
                for entry in 0..depth.min(DEPTH) {
                    let wait = (&raw const (*stack).waits).cast::<[u64; 2]>().add(entry);
                    // The series and whom the wait is charged to, in one word.
                    let about = load(wait.cast());
                    let series = about & u64::from(u32::MAX);
                    let start_ns = load(wait.cast::<u64>().add(1));
                    // Still the same wait, not one that has ended meanwhile.
                    if series != 0
                        && load(wait.cast()) == about
                        && load(&raw const (*stack).depth) > entry as u64
                    {
                        count(usize::try_from(series - 1).unwrap_or(usize::MAX), start_ns);
                    }
                }
            }
        }
        totals
    }
}

/// Shows every wait to `count` as (series, start in ns), after freeing the slots
/// of tasks that are gone; how many it freed. `seen` has the calls of the last
/// read, and those of this one afterwards.
fn visit(
    tasks: &Tasks,
    proc: Option<&Path>,
    now_ns: u64,
    seen: &mut HashSet<u64>,
    mut count: impl FnMut(usize, u64),
) -> u64 {
    let mut freed = 0;
    let mut now_seen = HashSet::new();
    for index in 0..=tasks.mask() {
        let Some(line) = tasks.line(index) else { continue };
        for (slot, at) in line.slots.iter().zip(0..) {
            let Some((key, start)) = inflight::observe(slot) else { continue };
            // A call without a wait does not say here since when; it is suspect
            // when two reads in a row find it.
            let suspect = match start {
                Some(start_ns) => now_ns.saturating_sub(start_ns) > SUSPECT_AGE_NS,
                None => now_seen.insert(key.0) && seen.contains(&key.0),
            };
            if suspect
                && let Some(proc) = proc
                && !proc.join(key.tid().to_string()).exists()
            {
                freed += u64::from(inflight::reclaim(tasks, index, at, slot, key));
                continue;
            }
            if let (Some(series), Some(start_ns)) = (key.wait(), start) {
                count(usize::from(series), start_ns);
            }
        }
    }
    *seen = now_seen;
    freed
}
