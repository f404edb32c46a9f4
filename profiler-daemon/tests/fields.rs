//! Field offsets of the running kernel against two other witnesses: `bpftool`,
//! and what the first task's structures hold in memory.
#![expect(clippy::print_stdout, reason = "the offsets, for those who want to see them")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use lockprof::hooks::object;
use lockprof::kernel::btf::{Btf, VMLINUX};
use lockprof::kernel::fields::{Field, Fields};
use lockprof::kernel::kallsyms::Kallsyms;
use lockprof::kernel::text::{BpfText, TextError, TextSource as _};

/// The fields of the running kernel; `None`, and `test` skipped, without BTF.
fn fields(test: &str) -> Option<Fields> {
    if !Path::new(VMLINUX).exists() {
        common::skip(test, "this kernel has no BTF");
        return None;
    }
    let fields = Fields::find(Btf::read().as_ref());
    for known in fields.all() {
        println!("{}: {:?}", known.name, known.offset);
        assert!(known.offset.is_ok(), "{}: {:?}", known.name, known.offset);
    }
    Some(fields)
}

#[test]
fn offsets_are_those_that_bpftool_tells() {
    let test = "offsets_are_those_that_bpftool_tells";
    let Some(fields) = fields(test) else { return };
    let dump = Command::new("bpftool").args(["btf", "dump", "file", VMLINUX]).output();
    let dump = match dump {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).expect("text"),
        _ => return common::skip(test, "bpftool is not installed, or cannot read BTF"),
    };
    let offsets = direct_members(&dump, &["task_struct", "nsproxy", "mnt_namespace", "ns_common"]);
    let of = |structure: &str, member: &str| offsets.get(&(structure, member)).copied();
    let expected = [
        (Field::TaskNsproxy, of("task_struct", "nsproxy")),
        (Field::TaskPid, of("task_struct", "pid")),
        (Field::TaskTgid, of("task_struct", "tgid")),
        (Field::TaskComm, of("task_struct", "comm")),
        (Field::NsproxyMountNamespace, of("nsproxy", "mnt_ns")),
        (
            Field::MountNamespaceInum,
            of("mnt_namespace", "ns").zip(of("ns_common", "inum")).map(|(ns, inum)| ns + inum),
        ),
        (
            Field::MountNamespaceMounts,
            of("mnt_namespace", "nr_mounts").or_else(|| of("mnt_namespace", "mounts")),
        ),
    ];
    for (field, expected) in expected {
        assert_eq!(fields.offset(field), expected, "{field:?}");
    }
    let locks = direct_members(&dump, &["rw_semaphore", "mutex"]);
    for (field, structure) in [(Field::RwsemOwner, "rw_semaphore"), (Field::MutexOwner, "mutex")] {
        assert_eq!(fields.offset(field), locks.get(&(structure, "owner")).copied(), "{field:?}");
    }
    let count = locks.get(&("rw_semaphore", "count")).copied();
    assert_eq!(fields.offset(Field::RwsemCount), count);
}

/// Offsets in bytes by structure and member, from a raw dump: a structure's
/// line, then one line for each member, indented.
fn direct_members<'a>(dump: &'a str, structures: &[&'a str]) -> BTreeMap<(&'a str, &'a str), u32> {
    let mut offsets = BTreeMap::new();
    let mut inside = None;
    for line in dump.lines() {
        if line.starts_with('[') {
            let name = line.split('\'').nth(1).unwrap_or_default();
            let is_structure = line.contains("] STRUCT '");
            inside = structures.iter().find(|wanted| is_structure && **wanted == name);
        } else if let (Some(structure), Some(name)) = (inside, line.split('\'').nth(1)) {
            let bits = line.split("bits_offset=").nth(1).and_then(|rest| rest.split(' ').next());
            let bits: u32 = bits.and_then(|bits| bits.parse().ok()).expect("an offset");
            offsets.entry((*structure, name)).or_insert(bits / 8);
        }
    }
    offsets
}

/// The first task is a variable of the kernel, and everything about it is known
/// from outside: its name, its ids, its namespaces.
#[test]
fn the_first_task_has_at_these_offsets_what_it_should() {
    let test = "the_first_task_has_at_these_offsets_what_it_should";
    needs_bpf!("the_first_task_has_at_these_offsets_what_it_should");
    let Some(fields) = fields(test) else { return };
    let symbols = Kallsyms::collect(["init_task", "init_nsproxy"]).expect("kallsyms is readable");
    let address = |name: &str| symbols.get(name).first().map(|symbol| symbol.address);
    let (Some(task), Some(nsproxy)) = (address("init_task"), address("init_nsproxy")) else {
        return common::skip(test, "kallsyms has no data symbols (CONFIG_KALLSYMS_ALL)");
    };
    let memory = BpfText::load(object::bytes()).expect("kernel memory can be read");
    let read = |at: u64, field: Field, len: usize| {
        let offset = fields.offset(field).expect("known");
        memory.read(at + u64::from(offset), len).expect("it is readable")
    };
    let number = |at, field| u32::from_le_bytes(read(at, field, 4).try_into().expect("four bytes"));
    let pointer =
        |at, field| u64::from_le_bytes(read(at, field, 8).try_into().expect("eight bytes"));

    assert!(read(task, Field::TaskComm, 16).starts_with(b"swapper"));
    assert_eq!((number(task, Field::TaskPid), number(task, Field::TaskTgid)), (0, 0));
    assert_eq!(pointer(task, Field::TaskNsproxy), nsproxy);
    let namespace = pointer(nsproxy, Field::NsproxyMountNamespace);
    // Kernel threads stay in the first mount namespace; kthreadd is pid 2.
    let link = fs::read_link("/proc/2/ns/mnt").expect("the namespace of kthreadd");
    let inum = number(namespace, Field::MountNamespaceInum);
    assert_eq!(link.to_str(), Some(format!("mnt:[{inum}]").as_str()));
    let mounts = number(namespace, Field::MountNamespaceMounts);
    assert!((1..1_000_000).contains(&mounts), "{mounts} mounts");
    if fs::read_link("/proc/self/ns/mnt").expect("a link") == link {
        // A table shows the mounts below the root of the task that reads it.
        let table = fs::read_to_string("/proc/self/mountinfo").expect("it is readable");
        let shown = u32::try_from(table.lines().count()).expect("few");
        assert!(shown <= mounts && mounts <= shown + 2, "{shown} shown, {mounts} in the namespace");
    }
}

#[test]
fn memory_that_is_not_there_is_unreadable() {
    needs_bpf!("memory_that_is_not_there_is_unreadable");
    for object in [object::bytes(), object::older_bytes()] {
        let memory = BpfText::load(object).expect("kernel memory can be read");
        // Below the lowest address of kernel memory, and mapped in no process.
        let error = memory.read(0x10, 8).expect_err("nothing is there");
        assert!(matches!(error, TextError::Unreadable { address: 0x10, .. }), "{error:?}");
    }
}
