//! CPUs and NUMA nodes.
//!
//! In: `devices/system/{cpu,node}` of a sysfs. Out: how many CPUs and nodes
//! the kernel may ever number, and which CPU is on which node.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Highest number of a CPU or node that is believed. The kernel's own limits
/// are 8192 CPUs (NR_CPUS on x86) and 1024 nodes (MAX_NUMNODES).
const HIGHEST: u32 = 65_535;

/// Why the topology is not known.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A file could not be read.
    #[error("failed to read {}; is sysfs mounted?", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not a list such as `0-3,8`.
    #[error("{} is not a list of numbers: `{text}`", path.display())]
    List {
        /// Which file.
        path: PathBuf,
        /// Its content, escaped.
        text: String,
    },
}

/// The machine's CPUs and NUMA nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Highest possible CPU plus 1: what per-CPU arrays are sized by.
    pub cpus: u32,
    /// Highest possible node plus 1.
    pub nodes: u32,
    /// Node of every CPU below `cpus`. A possible CPU that is not there yet is
    /// put on node 0, as are all CPUs of a machine without NUMA.
    pub node_of_cpu: Vec<u32>,
    /// CPUs of every node that has some, by node. CPUs that are not there yet
    /// are left out, unless the machine has no NUMA.
    pub cpus_of_node: Vec<(u32, Vec<u32>)>,
    /// Whether the kernel knows nodes at all (`CONFIG_NUMA`).
    pub numa: bool,
}

impl Topology {
    /// Reads the topology from the sysfs mounted at `sys_root` (`/sys`).
    ///
    /// # Errors
    ///
    /// A file cannot be read or parsed. A missing `devices/system/node` is no
    /// error: that is a kernel without NUMA, and all CPUs are on node 0.
    pub fn read(sys_root: &Path) -> Result<Self, TopologyError> {
        let system = sys_root.join("devices/system");
        let possible = read_list(&system.join("cpu/possible"))?;
        let cpus = highest(&possible).map_or(1, |highest| highest + 1);

        let node = system.join("node");
        if !node.exists() {
            return Ok(Self {
                cpus,
                nodes: 1,
                node_of_cpu: vec![0; cpus as usize],
                cpus_of_node: vec![(0, possible.into_iter().flatten().collect())],
                numa: false,
            });
        }
        let nodes = highest(&read_list(&node.join("possible"))?).map_or(1, |highest| highest + 1);
        let mut node_of_cpu = vec![0; cpus as usize];
        let mut cpus_of_node = Vec::new();
        for id in read_list(&node.join("online"))?.into_iter().flatten() {
            let of_node = read_list(&node.join(format!("node{id}/cpulist")))?;
            let of_node: Vec<u32> = of_node.into_iter().flatten().collect();
            for cpu in &of_node {
                if let Some(node) = node_of_cpu.get_mut(*cpu as usize) {
                    *node = id;
                }
            }
            if !of_node.is_empty() {
                cpus_of_node.push((id, of_node));
            }
        }
        Ok(Self { cpus, nodes, node_of_cpu, cpus_of_node, numa: true })
    }

    /// The CPUs that are there, ascending.
    pub fn present_cpus(&self) -> Vec<u32> {
        let cpus: BTreeSet<u32> =
            self.cpus_of_node.iter().flat_map(|(_, cpus)| cpus).copied().collect();
        cpus.into_iter().collect()
    }
}

/// The CPUs that are online, ascending, by the sysfs mounted at `sys_root`.
///
/// # Errors
///
/// The list cannot be read or parsed.
pub fn online_cpus(sys_root: &Path) -> Result<Vec<u32>, TopologyError> {
    let list = read_list(&sys_root.join("devices/system/cpu/online"))?;
    Ok(list.into_iter().flatten().collect())
}

/// Release of the running kernel, as `uname -r` prints it.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn read_list(path: &Path) -> Result<Vec<RangeInclusive<u32>>, TopologyError> {
    let text = fs::read_to_string(path)
        .map_err(|source| TopologyError::Read { path: path.into(), source })?;
    parse_list(&text).ok_or_else(|| TopologyError::List {
        path: path.into(),
        text: text.trim_end().escape_debug().to_string(),
    })
}

/// Parses the list format of sysfs: `0-3,8,10-11`, or nothing.
fn parse_list(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = first.parse().ok()?..=last.parse().ok()?;
            (range.start() <= range.end() && *range.end() <= HIGHEST).then_some(range)
        })
        .collect()
}

