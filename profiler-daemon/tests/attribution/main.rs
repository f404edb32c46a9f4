//! Who waits and who makes them wait, as the machine has it: real tasks in real
//! cgroups, whose names and waits are known, against what lockprof says of them.

#[path = "../common/mod.rs"]
mod common;

mod cgroups;
mod churn;
mod containers;
mod holders;
mod mounts;
mod slow;
mod tasks;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::attribution::Wanted;
use lockprof::snapshot::{Blocker, Charge, Party, Snapshot};

/// The lock that everything here is about.
const NAMESPACE_SEM: &str = "namespace_sem";

/// When what is waited for is taken to happen never.
const PATIENCE: Duration = Duration::from_secs(300);

/// The load of one test would be in the figures of another.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session that wants this much attribution, by the best backends.
fn session(attribution: Wanted) -> Session {
    Session::start(&Settings { attribution, ..Settings::default() }).expect("lockprof attaches")
}

/// Figures of a moment in which nothing was booked while they were read: charges
/// are read after the waits that they are of.
fn settled(session: &Session) -> Snapshot {
    let deadline = Instant::now() + PATIENCE;
    common::settle(session);
    let mut before = session.fresh_snapshot();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = session.fresh_snapshot();
        if now.locks == before.locks {
            return before;
        }
        assert!(Instant::now() < deadline, "somebody waits for a watched lock all the time");
        before = now;
    }
}

/// Looks at what came since `before` until `enough` of it is there: that.
fn watch_until(
    session: &Session,
    before: &Snapshot,
    wanted: &str,
    mut enough: impl FnMut(&Snapshot) -> bool,
) -> Snapshot {
    let deadline = Instant::now() + PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let window = session.fresh_snapshot().since(before);
        if enough(&window) {
            return window;
        }
        assert!(Instant::now() < deadline, "never: {wanted}; {}", described(&window));
    }
}

/// Waits for `namespace_sem`.
fn waits(window: &Snapshot) -> u64 {
    let rows = window.locks.iter().filter(|row| row.lock == NAMESPACE_SEM);
    rows.map(|row| row.waits.count).sum()
}

/// What the rows of `namespace_sem` that `of` chooses come to.
fn blocked(window: &Snapshot, of: impl Fn(&Blocker) -> bool) -> Charge {
    let mut sum = Charge::default();
    let rows = window.blockers.iter().filter(|row| row.lock == NAMESPACE_SEM && of(row));
    rows.for_each(|row| sum.add(row.waits));
    sum
}

/// Those who blocked `namespace_sem`, by name and longest first, whatever they
/// were in and however they were found.
fn ranking(window: &Snapshot) -> Vec<(String, Charge)> {
    let mut all: Vec<(String, Charge)> = Vec::new();
    for row in window.blockers.iter().filter(|row| row.lock == NAMESPACE_SEM) {
        let name = row.party.task();
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => sum.add(row.waits),
            None => all.push((name.to_owned(), row.waits)),
        }
    }
    all.sort_by_key(|(_, charge)| std::cmp::Reverse(charge.sum_ns));
    all
}

/// Path of the party's cgroup; empty where it is not known.
fn path(party: &Party) -> &str {
    let cgroup = party.who().and_then(|who| who.cgroup.as_ref());
    cgroup.map_or("", |cgroup| cgroup.path.as_str())
}

/// The window in a few lines, for those who want to know why a test failed.
fn described(window: &Snapshot) -> String {
    let mut text = format!("{} waits for {NAMESPACE_SEM}\n", waits(window));
    for row in window.waiters.iter().take(12) {
        let (party, call) = (&row.party, row.call.as_deref().unwrap_or("-"));
        let Charge { count, sum_ns, .. } = row.waits;
        let line = format!("{} waits {count} {sum_ns} ns: {}", row.lock, party.task());
        text.push_str(&format!("{line} in {call}, {}\n", path(party)));
    }
    for row in window.blockers.iter().take(12) {
        let (party, call) = (&row.party, row.call.as_deref().unwrap_or("-"));
        let Charge { count, sum_ns, .. } = row.waits;
        let line = format!("{} blocked {count} {sum_ns} ns: {}", row.lock, party.task());
        text.push_str(&format!("{line} in {call}, {}, {}\n", row.basis.as_str(), path(party)));
    }
    for row in window.dropped.iter().filter(|row| row.count != 0) {
        text.push_str(&format!("dropped {} {}\n", row.reason, row.count));
    }
    text
}
