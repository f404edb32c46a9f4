//! Paths of cgroups by walking the hierarchy: what remains where handles are
//! refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Absolute paths by id.
    pub(super) paths: HashMap<u64, PathBuf>,
    /// Whether everything was seen; else what was not found may exist.
    pub(super) complete: bool,
}

/// Looks for `wanted` among at most `limit` cgroups, those near the root first.
///
/// A cgroup's id is the number of its inode (`kernfs_ino` in
/// include/linux/kernfs.h, 64-bit machines), which a directory's list has.
pub(super) fn find(root: &Path, wanted: &HashSet<u64>, limit: usize) -> Found {
    let mut found = Found::default();
    let mut open = VecDeque::from([root.to_owned()]);
    if let Ok(metadata) = root.metadata()
        && wanted.contains(&metadata.ino())
    {
        found.paths.insert(metadata.ino(), root.to_owned());
    }
    let mut seen = 1;
    while let Some(folder) = open.pop_front() {
        if found.paths.len() == wanted.len() {
            break;
        }
        // One that was removed meanwhile has nothing in it any more.
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if seen >= limit {
                return found;
            }
            seen += 1;
            let path = entry.path();
            if wanted.contains(&entry.ino()) {
                found.paths.insert(entry.ino(), path.clone());
            }
            open.push_back(path);
        }
    }
    found.complete = true;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ino(path: &Path) -> u64 {
        path.metadata().unwrap().ino()
    }

    #[test]
    fn all_that_are_wanted_are_found_at_once() {
        let root = tempfile::tempdir().unwrap();
        let (a, deep) = (root.path().join("a"), root.path().join("b/c/d"));
        std::fs::create_dir(&a).unwrap();
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let file = ino(&root.path().join("file"));
        let wanted = HashSet::from([ino(root.path()), ino(&a), ino(&deep), file, u64::MAX]);
        let found = find(root.path(), &wanted, 100);
        assert!(found.complete);
        assert_eq!(
            found.paths,
            HashMap::from([
                (ino(root.path()), root.path().to_owned()),
                (ino(&a), a),
                (ino(&deep), deep)
            ])
        );
    }

    #[test]
    fn a_walk_that_reached_its_limit_says_so() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..10 {
            std::fs::create_dir(root.path().join(number.to_string())).unwrap();
        }
        let nobody = HashSet::from([u64::MAX]);
        assert!(!find(root.path(), &nobody, 10).complete, "the root and nine of ten");
        assert!(find(root.path(), &nobody, 11).complete);
    }
}
