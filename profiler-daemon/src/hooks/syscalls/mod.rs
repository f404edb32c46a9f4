//! Mount system calls, each by the first backend that the kernel takes.
//!
//! Every call is hooked alone, so one that this kernel does not have, or a
//! refusal, takes nothing else down. Both ends of a call have the same backend:
//! they differ in which calls they see.

pub(super) mod fentry;
pub(super) mod kprobe;
mod perf;
mod tracepoint;

use aya::programs::fentry::FEntryLink;
use aya::programs::fexit::FExitLink;
use aya::programs::kprobe::KProbeLink;
use aya::{Btf, BtfError, Ebpf};
use profiler_common::syscalls::{MOUNT_SYSCALLS, MountSyscall, implementation_name};

use self::perf::PerfLink;
use self::tracepoint::Tracepoints;
use super::HookState;
use super::backend::{Backends, CallBackend};

/// One attached end of a call. Dropping it detaches its program.
#[expect(dead_code, reason = "held for what dropping it does")]
pub(super) enum Link {
    FEntry(FEntryLink),
    FExit(FExitLink),
    KProbe(KProbeLink),
    Perf(PerfLink),
}

/// Both ends of a call, in the order to detach them: an entry whose return is
/// gone already would leave a slot behind that nothing ends.
type Ends = [Link; 2];

/// Index of the mount call by system call number, 255 for none: the numbers of
/// the architecture that this was compiled for.
pub(super) fn calls_by_number() -> [u8; 512] {
    let mut table = [0xff; 512];
    for (index, call) in MOUNT_SYSCALLS.iter().enumerate() {
        let entry =
            number(call).and_then(|n| usize::try_from(n).ok()).and_then(|n| table.get_mut(n));
        if let (Some(entry), Ok(index)) = (entry, u8::try_from(index)) {
            *entry = index;
        }
    }
    table
}

fn number(call: &MountSyscall) -> Option<libc::c_long> {
    Some(match call.name {
        "mount" => libc::SYS_mount,
        "umount2" => libc::SYS_umount2,
        "move_mount" => libc::SYS_move_mount,
        "fsopen" => libc::SYS_fsopen,
        "fsconfig" => libc::SYS_fsconfig,
        "fsmount" => libc::SYS_fsmount,
        "fspick" => libc::SYS_fspick,
        "open_tree" => libc::SYS_open_tree,
        "mount_setattr" => libc::SYS_mount_setattr,
        "pivot_root" => libc::SYS_pivot_root,
        "unshare" => libc::SYS_unshare,
        "setns" => libc::SYS_setns,
        "clone" => libc::SYS_clone,
        "clone3" => libc::SYS_clone3,
        // One number on every architecture that lockprof runs on: those after
        // 423 are common (`scripts/syscall.tbl` in the kernel).
        "statmount" => 457,
        "listmount" => 458,
        "open_tree_attr" => 467,
        _ => return None,
    })
}

/// What the names of system call functions begin with
/// (`__SYSCALL_DEFINEx` in arch/*/include/asm/syscall_wrapper.h); they take a
/// pointer to the user's registers.
const PREFIX: Option<&str> = if cfg!(target_arch = "x86_64") {
    Some("__x64_sys_")
} else if cfg!(target_arch = "aarch64") {
    Some("__arm64_sys_")
} else {
    None
};

/// The kernel function behind a call.
fn function(call: &MountSyscall) -> Result<String, String> {
    PREFIX
        .map(|prefix| format!("{prefix}{}", implementation_name(call)))
        .ok_or_else(|| "the functions of system calls are unknown on this architecture".to_owned())
}

/// What to say when the kernel has nothing of this name: an older kernel, or one
/// built without the call.
pub(super) fn absent(function: &str) -> String {
    format!("this kernel has no {function}")
}

/// Attaches every call that can be, by the backends that are allowed; the links
/// detach when dropped, in this order.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    backends: Backends,
) -> (Vec<Link>, Vec<HookState>) {
    let mut links = Vec::new();
    // Only on a kernel that needs them: it takes a private mount of tracefs.
    let mut tracepoints = None;
    let states = MOUNT_SYSCALLS
        .iter()
        .map(|call| {
            let mut state = HookState::new(format!("sys_{}", call.name));
            for backend in CallBackend::ALL.into_iter().filter(|b| backends.allow_calls(*b)) {
                let attached = match backend {
                    CallBackend::Fentry => fentry::attach(ebpf, btf, call),
                    CallBackend::Kprobe => kprobe::attach(ebpf, call),
                    CallBackend::Tracepoint => tracepoints
                        .get_or_insert_with(|| Tracepoints::prepare(ebpf))
                        .as_ref()
                        .map_err(Clone::clone)
                        .and_then(|tracepoints| tracepoints.attach(call)),
                };
                state.tried(backend.name(), attached.map(|ends| links.extend(ends)));
                if state.backend.is_some() {
                    break;
                }
            }
            state
        })
        .collect();
    (links, states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mount_call_has_a_number_of_its_own() {
        let table = calls_by_number();
        for (index, call) in MOUNT_SYSCALLS.iter().enumerate() {
            let n = number(call).unwrap_or_else(|| panic!("{} has no number", call.name));
            assert_eq!(usize::from(table[usize::try_from(n).unwrap()]), index, "{}", call.name);
        }
        assert_eq!(table.iter().filter(|entry| **entry != 0xff).count(), MOUNT_SYSCALLS.len());
    }

    /// A call whose programs are missing from the object would quietly be left
    /// to the tracepoints.
    #[cfg(bpf_object)]
    #[test]
    fn every_call_has_its_programs_in_the_object() {
        let object = aya_obj::Object::parse(super::super::object::bytes()).unwrap();
        for call in &MOUNT_SYSCALLS {
            for program in [fentry::programs(call), kprobe::programs(call)].concat() {
                assert!(object.programs.contains_key(&program), "{program}");
            }
        }
    }
}
