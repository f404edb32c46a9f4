//! The tables of `stat --by`.
//!
//! What nothing is known about has rows of its own (`other`, `unknown`, `not
//! attributed`), so that the total is that of the locks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::breakdown::{Breakdown, Row};
use super::overview::lock_wait;
use crate::cli::args::By;
use crate::findings::text::{count, duration, percent, place};
use crate::locks::Mode;
use crate::snapshot::{
    Charge, MOUNTINFO_READ, Name, Runtime, SlowWait, SlowWaits, Snapshot, Times,
};

/// The tables, or why there are none.
pub(super) fn write(out: &mut String, snapshot: &Snapshot, by: By, width: usize) {
    match by {
        By::Lock => table(out, width, &locks(snapshot), NO_WAITS),
        By::Node => table(out, width, &nodes(snapshot), NO_WAITS),
        By::Waiter if unknown(snapshot, snapshot.waiters.is_empty()) => {
            missing(out, "who waits is not observed");
        }
        By::Waiter => table(out, width, &waiters(snapshot), NO_WAITS),
        By::Blocker if unknown(snapshot, snapshot.blockers.is_empty()) => {
            missing(out, "who makes others wait is not observed");
        }
        By::Blocker => table(out, width, &blockers(snapshot), NO_WAITS),
        By::Runtime if unknown(snapshot, snapshot.waiters.is_empty()) => {
            missing(out, "who waits is not observed");
        }
        By::Runtime => {
            table(out, width, &waiting_runtimes(snapshot), NO_WAITS);
            if !unknown(snapshot, snapshot.blockers.is_empty()) {
                table(out, width, &blocking_runtimes(snapshot), NO_WAITS);
            }
        }
        By::Syscall if !sees_calls(snapshot) => missing(out, "mount calls are not observed"),
        By::Syscall => table(out, width, &syscalls(snapshot), "no mount system calls"),
        By::Stack => match &snapshot.slow_waits {
            None => missing(out, "stacks of slow waits are not recorded"),
            Some(slow) => stacks(out, slow, width),
        },
    }
}

const NO_WAITS: &str = "no waits";

fn missing(out: &mut String, what: &str) {
    let _ = writeln!(out, "\n{what} on this kernel; `lockprof doctor` lists each hook and why");
}

/// Whether a list is empty although there were waits that it is about.
fn unknown(snapshot: &Snapshot, empty: bool) -> bool {
    empty && snapshot.locks.iter().any(|row| row.waits.count != 0)
}

fn sees_calls(snapshot: &Snapshot) -> bool {
    let mut hooks = snapshot.hooks.iter();
    !snapshot.syscalls.is_empty()
        || hooks.any(|hook| hook.hook.starts_with("sys_") && hook.backend != "none")
}

fn table(out: &mut String, width: usize, breakdown: &Breakdown, if_empty: &str) {
    if breakdown.total().count == 0 {
        let _ = writeln!(out, "\n{if_empty}");
    } else {
        breakdown.write(out, width);
    }
}

/// Rows added up by their keys.
struct Rows<K>(BTreeMap<K, (Charge, BTreeMap<String, u64>)>);

impl<K: Ord> Rows<K> {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Charges `charge` to `key`, on account of `of`.
    fn add(&mut self, key: K, charge: Charge, of: &str) {
        let (sum, parts) = self.0.entry(key).or_default();
        sum.add(charge);
        *parts.entry(of.to_owned()).or_default() += charge.sum_ns;
    }

    /// With the part of each row that has the longest total as its note.
    fn mostly(self, keys: impl Fn(K) -> Vec<String>) -> Vec<Row> {
        let row = |(key, (charge, parts)): (K, (Charge, BTreeMap<String, u64>))| {
            let most = parts.into_iter().max_by_key(|(_, ns)| *ns);
            let note = most.map(|(of, ns)| format!("{of} {}", percent(ns, charge.sum_ns)));
            Row { keys: keys(key), charge, note: note.unwrap_or_default(), ..Row::default() }
        };
        self.0.into_iter().map(row).collect()
    }
}

const fn of(times: &Times) -> Charge {
    Charge { count: times.count, sum_ns: times.sum_ns, max_ns: times.max_ns }
}

