//! The containers that wait and block most, a bounded number of them, as
//! counters that never go back.
//!
//! In: snapshots of one source, one after the other. Out: for every lock the
//! time of up to so many containers, of [`NONE`] and of [`OTHER`].
//!
//! What is booked is the growth of each row since the snapshot before, once, to
//! whoever has a series at that moment. So nothing that happens to a row later
//! (its cgroup gets its name, it is evicted, its container leaves the selection)
//! takes time from a series that stays. What no row accounts for is `other`'s:
//! the sum over a lock's series is the lock's total in the snapshot.

mod rows;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use self::rows::{Group, Role};
use super::{Container, Name, Snapshot};

/// Stands for all containers that are not selected, and for whoever could not be
/// told: the table of charges had no room, a blocker is unknown, a cgroup was
/// gone before it was looked up.
pub const OTHER: &str = "other";
/// Stands for tasks that are in no container.
pub const NONE: &str = "none";

/// Time after which what a container had counts half in the ranking.
const HALF_LIFE_NS: u64 = 600 * SECOND_NS;
/// A container keeps its series at least this long, so that a rate can be taken
/// of it; together with the number of containers it bounds how many new series
/// there are in a while.
const STAY_NS: u64 = 300 * SECOND_NS;
/// A container that neither waited nor blocked for this long gives its series up.
const IDLE_NS: u64 = 3600 * SECOND_NS;
/// How many times as much a newcomer must have as the one whose place it takes.
const CLEARLY: f64 = 2.0;
const SECOND_NS: u64 = 1_000_000_000;

/// Selected containers with their times at one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerTimes {
    /// The containers that are selected.
    pub selected: Vec<Container>,
    /// A row for every lock and selected container, [`NONE`] and [`OTHER`].
    pub rows: Vec<ContainerTime>,
}

/// Times of one container, or of those that [`NONE`] or [`OTHER`] stands for, at
/// one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTime {
    /// Label value of the lock.
    pub lock: String,
    /// Id of the container in full, [`NONE`] or [`OTHER`].
    pub container: Name,
    /// Time that it waited, in ns.
    pub waited_ns: u64,
    /// Time that others waited while it held the lock, in ns.
    pub blocked_ns: u64,
}

/// Selects containers and keeps their counters.
#[derive(Debug, Default)]
pub struct TopContainers {
    most: usize,
    locks: Vec<String>,
    previous: Option<Arc<Snapshot>>,
    /// By id.
    selected: BTreeMap<Name, Selected>,
    none: Account,
    other: Account,
    /// The sum of all accounts.
    booked: Account,
    /// Rank of the containers that are listed and not selected.
    scores: HashMap<Name, f64>,
    times: Arc<ContainerTimes>,
}

/// Time in ns by lock and [`Role`].
type Account = Vec<[u64; Role::ALL.len()]>;

#[derive(Debug)]
struct Selected {
    container: Container,
    account: Account,
    /// Time in ns, what is past counting less and less.
    score: f64,
    since_ns: u64,
    active_ns: u64,
}

/// How much a container's rows have grown.
struct Growth<'a> {
    container: &'a Container,
    ns: u64,
}

impl TopContainers {
    /// Selects at most `most` containers; 0 for no times at all.
    pub fn new(most: u32) -> Self {
        let mut top = Self::default();
        top.select_at_most(most);
        top
    }

    /// Changes how many are selected, from the next snapshot on.
    pub fn select_at_most(&mut self, most: u32) {
        if most == 0 {
            *self = Self::default();
        }
        self.most = usize::try_from(most).unwrap_or(usize::MAX);
    }

    /// Books what came since the snapshot before, and selects anew. A snapshot
    /// that is not younger than the one before changes nothing.
    pub fn update(&mut self, snapshot: &Arc<Snapshot>) -> Arc<ContainerTimes> {
        let now_ns = snapshot.duration_ns;
        let before = self.previous.take();
        let before_ns = before.as_ref().map(|before| before.duration_ns);
        if self.most == 0 || before_ns.is_some_and(|before_ns| now_ns <= before_ns) {
            self.previous = before;
            return self.times.clone();
        }
        self.know_locks(snapshot);
        let growth = self.book(snapshot, before.as_deref());
        self.rank(&growth, now_ns, now_ns - before_ns.unwrap_or(0));
        self.select(&growth, now_ns);
        self.times = Arc::new(self.times());
        self.previous = Some(snapshot.clone());
        self.times.clone()
    }

    fn know_locks(&mut self, snapshot: &Snapshot) {
        for row in &snapshot.locks {
            if self.lock(&row.lock).is_none() {
                self.locks.push(row.lock.clone());
            }
        }
        let accounts = self.selected.values_mut().map(|selected| &mut selected.account);
        for account in accounts.chain([&mut self.none, &mut self.other, &mut self.booked]) {
            account.resize(self.locks.len(), Default::default());
        }
    }

    fn lock(&self, name: &str) -> Option<usize> {
        self.locks.iter().position(|lock| lock == name)
    }

