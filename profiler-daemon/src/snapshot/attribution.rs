//! Who waited, who made them wait, and the slowest waits one by one.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::{Name, Party, PartyKey};
use crate::locks::Mode;

/// Pseudo-call of a task that reads a mount table through `/proc`; all others
/// are names of system calls.
pub const MOUNTINFO_READ: &str = "mountinfo_read";

/// Count, sum and maximum of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// How many.
    pub count: u64,
    /// Sum, in ns.
    pub sum_ns: u64,
    /// Longest, in ns. Exact since attach; in a window without a new maximum, an
    /// upper bound.
    pub max_ns: u64,
}

impl Charge {
    /// Adds `other`.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Those that came since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        let max_ns =
            if self.max_ns > earlier.max_ns { self.max_ns } else { self.max_ns.min(sum_ns) };
        Self { count: self.count.saturating_sub(earlier.count), sum_ns, max_ns }
    }
}

/// Waits of one party for one lock in one mode, inside one call or outside of
/// any. Over all rows, the counts of a lock are those of
/// [`LockWaits`](super::LockWaits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Label value of the lock.
    pub lock: String,
    /// How they wanted it; `None` for those that the table had no room for.
    pub mode: Option<Mode>,
    /// The mount call that they were in, or [`MOUNTINFO_READ`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// Their waits.
    #[serde(flatten)]
    pub waits: Charge,
}

/// How a blocker was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The lock named its owner when the wait began.
    Owner,
    /// The lock named a reader, perhaps one of several, perhaps gone since.
    ReaderHint,
    /// A spinning lock names nobody: its last contended acquirer.
    Inferred,
    /// Nobody was named.
    Unknown,
}

impl Basis {
    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::ReaderHint => "reader_hint",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

/// Waits for one lock that are charged to one party: it held the lock when they
/// began. Over all rows, the counts of a lock are those of
/// [`LockWaits`](super::LockWaits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// Label value of the lock.
    pub lock: String,
    /// How the party was found.
    pub basis: Basis,
    /// The mount call that it was in, or [`MOUNTINFO_READ`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// The waits of others.
    #[serde(flatten)]
    pub waits: Charge,
}

/// Waits above a threshold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowWaits {
    /// The threshold, in ns.
    pub threshold_ns: u64,
    /// How many there were; the recent ones are below.
    pub count: u64,
    /// The most recent ones, newest first.
    pub recent: Vec<SlowWait>,
}

/// A wait above the threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowWait {
    /// Its number among all slow waits since attach, from 1.
    pub number: u64,
    /// Label value of the lock.
    pub lock: String,
    /// How the waiter wanted it.
    pub mode: Mode,
    /// Where the wait ended.
    pub numa_node: u32,
    /// Where the wait ended.
    pub cpu: u32,
    /// Thread id of the waiter, as the initial pid namespace numbers it.
    pub tid: u32,
    /// The waiter.
    pub waiter: Party,
    /// The call that the waiter was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiter_call: Option<String>,
    /// Who is charged with it.
    pub blocker: Party,
    /// How the blocker was found.
    pub blocker_basis: Basis,
    /// The call that the blocker was in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocker_call: Option<String>,
    /// How long, in ns.
    pub duration_ns: u64,
    /// When it ended, in ns since 1970.
    pub ended_unix_ns: u64,
    /// Kernel stack where it ended, innermost first: `function+0xoffset`. No
    /// addresses: they would defeat KASLR.
    pub stack: Vec<Name>,
}

impl SlowWaits {
    /// Those that came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let recent = self.recent.iter().filter(|wait| wait.number > earlier.count);
        Self {
            threshold_ns: self.threshold_ns,
            count: self.count.saturating_sub(earlier.count),
            recent: recent.cloned().collect(),
        }
    }
}

/// Subtracts from each row of `now` the row of `earlier` with the same key, and
/// drops what nothing is left of.
pub(super) fn subtract<R, K: Eq + Hash>(
    now: &mut Vec<R>,
    earlier: &[R],
    key: impl Fn(&R) -> K,
    mut subtract: impl FnMut(&mut R, &R),
    is_empty: impl Fn(&R) -> bool,
) {
    let earlier: HashMap<K, &R> = earlier.iter().map(|row| (key(row), row)).collect();
    for row in now.iter_mut() {
        if let Some(then) = earlier.get(&key(row)) {
            subtract(row, then);
        }
    }
    now.retain(|row| !is_empty(row));
}

