//! Mount calls that cost more than they have to.

use super::Finding;
use super::text::{count, duration, percent};
use super::window::{
    NAMESPACE_SEM, about, blocked_by, calls, calls_ns, figure, kernel_since, lock_waited_ns,
    matters, share, share_figure,
};
use crate::snapshot::Snapshot;

/// See [`legacy_mount`].
pub(super) const LEGACY_MOUNT: &str = "legacy-mount";

/// See [`pivot_root`].
pub(super) const PIVOT_ROOT: &str = "pivot-root-tasklist";

/// See [`grace_periods`].
pub(super) const GRACE_PERIODS: &str = "expedited-grace-periods";

/// A call that does this part of something does most of it.
const MOST: f64 = 0.5;

/// Fewer calls are no pattern.
const LEAST_CALLS: u64 = 10;

/// Whoever attaches trees with the new calls makes at least one `move_mount` for
/// ten `mount`s.
const NEW_CALLS_SHARE: f64 = 0.1;

/// `mount(2)` keeps `namespace_sem` to itself, where calls that need it less
/// often are there.
pub(super) fn legacy_mount(window: &Snapshot) -> Option<Finding> {
    if !kernel_since(window, (5, 2)) {
        return None;
    }
    let (mount, moved) = (calls(window, &["mount"]), calls(window, &["move_mount"]));
    let waited_ns = mount.waited_for(NAMESPACE_SEM);
    let charged =
        blocked_by(window, |row| row.lock == NAMESPACE_SEM && row.call.as_deref() == Some("mount"));
    // What mount calls are charged with and what they wait themselves: the
    // larger, as most waits are both.
    let about_ns = charged.sum_ns.max(waited_ns);
    let holds = share(charged.sum_ns, lock_waited_ns(window, NAMESPACE_SEM)) >= MOST;
    let waits = share(waited_ns, mount.sum_ns) >= MOST;
    let dominates = share(mount.sum_ns, calls_ns(window)) >= MOST;
    if mount.count < LEAST_CALLS
        || share(moved.count, mount.count) >= NEW_CALLS_SHARE
        || !(holds || (waits && dominates))
        || !matters(window, about_ns)
    {
        return None;
    }
    let title = if holds {
        format!(
            "mount(2) holds namespace_sem in {} of the waits for it",
            percent(charged.sum_ns, lock_waited_ns(window, NAMESPACE_SEM))
        )
    } else {
        format!(
            "{} of mount(2) spend {} of their time waiting for namespace_sem",
            count(mount.count, "call"),
            percent(waited_ns, mount.sum_ns)
        )
    };
    let figures = vec![
        share_figure(window, about_ns),
        figure("calls of mount(2)", mount.count.to_string()),
        figure("calls of move_mount(2)", moved.count.to_string()),
        figure("time in mount(2)", duration(mount.sum_ns)),
        figure("share of the time in all mount calls", percent(mount.sum_ns, calls_ns(window))),
        figure("of that, waiting for namespace_sem", percent(waited_ns, mount.sum_ns)),
        figure("waits that mount(2) is charged with", duration(charged.sum_ns)),
    ];
    let offers = if kernel_since(window, (7, 1)) {
        "This kernel makes whole mount namespaces from a tree: open_tree(OPEN_TREE_NAMESPACE), or \
         fsmount(FSMOUNT_NAMESPACE) from nothing."
    } else if kernel_since(window, (7, 0)) {
        "This kernel makes a mount namespace from a tree with open_tree(OPEN_TREE_NAMESPACE)."
    } else if kernel_since(window, (6, 15)) {
        "On this kernel a whole root file system can be put together detached (mounts on detached \
         mounts, since Linux 6.15), where no peer gets copies, and attached with one call."
    } else {
        "From Linux 6.15 a whole root file system can be put together detached and attached with one \
         call; from 7.0 open_tree(OPEN_TREE_NAMESPACE) makes a namespace of it."
    };
    Some(about(
        window,
        about_ns,
        LEGACY_MOUNT,
        title,
        figures,
        (
            "Every mount(2) that attaches, binds, moves or changes propagation takes namespace_sem \
             exclusively (do_add_mount, do_loopback and do_change_type in fs/namespace.c): one lock for \
             all namespaces of the machine. A bind mount copies its tree while it has it, and one \
             that is then made private takes it again. Below a shared mount it is held while every \
             peer gets a copy (propagate_mnt in fs/pnode.c).",
            format!(
                "First make fewer mounts: one idmapped parent in place of one idmapped mount per layer \
                 (containerd#12092), fewer bind mounts per container. A runtime that uses fsopen, \
                 fsmount, open_tree and mount_setattr (crun does where it can; runc calls mount(2) for \
                 most) attaches a mount that is complete, where mount(2) takes the lock again for \
                 every change of propagation. {offers}"
            ),
        ),
    ))
}

