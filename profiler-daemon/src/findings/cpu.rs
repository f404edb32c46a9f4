//! CPU time that is spent waiting.

use super::Finding;
use super::text::{duration, percent};
use super::window::{about, figure, lock_waited_ns, matters, share, share_figure};
use crate::locks::Mode;
use crate::snapshot::{Place, Samples, Snapshot};

/// See [`sequence_count`].
pub(super) const SEQUENCE_COUNT: &str = "sequence-count-readers";

/// See [`optimistic`].
pub(super) const OPTIMISTIC: &str = "optimistic-spinning";

/// Path lookups that meet no writer spend a few hundredths of the kernel's time
/// in these functions.
const SAMPLED_SHARE: f64 = 0.2;

/// One second of one CPU at the default of 99 Hz: with fewer samples the share
/// is chance, and too little time to matter.
const LEAST_SAMPLES: u64 = 99;

/// Spinning writers that burn less than a tenth of one CPU are doing well: they
/// save the cost of sleeping.
const SPINNING_SHARE: f64 = 0.1;

fn sampled(samples: &Samples) -> u64 {
    Place::ALL.iter().map(|place| samples.of(*place)).sum()
}

/// Path lookups burn CPU while mounts come and go.
pub(super) fn sequence_count(window: &Snapshot) -> Option<Finding> {
    let samples = window.samples.as_ref()?;
    let there = samples.of(Place::MountSeqcount);
    let part = samples.share(Place::MountSeqcount)?;
    if there < LEAST_SAMPLES || part < SAMPLED_SHARE {
        return None;
    }
    let all = sampled(samples);
    let mut figures = vec![
        figure("samples there", there.to_string()),
        figure("share of the kernel's samples", percent(there, all)),
        figure("share in slow paths of locks", percent(samples.of(Place::LockSlowPath), all)),
        figure("waited for mount_lock by writers", duration(lock_waited_ns(window, "mount_lock"))),
    ];
    for node in &window.host.numa_nodes {
        let rows = samples.counts.iter().filter(|row| row.numa_node == node.id);
        let of_node: u64 = rows.clone().map(|row| row.count).sum();
        let there = rows.filter(|row| row.place == Place::MountSeqcount);
        let there: u64 = there.map(|row| row.count).sum();
        if window.host.numa_nodes.len() > 1 {
            figures.push(figure(format!("share on node {}", node.id), percent(there, of_node)));
        }
    }
    Some(Finding {
        // No lock's waits show it: its weight is the share of the CPU.
        weight: part,
        ..about(
            window,
            0,
            SEQUENCE_COUNT,
            format!(
                "Path lookups burn {} of the kernel's CPU time on the mount hash",
                percent(there, all)
            ),
            figures,
            (
                "open(2), stat(2) and every other call with a path read mount_lock's sequence count and \
                 look mounts up in its hash (path_init and __follow_mount_rcu in fs/namei.c, \
                 __legitimize_mnt and __lookup_mnt in fs/namespace.c). While somebody mounts or \
                 unmounts, they spin or begin anew, and the count's cache line is taken from all CPUs \
                 with each change. No lock is waited for, so no lock's figures show it.",
                "Make fewer changes to mounts: legacy-mount, superblock-shrinkers and \
                 mount-table-copies say how. Keep containers' starts and the workload on different \
                 NUMA nodes, and have programs open directories once and use openat(2) below them."
                    .to_owned(),
            ),
        )
    })
}

/// Writers burn CPU in front of a semaphore.
pub(super) fn optimistic(window: &Snapshot) -> Option<Finding> {
    let rows = || window.locks.iter().filter(|row| row.mode == Mode::Optimistic);
    let spun_ns: u64 = rows().map(|row| row.waits.sum_ns).sum();
    if share(spun_ns, window.duration_ns) < SPINNING_SHARE || !matters(window, spun_ns) {
        return None;
    }
    let lock = rows().max_by_key(|row| {
        rows().filter(|other| other.lock == row.lock).map(|other| other.waits.sum_ns).sum::<u64>()
    })?;
    let lock = &lock.lock;
    let won: u64 = rows().map(|row| row.waits.count).sum();
    let queued = window.locks.iter().filter(|row| row.lock == *lock && row.mode == Mode::Write);
    let queued_ns: u64 = queued.map(|row| row.waits.sum_ns).sum();
    let mut figures = vec![
        share_figure(window, spun_ns),
        figure("CPU time spent spinning, in CPUs", percent(spun_ns, window.duration_ns)),
        figure("acquisitions by spinning", won.to_string()),
        figure(format!("waited by writers of {lock} that queued"), duration(queued_ns)),
    ];
    if let Some(samples) = &window.samples {
        let (slow, all) = (samples.of(Place::LockSlowPath), sampled(samples));
        figures.push(figure("kernel samples in slow paths of locks", percent(slow, all)));
    }
    Some(about(
        window,
        spun_ns,
        OPTIMISTIC,
        format!("Writers of {lock} spin for {} instead of sleeping", duration(spun_ns)),
        figures,
        (
            "A writer that finds the semaphore taken spins as long as the owner runs \
             (rwsem_optimistic_spin in kernel/locking/rwsem.c), one writer at a time, the others queue \
             behind it spinning as well. It shows as system time that no profile of sleeping tasks \
             has, and a writer that spins overtakes those that sleep.",
            "Take the lock less often: `lockprof stat --by syscall` shows through which calls. Fewer \
             starts at once help more than more CPUs, each of which can hold one more spinning writer."
                .to_owned(),
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example::{self, wait};

    #[test]
    fn lookups_that_take_a_fifth_of_the_kernels_time_are_found() {
        let window = |there, elsewhere| Snapshot {
            samples: Some(example::samples(there, 10, elsewhere)),
            ..example::quiet()
        };
        let found = sequence_count(&window(200, 790)).unwrap();
        assert_eq!(found.title, "Path lookups burn 20% of the kernel's CPU time on the mount hash");
        assert!((found.weight - 0.2).abs() < 1e-9);
        assert!(sequence_count(&window(199, 791)).is_none());
        assert!(sequence_count(&window(98, 0)).is_none(), "less than a second of one CPU");
        assert!(sequence_count(&window(0, 0)).is_none());
    }

    #[test]
    fn writers_that_spin_a_tenth_of_a_cpu_are_found() {
        let window = |spun_ms| Snapshot {
            locks: vec![
                wait("namespace_sem", Mode::Optimistic, spun_ms),
                wait("namespace_sem", Mode::Write, 1_000),
            ],
            ..example::quiet()
        };
        let found = optimistic(&window(1_000)).unwrap();
        assert_eq!(found.title, "Writers of namespace_sem spin for 1.00s instead of sleeping");
        assert_eq!(found.weight, 0.5);
        assert!(optimistic(&window(999)).is_none());
        let mut most_sleep = window(1_000);
        most_sleep.locks[1].waits.sum_ns = example::ms(9_001);
        assert!(optimistic(&most_sleep).is_none());
    }
}
