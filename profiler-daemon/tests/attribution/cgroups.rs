//! Cgroups of one's own, in the hierarchy that lockprof looks at.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lockprof::who::Hierarchy;

use super::common::cgroups::Folder;
use super::{PATIENCE, common};

/// Makes `name` below the root; a skip of `test` where that is not possible.
pub(crate) fn folder(test: &str, name: &str) -> Option<Folder> {
    let hierarchy = match Hierarchy::find(Path::new("/sys/fs/cgroup")) {
        Ok(hierarchy) => hierarchy,
        Err(why) => {
            common::skip(test, &why.to_string());
            return None;
        }
    };
    let path = hierarchy.root.join(name);
    match Folder::at(path.clone()) {
        Ok(folder) => Some(folder),
        Err(why) => {
            common::skip(test, &format!("no cgroup can be made: {}: {why}", path.display()));
            None
        }
    }
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