pub(super) fn locks(snapshot: &Snapshot) -> Breakdown {
    let mut rows = Rows::new();
    for row in &snapshot.locks {
        let node = format!("node {}", row.numa_node);
        rows.add((row.lock.clone(), row.mode), of(&row.waits), &node);
    }
    let rows = rows.mostly(|(lock, mode)| vec![lock, mode.to_string()]);
    Breakdown::new(&["LOCK", "MODE"], "MOSTLY", rows)
}

pub(super) fn nodes(snapshot: &Snapshot) -> Breakdown {
    let (mut rows, mut migrated) = (Rows::new(), BTreeMap::<u32, u64>::new());
    for row in &snapshot.locks {
        rows.add(row.numa_node, of(&row.waits), &row.lock);
        *migrated.entry(row.numa_node).or_default() += row.migrated;
    }
    let rows = rows.mostly(|node| {
        let began_elsewhere = migrated.get(&node).copied().unwrap_or(0);
        vec![node.to_string(), began_elsewhere.to_string()]
    });
    Breakdown::new(&["NODE", "BEGAN ELSEWHERE"], "MOSTLY", rows)
}

/// Waits of each lock that no row of `charged` accounts for.
fn not_attributed<'a>(
    snapshot: &Snapshot,
    charged: impl Iterator<Item = (&'a String, Charge)>,
) -> Vec<(String, Charge)> {
    let mut left: BTreeMap<&str, Charge> = BTreeMap::new();
    snapshot.locks.iter().for_each(|row| left.entry(&row.lock).or_default().add(of(&row.waits)));
    for (lock, charge) in charged {
        if let Some(left) = left.get_mut(lock.as_str()) {
            left.count = left.count.saturating_sub(charge.count);
            left.sum_ns = left.sum_ns.saturating_sub(charge.sum_ns);
        }
    }
    let left = left.into_iter().filter(|(_, left)| left.count != 0);
    left.map(|(lock, mut left)| {
        // The longest wait may be one of those that were attributed.
        left.max_ns = left.max_ns.min(left.sum_ns);
        (lock.to_owned(), left)
    })
    .collect()
}

const NOT_ATTRIBUTED: &str = "not attributed";

pub(super) fn waiters(snapshot: &Snapshot) -> Breakdown {
    let mut rows: BTreeMap<_, Row> = BTreeMap::new();
    for row in &snapshot.waiters {
        let merged = rows.entry((&row.lock, &row.party, &row.call)).or_insert_with(|| Row {
            keys: vec![row.lock.clone(), row.party.task().to_owned(), call(row.call.as_ref())],
            note: place(&row.party).unwrap_or_default(),
            ..Row::default()
        });
        merged.charge.add(row.waits);
    }
    let left = not_attributed(snapshot, snapshot.waiters.iter().map(|row| (&row.lock, row.waits)));
    let left = left.into_iter().map(|(lock, charge)| Row {
        keys: vec![lock, NOT_ATTRIBUTED.to_owned(), call(None)],
        charge,
        ..Row::default()
    });
    Breakdown::new(&["LOCK", "WAITER", "CALL"], "WHERE", rows.into_values().chain(left))
}

pub(super) fn blockers(snapshot: &Snapshot) -> Breakdown {
    let rows = snapshot.blockers.iter().map(|row| Row {
        keys: vec![
            row.lock.clone(),
            row.party.task().to_owned(),
            call(row.call.as_ref()),
            row.basis.as_str().to_owned(),
        ],
        charge: row.waits,
        note: place(&row.party).unwrap_or_default(),
        ..Row::default()
    });
    let left = not_attributed(snapshot, snapshot.blockers.iter().map(|row| (&row.lock, row.waits)));
    let left = left.into_iter().map(|(lock, charge)| Row {
        keys: vec![lock, NOT_ATTRIBUTED.to_owned(), call(None), String::new()],
        charge,
        ..Row::default()
    });
    Breakdown::new(&["LOCK", "BLOCKER", "CALL", "NAMED BY"], "WHERE", rows.chain(left))
}

fn call(name: Option<&String>) -> String {
    name.map_or_else(|| "-".to_owned(), Clone::clone)
}

pub(super) fn waiting_runtimes(snapshot: &Snapshot) -> Breakdown {
    let rows = snapshot.waiters.iter().map(|row| (&row.lock, row.party.runtime(), row.waits));
    runtimes(snapshot, &["WAITING RUNTIME"], rows.collect())
}

