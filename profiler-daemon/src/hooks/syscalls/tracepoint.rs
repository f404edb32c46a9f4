//! The tracepoints of each call, by perf event. While any is attached, every
//! system call of every task takes the slow path into the kernel
//! (`SYSCALL_WORK_SYSCALL_TRACEPOINT`), so this is the last resort.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::programs::{ProgramFd, TracePoint};
use profiler_common::syscalls::{MountSyscall, When, implementation_name};

use super::super::programs::{chain, find};
use super::perf::{PerfError, PerfLink, Tracefs};
use super::{Ends, Link};

const ENTER: &str = "mount_syscall_enter";
const ENTER_SETNS: &str = "setns_enter";
const EXIT: &str = "mount_syscall_exit";

/// Loaded programs and the ids to attach them to.
pub(super) struct Tracepoints {
    tracefs: Tracefs,
    enter: ProgramFd,
    enter_setns: ProgramFd,
    exit: ProgramFd,
}

impl Tracepoints {
    /// Loads the programs, which serve all calls.
    pub(super) fn prepare(ebpf: &mut Ebpf) -> Result<Self, String> {
        let mut load = |name: &str| -> Result<ProgramFd, String> {
            let program: &mut TracePoint = find(ebpf, name)?;
            program.load().map_err(|error| chain(&error))?;
            let fd = program.fd().map_err(|error| chain(&error))?;
            fd.try_clone().map_err(|error| chain(&error))
        };
        Ok(Self {
            enter: load(ENTER)?,
            enter_setns: load(ENTER_SETNS)?,
            exit: load(EXIT)?,
            tracefs: Tracefs::open().map_err(|error| chain(&error))?,
        })
    }

    /// Attaches both ends of a call. The return first: an entry alone would
    /// leave slots behind that nothing ends.
    pub(super) fn attach(&self, call: &MountSyscall) -> Result<Ends, String> {
        let name = implementation_name(call);
        let enter = match call.when {
            When::EntersMountNamespace => &self.enter_setns,
            _ => &self.enter,
        };
        let end = |event: &str, program: &ProgramFd| -> Result<Link, PerfError> {
            let id = self.tracefs.id(&format!("{event}_{name}"))?;
            PerfLink::attach(id, program.as_fd()).map(Link::Perf)
        };
        let exit = end("sys_exit", &self.exit);
        let both = exit.and_then(|exit| Ok([end("sys_enter", enter)?, exit]));
        both.map_err(|error| chain(&error))
    }
}
