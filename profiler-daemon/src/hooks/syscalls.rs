//! Mount system calls, by per-syscall tracepoints.
//!
//! One program serves all entries and one all returns; each tracepoint is
//! attached alone, so a call that this kernel does not have, or a refusal,
//! takes nothing else down.

use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::programs::TracePoint;
use profiler_common::syscalls::{MOUNT_SYSCALLS, MountSyscall, When, tracepoint_name};

use super::HookState;
use super::perf::{PerfError, PerfLink, Tracefs};
use super::programs::{chain, find};

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

/// Attaches every call that can be; the links detach when dropped.
pub(super) fn attach(ebpf: &mut Ebpf) -> (Vec<PerfLink>, Vec<HookState>) {
    let mut links = Vec::new();
    let prepared = prepare(ebpf);
    let states = MOUNT_SYSCALLS
        .iter()
        .map(|call| {
            let mut state = HookState {
                hook: format!("sys_{}", call.name),
                backend: None,
                refused: Vec::new(),
                absent: false,
            };
            let attached = match &prepared {
                Ok(prepared) => prepared.attach(call).map_err(|error| chain(&error)),
                Err(why) => Err(why.clone()),
            };
            match attached {
                Ok(both) => {
                    links.extend(both);
                    state.backend = Some("tracepoint");
                }
                Err(why) => state.refused.push(("tracepoint", why)),
            }
            state
        })
        .collect();
    (links, states)
}

const ENTER: &str = "mount_syscall_enter";
const ENTER_SETNS: &str = "setns_enter";
const EXIT: &str = "mount_syscall_exit";

/// Loaded programs and the ids to attach them to.
struct Prepared<'a> {
    tracefs: Tracefs,
    enter: BorrowedFd<'a>,
    enter_setns: BorrowedFd<'a>,
    exit: BorrowedFd<'a>,
}

fn prepare(ebpf: &mut Ebpf) -> Result<Prepared<'_>, String> {
    for name in [ENTER, ENTER_SETNS, EXIT] {
        let program: &mut TracePoint = find(ebpf, name)?;
        program.load().map_err(|error| chain(&error))?;
    }
    let ebpf: &Ebpf = ebpf;
    let fd = |name: &str| -> Result<BorrowedFd<'_>, String> {
        let program: &TracePoint = ebpf
            .program(name)
            .ok_or_else(|| format!("the BPF object has no program {name}"))?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| chain(&error))?;
        Ok(program.fd().map_err(|error| chain(&error))?.as_fd())
    };
    Ok(Prepared {
        tracefs: Tracefs::open().map_err(|error| chain(&error))?,
        enter: fd(ENTER)?,
        enter_setns: fd(ENTER_SETNS)?,
        exit: fd(EXIT)?,
    })
}

impl Prepared<'_> {
    /// Attaches both ends of a call. The return first: an entry alone would
    /// leave slots behind that nothing ends.
    fn attach(&self, call: &MountSyscall) -> Result<[PerfLink; 2], PerfError> {
        let name = tracepoint_name(call);
        let enter = match call.when {
            When::EntersMountNamespace => self.enter_setns,
            _ => self.enter,
        };
        let exit = PerfLink::attach(self.tracefs.id(&format!("sys_exit_{name}"))?, self.exit)?;
        let enter = PerfLink::attach(self.tracefs.id(&format!("sys_enter_{name}"))?, enter)?;
        Ok([enter, exit])
    }
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
}