/// `pivot_root` makes everybody wait who forks, exits or mounts.
pub(super) fn pivot_root(window: &Snapshot) -> Option<Finding> {
    const TASKLIST: &str = "tasklist_lock";
    let pivots = calls(window, &["pivot_root"]);
    let waited_ns = pivots.waited_for(TASKLIST);
    let charged = blocked_by(window, |row| {
        [TASKLIST, NAMESPACE_SEM].contains(&row.lock.as_str())
            && row.call.as_deref() == Some("pivot_root")
    });
    let about_ns = charged.sum_ns.max(waited_ns);
    if pivots.count < LEAST_CALLS || !matters(window, about_ns) {
        return None;
    }
    let figures = vec![
        share_figure(window, about_ns),
        figure("calls of pivot_root(2)", pivots.count.to_string()),
        figure("time in pivot_root(2)", duration(pivots.sum_ns)),
        figure("of that, waiting for tasklist_lock", percent(waited_ns, pivots.sum_ns)),
        figure("waits that pivot_root(2) is charged with", duration(charged.sum_ns)),
        figure("waited for tasklist_lock by all", duration(lock_waited_ns(window, TASKLIST))),
    ];
    let remedy = if kernel_since(window, (7, 1)) {
        "Use a runtime that does without it: this kernel puts a root below the current one \
         (move_mount with MOVE_MOUNT_BENEATH on /, then umount2 with MNT_DETACH), and makes a \
         namespace with the right root (open_tree with OPEN_TREE_NAMESPACE)."
    } else if kernel_since(window, (7, 0)) {
        "Use a runtime that makes the namespace with its root in one step (open_tree with \
         OPEN_TREE_NAMESPACE): it needs no pivot_root."
    } else {
        "Start fewer containers at once, and run fewer tasks on the machine: the walk is as long as \
         the list of tasks. From Linux 7.0, open_tree(OPEN_TREE_NAMESPACE) makes a namespace with its \
         root in one step, and from 7.1 MOVE_MOUNT_BENEATH works on /."
    };
    Some(about(
        window,
        about_ns,
        PIVOT_ROOT,
        format!(
            "{} of pivot_root(2) walk all tasks of the machine, with {} of waits for the locks",
            count(pivots.count, "call"),
            duration(about_ns)
        ),
        figures,
        (
            "pivot_root(2) looks at the root and working directory of every thread of the machine, with \
             tasklist_lock held for reading (chroot_fs_refs in fs/fs_struct.c), and has namespace_sem \
             exclusively while it does. Forks and exits wait for the one, mounts for the other.",
            remedy.to_owned(),
        ),
    ))
}

/// Umounts that take this part of the window outside of locks hold somebody up,
/// even if nobody queues: a tenth of one task's time.
const UNMOUNTING_SHARE: f64 = 0.1;

