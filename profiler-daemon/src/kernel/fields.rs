//! Where the running kernel has the structure fields that lockprof is about.
//!
//! In: the kernel's BTF, and the [`table`] of the fields. Out: [`Fields`], the offset of each or why it is not
//! known. Fields move from version to version and with the configuration, so
//! none is ever assumed; one that is missing, or holds something else than it
//! should, turns off what needs it and nothing else.

mod table;

pub use self::table::Field;
use self::table::{CONTROLLERS, COUNT, Row, TABLE};
use super::btf::{Btf, BtfError};

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
