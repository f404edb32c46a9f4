//! Cgroups of one's own, in the hierarchy that lockprof looks at.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lockprof::who::Hierarchy;

use super::{PATIENCE, common};

/// A cgroup, removed with all below it when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Makes `name` below the root; a skip of `test` where that is not possible.
    pub(crate) fn make(test: &str, name: &str) -> Option<Self> {
        let hierarchy = match Hierarchy::find(Path::new("/sys/fs/cgroup")) {
            Ok(hierarchy) => hierarchy,
            Err(why) => {
                common::skip(test, &why.to_string());
                return None;
            }
        };
        let path = hierarchy.root.join(name);
        // What an earlier run left that was killed.
        remove_all(&path);
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(why) => {
                common::skip(test, &format!("no cgroup can be made: {}: {why}", path.display()));
                None
            }
        }
    }

    /// Makes `name` in it: its id and its path.
    pub(crate) fn add(&self, name: &str) -> (u64, PathBuf) {
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

/// Removes the cgroup at `path`, whose tasks have ended. The kernel may need a
/// moment to see that, which is long where the CPU that a task ended on stands
/// still.
pub(crate) fn remove(path: &Path) {
    let began = Instant::now();
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let inside = || fs::read_to_string(path.join("cgroup.procs"));
                assert!(
                    began.elapsed() < PATIENCE,
                    "{} stays busy with the processes {:?}",
                    path.display(),
                    inside()
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}
