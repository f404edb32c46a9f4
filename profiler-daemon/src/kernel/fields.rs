//! The kernel structure fields that lockprof is about, in one table.
//!
//! In: the kernel's BTF. Out: [`Fields`], the offset of each or why it is not
//! known. Fields move from version to version and with the configuration, so
//! none is ever assumed; one that is missing, or holds something else than it
//! should, turns off what needs it and nothing else.

use super::btf::{Btf, BtfError, Shape};

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
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// What is known about a field of the table.
struct Row {
    field: Field,
    /// As it is called in messages: structure and member of a recent kernel.
    name: &'static str,
    /// Where kernels have it, newest first.
    places: &'static [Place],
    /// What lockprof does not do without it; `None` while nothing reads it.
    without: Option<&'static str>,
}

/// Where some kernels have a field.
struct Place {
    of: &'static str,
    path: &'static str,
    holds: Holds,
}

/// What a field has to hold for its offset to be of use.
#[derive(Clone, Copy)]
enum Holds {
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
    fn accepts(self, shape: &Shape) -> bool {
        match (self, shape) {
            (Self::Integer(bytes), Shape::Integer(found)) => bytes == *found,
            (Self::Pointer(to), Shape::Pointer(found))
            | (Self::Pointers(to), Shape::Pointers(found)) => to == found,
            (Self::Bytes(count), Shape::Bytes(found)) => count <= *found,
            _ => false,
        }
    }

    fn expected(self) -> Shape {
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
const COUNT: usize = 27;

/// The table.
const TABLE: [Row; COUNT] = [
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

/// Where the running kernel has the fields of the table.
#[derive(Clone, Debug)]
pub struct Fields {
    offsets: [Result<u32, String>; COUNT],
    controllers: [Option<u32>; CONTROLLERS.len()],
}

/// What is known about one field on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Structure and member, as a recent kernel calls them.
    pub name: &'static str,
    /// Offset in bytes, or why it is not known.
    pub offset: Result<u32, &'a str>,
    /// What lockprof does not do without the field; `None` while nothing reads
    /// it.
    pub without: Option<&'static str>,
}

impl Fields {
    /// Looks every field up. Without BTF none is known.
    pub fn find(btf: Result<&Btf, &BtfError>) -> Self {
        let controllers = CONTROLLERS.map(|controller| {
            btf.ok()?.enumerator("cgroup_subsys_id", &format!("{controller}_cgrp_id")).ok()?
        });
        Self { offsets: TABLE.each_ref().map(|row| offset(row, btf)), controllers }
    }

    /// Number of a controller in [`Field::CssSetControllers`]: `memory`, `pids` or
    /// `cpu`. `None` if the kernel does not have it.
    pub fn controller(&self, name: &str) -> Option<u32> {
        self.controllers[CONTROLLERS.iter().position(|controller| *controller == name)?]
    }

    /// Offset of a field, in bytes; `None` if it is not known.
    pub fn offset(&self, field: Field) -> Option<u32> {
        let row = TABLE.iter().position(|row| row.field == field)?;
        self.offsets[row].as_ref().ok().copied()
    }

    /// Why the offset of a field is not known, with its name; `None` if it is.
    pub fn unknown(&self, field: Field) -> Option<(&'static str, &str)> {
        let row = TABLE.iter().position(|row| row.field == field)?;
        self.offsets[row].as_ref().err().map(|why| (TABLE[row].name, why.as_str()))
    }

    /// Offset of a field in bytes, or what to say when it is not known.
    ///
    /// # Errors
    ///
    /// The field and why its place is not known.
    pub fn require(&self, field: Field) -> Result<u32, String> {
        self.offset(field).ok_or_else(|| match self.unknown(field) {
            Some((name, why)) => format!("the place of {name} is not known: {why}"),
            None => "a field is not known".to_owned(),
        })
    }

    /// The whole table.
    pub fn all(&self) -> impl Iterator<Item = Known<'_>> {
        TABLE.iter().zip(&self.offsets).map(|(row, offset)| Known {
            name: row.name,
            offset: offset.as_ref().map_or_else(|why| Err(why.as_str()), |offset| Ok(*offset)),
            without: row.without,
        })
    }

    /// What is turned off because of missing fields: what lockprof does not do,
    /// the fields that it would take, and why the first of them is not known.
    pub fn turned_off(&self) -> Vec<TurnedOff<'_>> {
        let mut off: Vec<TurnedOff<'_>> = Vec::new();
        for known in self.all() {
            let (Err(why), Some(what)) = (known.offset, known.without) else { continue };
            match off.iter_mut().find(|other| other.what == what) {
                Some(other) => other.fields.push(known.name),
                None => off.push(TurnedOff { what, fields: vec![known.name], why }),
            }
        }
        off
    }
}

