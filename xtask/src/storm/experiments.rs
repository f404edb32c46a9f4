//! The experiments of `docs/storm.md`: which strategies, on which kernels.

/// Where an experiment is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine, whatever its kernel.
    Here,
    /// In virtual machines with kernels of these series.
    Series(&'static [&'static str]),
}

/// One question with the storms that answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Experiment {
    /// Heading of the page.
    pub(super) title: &'static str,
    /// What it stands for.
    pub(super) why: &'static str,
    /// Where it is run.
    pub(super) places: &'static [Place],
    /// Of `lockprof storm`.
    pub(super) arguments: &'static str,
    /// How long each storm takes: software emulation needs some seconds for enough
    /// starts.
    pub(super) seconds: u32,
    /// A lock that is shown even if others were waited for longer.
    pub(super) lock: Option<&'static str>,
}

/// The kernels of the matrix.
const EVERY_SERIES: Place = Place::Series(&["5.10", "6.1", "6.12", "6.18", "7.0", "7.3"]);

/// All that the page shows, in its order.
pub(super) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        title: "A namespace without a copy: 30 host mounts",
        why: "`open-tree-namespace` neither copies the host's table nor pivots. Published with its \
              patches: 73 thousand against 109 thousand namespaces in 60 s, 1.5 times.",
        places: &[Place::Series(&["7.3"])],
        arguments: "--compare legacy,fd,beneath,open-tree-namespace --host-mounts 30 --concurrency 8",
        seconds: 2,
        lock: None,
    },
    Experiment {
        title: "A namespace without a copy: 1,000 host mounts",
        why: "The same on a host with a thousand mounts, where the copy is most of a start.",
        places: &[Place::Series(&["7.3"])],
        arguments: "--compare legacy,fd,beneath,open-tree-namespace --host-mounts 1000 --concurrency 8",
        seconds: 2,
        lock: None,
    },
    Experiment {
        title: "One tmpfs for all masks",
        why: "96 masked directories per container, each a superblock that registers a shrinker: \
              kubernetes#138388 and #138512; runc#5262 shares one.",
        places: &[Place::Series(&["6.1", "6.12"]), Place::Here],
        arguments: "--compare tmpfs,shared-tmpfs --masks 96 --concurrency 8",
        seconds: 2,
        lock: Some("shrinker_rwsem"),
    },
    Experiment {
        title: "Mapping the parent of 50 layers",
        why: "A mount for each of 50 layers, made and removed, against one of their parent: \
              containerd#12092, the fix for 20,200 mount operations in a burst of 100 containers.",
        places: &[Place::Series(&["6.12", "7.3"]), Place::Here],
        arguments: "--compare per-layer,parent --layers 50 --concurrency 8",
        seconds: 2,
        lock: None,
    },
    Experiment {
        title: "crun against runc",
        why: "runc makes most mounts by `mount(2)`, crun by the newer calls where it can.",
        places: &[Place::Series(&["7.3"]), Place::Here],
        arguments: "--compare runc,crun --concurrency 4",
        seconds: 12,
        lock: None,
    },
    Experiment {
        title: "The whole table by `statmount`",
        why: "Runtimes read mountinfo dozens of times per start, each time under \
              `namespace_sem`. Here both ask for the whole table, `statmount(2)` (Linux 6.8) \
              mount by mount.",
        places: &[Place::Series(&["6.12", "7.3"]), Place::Here],
        arguments: "--compare mountinfo,statmount --mountinfo-reads 30 --host-mounts 200 --concurrency 8",
        seconds: 5,
        lock: None,
    },
    Experiment {
        title: "Legacy calls and file descriptors, kernel by kernel",
        why: "`mount(2)` against `fsopen`, `fsmount` and `move_mount`, with the locks that each \
              kernel has.",
        places: &[EVERY_SERIES, Place::Here],
        arguments: "--compare legacy,fd --concurrency 8",
        seconds: 2,
        lock: None,
    },
    Experiment {
        title: "How far a host scales",
        why: "Starts per second by concurrency, with the Universal Scalability Law fitted.",
        places: &[EVERY_SERIES, Place::Here],
        arguments: "--sweep concurrency=1..16 --host-mounts 30",
        seconds: 2,
        lock: None,
    },
];

impl Experiment {
    /// The arguments of `lockprof`, without the form of its output.
    pub(super) fn command(&self) -> String {
        let Self { arguments, seconds, .. } = self;
        format!("storm {arguments} --rounds 3 --duration {seconds}s --pollers 0")
    }

    /// The values that it sweeps through, doubling.
    pub(super) fn swept(&self) -> Option<Vec<u32>> {
        let (_, range) = self.arguments.split_once("--sweep concurrency=")?;
        let (from, to) = range.split_whitespace().next()?.split_once("..")?;
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        Some(
            std::iter::successors(Some(from), |n| n.checked_mul(2))
                .take_while(|n| *n <= to)
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_distinct_and_the_series_are_known() {
        let titles: std::collections::BTreeSet<_> = EXPERIMENTS.iter().map(|e| e.title).collect();
        assert_eq!(titles.len(), EXPERIMENTS.len());
        for series in EXPERIMENTS.iter().flat_map(|e| e.places).filter_map(|place| match place {
            Place::Series(series) => Some(*series),
            Place::Here => None,
        }) {
            for name in series {
                assert!(crate::vm::kernels::SERIES.iter().any(|s| s.name == *name), "{name}");
            }
        }
    }
}
