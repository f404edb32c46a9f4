//! Hooks of mount calls that the kernel does not have: there is nothing to
//! hook, which is no fault of any backend.

use profiler_common::syscalls::MOUNT_SYSCALLS;

use super::HookState;
use crate::kernel::calls;

/// Marks the hooks of mount calls that did not attach because the kernel does
/// not have the call. Where that cannot be told, none is marked.
pub(super) fn mark(hooks: &mut [HookState]) {
    let unhooked: Vec<_> = MOUNT_SYSCALLS
        .iter()
        .filter(|call| hooks.iter().any(|h| h.backend.is_none() && h.call() == Some(call.name)))
        .collect();
    if unhooked.is_empty() {
        return;
    }
    match calls::absent(&unhooked) {
        Ok(absent) => {
            for hook in hooks {
                hook.absent = absent.iter().any(|call| hook.call() == Some(call.name));
            }
        }
        Err(error) => tracing::debug!("which system calls this kernel has is unknown: {error}"),
    }
}