/// Grace periods that umounts wait and queue for.
///
/// Lock waits show the queue. What else `umount2` takes is next to nothing but
/// the grace period itself: the file system is shut down later, when the task
/// returns to user space (`mntput_no_expire` in fs/namespace.c).
pub(super) fn grace_periods(window: &Snapshot) -> Option<Finding> {
    const EXP_MUTEX: &str = "rcu_exp_mutex";
    let waited_ns = lock_waited_ns(window, EXP_MUTEX);
    let umounts = calls(window, &["umount2"]);
    let own_ns = umounts.sum_ns.saturating_sub(umounts.waited_ns());
    let of_umounts = own_ns + umounts.waited_for(EXP_MUTEX);
    let most = umounts.count >= LEAST_CALLS && share(of_umounts, umounts.sum_ns) >= MOST;
    let long = most && share(own_ns, window.duration_ns) >= UNMOUNTING_SHARE;
    if !matters(window, waited_ns) && !long {
        return None;
    }
    // The last task of a namespace drops its mounts when it exits, in no call.
    let title = if most {
        format!(
            "{} of umount2(2) spend {} of their time on RCU grace periods",
            count(umounts.count, "call"),
            percent(of_umounts, umounts.sum_ns)
        )
    } else {
        format!("Dropping mounts queues {} for RCU grace periods", duration(waited_ns))
    };
    let figures = vec![
        share_figure(window, waited_ns),
        figure("waited for rcu_exp_mutex", duration(waited_ns)),
        figure("calls of umount2(2)", umounts.count.to_string()),
        figure("time in umount2(2)", duration(umounts.sum_ns)),
        figure("of that, waiting for rcu_exp_mutex", {
            percent(umounts.waited_for(EXP_MUTEX), umounts.sum_ns)
        }),
        figure("of that, outside of locks", percent(own_ns, umounts.sum_ns)),
    ];
    Some(about(
        window,
        waited_ns,
        GRACE_PERIODS,
        title,
        figures,
        (
            "Whoever dropped a mount waits for an expedited RCU grace period before it returns \
             (namespace_unlock in fs/namespace.c calls synchronize_rcu_expedited), so that no path \
             lookup still uses it. Grace periods are made one after the other under one mutex, and \
             each waits for every CPU: the more CPUs, the fewer grace periods there are in a second. The \
             end of a namespace drops its mounts in the same way.",
            "Drop many mounts with one call: umount2(MNT_DETACH) of the top of a tree takes one grace \
             period for all of it, an umount for each mount one each. Let the end of the namespace \
             drop the mounts instead of unmounting them before, and keep short-lived mount namespaces \
             out of hot paths."
                .to_owned(),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example::{self, blocker, call_waiting, ms, task, wait};
    use crate::locks::Mode;
    use crate::snapshot::Basis;

    /// Half a second of waits for `namespace_sem`, charged to calls of mount.
    fn mounts() -> Snapshot {
        Snapshot {
            locks: vec![wait(NAMESPACE_SEM, Mode::Write, 1_000)],
            syscalls: vec![
                call_waiting("mount", 1_000, 800, NAMESPACE_SEM, 300),
                call_waiting("move_mount", 99, 10, NAMESPACE_SEM, 5),
            ],
            blockers: vec![
                blocker(NAMESPACE_SEM, Basis::Owner, Some("mount"), task("runc"), 500),
                blocker(NAMESPACE_SEM, Basis::Owner, Some("umount2"), task("runc"), 500),
            ],
            ..example::quiet()
        }
    }

    #[test]
    fn mount_is_found_by_the_waits_that_it_is_charged_with() {
        let found = legacy_mount(&mounts()).unwrap();
        assert_eq!(found.title, "mount(2) holds namespace_sem in 50% of the waits for it");
        assert_eq!(found.weight, 0.5);
        let mut window = mounts();
        window.blockers[0].waits.sum_ns -= 1;
        assert!(legacy_mount(&window).is_none());
    }

    #[test]
    fn mount_is_found_by_its_own_waits_where_blockers_are_not_known() {
        let mut window = mounts();
        window.blockers.clear();
        assert!(legacy_mount(&window).is_none(), "it waits less than half of its time");
        window.syscalls[0] = call_waiting("mount", 1_000, 800, NAMESPACE_SEM, 400);
        let found = legacy_mount(&window).unwrap();
        assert_eq!(
            found.title,
            "1000 calls of mount(2) spend 50% of their time waiting for namespace_sem"
        );
        window.syscalls.push(example::call("umount2", 1_000, 1_000));
        assert!(legacy_mount(&window).is_none(), "other calls take more time");
    }

    #[test]
    fn who_uses_the_new_calls_already_is_not_told_to() {
        let mut window = mounts();
        window.syscalls[1].calls.count = 100;
        assert!(legacy_mount(&window).is_none());
    }

    #[test]
    fn the_advice_is_what_the_kernel_can_do() {
        let advice = |kernel: &str| {
            let mut window = mounts();
            window.host.kernel = kernel.into();
            legacy_mount(&window).map(|found| found.remedy)
        };
        assert!(advice("7.2.0").unwrap().contains("FSMOUNT_NAMESPACE"));
        assert!(advice("7.0.0").unwrap().ends_with("with open_tree(OPEN_TREE_NAMESPACE)."));
        assert!(advice("6.18.1").unwrap().contains("On this kernel a whole root"));
        assert!(advice("6.1.0").unwrap().contains("From Linux 6.15"));
        assert_eq!(advice("4.18.0"), None, "it has none of the new calls");
    }

    fn pivots(waited_ms: u64, charged_ms: u64) -> Snapshot {
        Snapshot {
            locks: vec![
                wait("tasklist_lock", Mode::Write, 500),
                wait(NAMESPACE_SEM, Mode::Write, 500),
            ],
            syscalls: vec![call_waiting("pivot_root", 10, 500, "tasklist_lock", waited_ms)],
            blockers: vec![
                blocker(NAMESPACE_SEM, Basis::Owner, Some("pivot_root"), task("runc"), charged_ms),
                blocker("mount_lock", Basis::Inferred, Some("pivot_root"), task("runc"), 900),
            ],
            ..example::quiet()
        }
    }

    #[test]
    fn pivot_root_is_found_by_its_waits_and_by_those_of_others() {
        let found = pivot_root(&pivots(100, 0)).unwrap();
        assert!(found.title.starts_with("10 calls of pivot_root(2) walk"), "{}", found.title);
        assert_eq!(pivot_root(&pivots(0, 200)).unwrap().weight, 0.2);
        assert!(pivot_root(&pivots(99, 99)).is_none());
        let mut window = pivots(100, 100);
        window.syscalls[0].calls.count = 9;
        assert!(pivot_root(&window).is_none());
    }

    /// Calls that take 400 ms and wait for so much of it.
    fn umounts(waited_ms: u64) -> Snapshot {
        Snapshot {
            locks: vec![
                wait("rcu_exp_mutex", Mode::Mutex, waited_ms),
                wait(NAMESPACE_SEM, Mode::Write, 1_000 - waited_ms),
            ],
            syscalls: vec![call_waiting("umount2", 50, 400, "rcu_exp_mutex", waited_ms)],
            ..example::quiet()
        }
    }

    #[test]
    fn umounts_that_queue_for_grace_periods_are_found() {
        let mut window = umounts(200);
        let found = grace_periods(&window).unwrap();
        assert_eq!(
            found.title,
            "50 calls of umount2(2) spend 100% of their time on RCU grace periods"
        );
        assert_eq!(found.weight, 0.2);
        window.locks[0].waits.sum_ns = ms(99);
        assert!(grace_periods(&window).is_none());
    }

    #[test]
    fn umounts_that_wait_for_grace_periods_alone_are_found_by_their_time() {
        let mut window = umounts(0);
        window.syscalls = vec![call_waiting("umount2", 10, 2_000, NAMESPACE_SEM, 1_000)];
        let found = grace_periods(&window).unwrap();
        assert_eq!(
            found.title,
            "10 calls of umount2(2) spend 50% of their time on RCU grace periods"
        );
        window.syscalls[0].calls.count = 9;
        assert!(grace_periods(&window).is_none());
        window.syscalls = vec![call_waiting("umount2", 10, 2_002, NAMESPACE_SEM, 1_003)];
        assert!(grace_periods(&window).is_none(), "less than a tenth of the window");
    }

    #[test]
    fn the_end_of_namespaces_queues_for_grace_periods_without_an_umount() {
        let mut window = umounts(200);
        window.syscalls.clear();
        let found = grace_periods(&window).unwrap();
        assert_eq!(found.title, "Dropping mounts queues 200ms for RCU grace periods");
        window.locks[0].waits.sum_ns = ms(50);
        assert!(grace_periods(&window).is_none());
    }
}
