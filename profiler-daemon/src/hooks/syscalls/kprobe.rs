//! kprobes and kretprobes on the functions behind the calls, through the
//! `kprobe` events of perf: nothing is written to tracefs, and closing the event
//! removes the probe.
//!
//! The kernel keeps room for a limited number of calls of a probed function
//! that have not returned: twice as many as possible CPUs and at least 10 by
//! function, older kernels without preemption only as many as CPUs
//! (`register_kretprobe` in kernel/kprobes.c); perf cannot ask for more. The
//! return of a call beyond that is not seen. Its slot is freed when the task
//! makes another mount call or is gone, and the call counted as lost
//! (`unmatched_syscall`).

use std::io;
use std::path::Path;

use aya::Ebpf;
use aya::programs::{KProbe, ProgramError};
use profiler_common::syscalls::MountSyscall;

use super::super::programs::{chain, find};
use super::{Ends, Link, absent, function};

/// Where perf says that it has kprobes.
const EVENT_SOURCE: &str = "/sys/bus/event_source/devices/kprobe";

/// Names of the programs for a call: entry, return.
pub(super) fn programs(call: &MountSyscall) -> [String; 2] {
    ["kprobe", "kretprobe"].map(|kind| format!("{kind}_{}", call.name))
}

/// Whether the kernel has kprobes; if not, what to say.
pub(in crate::hooks) fn present() -> Result<(), String> {
    if Path::new(EVENT_SOURCE).exists() {
        Ok(())
    } else {
        Err("this kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned())
    }
}

/// Attaches both ends of a call, the return first; see
/// [`fentry::attach`](super::fentry::attach).
pub(super) fn attach(ebpf: &mut Ebpf, call: &MountSyscall) -> Result<Ends, String> {
    let function = function(call)?;
    present()?;
    let refused = |error: ProgramError| refusal(&error, &function);
    let programs = programs(call);
    for program in &programs {
        find::<KProbe>(ebpf, program)?.load().map_err(refused)?;
    }
    let [entry, exit] = programs;
    let mut end = |program: &str| {
        let program: &mut KProbe = find(ebpf, program)?;
        let link = program.attach(&function, 0).and_then(|id| program.take_link(id));
        link.map(Link::KProbe).map_err(refused)
    };
    let exit = end(&exit)?;
    Ok([end(&entry)?, exit])
}

/// Why the kernel refuses a program on `function`.
pub(in crate::hooks) fn refusal(error: &ProgramError, function: &str) -> String {
    match error {
        ProgramError::SyscallError(error) if error.io_error.kind() == io::ErrorKind::NotFound => {
            absent(function)
        }
        _ => chain(error),
    }
}
