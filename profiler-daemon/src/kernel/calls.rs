//! Which system calls the running kernel has.
//!
//! In: the functions that `/proc/kallsyms` lists; names need no privilege. Out:
//! the calls whose entry function is not among them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use profiler_common::syscalls::{MountSyscall, implementation_name};

use super::kallsyms::KALLSYMS;

/// What the architecture puts before the name of a system call's entry
/// function (`__SYSCALL_DEFINEx` in arch/*/include/asm/syscall_wrapper.h).
const PREFIX: &str = if cfg!(target_arch = "x86_64") {
    "__x64_sys_"
} else if cfg!(target_arch = "aarch64") {
    "__arm64_sys_"
} else if cfg!(target_arch = "riscv64") {
    "__riscv_sys_"
} else {
    "sys_"
};

/// Those of `calls` that the running kernel does not have.
///
/// # Errors
///
/// The kernel's functions cannot be read, or there is not a single entry
/// function of a system call among them: then nothing is known.
pub fn absent<'a>(calls: &[&'a MountSyscall]) -> io::Result<Vec<&'a MountSyscall>> {
    absent_from(BufReader::new(File::open(KALLSYMS)?), calls)
}

/// The same from any table of that format.
fn absent_from<'a>(
    table: impl BufRead,
    calls: &[&'a MountSyscall],
) -> io::Result<Vec<&'a MountSyscall>> {
    let mut present = BTreeSet::new();
    let mut any = false;
    for line in table.lines() {
        let line = line?;
        // A fourth word is a module, and modules define no system calls.
        let mut words = line.split_ascii_whitespace().skip(2);
        let (Some(name), None) = (words.next(), words.next()) else { continue };
        let Some(call) = name.strip_prefix(PREFIX) else { continue };
        any = true;
        present.insert(call.to_owned());
    }
    if !any {
        return Err(io::Error::other(format!("{KALLSYMS} lists no function {PREFIX}*")));
    }
    Ok(calls.iter().copied().filter(|call| !present.contains(implementation_name(call))).collect())
}

/// Version of Linux that brought the call, for those that came after 5.1.
pub fn since(call: &str) -> Option<&'static str> {
    Some(match call {
        "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "fspick" | "open_tree" => "5.2",
        "clone3" => "5.3",
        "mount_setattr" => "5.12",
        "statmount" | "listmount" => "6.8",
        "open_tree_attr" => "6.15",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use profiler_common::syscalls::MOUNT_SYSCALLS;

    use super::*;

    fn names(table: &str) -> Vec<&'static str> {
        let calls: Vec<_> = MOUNT_SYSCALLS.iter().collect();
        let absent = absent_from(table.as_bytes(), &calls).unwrap();
        absent.into_iter().map(|call| call.name).collect()
    }

    /// A table with the entry functions of all mount calls but some.
    fn table(but: &[&str]) -> String {
        MOUNT_SYSCALLS
            .iter()
            .map(implementation_name)
            .filter(|name| !but.contains(name))
            .map(|name| format!("0000000000000000 T {PREFIX}{name}\n"))
            .collect()
    }

    #[test]
    fn a_call_without_an_entry_function_is_absent_even_if_addresses_are_hidden() {
        assert_eq!(names(&table(&[])), [""; 0]);
        assert_eq!(names(&table(&["statmount", "umount"])), ["umount2", "statmount"]);
    }

    #[test]
    fn other_symbols_of_the_name_do_not_count() {
        let decoys = format!("0 t {PREFIX}fsopen_extra\n0 t {PREFIX}fsopen [vfs]\n0 t fsopen\n");
        assert_eq!(names(&(table(&["fsopen"]) + &decoys)), ["fsopen"]);
    }

    #[test]
    fn a_table_without_any_entry_function_tells_nothing() {
        let error = absent_from(&b"0 T namespace_unlock\n"[..], &[]).unwrap_err().to_string();
        assert!(error.contains(PREFIX), "{error}");
    }

    #[test]
    fn versions_are_of_calls_that_are_measured() {
        for call in ["clone3", "statmount", "open_tree_attr", "mount_setattr", "fsopen"] {
            assert!(since(call).is_some());
            assert!(MOUNT_SYSCALLS.iter().any(|known| known.name == call));
        }
        assert_eq!(since("mount"), None);
    }
}
