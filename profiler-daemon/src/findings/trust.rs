//! What comes before all else: a wait that does not end, and figures that are
//! not whole.

use super::Finding;
use super::text::{count, duration, percent, who};
use super::window::{about, figure, lock_waited_ns, share};
use crate::snapshot::{Blocker, InFlight, Party, Snapshot};

/// See [`hanging`].
pub(super) const HANGING: &str = "wait-does-not-end";

/// See [`incomplete`].
pub(super) const INCOMPLETE: &str = "figures-incomplete";

/// So long a wait is a hang whoever waits: a hundred times what the worst storms
/// show, and long before the kernel's hung-task detector (120 s) says anything.
const HANGING_NS: u64 = 5_000_000_000;

/// With [`PILED_UP`] waiters behind it, so long a wait is one as well.
const PILED_UP_NS: u64 = 1_000_000_000;

/// More than a lock has that is merely busy: as many as a storm of two workers
/// per CPU has on a small machine.
const PILED_UP: u64 = 10;

/// Somebody waits for a lock that nobody gives back.
pub(super) fn hanging(window: &Snapshot) -> Option<Finding> {
    let hangs = |row: &&InFlight| {
        row.waiters != 0
            && (row.oldest_ns >= HANGING_NS
                || (row.oldest_ns >= PILED_UP_NS && row.waiters >= PILED_UP))
    };
    let row = window.inflight.iter().filter(hangs).max_by_key(|row| row.oldest_ns)?;
    let mut figures = vec![
        figure("oldest wait now", duration(row.oldest_ns)),
        figure("tasks waiting now", row.waiters.to_string()),
        figure("waits that ended in the window", duration(lock_waited_ns(window, &row.lock))),
    ];
    let named = |blocker: &&Blocker| blocker.lock == row.lock && blocker.party != Party::Unknown;
    if let Some(first) = window.blockers.iter().filter(named).max_by_key(|b| b.waits.sum_ns) {
        let made = format!("{}, {}", who(&first.party), duration(first.waits.sum_ns));
        figures.push(figure("first blocker of waits that ended", made));
    }
    Some(Finding {
        weight: 1.0,
        ..about(
            window,
            0,
            HANGING,
            format!(
                "{} {} for {}, the oldest for {}",
                count(row.waiters, "task"),
                if row.waiters == 1 { "waits" } else { "wait" },
                row.lock,
                duration(row.oldest_ns)
            ),
            figures,
            (
                "Whoever has the lock does not give it back: it sleeps with it, in I/O of a file \
                 system whose server or device does not answer, or waits for another lock itself. \
                 All that need the lock queue behind it, and for namespace_sem these are all that \
                 mount, unmount or read a mount table.",
                format!(
                    "Find the holder before anything is restarted: `echo w > /proc/sysrq-trigger` \
                     writes the stacks of all blocked tasks to the kernel's log; the one that is not \
                     itself waiting for {} has it. `lockprof top` shows who is charged with the waits \
                     once they end.",
                    row.lock
                ),
            ),
        )
    })
}

/// Lost events below this share of the booked ones change no figure's meaning.
const LOST_SHARE: f64 = 0.01;

/// Fewer lost events are those of the moment in which programs attach.
const LEAST_LOST: u64 = 100;

/// What the kernel skipped, of any lock and call, watched or not: it says nothing
/// about how many of them were watched.
const RECURSION: &str = "recursion_miss";

/// So much was lost that the figures are not to be relied on.
pub(super) fn incomplete(window: &Snapshot) -> Option<Finding> {
    let waits: u64 = window.locks.iter().map(|row| row.waits.count).sum();
    let calls: u64 = window.syscalls.iter().map(|row| row.calls.count).sum();
    let lost = window.dropped.iter().filter(|row| row.reason != RECURSION);
    let lost: u64 = lost.map(|row| row.count).sum();
    let all = waits + calls + lost;
    if lost < LEAST_LOST || share(lost, all) < LOST_SHARE {
        return None;
    }
    let mut figures = vec![
        figure("events lost", lost.to_string()),
        figure("share of all events", percent(lost, all)),
    ];
    let reasons = window.dropped.iter().filter(|row| row.count != 0);
    figures.extend(reasons.map(|row| figure(row.reason.clone(), row.count.to_string())));
    Some(Finding {
        weight: 1.0,
        ..about(
            window,
            0,
            INCOMPLETE,
            format!("{} of the events were lost: the figures are too low", percent(lost, all)),
            figures,
            (
                "The tables that programs write have a fixed size, so that measuring never waits and \
                 never allocates. When more tasks wait or call at once than there are slots, what finds \
                 none is counted as lost.",
                "For inflight_full and syscall_inflight_full, set `limits.tasks_in_flight` in the configuration \
                 to more than the tasks that wait at once. docs/metrics.md explains each reason."
                    .to_owned(),
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::window::NAMESPACE_SEM;
    use super::*;
    use crate::findings::example::{self, blocker, task};
    use crate::snapshot::{Basis, Dropped};

    fn waiting(waiters: u64, oldest_ms: u64) -> Snapshot {
        Snapshot {
            inflight: vec![InFlight {
                lock: NAMESPACE_SEM.into(),
                waiters,
                oldest_ns: example::ms(oldest_ms),
            }],
            ..example::quiet()
        }
    }

    #[test]
    fn one_old_wait_is_a_hang_and_many_that_are_younger_are_one() {
        let found = hanging(&waiting(1, 5_000)).unwrap();
        assert_eq!(found.title, "1 task waits for namespace_sem, the oldest for 5.00s");
        assert!(hanging(&waiting(10, 1_000)).is_some());
        assert!(hanging(&waiting(9, 4_999)).is_none());
        assert!(hanging(&waiting(1_000, 999)).is_none());
    }

    #[test]
    fn a_hang_names_who_blocked_so_far() {
        let mut window = waiting(3, 60_000);
        window.blockers = vec![
            blocker(NAMESPACE_SEM, Basis::Unknown, None, Party::Unknown, 900),
            blocker(NAMESPACE_SEM, Basis::Owner, None, task("umount"), 500),
            blocker("mount_lock", Basis::Owner, None, task("ls"), 800),
        ];
        let figures = hanging(&window).unwrap().figures;
        assert_eq!(figures[3].1, "`umount`, 500ms", "{figures:?}");
    }

    fn with_lost(reason: &str, lost: u64) -> Snapshot {
        let mut window = example::quiet();
        window.syscalls = vec![example::call("mount", 9_900, 100)];
        window.locks.clear();
        window.dropped = vec![Dropped { reason: reason.into(), count: lost }];
        window
    }

    #[test]
    fn one_lost_event_in_a_hundred_is_too_many() {
        let found = incomplete(&with_lost("inflight_full", 100)).unwrap();
        assert!(found.title.starts_with("1% of the events were lost"), "{}", found.title);
        assert!(incomplete(&with_lost("inflight_full", 99)).is_none());
    }

    #[test]
    fn events_of_unwatched_locks_are_not_missed() {
        assert!(incomplete(&with_lost("recursion_miss", 1_000_000)).is_none());
    }

    #[test]
    fn a_few_lost_while_attaching_are_no_finding_however_few_there_were() {
        let mut window = with_lost("unmatched_end", 20);
        window.syscalls.clear();
        assert!(incomplete(&window).is_none());
    }
}
