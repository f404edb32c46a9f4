//! fentry and fexit on the functions behind the calls: a direct call from the
//! function, and nothing for anyone else.

use aya::programs::{FEntry, FExit, ProgramError};
use aya::{Btf, BtfError, Ebpf};
use profiler_common::syscalls::MountSyscall;

use super::super::programs::{chain, find};
use super::{Ends, Link, absent, function};

/// Names of the programs for a call: entry, return.
pub(super) fn programs(call: &MountSyscall) -> [String; 2] {
    ["fentry", "fexit"].map(|kind| format!("{kind}_{}", call.name))
}

/// Attaches both ends of a call, the return first. Both pass the verifier before
/// that: a call that returns between the two attachments counts as a return
/// without an entry.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    call: &MountSyscall,
) -> Result<Ends, String> {
    let function = function(call)?;
    let btf =
        btf.map_err(|error| format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error)))?;
    let refused = |error: ProgramError| refusal(&error, &function);
    let [entry, exit] = programs(call);
    find::<FExit>(ebpf, &exit)?.load(&function, btf).map_err(refused)?;
    find::<FEntry>(ebpf, &entry)?.load(&function, btf).map_err(refused)?;
    let exit: &mut FExit = find(ebpf, &exit)?;
    let exit = exit.attach().and_then(|id| exit.take_link(id)).map_err(refused)?;
    let entry: &mut FEntry = find(ebpf, &entry)?;
    let entry = entry.attach().and_then(|id| entry.take_link(id)).map_err(refused)?;
    Ok([Link::FEntry(entry), Link::FExit(exit)])
}

/// `ENOTSUPP` of the kernel, which C libraries do not know.
const ENOTSUPP: i32 = 524;

/// Why the kernel refuses a program on `function`.
pub(in crate::hooks) fn refusal(error: &ProgramError, function: &str) -> String {
    let os_error = match error {
        ProgramError::Btf(BtfError::UnknownBtfTypeName { .. }) => return absent(function),
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    match os_error {
        Some(libc::EPERM) => {
            "not permitted (EPERM): CAP_PERFMON is missing, or lockdown or a security module forbids it".to_owned()
        }
        Some(ENOTSUPP) => {
            "this kernel cannot call BPF programs from functions (ENOTSUPP)".to_owned()
        }
        _ => chain(error),
    }
}