    /// Adds the growth of every row to an account, and what a lock's total grew
    /// beyond that to `other`.
    fn book<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        before: Option<&Snapshot>,
    ) -> HashMap<&'a Name, Growth<'a>> {
        let mut growth: HashMap<&Name, Growth<'_>> = HashMap::new();
        for role in Role::ALL {
            let mut rest = vec![0u64; self.locks.len()];
            for row in rows::of(snapshot, role) {
                if let Some(lock) = self.lock(row.lock) {
                    rest[lock] = rest[lock].saturating_add(row.ns);
                }
            }
            for (lock, rest) in rest.iter_mut().enumerate() {
                let booked = &mut self.booked[lock][role as usize];
                let total = (*rest).max(*booked);
                *rest = total - *booked;
                *booked = total;
            }
            let earlier: HashMap<_, u64> = before
                .into_iter()
                .flat_map(|before| rows::of(before, role))
                .filter_map(|row| Some((row.key()?, row.ns)))
                .collect();
            for row in rows::of(snapshot, role) {
                let (Some(lock), Some(key)) = (self.lock(row.lock), row.key()) else { continue };
                let since = row.ns.saturating_sub(earlier.get(&key).copied().unwrap_or(0));
                // A row that was evicted and is there again may have less than
                // before; it cannot have grown more than the lock's total.
                let ns = since.min(rest[lock]);
                let account = match row.group() {
                    Group::Unknown => continue,
                    Group::None => Some(&mut self.none),
                    Group::Container(container) => {
                        growth.entry(&container.id).or_insert(Growth { container, ns: 0 }).ns += ns;
                        self.selected.get_mut(&container.id).map(|found| &mut found.account)
                    }
                };
                if let Some(account) = account {
                    rest[lock] -= ns;
                    account[lock][role as usize] += ns;
                }
            }
            for (lock, rest) in rest.into_iter().enumerate() {
                self.other[lock][role as usize] += rest;
            }
        }
        growth
    }

    fn rank(&mut self, growth: &HashMap<&Name, Growth<'_>>, now_ns: u64, elapsed_ns: u64) {
        let fade = (-as_f64(elapsed_ns) / as_f64(HALF_LIFE_NS)).exp2();
        for (id, selected) in &mut self.selected {
            selected.score *= fade;
            if let Some(growth) = growth.get(id).filter(|growth| growth.ns != 0) {
                selected.score += as_f64(growth.ns);
                selected.active_ns = now_ns;
            }
        }
        self.scores.retain(|id, _| growth.contains_key(id));
        self.scores.values_mut().for_each(|score| *score *= fade);
        for (id, growth) in growth {
            if growth.ns != 0 && !self.selected.contains_key(*id) {
                *self.scores.entry((*id).clone()).or_default() += as_f64(growth.ns);
            }
        }
    }

    fn select(&mut self, growth: &HashMap<&Name, Growth<'_>>, now_ns: u64) {
        let idle = |selected: &Selected| now_ns - selected.active_ns >= IDLE_NS;
        let idle = self.selected.iter().filter(|(_, selected)| idle(selected));
        for id in idle.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.leave(&id);
        }
        while self.selected.len() > self.most
            && let Some((_, weakest)) = self.weakest(now_ns)
        {
            self.leave(&weakest);
        }
        // Those that stand still wait for their turn until they do not.
        let mut newcomers: Vec<_> = growth
            .values()
            .filter(|growth| growth.ns != 0 && !is_reserved(&growth.container.id))
            .filter_map(|growth| Some((*self.scores.get(&growth.container.id)?, growth.container)))
            .collect();
        newcomers.sort_by(|(a, left), (b, right)| b.total_cmp(a).then(left.id.cmp(&right.id)));
        for (score, container) in newcomers {
            if self.selected.len() >= self.most {
                match self.weakest(now_ns.saturating_sub(STAY_NS)) {
                    Some((weakest, id)) if score > CLEARLY * weakest => self.leave(&id),
                    _ => break,
                }
            }
            self.enter(container, score, now_ns);
        }
    }

    /// The selected container with the lowest score, of those selected by
    /// `since_ns` at the latest.
    fn weakest(&self, since_ns: u64) -> Option<(f64, Name)> {
        let settled = self.selected.iter().filter(|(_, selected)| selected.since_ns <= since_ns);
        let (id, selected) = settled.min_by(|(_, a), (_, b)| a.score.total_cmp(&b.score))?;
        Some((selected.score, id.clone()))
    }

    /// Starts at zero: what it had so far stays in `other`.
    fn enter(&mut self, container: &Container, score: f64, now_ns: u64) {
        self.scores.remove(&container.id);
        let selected = Selected {
            container: container.clone(),
            account: vec![Default::default(); self.locks.len()],
            score,
            since_ns: now_ns,
            active_ns: now_ns,
        };
        self.selected.insert(container.id.clone(), selected);
    }

    /// What it had goes to `other`.
    fn leave(&mut self, id: &Name) {
        let Some(left) = self.selected.remove(id) else { return };
        for (other, account) in self.other.iter_mut().zip(&left.account) {
            for (other, ns) in other.iter_mut().zip(account) {
                *other += ns;
            }
        }
        self.scores.insert(left.container.id, left.score);
    }

    fn times(&self) -> ContainerTimes {
        let (none, other) = (Name::from(NONE), Name::from(OTHER));
        let accounts: Vec<_> = self
            .selected
            .iter()
            .map(|(id, selected)| (id, &selected.account))
            .chain([(&none, &self.none), (&other, &self.other)])
            .collect();
        let row = |lock: usize, id: &Name, account: &Account| ContainerTime {
            lock: self.locks[lock].clone(),
            container: id.clone(),
            waited_ns: account[lock][Role::Waiter as usize],
            blocked_ns: account[lock][Role::Blocker as usize],
        };
        ContainerTimes {
            selected: self.selected.values().map(|found| found.container.clone()).collect(),
            rows: (0..self.locks.len())
                .flat_map(|lock| accounts.iter().map(move |(id, account)| row(lock, id, account)))
                .collect(),
        }
    }
}

/// Whether a container is called like one of the series that are none. It is
/// then never selected, so that no series is there twice.
fn is_reserved(id: &Name) -> bool {
    matches!(id.as_str(), NONE | OTHER)
}

#[expect(clippy::cast_precision_loss, reason = "a rank; 2^53 ns are 104 days")]
const fn as_f64(ns: u64) -> f64 {
    ns as f64
}
