//! The system calls of the mount path, in the order of their array index.

/// A system call of the mount path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountSyscall {
    /// Name without prefix, as in `sys_enter_<name>`.
    pub name: &'static str,
    /// Which calls count.
    pub when: When,
}

/// Which calls of a system call belong to the mount path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum When {
    /// All of them.
    Always = 0,
    /// Those whose first argument carries `CLONE_NEWNS`.
    FirstArgumentNewns = 1,
    /// Those whose first argument points to a `struct clone_args` whose flags
    /// carry `CLONE_NEWNS`.
    CloneArgsNewns = 2,
    /// Those that ask for a mount namespace (`CLONE_NEWNS` in the second
    /// argument), and those that ask for any and after which the task is in
    /// another one.
    EntersMountNamespace = 3,
}

/// All of them; the position is the index that programs and arrays use.
pub const MOUNT_SYSCALLS: [MountSyscall; SYSCALLS] = [
    always("mount"),
    always("umount2"),
    always("move_mount"),
    always("fsopen"),
    always("fsconfig"),
    always("fsmount"),
    always("fspick"),
    always("open_tree"),
    always("open_tree_attr"),
    always("mount_setattr"),
    always("pivot_root"),
    MountSyscall { name: "unshare", when: When::FirstArgumentNewns },
    MountSyscall { name: "setns", when: When::EntersMountNamespace },
    MountSyscall { name: "clone", when: When::FirstArgumentNewns },
    MountSyscall { name: "clone3", when: When::CloneArgsNewns },
    always("statmount"),
    always("listmount"),
];

/// How many there are.
pub const SYSCALLS: usize = 17;

/// `CLONE_NEWNS` in `include/uapi/linux/sched.h`.
pub const CLONE_NEWNS: u64 = 0x0002_0000;

/// Name of the system call's implementation, which its function and its
/// tracepoints carry: `SYSCALL_DEFINE2(umount, ...)` in fs/namespace.c is behind
/// `umount2`, all others have their own name.
pub const fn implementation_name(syscall: &MountSyscall) -> &'static str {
    if matches!(syscall.name.as_bytes(), b"umount2") { "umount" } else { syscall.name }
}

/// Index of the call `name`.
pub const fn index_of(name: &str) -> Option<u8> {
    let mut index = 0;
    while index < SYSCALLS {
        if same(MOUNT_SYSCALLS[index].name.as_bytes(), name.as_bytes()) {
            return Some(index as u8);
        }
        index += 1;
    }
    None
}

/// `==`, which constants cannot use on slices.
const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

const fn always(name: &'static str) -> MountSyscall {
    MountSyscall { name, when: When::Always }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_occur_once() {
        for (i, a) in MOUNT_SYSCALLS.iter().enumerate() {
            assert!(MOUNT_SYSCALLS.iter().skip(i + 1).all(|b| a.name != b.name), "{}", a.name);
        }
    }

    #[test]
    fn only_umount2_is_implemented_under_another_name() {
        for call in &MOUNT_SYSCALLS {
            assert_eq!(implementation_name(call) != call.name, call.name == "umount2");
        }
    }

    #[test]
    fn every_call_is_found_by_its_name_alone() {
        for (index, call) in MOUNT_SYSCALLS.iter().enumerate() {
            assert_eq!(index_of(call.name).map(usize::from), Some(index));
        }
        assert_eq!(index_of("umount"), None, "a prefix of umount2");
        assert_eq!(index_of("mounts"), None);
    }
}
