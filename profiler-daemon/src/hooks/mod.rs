//! The kernel hooks: what is loaded with which sizes, what attaches and how.
//!
//! In: a watch list, the sizes of the machine, the BPF object. Out: attached
//! programs, which detach when [`Programs`] is dropped, and the arrays they
//! fill. One file per hook family; a family tries its backends in order and
//! reports each refusal. Nothing is pinned, so a killed process leaves nothing
//! behind.

pub mod abilities;
mod absent;
pub mod attribution;
pub mod backend;
mod claims;
mod contention;
mod functions;
mod holds;
#[cfg(feature = "kernel-log")]
mod kernel_log;
mod mount_tables;
mod mountinfo;
pub mod object;
mod perf_event;
pub mod programs;
pub mod samples;
mod slow_path;
mod superblocks;
mod syscalls;
mod watch_list;

pub use self::abilities::Abilities;
pub use self::claims::Claims;
pub use self::holds::CONTENDED_RELEASE;
pub use self::mount_tables::{TASK_ITER, TaskIter};
pub use self::mountinfo::{OPEN as MOUNTINFO_OPEN, READ as MOUNTINFO_READ};
pub use self::programs::{LoadError, Programs, Sizes};
pub use self::samples::KERNEL_SAMPLES;
pub use self::superblocks::SUPERBLOCKS;
pub use self::watch_list::{Series, WatchList};

/// What hooks are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Lock waits, and how long locks are held.
    Waits,
    /// Mount calls.
    Calls,
    /// The load that mount tables are: who reads them, how many mounts there are,
    /// superblocks.
    Mounts,
    /// Samples of CPUs.
    Samples,
}

/// What became of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// What it observes: `contention_begin`, `sys_mount`, ...
    pub hook: String,
    /// The backend that attached, if one did.
    pub backend: Option<&'static str>,
    /// Backends that were tried and refused, with the reason.
    pub refused: Vec<(&'static str, String)>,
    /// The kernel does not have what it would observe.
    pub absent: bool,
}

impl HookState {
    /// A hook that nothing was tried for yet.
    fn new(hook: impl Into<String>) -> Self {
        Self { hook: hook.into(), backend: None, refused: Vec::new(), absent: false }
    }

    /// Notes how an attempt with `backend` went.
    fn tried(&mut self, backend: &'static str, attempt: Result<(), String>) {
        match attempt {
            Ok(()) => self.backend = Some(backend),
            Err(why) => self.refused.push((backend, why)),
        }
    }

    /// Label value: the backend, or `none`.
    pub fn backend_name(&self) -> &'static str {
        self.backend.unwrap_or("none")
    }

    /// What it is for.
    pub fn family(&self) -> Family {
        let mut mounts = [MOUNTINFO_OPEN, MOUNTINFO_READ, TASK_ITER].into_iter().chain(SUPERBLOCKS);
        if self.call().is_some() {
            Family::Calls
        } else if mounts.any(|name| name == self.hook) {
            Family::Mounts
        } else if self.hook == KERNEL_SAMPLES {
            Family::Samples
        } else {
            Family::Waits
        }
    }

    /// Name of the mount call that it observes, if it observes one.
    pub fn call(&self) -> Option<&str> {
        self.hook.strip_prefix("sys_")
    }
}
