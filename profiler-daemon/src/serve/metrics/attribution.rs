//! Metrics of who waits and who makes them wait: by runtime and call, of which
//! there are fixed lists. Task names and cgroups are no labels: there is no bound
//! to them.

use std::collections::BTreeMap;

use super::definitions::LOCK;
use super::{Figure, Kind, Label, Metric, Row, Rows, Scrape, Unit, Value, seconds};
use crate::snapshot::Charge;

/// The runtime of tasks.
pub(super) const RUNTIME: Label = Label {
    name: "runtime",
    about: "Container runtime that the tasks belong to, by task name and cgroup",
    bound: "`runc`, `crun`, `youki`, `containerd`, `containerd-shim`, `conmon`, `podman`, `dockerd`, \
            `crio`, `kubelet`, `systemd`, `runsc`, `kata`, `other`",
};
const CALL: Label = Label {
    name: "call",
    about: "What the blocker was in the middle of",
    bound: "the mount calls, `mountinfo_read`, `none`",
};
const BASIS: Label = Label {
    name: "basis",
    about: "How the blocker was found",
    bound: "`owner` (the lock named it), `reader_hint` (the lock named a reader, perhaps one of \
            several or gone), `inferred` (the last contended acquirer), `unknown`",
};

pub(super) const WAITER_SECONDS: Metric = Metric {
    name: "lockprof_lock_waiter_seconds_total",
    help: "Time waited for the lock, by the runtime of those that waited.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[LOCK, RUNTIME],
    note: "Over all runtimes, the sum of `lockprof_lock_wait_seconds`. A task is under the runtime that it was \
           first seen under. An interrupt that spins for a lock waits in the name of the task that it came upon.",
    rows: |s| by_waiter(s, |waits| Figure::Number(seconds(waits.sum_ns))),
};

pub(super) const WAITER_WAITS: Metric = Metric {
    name: "lockprof_lock_waiter_waits_total",
    help: "Waits for the lock, by the runtime of those that waited.",
    kind: Kind::Counter,
    unit: None,
    labels: &[LOCK, RUNTIME],
    note: "",
    rows: |s| by_waiter(s, |waits| Figure::Count(waits.count)),
};

pub(super) const BLOCKER_SECONDS: Metric = Metric {
    name: "lockprof_lock_blocker_seconds_total",
    help: "Time that others waited for the lock, by the runtime and the call of the task that held it when they began.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[LOCK, RUNTIME, CALL],
    note: "The whole of a wait is charged to whoever held the lock when it began. Only what has happened is there.",
    rows: |s| {
        let mut sums: BTreeMap<_, Charge> = BTreeMap::new();
        for row in &s.snapshot.blockers {
            let call = row.call.as_deref().unwrap_or("none");
            let key = (row.lock.as_str(), row.party.runtime().as_str(), call);
            sums.entry(key).or_default().add(row.waits);
        }
        Box::new(sums.into_iter().map(|((lock, runtime, call), waits)| {
            let values = [Value::Text(lock), Value::Text(runtime), Value::Text(call)];
            Row::new(values, Figure::Number(seconds(waits.sum_ns)))
        }))
    },
};

pub(super) const BLOCKER_BASIS_SECONDS: Metric = Metric {
    name: "lockprof_lock_blocker_basis_seconds_total",
    help: "Time that others waited for the lock, by how it was found who held it when they began.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[LOCK, BASIS],
    note: "How far to trust `lockprof_lock_blocker_seconds_total`: only `owner` is what the lock itself said.",
    rows: |s| {
        let mut sums: BTreeMap<_, Charge> = BTreeMap::new();
        for row in &s.snapshot.blockers {
            sums.entry((row.lock.as_str(), row.basis.as_str())).or_default().add(row.waits);
        }
        Box::new(sums.into_iter().map(|((lock, basis), waits)| {
            let values = [Value::Text(lock), Value::Text(basis)];
            Row::new(values, Figure::Number(seconds(waits.sum_ns)))
        }))
    },
};

pub(super) const SLOW_WAITS: Metric = Metric {
    name: "lockprof_slow_waits_total",
    help: "Waits of at least the threshold of slow waits.",
    kind: Kind::Counter,
    unit: None,
    labels: &[],
    note: "The threshold is `attribution.slow_wait` in the configuration. The most recent ones are in \
           `/api/v1/snapshot`, each with its kernel stack.",
    rows: |s| {
        let slow = s.snapshot.slow_waits.iter();
        Box::new(slow.map(|slow| Row::new([], Figure::Count(slow.count))))
    },
};

fn by_waiter<'a>(scrape: &'a Scrape<'a>, figure: fn(Charge) -> Figure<'a>) -> Rows<'a> {
    let mut sums: BTreeMap<_, Charge> = BTreeMap::new();
    for row in &scrape.snapshot.waiters {
        let key = (row.lock.as_str(), row.party.runtime().as_str());
        sums.entry(key).or_default().add(row.waits);
    }
    Box::new(sums.into_iter().map(move |((lock, runtime), waits)| {
        Row::new([Value::Text(lock), Value::Text(runtime)], figure(waits))
    }))
}
