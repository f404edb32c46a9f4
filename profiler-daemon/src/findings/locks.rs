//! What can be said of any lock.

use std::collections::BTreeMap;

use super::Finding;
use super::text::{duration, percent, who};
use super::window::{about, figure, is_felt, lock_waited_ns, matters, share, share_figure};
use crate::snapshot::{Basis, Charge, Handoff, MOUNTINFO_READ, Party, Snapshot};

/// See [`one_blocker`].
pub(super) const ONE_BLOCKER: &str = "one-blocker";

/// See [`remote_handoffs`].
pub(super) const REMOTE_HANDOFFS: &str = "remote-handoffs";

/// Who is charged with this part of a lock's waits is the one to talk to.
const DOMINATES: f64 = 0.5;

/// One party in one call, whatever named it.
type Culprit<'a> = (&'a str, &'a Party, Option<&'a str>);

/// One party, in one call, makes most of a lock's waiters wait.
pub(super) fn one_blocker(window: &Snapshot) -> Option<Finding> {
    let mut culprits: BTreeMap<Culprit<'_>, (Charge, BTreeMap<Basis, u64>)> = BTreeMap::new();
    for row in window.blockers.iter().filter(|row| row.party.who().is_some()) {
        let culprit = (row.lock.as_str(), &row.party, row.call.as_deref());
        let (waits, by_basis) = culprits.entry(culprit).or_default();
        waits.add(row.waits);
        *by_basis.entry(row.basis).or_default() += row.waits.sum_ns;
    }
    let dominates = |(culprit, (waits, _)): &(Culprit<'_>, (Charge, _))| {
        share(waits.sum_ns, lock_waited_ns(window, culprit.0)) >= DOMINATES
            && matters(window, waits.sum_ns)
    };
    let (culprit, (waits, by_basis)) =
        culprits.into_iter().filter(dominates).max_by_key(|(_, (waits, _))| waits.sum_ns)?;
    let (lock, party, call) = culprit;
    let through = match call {
        Some(MOUNTINFO_READ) => " by reading mount tables".to_owned(),
        Some(call) => format!(" in {call}(2)"),
        None => String::new(),
    };
    let title =
        format!("{} makes others wait {} for {lock}{through}", who(party), duration(waits.sum_ns));
    let of_lock = lock_waited_ns(window, lock);
    let mut figures = vec![
        share_figure(window, waits.sum_ns),
        figure(format!("share of the waits for {lock}"), percent(waits.sum_ns, of_lock)),
        figure("waits", waits.count.to_string()),
        figure("longest", duration(waits.max_ns)),
    ];
    for (basis, ns) in by_basis {
        figures.push(figure(named_by(basis), percent(ns, waits.sum_ns)));
    }
    if let Some(cgroup) = party.who().and_then(|who| who.cgroup.as_ref()) {
        figures.push(figure("its cgroup", cgroup.path.as_str()));
    }
    let remedy = format!(
        "Look at what {} does{}: `lockprof stat --by stack` shows where its victims wait, and \
         `lockprof stat --by blocker` who else is charged. Fewer or shorter such calls there help \
         everybody who waits for {lock}.",
        who(party),
        through
    );
    Some(about(
        window,
        waits.sum_ns,
        ONE_BLOCKER,
        title,
        figures,
        (
            "A wait is charged to whoever the lock named as its owner when the wait began. A lock held \
             by readers names one of them. A lock that names nobody, as spinning locks do and others \
             while they change hands, is charged to its last contended acquirer.",
            remedy,
        ),
    ))
}

/// How a blocker was named, as a figure.
const fn named_by(basis: Basis) -> &'static str {
    match basis {
        Basis::Owner => "named by the lock as its owner",
        Basis::ReaderHint => "named by the lock as one of its readers",
        Basis::Inferred => "inferred from the last contended acquisition",
        Basis::Unknown => "named by nothing",
    }
}

/// With fewer handoffs, where they went is chance.
const LEAST_HANDOFFS: u64 = 100;

/// As many as when every acquirer is drawn by lot on two nodes: the lock's cache
/// line does not stay anywhere.
const REMOTE: f64 = 0.5;

