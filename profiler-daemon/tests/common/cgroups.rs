//! Cgroups of one's own, removed in the end.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A cgroup, removed with all below it when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Makes the cgroup at `path`, without what an earlier run left there that was
    /// killed.
    pub(crate) fn at(path: PathBuf) -> std::io::Result<Self> {
        remove_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Makes `name` in it: its id and its path.
    pub(crate) fn add(&self, name: impl AsRef<Path>) -> (u64, PathBuf) {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("a cgroup can be made");
        let id = fs::metadata(&path).expect("it is there").ino();
        (id, path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_all(&self.0);
    }
}

fn remove_all(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_all(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
