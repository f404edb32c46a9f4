//! Mount tables that are large, and copied.

use super::Finding;
use super::text::{count, duration, percent, who};
use super::window::{
    COPYING, NAMESPACE_SEM, about, blocked_by, calls, calls_ns, figure, kernel_since, matters,
    share, share_figure,
};
use crate::snapshot::{MountTable, Snapshot};

/// See [`copies`].
pub(super) const COPIES: &str = "mount-table-copies";

/// See [`large`].
pub(super) const LARGE: &str = "large-mount-namespace";

/// A table of this size takes half a millisecond to copy: 1.1 us per mount were
/// measured on Linux 6.18, without anybody else at the locks.
const WORTH_COPYING_LESS: u64 = 500;

/// Fewer copies are no pattern.
const LEAST_COPIES: u64 = 10;

/// Where the size of the tables is not known: so long a copy, without its waits,
/// is one of a large table.
const LONG_COPY_NS: u64 = 1_000_000;

/// Copies that take this part of all mount calls' time are worth avoiding,
/// whoever waits.
const COPIES_SHARE: f64 = 0.2;

/// The leak of containerd#12139 had 2,204 mounts when it was noticed; a machine
/// with a few hundred containers has fewer.
const LARGE_TABLE: u64 = 2_000;

fn largest(window: &Snapshot) -> Option<&MountTable> {
    window.mount_tables.as_ref()?.largest.first()
}

/// New mount namespaces copy a large table each.
pub(super) fn copies(window: &Snapshot) -> Option<Finding> {
    let copying = calls(window, &COPYING);
    let charged = blocked_by(window, |row| {
        row.lock == NAMESPACE_SEM && row.call.as_deref().is_some_and(|call| COPYING.contains(&call))
    });
    let own_ns = copying.sum_ns.saturating_sub(copying.waited_ns());
    let each_ns = own_ns.checked_div(copying.count).unwrap_or(0);
    let size = largest(window).map(|table| table.mounts);
    let large = size.map_or(each_ns >= LONG_COPY_NS, |mounts| mounts >= WORTH_COPYING_LESS);
    let dear = matters(window, charged.sum_ns)
        || (share(own_ns, calls_ns(window)) >= COPIES_SHARE
            && matters(window, copying.waited_ns()));
    if copying.count < LEAST_COPIES || !large || !dear {
        return None;
    }
    let about_ns = charged.sum_ns.max(copying.waited_ns());
    let mut figures = vec![
        share_figure(window, about_ns),
        figure("mount namespaces made by copying", copying.count.to_string()),
        figure("time of each without its waits", duration(each_ns)),
        figure("share of the time in all mount calls", percent(copying.sum_ns, calls_ns(window))),
        figure("waits that the copies are charged with", duration(charged.sum_ns)),
    ];
    figures.push(match size {
        Some(mounts) => figure("mounts in the largest table now", mounts.to_string()),
        None => figure("mounts in the largest table now", "not counted"),
    });
    let title = match size {
        Some(mounts) => {
            format!(
                "{} copy mount tables of up to {mounts} mounts",
                count(copying.count, "new namespace")
            )
        }
        None => format!(
            "{} copy mount tables for {} each",
            count(copying.count, "new namespace"),
            duration(each_ns)
        ),
    };
    let remedy = if kernel_since(window, (7, 0)) {
        "Use a runtime that makes the namespace from the container's tree alone: this kernel has \
         open_tree(OPEN_TREE_NAMESPACE). Until then, start containers from a namespace with few \
         mounts, and unmount what is leaked."
    } else {
        "Start containers from a namespace with few mounts (run the runtime's daemon in one of its \
         own), and unmount what is leaked. From Linux 7.0, open_tree(OPEN_TREE_NAMESPACE) makes a \
         namespace from the container's tree alone."
    };
    Some(about(
        window,
        about_ns,
        COPIES,
        title,
        figures,
        (
            "unshare(2) and clone(2) with CLONE_NEWNS copy every mount of the caller's namespace, with \
             namespace_sem held exclusively from the first to the last (copy_mnt_ns in \
             fs/namespace.c). A container then unmounts nearly all of them, which takes the lock again.",
            remedy.to_owned(),
        ),
    ))
}

