//! On which CPUs the storm runs.
//!
//! All its processes are pinned, the engine's included: its forks and waits take
//! `tasklist_lock` like anybody's.

use std::path::Path;

use super::failed_to;
use crate::kernel::topology::{Topology, list_of_numbers};
use crate::storm::error::StormError;
use crate::storm::sys;

/// Where the storm's processes may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Wherever the kernel puts them.
    #[default]
    Anywhere,
    /// On these CPUs, ascending.
    Cpus(Vec<u32>),
    /// On the CPUs of this NUMA node.
    NumaNode(u32),
}

impl Place {
    /// The CPUs that are meant; `None` for wherever the kernel likes.
    ///
    /// # Errors
    ///
    /// The machine has no such CPU or node, or does not say what it has.
    pub fn cpus(&self) -> Result<Option<Vec<u32>>, StormError> {
        if *self == Self::Anywhere {
            return Ok(None);
        }
        self.cpus_of(&Topology::read(Path::new("/sys"))?)
    }

    fn cpus_of(&self, topology: &Topology) -> Result<Option<Vec<u32>>, StormError> {
        match self {
            Self::Anywhere => Ok(None),
            Self::Cpus(wanted) => {
                let present = topology.present_cpus();
                let missing: Vec<_> =
                    wanted.iter().copied().filter(|cpu| !present.contains(cpu)).collect();
                if wanted.is_empty() || !missing.is_empty() {
                    return Err(StormError::NoSuchCpu {
                        missing: list_of_numbers(&missing),
                        present: list_of_numbers(&present),
                    });
                }
                Ok(Some(wanted.clone()))
            }
            Self::NumaNode(node) => {
                let nodes = &topology.cpus_of_node;
                match nodes.iter().find(|(id, _)| id == node) {
                    Some((_, cpus)) => Ok(Some(cpus.clone())),
                    None => {
                        let present: Vec<_> = nodes.iter().map(|(id, _)| *id).collect();
                        Err(StormError::NoSuchNode {
                            node: *node,
                            present: list_of_numbers(&present),
                        })
                    }
                }
            }
        }
    }
}

/// Keeps the calling thread, and what it forks, on some CPUs for as long as
/// this lives.
pub(super) struct Pinned {
    before: Vec<u32>,
}

impl Pinned {
    /// Pins the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel does not let it run on all of `cpus`.
    pub(super) fn to(cpus: &[u32]) -> Result<Self, StormError> {
        let read = || sys::affinity().map_err(failed_to("read which CPUs this process may use"));
        let pinned = Self { before: read()? };
        // What a cpuset forbids is left out without an error, unless nothing is
        // left (`__sched_setaffinity`, kernel/sched/syscalls.c).
        let allowed = match sys::set_affinity(cpus) {
            Ok(()) => read()?,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Vec::new(),
            Err(error) => return Err(failed_to("pin this process to its CPUs")(error)),
        };
        match cpus.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect::<Vec<_>>() {
            forbidden if forbidden.is_empty() => Ok(pinned),
            forbidden => Err(StormError::CpuNotAllowed(list_of_numbers(&forbidden))),
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // If the CPUs went away meanwhile there is nothing to go back to.
        let _ = sys::set_affinity(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology {
            cpus: 10,
            nodes: 3,
            node_of_cpu: vec![0, 0, 0, 0, 0, 0, 0, 0, 2, 2],
            cpus_of_node: vec![(0, vec![0, 1]), (2, vec![8, 9])],
            numa: true,
        }
    }

    #[test]
    fn a_node_stands_for_its_cpus() {
        assert_eq!(Place::NumaNode(2).cpus_of(&topology()).unwrap(), Some(vec![8, 9]));
        assert_eq!(Place::Cpus(vec![1, 8]).cpus_of(&topology()).unwrap(), Some(vec![1, 8]));
        assert_eq!(Place::Anywhere.cpus().unwrap(), None);
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_does() {
        let error = |place: Place| place.cpus_of(&topology()).unwrap_err().to_string();
        let cpus = error(Place::Cpus(vec![1, 2, 3, 9, 12]));
        assert_eq!(cpus, "this machine has no CPU 2-3,12; it has 0-1,8-9: change --pin");
        let node = error(Place::NumaNode(1));
        assert_eq!(node, "this machine has no NUMA node 1 with CPUs; it has 0,2: change --pin");
    }

    #[test]
    fn a_pinned_thread_runs_there_and_goes_back() {
        // A thread of its own: affinity is by thread.
        std::thread::spawn(|| {
            let before = sys::affinity().unwrap();
            let last = *before.last().unwrap();
            let pinned = Pinned::to(&[last]).unwrap();
            assert_eq!(sys::affinity().unwrap(), [last]);
            drop(pinned);
            assert_eq!(sys::affinity().unwrap(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_cpu_that_the_kernel_leaves_out_is_named() {
        let highest = 65_535;
        let Err(error) = Pinned::to(&[highest]) else { panic!("there is no such CPU") };
        assert_eq!(
            error.to_string(),
            "this process may not run on CPU 65535: its cpuset leaves it out; see \
             /sys/fs/cgroup, or start it elsewhere"
        );
        assert!(error.is_refusal());
    }
}
