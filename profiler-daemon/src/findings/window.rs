//! Figures of a window that several rules look at.

use std::collections::BTreeMap;

use super::Finding;
use super::text::percent;
use crate::snapshot::{Blocker, Charge, Snapshot};

/// Waits below this share of the window are nobody's trouble: one task lost a
/// hundredth of its time.
const LEAST_SHARE_OF_TIME: u64 = 100;

/// And less than this is noise in a window of any length: a scheduler tick or
/// two at 250 Hz.
const LEAST_WAIT_NS: u64 = 10_000_000;

/// Waits below this share of all waits are not what to begin with: without them
/// nine tenths of the trouble are left.
const LEAST_SHARE_OF_WAITS: f64 = 0.1;

/// The semaphore that mount tables are read and changed under.
pub(super) const NAMESPACE_SEM: &str = "namespace_sem";

/// Time waited for all locks, in ns.
pub(super) fn waited_ns(window: &Snapshot) -> u64 {
    window.locks.iter().map(|row| row.waits.sum_ns).sum()
}

/// Time waited for `lock` in all modes, in ns.
pub(super) fn lock_waited_ns(window: &Snapshot, lock: &str) -> u64 {
    window.locks.iter().filter(|row| row.lock == lock).map(|row| row.waits.sum_ns).sum()
}

/// `part` as a share of the time waited for all locks, 0 to 1.
pub(super) fn weight(window: &Snapshot, part_ns: u64) -> f64 {
    share(part_ns, waited_ns(window)).min(1.0)
}

/// `part` as a share of `whole`; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Whether so long a wait is more than a quiet machine's, in this window.
pub(super) fn is_felt(window: &Snapshot, waited_ns: u64) -> bool {
    waited_ns >= LEAST_WAIT_NS.max(window.duration_ns / LEAST_SHARE_OF_TIME)
}

/// Whether so long a wait is felt and a good part of all waits.
pub(super) fn matters(window: &Snapshot, waited_ns: u64) -> bool {
    is_felt(window, waited_ns) && weight(window, waited_ns) >= LEAST_SHARE_OF_WAITS
}

/// The running kernel's version, where its release begins with one.
pub(super) fn kernel(window: &Snapshot) -> Option<(u32, u32)> {
    let mut numbers = window.host.kernel.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the running kernel is of this version or a later one. A distributor
/// may have brought a feature to an earlier one.
pub(super) fn kernel_since(window: &Snapshot, version: (u32, u32)) -> bool {
    kernel(window).is_some_and(|running| running >= version)
}

/// Calls of one system call on all nodes.
#[derive(Default)]
pub(super) struct Calls<'a> {
    pub(super) count: u64,
    pub(super) errors: u64,
    pub(super) sum_ns: u64,
    pub(super) lock_wait_ns: BTreeMap<&'a str, u64>,
}

impl Calls<'_> {
    /// Time that they waited for all watched locks, in ns.
    pub(super) fn waited_ns(&self) -> u64 {
        self.lock_wait_ns.values().sum()
    }

    /// Time that they waited for `lock`, in ns.
    pub(super) fn waited_for(&self, lock: &str) -> u64 {
        self.lock_wait_ns.get(lock).copied().unwrap_or(0)
    }

    /// Calls that did what was asked.
    pub(super) fn succeeded(&self) -> u64 {
        self.count.saturating_sub(self.errors)
    }
}

/// Calls of any of `names`, together.
pub(super) fn calls<'a>(window: &'a Snapshot, names: &[&str]) -> Calls<'a> {
    let mut all = Calls::default();
    for row in window.syscalls.iter().filter(|row| names.contains(&row.syscall.as_str())) {
        all.count += row.calls.count;
        all.errors += row.errors;
        all.sum_ns += row.calls.sum_ns;
        for (lock, ns) in &row.lock_wait_ns {
            *all.lock_wait_ns.entry(lock).or_default() += ns;
        }
    }
    all
}

/// Time that all mount calls took, in ns.
pub(super) fn calls_ns(window: &Snapshot) -> u64 {
    window.syscalls.iter().map(|row| row.calls.sum_ns).sum()
}

/// System calls that copy a mount namespace; only those with `CLONE_NEWNS` are
/// counted.
pub(super) const COPYING: [&str; 3] = ["unshare", "clone", "clone3"];

/// Container starts in the window, estimated from what each makes once: a call
/// of `pivot_root`, else (runtimes told not to pivot, sandboxes) a mount
/// namespace of its own. A sandboxed service counts like a container; a runtime
/// that starts with `open_tree(OPEN_TREE_NAMESPACE)` makes neither call.
/// `None` when there were none.
pub(super) fn starts(window: &Snapshot) -> Option<u64> {
    let pivots = calls(window, &["pivot_root"]).succeeded();
    let namespaces = calls(window, &COPYING).succeeded();
    [pivots, namespaces].into_iter().find(|n| *n != 0)
}

/// Waits that are charged to blockers for which `which` holds.
pub(super) fn blocked_by(window: &Snapshot, which: impl Fn(&Blocker) -> bool) -> Charge {
    let mut all = Charge::default();
    window.blockers.iter().filter(|row| which(row)).for_each(|row| all.add(row.waits));
    all
}

/// A figure with its name.
pub(super) fn figure(name: impl Into<String>, value: impl Into<String>) -> (String, String) {
    (name.into(), value.into())
}

/// `part` as a figure: its share of the time waited for all locks.
pub(super) fn share_figure(window: &Snapshot, part_ns: u64) -> (String, String) {
    let all = waited_ns(window);
    figure("share of the time waited for all locks", percent(part_ns.min(all), all))
}

/// A finding about `about_ns` of the time waited.
pub(super) fn about(
    window: &Snapshot,
    about_ns: u64,
    rule: &'static str,
    title: String,
    figures: Vec<(String, String)>,
    (cause, remedy): (&'static str, String),
) -> Finding {
    Finding { rule, title, figures, cause, remedy, weight: weight(window, about_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example;

    #[test]
    fn versions_compare_as_numbers() {
        let of = |kernel: &str| {
            let mut window = Snapshot::default();
            window.host.kernel = kernel.into();
            window
        };
        assert_eq!(kernel(&of("6.18.0-rc1+deb")), Some((6, 18)));
        assert!(kernel_since(&of("6.18.0"), (6, 8)));
        assert!(kernel_since(&of("7.0.1"), (6, 8)));
        assert!(!kernel_since(&of("6.1.0-37-amd64"), (6, 8)));
        assert!(!kernel_since(&of("linux"), (5, 2)));
    }

    #[test]
    fn starts_are_pivots_and_without_any_new_namespaces() {
        let mut window = Snapshot::default();
        assert_eq!(starts(&window), None);
        window.syscalls = vec![example::call("unshare", 9, 900), example::call("clone3", 1, 100)];
        assert_eq!(starts(&window), Some(10));
        window.syscalls.push(example::call("pivot_root", 4, 400));
        assert_eq!(starts(&window), Some(4));
        window.syscalls[2].errors = 4;
        assert_eq!(starts(&window), Some(10), "a pivot that failed started nothing");
    }

    #[test]
    fn what_matters_is_felt_and_a_good_part() {
        let mut window = example::quiet();
        window.locks = vec![example::wait("namespace_sem", crate::locks::Mode::Write, 1_000)];
        assert!(matters(&window, example::ms(100)));
        assert!(!matters(&window, example::ms(99)), "a tenth of the waits, a hundredth of 10 s");
        window.locks[0].waits.sum_ns = example::ms(1_001);
        assert!(!matters(&window, example::ms(100)), "less than a tenth of the waits");
    }
}