/// What lockprof does not do on this kernel because a field is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedOff<'a> {
    /// What it does not do.
    pub what: &'static str,
    /// The fields that are missing for it, by name.
    pub fields: Vec<&'static str>,
    /// Why the first of them is not known.
    pub why: &'a str,
}

fn offset(row: &Row, btf: Result<&Btf, &BtfError>) -> Result<u32, String> {
    let btf = btf.map_err(ToString::to_string)?;
    let mut reasons = Vec::new();
    for place in row.places {
        match btf.describe(place.of, place.path) {
            Ok(member) if place.holds.accepts(&member.shape) => return Ok(member.offset),
            Ok(member) => reasons.push(format!(
                "`{}.{}` of this kernel is {}, not {}",
                place.of,
                place.path,
                member.shape,
                place.holds.expected()
            )),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::btf::tests::Builder;
    use super::*;

    /// Types with the fields at the places that some kernels have them; bits.
    fn kernel(mount_count: &str) -> Btf {
        let mut builder = Builder::new();
        let (int, byte) = (builder.int(), builder.integer("char", 1));
        let long = builder.integer("long", 8);
        let atomic = builder.structure("", &[("counter", long, 0)]);
        let name = builder.array(byte, 16);
        let root = builder.structure("rb_root", &[("rb_node", long, 0)]);
        let ns_common = builder.structure("ns_common", &[("stashed", long, 0), ("inum", int, 64)]);
        let members = match mount_count {
            "nr_mounts" => {
                vec![("ns", ns_common, 64), ("mounts", root, 512), ("nr_mounts", int, 768)]
            }
            "mounts" => vec![("ns", ns_common, 64), ("mounts", int, 896)],
            _ => vec![("ns", ns_common, 64), ("mounts", root, 512)],
        };
        let mnt_namespace = builder.structure("mnt_namespace", &members);
        let to_namespace = builder.pointer(mnt_namespace);
        let nsproxy = builder.structure("nsproxy", &[("mnt_ns", to_namespace, 192)]);
        let to_nsproxy = builder.pointer(nsproxy);
        let kernfs_node = builder.structure("kernfs_node", &[("id", long, 8 * 96)]);
        let directory = builder.pointer(kernfs_node);
        let cgroup = builder.structure("cgroup", &[("kn", directory, 8 * 256)]);
        let to_cgroup = builder.pointer(cgroup);
        let state = builder.structure("cgroup_subsys_state", &[("cgroup", to_cgroup, 0)]);
        let to_state = builder.pointer(state);
        let states = builder.array(to_state, 14);
        let css_set = builder
            .structure("css_set", &[("subsys", states, 0), ("dfl_cgrp", to_cgroup, 8 * 120)]);
        let to_css_set = builder.pointer(css_set);
        let nothing = builder.pointer(byte);
        let mut to = |of: &str, members: &[(&str, u32, u32)]| {
            let structure = builder.structure(of, members);
            builder.pointer(structure)
        };
        let to_operations = to("file_operations", &[("owner", nothing, 0)]);
        let to_file = to("file", &[("f_op", to_operations, 320), ("private_data", nothing, 640)]);
        to("kiocb", &[("ki_filp", to_file, 0), ("ki_pos", long, 64)]);
        to("seq_file", &[("buf", nothing, 0), ("from", long, 128), ("count", long, 192)]);
        let to_type = to("file_system_type", &[("name", nothing, 0)]);
        let to_root = to("dentry", &[("d_flags", int, 0)]);
        let last = to("super_block", &[("s_type", to_type, 320), ("s_root", to_root, 832)]);
        // To the structure that comes after it.
        let to_task = builder.pointer(last + 2);
        builder.structure(
            "task_struct",
            &[
                ("pid", int, 8 * 2232),
                ("tgid", int, 8 * 2236),
                ("group_leader", to_task, 8 * 2288),
                ("comm", name, 8 * 2736),
                ("nsproxy", to_nsproxy, 8 * 2824),
                ("cgroups", to_css_set, 8 * 2920),
            ],
        );
        builder.structure("rw_semaphore", &[("count", atomic, 0), ("owner", atomic, 64)]);
        builder.structure("mutex", &[("owner", atomic, 0)]);
        builder.build().unwrap()
    }

    fn names_missing(fields: &Fields) -> Vec<&'static str> {
        fields.all().filter(|known| known.offset.is_err()).map(|known| known.name).collect()
    }

    #[test]
    fn the_table_has_each_field_once() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|other| other.field != row.field), "{}", row.name);
            assert!(!row.places.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn offsets_are_those_of_the_kernel_in_bytes() {
        let fields = Fields::find(Ok(&kernel("nr_mounts")));
        assert_eq!(names_missing(&fields), [""; 0]);
        assert_eq!(fields.turned_off(), []);
        let offsets = [
            (Field::TaskNsproxy, 2824),
            (Field::TaskPid, 2232),
            (Field::TaskTgid, 2236),
            (Field::TaskComm, 2736),
            (Field::NsproxyMountNamespace, 24),
            (Field::MountNamespaceInum, 16),
            (Field::MountNamespaceMounts, 96),
            (Field::RwsemCount, 0),
            (Field::RwsemOwner, 8),
            (Field::MutexOwner, 0),
            (Field::TaskCgroups, 2920),
            (Field::CssSetDefault, 120),
            (Field::CssSetControllers, 0),
            (Field::CssCgroup, 0),
            (Field::CgroupDirectory, 256),
            (Field::KernfsId, 96),
            (Field::KiocbFile, 0),
            (Field::KiocbPosition, 8),
            (Field::FileOperations, 40),
            (Field::FilePrivate, 80),
            (Field::SeqBuffer, 0),
            (Field::SeqFrom, 16),
            (Field::SeqCount, 24),
            (Field::SuperblockType, 40),
            (Field::SuperblockRoot, 104),
            (Field::TypeName, 0),
            (Field::TaskLeader, 2288),
        ];
        for (field, offset) in offsets {
            assert_eq!(fields.offset(field), Some(offset), "{field:?}");
        }
    }

    #[test]
    fn mounts_was_the_count_before_it_was_the_tree() {
        let old = Fields::find(Ok(&kernel("mounts")));
        assert_eq!(old.offset(Field::MountNamespaceMounts), Some(112));
        let neither = Fields::find(Ok(&kernel("tree only")));
        assert_eq!(neither.offset(Field::MountNamespaceMounts), None);
        let known = neither.all().find(|known| known.offset.is_err()).unwrap();
        assert_eq!(
            known.offset,
            Err("`struct mnt_namespace` of this kernel has no member `nr_mounts`; \
                 `mnt_namespace.mounts` of this kernel is something else, not an integer of 4 bytes")
        );
    }

    #[test]
    fn a_field_that_nothing_reads_turns_nothing_off() {
        let fields = Fields::find(Ok(&kernel("tree only")));
        assert_eq!(names_missing(&fields), ["mnt_namespace.nr_mounts"]);
        assert_eq!(fields.turned_off(), []);
    }

    #[test]
    fn a_missing_field_turns_off_by_name_what_needs_it() {
        let mut builder = Builder::new();
        let int = builder.int();
        builder.structure("task_struct", &[("pid", int, 0), ("nsproxy", int, 64)]);
        let fields = Fields::find(Ok(&builder.build().unwrap()));
        assert_eq!(fields.offset(Field::TaskPid), Some(0));
        let off = fields.turned_off();
        assert_eq!(off.len(), 3, "{off:?}");
        assert!(off[0].what.contains("setns(fd, 0)"));
        assert_eq!(off[1].fields[0], "task_struct.comm");
        assert_eq!(off[2].fields[0], "task_struct.cgroups");
        assert_eq!(off[0].fields, ["task_struct.nsproxy", "nsproxy.mnt_ns"]);
        assert_eq!(
            off[0].why,
            "`task_struct.nsproxy` of this kernel is an integer of 4 bytes, not a pointer to `struct nsproxy`"
        );
    }

    #[test]
    fn without_btf_no_field_is_known() {
        let error = BtfError::Malformed { offset: 0 };
        let fields = Fields::find(Err(&error));
        assert_eq!(names_missing(&fields).len(), COUNT);
        assert_eq!(fields.turned_off()[0].why, error.to_string());
    }
}