/// The numbers of a list in the format of sysfs (`0-3,8`), ascending and each
/// once; `None` if it is no such list.
pub fn numbers_of_list(text: &str) -> Option<Vec<u32>> {
    let numbers: BTreeSet<u32> = parse_list(text)?.into_iter().flatten().collect();
    Some(numbers.into_iter().collect())
}

/// Ascending numbers in the list format of sysfs: `0-3,8`.
pub fn list_of_numbers(numbers: &[u32]) -> String {
    numbers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            [only] => only.to_string(),
            [] => String::new(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

fn highest(list: &[RangeInclusive<u32>]) -> Option<u32> {
    list.iter().map(|range| *range.end()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join("devices/system").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn lists_are_parsed_as_sysfs_prints_them() {
        assert_eq!(parse_list("0\n"), Some(vec![0..=0]));
        assert_eq!(parse_list("0-3,8,10-11\n"), Some(vec![0..=3, 8..=8, 10..=11]));
        assert_eq!(parse_list("\n"), Some(vec![]));
        for bad in ["3-0", "a", "1,", "-", "0-", "4294967295", "0-4294967296"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_make_the_list_that_they_come_from() {
        for list in ["0-3,8,10-11", "0", "1,3", "0-1", ""] {
            assert_eq!(list_of_numbers(&numbers_of_list(list).unwrap()), list);
        }
        assert_eq!(numbers_of_list("3,0-2,1"), Some(vec![0, 1, 2, 3]));
        assert_eq!(numbers_of_list("0-"), None);
    }

    #[test]
    fn a_machine_with_two_nodes_has_each_cpu_on_its_own() {
        let root = sysfs(&[
            ("cpu/possible", "0-3\n"),
            ("node/possible", "0-1\n"),
            ("node/online", "0-1\n"),
            ("node/node0/cpulist", "0,2\n"),
            ("node/node1/cpulist", "1,3\n"),
        ]);
        assert_eq!(
            Topology::read(root.path()).unwrap(),
            Topology {
                cpus: 4,
                nodes: 2,
                node_of_cpu: vec![0, 1, 0, 1],
                cpus_of_node: vec![(0, vec![0, 2]), (1, vec![1, 3])],
                numa: true,
            }
        );
    }

    #[test]
    fn holes_count_towards_the_highest_number() {
        let root = sysfs(&[
            ("cpu/possible", "0-1,8-9\n"),
            ("node/possible", "0,2\n"),
            ("node/online", "0,2\n"),
            ("node/node0/cpulist", "0-1\n"),
            ("node/node2/cpulist", "8-9\n"),
        ]);
        let topology = Topology::read(root.path()).unwrap();
        assert_eq!((topology.cpus, topology.nodes), (10, 3));
        assert_eq!(topology.present_cpus(), [0, 1, 8, 9]);
        assert_eq!(topology.node_of_cpu, [0, 0, 0, 0, 0, 0, 0, 0, 2, 2]);
    }

    #[test]
    fn a_node_with_memory_only_has_no_cpus() {
        let root = sysfs(&[
            ("cpu/possible", "0\n"),
            ("node/possible", "0-1\n"),
            ("node/online", "0-1\n"),
            ("node/node0/cpulist", "0\n"),
            ("node/node1/cpulist", "\n"),
        ]);
        let topology = Topology::read(root.path()).unwrap();
        assert_eq!(topology.nodes, 2);
        assert_eq!(topology.cpus_of_node, [(0, vec![0])]);
    }

    #[test]
    fn a_machine_without_numa_is_one_node() {
        let root = sysfs(&[("cpu/possible", "0-1\n")]);
        let topology = Topology::read(root.path()).unwrap();
        assert!(!topology.numa);
        assert_eq!(topology.nodes, 1);
        assert_eq!(topology.node_of_cpu, [0, 0]);
        assert_eq!(topology.cpus_of_node, [(0, vec![0, 1])]);
    }

    #[test]
    fn cpus_that_are_offline_are_not_online() {
        let root = sysfs(&[("cpu/possible", "0-7\n"), ("cpu/online", "0-1,4\n")]);
        assert_eq!(online_cpus(root.path()).unwrap(), [0, 1, 4]);
        let error = online_cpus(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/devices/system/cpu/online"), "{error}");
    }

    #[test]
    fn an_unreadable_list_is_named() {
        let root = sysfs(&[("cpu/possible", "all\u{7}\n")]);
        let error = Topology::read(root.path()).unwrap_err().to_string();
        assert!(error.contains("cpu/possible") && error.contains(r"`all\u{7}`"), "{error}");
        let error = Topology::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/devices/system/cpu/possible"), "{error}");
    }
}
