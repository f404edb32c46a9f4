//! Who waited, who made them wait, and the slowest waits one by one.

use std::collections::HashMap;
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
        // No wait is longer than all together: not even of a party that was evicted
        // and came back with a longer one.
        let max_ns = self.max_ns.min(sum_ns);
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
    charges_since(now, earlier);
}

/// Blockers of a window.
pub(super) fn blockers_since(now: &mut Vec<Blocker>, earlier: &[Blocker]) {
    charges_since(now, earlier);
}

/// A row that charges a party with waits in some matter.
trait Charged {
    type Matter: Eq + Hash + Clone;
    fn matter(&self) -> Self::Matter;
    fn party(&self) -> &Party;
    fn waits(&self) -> Charge;
    fn waits_mut(&mut self) -> &mut Charge;
}

impl Charged for Waiter {
    type Matter = (String, Option<Mode>, Option<String>);
    fn matter(&self) -> Self::Matter {
        (self.lock.clone(), self.mode, self.call.clone())
    }
    fn party(&self) -> &Party {
        &self.party
    }
    fn waits(&self) -> Charge {
        self.waits
    }
    fn waits_mut(&mut self) -> &mut Charge {
        &mut self.waits
    }
}

impl Charged for Blocker {
    type Matter = (String, Basis, Option<String>);
    fn matter(&self) -> Self::Matter {
        (self.lock.clone(), self.basis, self.call.clone())
    }
    fn party(&self) -> &Party {
        &self.party
    }
    fn waits(&self) -> Charge {
        self.waits
    }
    fn waits_mut(&mut self) -> &mut Charge {
        &mut self.waits
    }
}

/// What a party's charge came to among the evicted meanwhile, less what it lost
/// by that.
#[derive(Default)]
struct Moved {
    count: i128,
    sum_ns: i128,
    max_ns: u64,
}

impl Moved {
    /// A row that had `then` and has `now`.
    fn add(&mut self, now: Charge, then: Charge) {
        self.count += i128::from(now.count) - i128::from(then.count);
        self.sum_ns += i128::from(now.sum_ns) - i128::from(then.sum_ns);
        self.max_ns = self.max_ns.max(now.max_ns);
    }

    /// Takes it into the window of the evicted.
    fn apply(&self, evicted: &mut Charge) {
        let plus = |figure: u64, moved: i128| {
            u64::try_from((i128::from(figure) + moved).max(0)).unwrap_or(u64::MAX)
        };
        evicted.count = plus(evicted.count, self.count);
        evicted.sum_ns = plus(evicted.sum_ns, self.sum_ns);
        evicted.max_ns = evicted.max_ns.max(self.max_ns).min(evicted.sum_ns);
    }
}

/// Subtracts `earlier` from `now`, so that the rows of a window add up whatever
/// was evicted in it.
///
/// A row that has less than it had was evicted: what it had is among the evicted
/// now, and is not of the window. If its party has come back since, what that has
/// now cannot be told from what it had then, and stays with the evicted too.
fn charges_since<R: Charged>(now: &mut Vec<R>, earlier: &[R]) {
    let mut earlier: HashMap<_, &R> =
        earlier.iter().map(|row| ((row.matter(), row.party().key()), row)).collect();
    let mut moved: HashMap<(R::Matter, PartyKey), Moved> = HashMap::new();
    let mut move_to_evicted = |then: &R, now: Charge| {
        let evicted = PartyKey::Evicted(then.party().runtime());
        moved.entry((then.matter(), evicted)).or_default().add(now, then.waits());
    };
    for row in now.iter_mut() {
        let Some(then) = earlier.remove(&(row.matter(), row.party().key())) else { continue };
        let (charge, had) = (row.waits(), then.waits());
        let has_less = charge.count < had.count || charge.sum_ns < had.sum_ns;
        // Waits of the same number never take longer later on.
        if has_less || charge.count == had.count && charge.sum_ns != had.sum_ns {
            move_to_evicted(then, charge);
            *row.waits_mut() = Charge::default();
        } else {
            *row.waits_mut() = charge.since(had);
        }
    }
    for gone in earlier.into_values() {
        move_to_evicted(gone, Charge::default());
    }
    for row in now.iter_mut() {
        if let Some(moved) = moved.get(&(row.matter(), row.party().key())) {
            moved.apply(row.waits_mut());
        }
    }
    now.retain(|row| row.waits().count != 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn one_that_was_evicted_and_came_back_does_not_count_twice() {
        let earlier = [waiter(task("runc", "/a"), 5)];
        let evicted = Party::Evicted { runtime: Runtime::Runc };
        let mut now = vec![waiter(task("runc", "/a"), 2), waiter(evicted, 5)];
        waiters_since(&mut now, &earlier);
        let counts: Vec<_> = now.iter().map(|row| (row.party.task(), row.waits.count)).collect();
        assert_eq!(counts, [("evicted", 2)]);
    }

    proptest! {
        /// Waits of three parties, whose rows are evicted now and then, and of
        /// which some come back.
        #[test]
        fn every_window_adds_up_whatever_is_evicted(
            steps in proptest::collection::vec((0..6usize, 0..3usize, 1..1000u64), 0..60),
        ) {
            let parties = [task("runc", "/a"), task("crun", "/a"), task("sh", "/a")];
            let parties = parties.map(|mut party| {
                if let Party::Task(who) = &mut party && who.task.as_str() == "sh" {
                    who.runtime = Runtime::Other;
                    who.cgroup = None;
                }
                party
            });
            let mut rows = [Charge::default(); 3];
            let mut evicted = HashMap::<Runtime, Charge>::new();
            let mut total = Charge::default();
            let mut looks: Vec<(Charge, Vec<Waiter>)> = Vec::new();
            for (step, who, ns) in steps {
                match step {
                    0..=2 => {
                        let wait = Charge { count: 1, sum_ns: ns, max_ns: ns };
                        rows[who].add(wait);
                        total.add(wait);
                    }
                    3 => {
                        let gone = std::mem::take(&mut rows[who]);
                        evicted.entry(parties[who].runtime()).or_default().add(gone);
                    }
                    _ => {
                        let listed = parties.iter().cloned().zip(rows);
                        let gone = evicted.iter().map(|(runtime, charge)| {
                            (Party::Evicted { runtime: *runtime }, *charge)
                        });
                        let all = listed.chain(gone).filter(|(_, charge)| charge.count != 0);
                        let look = all.map(|(party, waits)| Waiter { waits, ..waiter(party, 0) });
                        looks.push((total, look.collect()));
                    }
                }
            }
            for (at, (then, earlier)) in looks.iter().enumerate() {
                for (now, look) in &looks[at..] {
                    let mut window = look.clone();
                    waiters_since(&mut window, earlier);
                    let sums = window.iter().fold((0, 0), |sums, row| {
                        (sums.0 + row.waits.count, sums.1 + row.waits.sum_ns)
                    });
                    prop_assert_eq!(sums, (now.count - then.count, now.sum_ns - then.sum_ns));
                    for row in &window {
                        prop_assert!(row.waits.max_ns <= row.waits.sum_ns);
                    }
                }
            }
        }
    }
}
