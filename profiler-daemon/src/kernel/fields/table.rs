//! The table: each field, where kernels have it, and what is off without it.

use crate::kernel::btf::Shape;

/// A field of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The namespaces of a task.
    TaskNsproxy,
    /// Thread id of a task.
    TaskPid,
    /// Process id of a task.
    TaskTgid,
    /// Name of a task.
    TaskComm,
    /// The mount namespace of an nsproxy.
    NsproxyMountNamespace,
    /// Number of a mount namespace, as in `/proc/<pid>/ns/mnt`.
    MountNamespaceInum,
    /// Mounts in a mount namespace.
    MountNamespaceMounts,
    /// Who has a rwsem or is queued for it: flags and the number of readers
    /// (kernel/locking/rwsem.c).
    RwsemCount,
    /// Who holds a rwsem: a `task_struct` and flags (kernel/locking/rwsem.c).
    RwsemOwner,
    /// Who holds a mutex: a `task_struct` and flags (kernel/locking/mutex.c).
    MutexOwner,
    /// The cgroups of a task, in all hierarchies.
    TaskCgroups,
    /// Of these, the one in the unified hierarchy.
    CssSetDefault,
    /// Of these, the states of the controllers, by number.
    CssSetControllers,
    /// The cgroup of a controller's state.
    CssCgroup,
    /// The directory of a cgroup.
    CgroupDirectory,
    /// Id of a directory in kernfs.
    KernfsId,
    /// The file that is read.
    KiocbFile,
    /// Where in the file it is read.
    KiocbPosition,
    /// The operations of an open file.
    FileOperations,
    /// Of a file that is made record by record, its `seq_file`.
    FilePrivate,
    /// Where such a file is written before it is handed out.
    SeqBuffer,
    /// Where what is left of that begins.
    SeqFrom,
    /// How much of that is left.
    SeqCount,
    /// The type of file system of a superblock.
    SuperblockType,
    /// The root of a superblock; null while it is being made.
    SuperblockRoot,
    /// Name of a type of file system.
    TypeName,
    /// The first thread of a task's process.
    TaskLeader,
}

/// Controllers whose hierarchy may tell containers apart where there is no
/// unified one (cgroup v1).
pub(super) const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// What is known about a field of the table.
pub(super) struct Row {
    pub(super) field: Field,
    /// As it is called in messages: structure and member of a recent kernel.
    pub(super) name: &'static str,
    /// Where kernels have it, newest first.
    pub(super) places: &'static [Place],
    /// What lockprof does not do without it; `None` while nothing reads it.
    pub(super) without: Option<&'static str>,
}

/// Where some kernels have a field.
pub(super) struct Place {
    pub(super) of: &'static str,
    pub(super) path: &'static str,
    pub(super) holds: Holds,
}

