//! What there is in the system that a storm could leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use super::processes::{self, wait_for};

/// Directories that programs leave things in.
const DIRECTORIES: [&str; 4] = ["/tmp", "/mnt", "/run", "/dev/shm"];

/// All of it, as seen from PID and mount namespaces that have nobody else.
#[derive(Debug, PartialEq)]
pub(crate) struct World {
    mounts: BTreeSet<String>,
    processes: BTreeMap<u32, String>,
    /// By process, where its file descriptors lead.
    descriptors: BTreeMap<u32, Vec<String>>,
    /// Of all processes.
    namespaces: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
    cgroups: BTreeSet<PathBuf>,
}

impl World {
    /// Puts empty file systems in place of the directories that others use as
    /// well, in this mount namespace.
    pub(crate) fn cover_directories() {
        for directory in DIRECTORIES.into_iter().filter(|d| Path::new(d).is_dir()) {
            mount(c"test", directory, c"tmpfs", MountFlags::empty(), None).expect("tmpfs");
        }
    }

    pub(crate) fn look() -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let processes: BTreeMap<_, _> =
            processes::all().into_iter().map(|p| (p.pid, p.name)).collect();
        let (mut descriptors, mut namespaces) = (BTreeMap::new(), BTreeSet::new());
        for pid in processes.keys() {
            descriptors.insert(*pid, links(&format!("/proc/{pid}/fd")));
            namespaces.extend(links(&format!("/proc/{pid}/ns")));
        }
        Self {
            mounts: table.lines().map(str::to_owned).collect(),
            processes,
            descriptors,
            namespaces,
            files: DIRECTORIES.into_iter().flat_map(|d| below(Path::new(d), |_| true)).collect(),
            cgroups: cgroups(),
        }
    }

    /// Fails if anything is there now that was not, or the other way round.
    pub(crate) fn assert_same_as(&self, before: &Self) {
        assert_eq!(self.mounts, before.mounts);
        assert_eq!(self.processes, before.processes);
        assert_eq!(self.descriptors, before.descriptors);
        assert_eq!(self.namespaces, before.namespaces);
        assert_eq!(self.files, before.files);
        // Those of the whole machine, where others make and remove some.
        let new: Vec<_> = self.cgroups.difference(&before.cgroups).collect();
        wait_for("the end of new cgroups", || {
            new.iter().all(|cgroup| !cgroup.is_dir()).then_some(())
        });
    }
}

/// Where the links in a directory lead, sorted, without the one to the directory
/// itself that reading it makes.
fn links(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("this process may look at it");
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut targets: Vec<_> = targets
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| !target.ends_with("/fd"))
        .collect();
    targets.sort();
    targets
}

/// Everything below a directory that `wanted` takes.
fn below(directory: &Path, wanted: fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for path in entries.map(|entry| entry.path()).filter(|path| wanted(path)) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(below(&path, wanted));
        }
        found.push(path);
    }
    found
}

fn cgroups() -> BTreeSet<PathBuf> {
    below(Path::new("/sys/fs/cgroup"), Path::is_dir).into_iter().collect()
}
