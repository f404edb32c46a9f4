//! Whether files changed since they were read.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What tells one content of a file from another, short of reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file behind all symbolic links; `None` if there is none.
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            // Also when only the owner or the mode did.
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Stamps of several files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

impl Stamps {
    /// As the files are now.
    pub(super) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamp = |path: PathBuf| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        };
        Self(files.into_iter().map(stamp).collect())
    }

    /// Whether no file changed since.
    pub(super) fn are_current(&self) -> bool {
        self.0.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// These, and those files of `old` that are not among them, as they are now.
    pub(super) fn or(mut self, old: Self) -> Self {
        for path in old.0.into_keys() {
            let stamp = Stamp::of(&path);
            self.0.entry(path).or_insert(stamp);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a"), dir.path().join("link"));
        std::fs::write(&file, "1").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let stamps = || Stamps::of([link.clone()]);
        let before = stamps();
        assert!(before.are_current());

        // In place; a mounted secret of Kubernetes: the link elsewhere; gone.
        std::fs::write(&file, "22").unwrap();
        assert!(!before.are_current());
        let before = stamps();
        let other = dir.path().join("b");
        std::fs::write(&other, "22").unwrap();
        std::fs::remove_file(&link).unwrap();
        assert!(!before.are_current());
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert!(!before.are_current());
        let before = stamps();
        std::fs::remove_file(&other).unwrap();
        assert!(!before.are_current());
        assert!(stamps().are_current(), "one that is not there, either");
    }
}