pub(super) fn blocking_runtimes(snapshot: &Snapshot) -> Breakdown {
    let rows = snapshot.blockers.iter().map(|row| (&row.lock, row.party.runtime(), row.waits));
    runtimes(snapshot, &["BLOCKING RUNTIME"], rows.collect())
}

fn runtimes(
    snapshot: &Snapshot,
    headings: &'static [&'static str],
    charges: Vec<(&String, Runtime, Charge)>,
) -> Breakdown {
    let mut rows = Rows::new();
    let left = not_attributed(snapshot, charges.iter().map(|(lock, _, waits)| (*lock, *waits)));
    for (lock, runtime, waits) in charges {
        rows.add(runtime.as_str(), waits, lock);
    }
    for (lock, charge) in left {
        rows.add(NOT_ATTRIBUTED, charge, &lock);
    }
    Breakdown::new(headings, "MOSTLY", rows.mostly(|runtime| vec![runtime.to_owned()]))
}

pub(super) fn syscalls(snapshot: &Snapshot) -> Breakdown {
    let mut rows: BTreeMap<&str, (Charge, u64, BTreeMap<String, u64>)> = BTreeMap::new();
    for row in &snapshot.syscalls {
        let (calls, errors, waited) = rows.entry(&row.syscall).or_default();
        calls.add(of(&row.calls));
        *errors += row.errors;
        for (lock, ns) in &row.lock_wait_ns {
            *waited.entry(lock.clone()).or_default() += ns;
        }
    }
    let rows = rows.into_iter().map(|(syscall, (charge, errors, waited))| Row {
        keys: vec![syscall.to_owned(), errors.to_string()],
        charge,
        note: lock_wait(&waited, charge.sum_ns),
        ..Row::default()
    });
    let reads = snapshot.mountinfo_lock_wait_ns.iter().map(|waited| {
        let mut charge = Charge::default();
        snapshot.mountinfo_readers.iter().flatten().for_each(|row| charge.add(row.reads));
        let keys = vec![MOUNTINFO_READ.to_owned(), "-".to_owned()];
        Row { keys, charge, note: lock_wait(waited, charge.sum_ns), ..Row::default() }
    });
    let rows = rows.chain(reads.filter(|row| row.charge.count != 0));
    Breakdown::new(&["MOUNT CALL", "ERRORS"], "LOCK WAIT", rows)
}

fn stacks(out: &mut String, slow: &SlowWaits, width: usize) {
    let recorded = u64::try_from(slow.recent.len()).unwrap_or(u64::MAX);
    let _ = write!(
        out,
        "\n{} took {} or longer",
        count(slow.count, "wait"),
        duration(slow.threshold_ns)
    );
    match slow.count.saturating_sub(recorded) {
        0 => out.push_str("; shorter ones are counted without a stack\n"),
        forgotten => {
            let _ = writeln!(
                out,
                "; the last {recorded} are below, and {forgotten} were overwritten since"
            );
        }
    }
    if !slow.recent.is_empty() {
        by_stack(&slow.recent).write(out, width);
    }
}

/// Slow waits by lock, mode and functions on the stack, the innermost first.
/// Where in a function a call is does not tell stacks apart.
pub(super) fn by_stack(recent: &[SlowWait]) -> Breakdown {
    let mut rows: BTreeMap<(&str, Mode, String), Charge> = BTreeMap::new();
    for wait in recent {
        let function = |frame: &Name| {
            let text = frame.as_str();
            text.split_once("+0x").map_or(text, |(function, _)| function).to_owned()
        };
        let stack = wait.stack.iter().map(function).collect::<Vec<_>>().join(" < ");
        let stack = if stack.is_empty() { "no stack".to_owned() } else { stack };
        let ns = wait.duration_ns;
        rows.entry((&wait.lock, wait.mode, stack)).or_default().add(Charge {
            count: 1,
            sum_ns: ns,
            max_ns: ns,
        });
    }
    let rows = rows.into_iter().map(|((lock, mode, stack), charge)| Row {
        keys: vec![lock.to_owned(), mode.to_string()],
        charge,
        below: stack,
        ..Row::default()
    });
    Breakdown::new(&["SLOW WAITS", "MODE"], "", rows)
}
