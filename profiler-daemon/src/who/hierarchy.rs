//! The hierarchy whose cgroups identify tasks.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` (include/uapi/linux/magic.h).
const V1: u64 = 0x0027_e0eb;
const V2: u64 = 0x6367_7270;

/// Controllers of v1 that runtimes put each container into, best first. Where
/// systemd manages units in its own hierarchy of v1 only, a container without a
/// limit can be missing from one of them, but memory is accounted everywhere.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// A hierarchy of cgroups, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted, without symbolic links.
    pub root: PathBuf,
    /// The controller of v1 that it is of, as the kernel calls it; `None` for
    /// the unified hierarchy of v2.
    pub controller: Option<String>,
}

/// Why cgroups cannot be named.
#[derive(Debug, Error)]
pub enum HierarchyError {
    /// None is mounted where it is looked for.
    #[error(
        "no hierarchy of cgroups at {0}: mount one there (mount -t cgroup2 none {0}), or in a \
         container pass the host's"
    )]
    NotThere(PathBuf),
    /// The root cannot be opened.
    #[error("failed to open the cgroup hierarchy {root}: {source}; run lockprof as root")]
    Open {
        /// The root.
        root: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Hierarchy {
    /// The one that is mounted at or below `mounted`, which is `/sys/fs/cgroup`
    /// but in tests: unified, else the first of `memory`, `pids` and `cpu` of
    /// v1, else the unified one without controllers beside others of v1.
    ///
    /// Found by `statfs`: a list of mounts is never read, as its readers hold
    /// the locks that are measured.
    pub fn find(mounted: &Path) -> Result<Self, HierarchyError> {
        let at = |folder: &Path, controller: Option<&str>| {
            let root = folder.canonicalize().ok()?;
            let magic = if controller.is_some() { V1 } else { V2 };
            (magic_of(&root)? == magic)
                .then(|| Self { root, controller: controller.map(str::to_owned) })
        };
        at(mounted, None)
            .or_else(|| CONTROLLERS.iter().find_map(|name| at(&mounted.join(name), Some(name))))
            .or_else(|| at(&mounted.join("unified"), None))
            .ok_or_else(|| HierarchyError::NotThere(mounted.to_owned()))
    }

    /// `absolute` as a path below the root, with a slash before it. One that is
    /// not below it is above the cgroup namespace that the root was mounted
    /// from, and stays as it is.
    pub(super) fn relative<'a>(&self, absolute: &'a OsStr) -> &'a [u8] {
        let absolute = absolute.as_encoded_bytes();
        match absolute.strip_prefix(self.root.as_os_str().as_encoded_bytes()) {
            Some(b"") => b"/",
            Some(below @ [b'/', ..]) => below,
            _ => absolute,
        }
    }
}

fn magic_of(path: &Path) -> Option<u64> {
    let statfs = rustix::fs::statfs(path).ok()?;
    u64::try_from(statfs.f_type).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_called_like_a_hierarchy_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["memory", "unified"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let why = Hierarchy::find(folder.path()).unwrap_err().to_string();
        assert!(why.contains(folder.path().to_str().unwrap()), "{why}");
        assert!(matches!(Hierarchy::find(Path::new("/absent")), Err(HierarchyError::NotThere(_))));
    }

    #[test]
    fn a_path_is_told_from_the_root_of_its_hierarchy() {
        let hierarchy = Hierarchy { root: "/sys/fs/cgroup/cpu,cpuacct".into(), controller: None };
        for (absolute, expected) in [
            ("/sys/fs/cgroup/cpu,cpuacct", "/"),
            ("/sys/fs/cgroup/cpu,cpuacct/a/b", "/a/b"),
            ("/above", "/above"),
            ("/sys/fs/cgroup/cpu,cpuacct2/a", "/sys/fs/cgroup/cpu,cpuacct2/a"),
        ] {
            assert_eq!(hierarchy.relative(OsStr::new(absolute)), expected.as_bytes());
        }
    }
}
