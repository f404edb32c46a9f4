//! Who: cgroups, containers and runtimes, from what the kernel side notes.
//!
//! In: the 16 bytes of a task's name and the id of its cgroup. Out:
//! [`snapshot::Who`](crate::snapshot::Who). Both names are chosen by whoever
//! runs in a container: they become [`Name`]s here, and what is told from them
//! (container, runtime) is a label for people and never a ground to trust.
//!
//! Reading cgroups costs a few system calls for one that is met for the first
//! time ([`Cgroups::look_up`]) and none later ([`Cgroups::get`]).

mod cache;

mod cgroups;

mod container;

mod handle;

mod hierarchy;

mod runtime;

mod walk;

pub use cgroups::{Cgroups, Limits};
pub use container::container;
pub use hierarchy::{Hierarchy, HierarchyError};
pub use runtime::runtime;

use crate::snapshot::{Cgroup, Name, Who};

/// Tasks named `comm` (up to a NUL; the kernel keeps at most 15 bytes before
/// it, `TASK_COMM_LEN` in include/linux/sched.h) in `cgroup`.
pub fn who(comm: &[u8], cgroup: Option<&Cgroup>) -> Who {
    let path = cgroup.map_or("", |cgroup| cgroup.path.as_str());
    Who { task: Name::from_bytes(comm), runtime: runtime(comm, path), cgroup: cgroup.cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Runtime;

    #[test]
    fn a_task_is_named_by_its_comm_and_placed_by_its_cgroup() {
        let path = "/system.slice/containerd.service";
        let cgroup = Cgroup { id: 7, path: path.into(), container: container(path) };
        let who = who(b"unpigz\0\0\0\0\0\0\0\0\0\0", Some(&cgroup));
        assert_eq!(who.task.as_str(), "unpigz");
        assert_eq!(who.runtime, Runtime::Containerd);
        assert_eq!(who.cgroup, Some(cgroup));
    }

    #[test]
    fn a_task_without_a_cgroup_has_its_name_alone() {
        let nobody = who(b"a\x1b[2J\xf0\x9f\0junk", None);
        assert_eq!(nobody.task.as_str(), "a\\x1b[2J\\xf0\\x9f");
        assert_eq!((nobody.runtime, nobody.cgroup), (Runtime::Other, None));
    }
}