/// A contended lock goes from node to node.
pub(super) fn remote_handoffs(window: &Snapshot) -> Option<Finding> {
    if window.host.numa_nodes.len() < 2 {
        return None;
    }
    let mut by_lock: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for Handoff { lock, from_node, to_node, count } in &window.handoffs {
        let (all, remote) = by_lock.entry(lock).or_default();
        *all += count;
        *remote += if from_node == to_node { 0 } else { *count };
    }
    let travels = |(lock, (all, remote)): &(&str, (u64, u64))| {
        *all >= LEAST_HANDOFFS
            && share(*remote, *all) >= REMOTE
            && matters(window, lock_waited_ns(window, lock))
    };
    let (lock, (all, remote)) =
        by_lock.into_iter().filter(travels).max_by_key(|(lock, _)| lock_waited_ns(window, lock))?;
    let waited = lock_waited_ns(window, lock);
    let mut figures = vec![
        share_figure(window, waited),
        figure("handoffs while contended", all.to_string()),
        figure("of these to another node", percent(remote, all)),
        figure("nodes", window.host.numa_nodes.len().to_string()),
    ];
    for node in &window.host.numa_nodes {
        let rows = window.locks.iter().filter(|row| row.lock == lock && row.numa_node == node.id);
        let ns: u64 = rows.map(|row| row.waits.sum_ns).sum();
        if is_felt(window, ns) {
            figures.push(figure(format!("waited on node {}", node.id), duration(ns)));
        }
    }
    Some(about(
        window,
        waited,
        REMOTE_HANDOFFS,
        format!("{lock} goes to another NUMA node in {} of its handoffs", percent(remote, all)),
        figures,
        (
            "The lock, and the data that it protects, are in cache lines that have to cross the \
             interconnect when the next acquirer runs on another node. That takes several times as \
             long as within a node, and all the while nobody has the lock.",
            "Keep what takes this lock on one node: pin the container runtime and its shims to the CPUs \
             of one node (CPUAffinity= or AllowedCPUs= of the service), and start fewer containers at \
             once. Try it with `lockprof storm --pin node:0` against `lockprof storm`."
                .to_owned(),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example::{self, blocker, container, ms, task, wait};
    use crate::locks::Mode;

    fn blocked(reading_ms: u64) -> Snapshot {
        let reader = container("cat", "0123456789abcdef");
        let read = Some(MOUNTINFO_READ);
        Snapshot {
            locks: vec![
                wait("namespace_sem", Mode::Write, 1_000),
                wait("mount_lock", Mode::Spin, 500),
            ],
            blockers: vec![
                blocker("namespace_sem", Basis::ReaderHint, read, reader.clone(), reading_ms - 100),
                blocker("namespace_sem", Basis::Owner, read, reader.clone(), 100),
                blocker("namespace_sem", Basis::Owner, Some("mount"), reader, 1_000 - reading_ms),
                blocker("mount_lock", Basis::Unknown, None, Party::Unknown, 400),
                blocker("mount_lock", Basis::Owner, None, Party::Other, 100),
            ],
            ..example::quiet()
        }
    }

    #[test]
    fn the_first_blocker_is_named_with_task_container_and_call() {
        let found = one_blocker(&blocked(800)).unwrap();
        assert_eq!(
            found.title,
            "`cat` in container 0123456789ab makes others wait 800ms for namespace_sem by reading \
             mount tables"
        );
        assert!((found.weight - 800.0 / 1_500.0).abs() < 1e-9);
        let hinted = figure("named by the lock as one of its readers", "88%");
        assert!(found.figures.contains(&hinted), "{:?}", found.figures);
    }

    #[test]
    fn a_blocker_of_less_than_half_of_the_waits_is_one_of_many() {
        let mut window = blocked(499);
        window.blockers.remove(2);
        assert!(one_blocker(&window).is_none());
        assert!(one_blocker(&blocked(500)).is_some());
    }

    #[test]
    fn nobody_in_particular_is_no_culprit_and_short_waits_have_none() {
        let mut window = blocked(800);
        window.blockers.drain(..3);
        assert!(one_blocker(&window).is_none(), "`other` and `unknown` dominate mount_lock");
        let mut window = blocked(800);
        window.blockers = vec![blocker("mount_lock", Basis::Inferred, None, task("ls"), 400)];
        window.locks[0].waits.sum_ns = ms(4_000);
        assert!(one_blocker(&window).is_none(), "80% of one lock, less than a tenth of all");
    }

    fn handed(local: u64, remote: u64) -> Snapshot {
        let handoff = |from_node, to_node, count| Handoff {
            lock: "mount_lock".into(),
            from_node,
            to_node,
            count,
        };
        Snapshot {
            locks: vec![wait("mount_lock", Mode::Spin, 200)],
            handoffs: vec![
                handoff(0, 0, local),
                handoff(0, 1, remote / 2),
                handoff(1, 0, remote / 2),
            ],
            ..example::quiet()
        }
    }

    #[test]
    fn a_lock_that_changes_nodes_every_other_time_is_found() {
        let found = remote_handoffs(&handed(50, 50)).unwrap();
        assert_eq!(found.title, "mount_lock goes to another NUMA node in 50% of its handoffs");
        assert!(remote_handoffs(&handed(52, 50)).is_none());
        assert!(remote_handoffs(&handed(49, 50)).is_none(), "too few to say");
    }

    #[test]
    fn one_node_has_no_other() {
        let mut window = handed(0, 1_000);
        window.host.numa_nodes.truncate(1);
        assert!(remote_handoffs(&window).is_none());
    }
}
