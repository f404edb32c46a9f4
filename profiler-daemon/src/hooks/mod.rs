//! The kernel hooks: what is loaded with which sizes, what attaches and how.
//!
//! In: a watch list, the sizes of the machine, the BPF object. Out: attached
//! programs, which detach when [`Programs`] is dropped, and the arrays they
//! fill. One file per hook family; a family tries its backends in order and
//! reports each refusal. Nothing is pinned, so a killed process leaves nothing
//! behind.

pub mod backend;
mod contention;
#[cfg(feature = "kernel-log")]
mod kernel_log;
pub mod object;
pub mod programs;
mod syscalls;
mod watch_list;

pub use self::programs::{LoadError, Programs, Sizes};
pub use self::watch_list::{Series, WatchList};

/// What became of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// What it observes: `contention_begin`, `sys_mount`, ...
    pub hook: String,
    /// The backend that attached, if one did.
    pub backend: Option<&'static str>,
    /// Backends that were tried and refused, with the reason.
    pub refused: Vec<(&'static str, String)>,
}

impl HookState {
    /// Label value: the backend, or `none`.
    pub fn backend_name(&self) -> &'static str {
        self.backend.unwrap_or("none")
    }
}