/// Waiters of a window.
pub(super) fn waiters_since(now: &mut Vec<Waiter>, earlier: &[Waiter]) {
    take_from_evicted(
        now,
        earlier,
        |row| (row.lock.clone(), row.mode, row.call.clone()),
        |row| (&row.party, &mut row.waits),
    );
    let key = |row: &Waiter| (row.lock.clone(), row.mode, row.call.clone(), row.party.key());
    let since = |row: &mut Waiter, then: &Waiter| row.waits = row.waits.since(then.waits);
    subtract(now, earlier, key, since, |row| row.waits.count == 0);
}

/// Blockers of a window.
pub(super) fn blockers_since(now: &mut Vec<Blocker>, earlier: &[Blocker]) {
    take_from_evicted(
        now,
        earlier,
        |row| (row.lock.clone(), row.basis, row.call.clone()),
        |row| (&row.party, &mut row.waits),
    );
    let key = |row: &Blocker| (row.lock.clone(), row.basis, row.call.clone(), row.party.key());
    let since = |row: &mut Blocker, then: &Blocker| row.waits = row.waits.since(then.waits);
    subtract(now, earlier, key, since, |row| row.waits.count == 0);
}

/// What a row of `earlier` had that `now` does not list any more is among the
/// evicted, and is no more of the window than what a listed row had.
fn take_from_evicted<R: Clone, K: Eq + Hash>(
    now: &mut [R],
    earlier: &[R],
    matter: impl Fn(&R) -> K,
    parts: impl for<'a> Fn(&'a mut R) -> (&'a Party, &'a mut Charge),
) {
    let party = |row: &R| {
        let mut row = row.clone();
        let (party, charge) = parts(&mut row);
        (party.clone(), *charge)
    };
    let listed: HashSet<_> = now.iter().map(|row| (matter(row), party(row).0.key())).collect();
    let mut gone: HashMap<(K, PartyKey), Charge> = HashMap::new();
    for row in earlier {
        let (party, charge) = party(row);
        if !listed.contains(&(matter(row), party.key())) {
            let evicted = PartyKey::Evicted(party.runtime());
            gone.entry((matter(row), evicted)).or_default().add(charge);
        }
    }
    for row in now.iter_mut() {
        let matter = matter(row);
        let (party, charge) = parts(row);
        if let Some(gone) = gone.get(&(matter, party.key())) {
            charge.count = charge.count.saturating_sub(gone.count);
            charge.sum_ns = charge.sum_ns.saturating_sub(gone.sum_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Cgroup, Runtime, Who};

    fn waiter(party: Party, count: u64) -> Waiter {
        let waits = Charge { count, sum_ns: 10 * count, max_ns: 10 };
        Waiter { lock: "l".into(), mode: Some(Mode::Read), call: None, party, waits }
    }

    fn task(name: &str, path: &str) -> Party {
        let cgroup = Cgroup { id: 7, path: path.into(), container: None };
        Party::Task(Who { task: name.into(), runtime: Runtime::Runc, cgroup: Some(cgroup) })
    }

    #[test]
    fn a_cgroup_that_gets_its_name_later_is_the_same() {
        let mut now = vec![waiter(task("runc", "/a"), 5)];
        waiters_since(&mut now, &[waiter(task("runc", ""), 3)]);
        assert_eq!(
            now,
            [Waiter {
                waits: Charge { count: 2, sum_ns: 20, max_ns: 10 },
                ..waiter(task("runc", "/a"), 0)
            }]
        );
    }

    #[test]
    fn what_was_evicted_meanwhile_does_not_count_as_new() {
        let earlier = [waiter(task("runc", "/a"), 5), waiter(task("crun", "/a"), 1)];
        let evicted = Party::Evicted { runtime: Runtime::Runc };
        let mut now = vec![waiter(task("crun", "/a"), 4), waiter(evicted, 6)];
        waiters_since(&mut now, &earlier);
        let counts: Vec<_> = now.iter().map(|row| (row.party.task(), row.waits.count)).collect();
        assert_eq!(counts, [("crun", 3), ("evicted", 1)], "one more before it was evicted");
    }
}
