//! Superblocks, and the locks that each new one takes.

use super::Finding;
use super::text::{duration, per, percent};
use super::window::{
    about, calls, figure, kernel_since, lock_waited_ns, matters, share, share_figure, starts,
};
use crate::snapshot::Snapshot;

/// See [`shrinkers`].
pub(super) const SHRINKERS: &str = "superblock-shrinkers";

/// Locks that every superblock takes when it is made and when it goes: for its
/// shrinker, and for the LRU lists of its inodes and directory entries.
const LOCKS: [&str; 2] = ["shrinker_rwsem", "list_lrus_mutex"];

/// Twice what a container needs: /dev, /dev/shm, perhaps /run, and the five
/// directories that the default list of masked paths hides.
const PER_START: u64 = 16;

/// Without starts to count by: so many in a window, and most of all
/// superblocks.
const LEAST_TMPFS: u64 = 100;
const MOST: f64 = 0.5;

const TMPFS: &str = "tmpfs";

/// Superblocks, above all of tmpfs, come and go so fast that the list of
/// shrinkers is waited for.
pub(super) fn shrinkers(window: &Snapshot) -> Option<Finding> {
    let waited_ns: u64 = LOCKS.iter().map(|lock| lock_waited_ns(window, lock)).sum();
    if !matters(window, waited_ns) {
        return None;
    }
    let mut figures = vec![share_figure(window, waited_ns)];
    for lock in LOCKS {
        figures.push(figure(format!("waited for {lock}"), duration(lock_waited_ns(window, lock))));
    }
    let starts = starts(window);
    let title = if let Some(superblocks) = &window.superblocks {
        let all: u64 = superblocks.iter().map(|row| row.count).sum();
        let of_tmpfs = superblocks.iter().filter(|row| row.filesystem.as_str() == TMPFS);
        let tmpfs: u64 = of_tmpfs.map(|row| row.count).sum();
        let high = match starts {
            Some(starts) => tmpfs >= PER_START * starts,
            None => tmpfs >= LEAST_TMPFS && share(tmpfs, all) >= MOST,
        };
        if !high {
            return None;
        }
        figures.push(figure("tmpfs superblocks made", tmpfs.to_string()));
        figures.push(figure("share of all superblocks", percent(tmpfs, all)));
        match starts {
            Some(starts) => {
                figures.push(figure("tmpfs superblocks per start", per(tmpfs, starts)));
                format!("Each container start makes {} superblocks of tmpfs", per(tmpfs, starts))
            }
            None => format!("{tmpfs} superblocks of tmpfs were made"),
        }
    } else {
        figures.push(figure("superblocks counted", "no: this kernel refuses the hooks"));
        let mounts = calls(window, &["mount", "fsmount"]).count;
        if let Some(starts) = starts {
            figures.push(figure("mount and fsmount calls per start", per(mounts, starts)));
        }
        format!("New and dying superblocks wait {} for the list of shrinkers", duration(waited_ns))
    };
    let lock = if kernel_since(window, (6, 7)) {
        "shrinker_mutex on this kernel: one for the whole machine."
    } else {
        "shrinker_rwsem on this kernel, which reclaim holds for reading while it frees memory \
         (shrink_slab in mm/vmscan.c): pressure on memory makes it worse."
    };
    Some(about(
        window,
        waited_ns,
        SHRINKERS,
        title,
        figures,
        (
            "Every superblock has a shrinker of its own (alloc_super in fs/super.c), which joins a \
             global list when the superblock is made and leaves it when it dies, and LRU lists that \
             join another (mm/list_lru.c). A tmpfs mount is always a new superblock, a bind mount \
             never is. Runtimes that hide each masked directory of a container under a tmpfs of its \
             own make dozens of them (kubernetes#138388: one for every CPU).",
            format!(
                "Use a runtime that hides all masked directories under one tmpfs, bind-mounted \
                 (crun does; for runc see runc#5262), shorten the list of masked paths, and share \
                 tmpfs volumes where containers allow it. The lock is {lock}"
            ),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example::{self, call, superblocks, wait};
    use crate::locks::Mode;

    /// Ten starts with so many superblocks of tmpfs, and so long a wait.
    fn window(tmpfs: u64, waited_ms: u64) -> Snapshot {
        Snapshot {
            locks: vec![
                wait("shrinker_rwsem", Mode::Mutex, waited_ms - 10),
                wait("list_lrus_mutex", Mode::Mutex, 10),
                wait("namespace_sem", Mode::Write, 1_000 - waited_ms),
            ],
            syscalls: vec![call("pivot_root", 10, 10)],
            superblocks: Some(vec![superblocks(TMPFS, tmpfs), superblocks("overlay", 10)]),
            ..example::quiet()
        }
    }

    #[test]
    fn many_superblocks_of_tmpfs_with_waits_are_found() {
        let found = shrinkers(&window(960, 500)).unwrap();
        assert_eq!(found.title, "Each container start makes 96 superblocks of tmpfs");
        assert_eq!(found.weight, 0.5);
        assert!(found.figures.contains(&figure("tmpfs superblocks per start", "96")));
    }

    #[test]
    fn superblocks_that_nobody_waits_for_and_waits_with_few_superblocks_are_not() {
        assert!(shrinkers(&window(960, 99)).is_none(), "less than a tenth of the waits");
        assert!(shrinkers(&window(159, 500)).is_none());
        assert!(shrinkers(&window(160, 500)).is_some());
    }

    #[test]
    fn without_starts_most_superblocks_have_to_be_of_tmpfs() {
        let mut window = window(100, 500);
        window.syscalls.clear();
        let found = shrinkers(&window).unwrap();
        assert_eq!(found.title, "100 superblocks of tmpfs were made");
        window.superblocks.as_mut().unwrap()[1].count = 101;
        assert!(shrinkers(&window).is_none());
    }

    #[test]
    fn where_superblocks_are_not_counted_the_waits_tell() {
        let mut window = window(0, 500);
        window.superblocks = None;
        let found = shrinkers(&window).unwrap();
        assert_eq!(found.title, "New and dying superblocks wait 500ms for the list of shrinkers");
    }
}