/// One namespace has more mounts than anybody needs.
pub(super) fn large(window: &Snapshot) -> Option<Finding> {
    let tables = window.mount_tables.as_ref()?;
    let table = largest(window).filter(|table| table.mounts >= LARGE_TABLE)?;
    let figures = vec![
        figure("mounts in it", table.mounts.to_string()),
        figure("tasks in it", table.tasks.to_string()),
        figure("number of the namespace", table.namespace.to_string()),
        figure("mounts in all namespaces", tables.mounts.to_string()),
        figure("mount namespaces", tables.namespaces.to_string()),
    ];
    let remedy = "Look at what is mounted there, once (`findmnt --task PID` with the task's id), and \
                  for a path that repeats: mounts that a runtime did not take away again \
                  (containerd#12139), or stacked on one path by a job that mounts at each run. \
                  Unmount them, then fix who left them; fs.mount-max bounds how many there can be.";
    Some(about(
        window,
        0,
        LARGE,
        format!(
            "The mount namespace of {} has {}",
            who(&table.owner),
            count(table.mounts, "mount")
        ),
        figures,
        (
            "Each read of a mount table, each copy of the namespace and each lookup of a mount in a \
             full hash takes the longer the more mounts there are, most of it with namespace_sem held. \
             A leak shows first as slow starts, then as a machine that stalls.",
            remedy.to_owned(),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example::{self, blocker, call, container, table, task, wait};
    use crate::locks::Mode;
    use crate::snapshot::Basis;

    fn copying(charged_ms: u64, mounts: Option<u64>) -> Snapshot {
        Snapshot {
            locks: vec![wait(NAMESPACE_SEM, Mode::Write, 1_000)],
            syscalls: vec![call("unshare", 4, 20), call("clone", 6, 30), call("mount", 100, 400)],
            blockers: vec![
                blocker(NAMESPACE_SEM, Basis::Owner, Some("unshare"), task("runc"), charged_ms / 2),
                blocker(NAMESPACE_SEM, Basis::Owner, Some("clone"), task("runc"), charged_ms / 2),
            ],
            mount_tables: mounts
                .map(|mounts| example::tables(vec![table(task("systemd"), mounts)])),
            ..example::quiet()
        }
    }

    #[test]
    fn copies_of_large_tables_that_others_wait_for_are_found() {
        let found = copies(&copying(300, Some(500))).unwrap();
        assert_eq!(found.title, "10 new namespaces copy mount tables of up to 500 mounts");
        assert_eq!(found.weight, 0.3);
    }

    #[test]
    fn small_tables_and_copies_that_nobody_waits_for_are_fine() {
        assert!(copies(&copying(300, Some(499))).is_none());
        assert!(copies(&copying(98, Some(5_000))).is_none());
        let mut window = copying(300, Some(500));
        window.syscalls[0].calls.count = 3;
        assert!(copies(&window).is_none());
    }

    #[test]
    fn where_tables_are_not_counted_long_copies_tell() {
        let found = copies(&copying(300, None)).unwrap();
        assert_eq!(found.title, "10 new namespaces copy mount tables for 5.00ms each");
        let mut window = copying(300, None);
        window.syscalls[0].calls.sum_ns = example::ms(4);
        window.syscalls[1].calls.sum_ns = example::ms(5);
        assert!(copies(&window).is_none());
    }

    #[test]
    fn a_leak_names_the_container_that_has_it() {
        let tables = |mounts| Snapshot {
            mount_tables: Some(example::tables(vec![table(
                container("node", "0123456789abcdef"),
                mounts,
            )])),
            ..example::quiet()
        };
        let found = large(&tables(2_204)).unwrap();
        assert_eq!(
            found.title,
            "The mount namespace of `node` in container 0123456789ab has 2204 mounts"
        );
        assert_eq!(found.weight, 0.0, "it is about no wait of this window");
        assert!(large(&tables(1_999)).is_none());
    }
}