/// What a field has to hold for its offset to be of use.
#[derive(Clone, Copy)]
pub(super) enum Holds {
    /// An integer of this many bytes.
    Integer(u32),
    /// A pointer to this structure.
    Pointer(&'static str),
    /// An array of pointers to this structure.
    Pointers(&'static str),
    /// At least this many bytes of text.
    Bytes(u32),
}

impl Holds {
    pub(super) fn accepts(self, shape: &Shape) -> bool {
        match (self, shape) {
            (Self::Integer(bytes), Shape::Integer(found)) => bytes == *found,
            (Self::Pointer(to), Shape::Pointer(found))
            | (Self::Pointers(to), Shape::Pointers(found)) => to == found,
            (Self::Bytes(count), Shape::Bytes(found)) => count <= *found,
            _ => false,
        }
    }

    pub(super) fn expected(self) -> Shape {
        match self {
            Self::Integer(bytes) => Shape::Integer(bytes),
            Self::Pointer(to) => Shape::Pointer(to.to_owned()),
            Self::Pointers(to) => Shape::Pointers(to.to_owned()),
            Self::Bytes(count) => Shape::Bytes(count),
        }
    }
}

/// What `setns` calls need; see `EntersMountNamespace` in
/// `profiler_common::syscalls`.
const SETNS: Option<&str> =
    Some("setns(fd, 0) into another mount namespace is not counted as a mount call");

/// What naming those who wait and those who make them wait needs.
const BLOCKERS: Option<&str> =
    Some("who holds a lock is not read when others begin to wait for it");
/// What telling cgroups apart needs.
const CGROUPS: Option<&str> = Some("waits are charged to task names without their cgroups");

/// How many fields there are.
pub(super) const COUNT: usize = 27;

/// The table.
pub(super) const TABLE: [Row; COUNT] = [
    Row {
        field: Field::TaskNsproxy,
        name: "task_struct.nsproxy",
        places: &[Place { of: "task_struct", path: "nsproxy", holds: Holds::Pointer("nsproxy") }],
        without: SETNS,
    },
    Row {
        field: Field::TaskPid,
        name: "task_struct.pid",
        places: &[Place { of: "task_struct", path: "pid", holds: Holds::Integer(4) }],
        without: BLOCKERS,
    },
    Row {
        field: Field::TaskTgid,
        name: "task_struct.tgid",
        places: &[Place { of: "task_struct", path: "tgid", holds: Holds::Integer(4) }],
        without: None,
    },
    Row {
        field: Field::TaskComm,
        name: "task_struct.comm",
        // TASK_COMM_LEN in include/linux/sched.h.
        places: &[Place { of: "task_struct", path: "comm", holds: Holds::Bytes(16) }],
        without: BLOCKERS,
    },
    Row {
        field: Field::NsproxyMountNamespace,
        name: "nsproxy.mnt_ns",
        places: &[Place { of: "nsproxy", path: "mnt_ns", holds: Holds::Pointer("mnt_namespace") }],
        without: SETNS,
    },
    Row {
        field: Field::MountNamespaceInum,
        name: "mnt_namespace.ns.inum",
        places: &[Place { of: "mnt_namespace", path: "ns.inum", holds: Holds::Integer(4) }],
        without: None,
    },
    Row {
        field: Field::MountNamespaceMounts,
        name: "mnt_namespace.nr_mounts",
        // `mounts` was the count; in 6.8 that name went to the tree of mounts
        // and the count became `nr_mounts` (fs/mount.h).
        places: &[
            Place { of: "mnt_namespace", path: "nr_mounts", holds: Holds::Integer(4) },
            Place { of: "mnt_namespace", path: "mounts", holds: Holds::Integer(4) },
        ],
        without: None,
    },
    Row {
        field: Field::RwsemCount,
        name: "rw_semaphore.count",
        places: &[Place { of: "rw_semaphore", path: "count.counter", holds: Holds::Integer(8) }],
        without: None,
    },
    Row {
        field: Field::RwsemOwner,
        name: "rw_semaphore.owner",
        // With PREEMPT_RT both locks are built on an rt_mutex, whose owner word
        // is coded in another way: not the same field.
        places: &[Place { of: "rw_semaphore", path: "owner.counter", holds: Holds::Integer(8) }],
        without: BLOCKERS,
    },
    Row {
        field: Field::MutexOwner,
        name: "mutex.owner",
        places: &[Place { of: "mutex", path: "owner.counter", holds: Holds::Integer(8) }],
        without: BLOCKERS,
    },
    Row {
        field: Field::TaskCgroups,
        name: "task_struct.cgroups",
        places: &[Place { of: "task_struct", path: "cgroups", holds: Holds::Pointer("css_set") }],
        without: CGROUPS,
    },
    Row {
        field: Field::CssSetDefault,
        name: "css_set.dfl_cgrp",
        places: &[Place { of: "css_set", path: "dfl_cgrp", holds: Holds::Pointer("cgroup") }],
        without: CGROUPS,
    },
    Row {
        field: Field::CssSetControllers,
        name: "css_set.subsys",
        places: &[Place {
            of: "css_set",
            path: "subsys",
            holds: Holds::Pointers("cgroup_subsys_state"),
        }],
        without: CGROUPS,
    },
    Row {
        field: Field::CssCgroup,
        name: "cgroup_subsys_state.cgroup",
        places: &[Place {
            of: "cgroup_subsys_state",
            path: "cgroup",
            holds: Holds::Pointer("cgroup"),
        }],
        without: CGROUPS,
    },
    Row {
        field: Field::CgroupDirectory,
        name: "cgroup.kn",
        places: &[Place { of: "cgroup", path: "kn", holds: Holds::Pointer("kernfs_node") }],
        without: CGROUPS,
    },
    Row {
        field: Field::KernfsId,
        name: "kernfs_node.id",
        places: &[Place { of: "kernfs_node", path: "id", holds: Holds::Integer(8) }],
        without: CGROUPS,
    },
    Row {
        field: Field::KiocbFile,
        name: "kiocb.ki_filp",
        places: &[Place { of: "kiocb", path: "ki_filp", holds: Holds::Pointer("file") }],
        without: None,
    },
    Row {
        field: Field::KiocbPosition,
        name: "kiocb.ki_pos",
        places: &[Place { of: "kiocb", path: "ki_pos", holds: Holds::Integer(8) }],
        without: None,
    },
    Row {
        field: Field::FileOperations,
        name: "file.f_op",
        places: &[Place { of: "file", path: "f_op", holds: Holds::Pointer("file_operations") }],
        without: None,
    },
    Row {
        field: Field::FilePrivate,
        name: "file.private_data",
        places: &[Place { of: "file", path: "private_data", holds: Holds::Pointer("") }],
        without: None,
    },
    Row {
        field: Field::SeqBuffer,
        name: "seq_file.buf",
        places: &[Place { of: "seq_file", path: "buf", holds: Holds::Pointer("") }],
        without: None,
    },
    Row {
        field: Field::SeqFrom,
        name: "seq_file.from",
        places: &[Place { of: "seq_file", path: "from", holds: Holds::Integer(8) }],
        without: None,
    },
    Row {
        field: Field::SeqCount,
        name: "seq_file.count",
        places: &[Place { of: "seq_file", path: "count", holds: Holds::Integer(8) }],
        without: None,
    },
    Row {
        field: Field::SuperblockType,
        name: "super_block.s_type",
        places: &[Place {
            of: "super_block",
            path: "s_type",
            holds: Holds::Pointer("file_system_type"),
        }],
        without: None,
    },
    Row {
        field: Field::SuperblockRoot,
        name: "super_block.s_root",
        places: &[Place { of: "super_block", path: "s_root", holds: Holds::Pointer("dentry") }],
        without: None,
    },
    Row {
        field: Field::TypeName,
        name: "file_system_type.name",
        places: &[Place { of: "file_system_type", path: "name", holds: Holds::Pointer("") }],
        without: None,
    },
    Row {
        field: Field::TaskLeader,
        name: "task_struct.group_leader",
        places: &[Place {
            of: "task_struct",
            path: "group_leader",
            holds: Holds::Pointer("task_struct"),
        }],
        without: None,
    },
];
