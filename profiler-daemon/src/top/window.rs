//! From totals to windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rows::{self, CallRow, LockRow};
use super::state::LockKey;
use crate::findings::{Finding, findings};
use crate::snapshot::Snapshot;

/// What a window begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// The snapshot before.
    Before,
    /// The moment the programs were attached: there is no snapshot before.
    Attach,
    /// As [`Since::Attach`], as the counters went back: the daemon was restarted.
    Restart,
}

/// Two totals, subtracted, with what the rules find in the difference.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// The difference.
    pub(crate) window: Snapshot,
    /// The later totals.
    pub(crate) totals: Arc<Snapshot>,
    /// What it begins with.
    pub(crate) since: Since,
    /// Locks of the difference, all nodes together.
    pub(crate) locks: BTreeMap<LockKey, LockRow>,
    /// Mount system calls of the difference, all nodes together.
    pub(crate) calls: BTreeMap<String, CallRow>,
    /// Findings in the difference.
    pub(crate) findings: Vec<Finding>,
}

impl Window {
    /// Of `totals` since `earlier`.
    fn new(totals: Snapshot, earlier: Option<&Snapshot>, since: Since) -> Self {
        let window = earlier.map_or_else(|| totals.clone(), |earlier| totals.since(earlier));
        let findings = findings(&window);
        let (locks, calls) = (rows::locks(&window), rows::calls(&window));
        Self { window, totals: Arc::new(totals), since, locks, calls, findings }
    }

    /// Its length in seconds, never 0.
    pub(crate) fn seconds(&self) -> f64 {
        (self.window.duration_ns.max(1) as f64) / 1e9
    }

    /// Time waited for all locks in each second, in seconds: how many tasks
    /// waited on average.
    pub(crate) fn waited(&self) -> f64 {
        let sum: u64 =
            self.window.locks.iter().fold(0, |sum, row| sum.saturating_add(row.waits.sum_ns));
        sum as f64 / 1e9 / self.seconds()
    }
}

/// The last totals of one source.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    last: Option<Arc<Snapshot>>,
}

impl Windows {
    /// The window that ends with `totals`; `None` when they are the same totals
    /// again.
    pub(crate) fn next(&mut self, totals: Snapshot) -> Option<Window> {
        let window = match self.last.take() {
            None => Window::new(totals, None, Since::Attach),
            Some(last) if went_back(&totals, &last) => Window::new(totals, None, Since::Restart),
            Some(last) if totals.duration_ns == last.duration_ns => {
                self.last = Some(last);
                return None;
            }
            Some(last) => Window::new(totals, Some(&last), Since::Before),
        };
        self.last = Some(window.totals.clone());
        Some(window)
    }
}

/// Whether `now` cannot be later totals of what `earlier` came from.
fn went_back(now: &Snapshot, earlier: &Snapshot) -> bool {
    let fewer_waits = || {
        now.locks.iter().any(|row| {
            let then = earlier
                .locks
                .iter()
                .find(|e| (&e.lock, e.mode, e.numa_node) == (&row.lock, row.mode, row.numa_node));
            then.is_some_and(|then| then.waits.count > row.waits.count)
        })
    };
    now.duration_ns < earlier.duration_ns
        || now.host.name != earlier.host.name
        || now.host.uptime_ns < earlier.host.uptime_ns
        || fewer_waits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::{Fixture, totals_of};

    #[test]
    fn the_first_window_is_since_attach_and_the_next_since_the_one_before() {
        let mut windows = Windows::default();
        let first = windows.next(totals_of(Fixture::Before)).unwrap();
        assert_eq!(first.since, Since::Attach);
        assert_eq!(first.window, *first.totals);
        let second = windows.next(totals_of(Fixture::Rich)).unwrap();
        assert_eq!(second.since, Since::Before);
        assert_eq!(second.window.duration_ns, 1_000_000_000);
        assert!(second.waited() > 0.0);
    }

    #[test]
    fn totals_that_did_not_move_are_no_window() {
        let mut windows = Windows::default();
        assert!(windows.next(totals_of(Fixture::Rich)).is_some());
        assert!(windows.next(totals_of(Fixture::Rich)).is_none());
        assert!(windows.next(totals_of(Fixture::Rich)).is_none(), "the last ones are kept");
    }

    #[test]
    fn counters_that_went_back_begin_anew() {
        let mut windows = Windows::default();
        windows.next(totals_of(Fixture::Rich)).unwrap();
        let mut young = totals_of(Fixture::Before);
        young.duration_ns = 10;
        let restarted = windows.next(young.clone()).unwrap();
        assert_eq!(restarted.since, Since::Restart);
        assert_eq!(restarted.window, young);

        // Restarted and longer up than the one before, yet with fewer waits.
        let mut windows = Windows::default();
        windows.next(totals_of(Fixture::Rich)).unwrap();
        let mut fewer = totals_of(Fixture::Before);
        fewer.duration_ns = totals_of(Fixture::Rich).duration_ns + 1;
        assert_eq!(windows.next(fewer).unwrap().since, Since::Restart);
    }

    #[test]
    fn another_host_behind_the_same_address_begins_anew() {
        let mut windows = Windows::default();
        windows.next(totals_of(Fixture::Before)).unwrap();
        let mut other = totals_of(Fixture::Rich);
        other.host.name = "elsewhere".into();
        assert_eq!(windows.next(other).unwrap().since, Since::Restart);
    }
}
