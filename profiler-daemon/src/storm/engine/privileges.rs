//! Where the engine's process gets the right to mount from.

use std::fs;
use std::io;

use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use super::failed_to;
use super::wire::Privileges;
use crate::storm::error::StormError;
use crate::storm::start::Op;
use crate::storm::strategy::{Runtime, Strategy};
use crate::storm::sys::unshare_user;

/// Uses those of the caller, or else goes into a user namespace. Called once, in
/// the engine's process.
///
/// # Errors
///
/// Neither is to be had.
pub(super) fn acquire() -> Result<Privileges, StormError> {
    let own = capabilities(None).map_err(failed_to("read the capabilities of this process"))?;
    if own.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(Privileges::Callers);
    }
    enter_user_namespace().map_err(StormError::NoUserNamespace)?;
    Ok(Privileges::UserNamespace)
}

/// Becomes root of a user namespace that knows the caller's user and group
/// alone: what the kernel lets everybody map (`new_idmap_permitted`,
/// kernel/user_namespace.c).
fn enter_user_namespace() -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare_user()?;
    // Without this, groups could be dropped that deny access.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

impl Privileges {
    /// Whether they are enough for a strategy.
    pub(super) fn suffice_for(self, strategy: &Strategy) -> Result<(), StormError> {
        // A mapping of one user is none that layers could be shifted by, and
        // runtimes want cgroups and devices.
        let more = strategy.idmap.is_some() || strategy.runtime != Runtime::Builtin;
        if self == Self::UserNamespace && more { Err(StormError::NotPermitted) } else { Ok(()) }
    }

    /// What a refusal of a step means: that a user namespace without the right
    /// to mount is none, as with AppArmor's restriction of those that
    /// unprivileged users make (security/apparmor).
    pub(super) fn explain(self, op: Op, error: io::Error) -> StormError {
        let at_the_door = matches!(op, Op::MakePrivate | Op::BaseTmpfs)
            && error.kind() == io::ErrorKind::PermissionDenied;
        if self == Self::UserNamespace && at_the_door {
            StormError::NoUserNamespace(error)
        } else {
            StormError::first_start(op, error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::strategy::Idmap;

    #[test]
    fn a_user_namespace_is_enough_for_what_maps_no_users_and_needs_no_runtime() {
        let plain = Strategy { layers: 3, ..Strategy::default() };
        assert!(Privileges::UserNamespace.suffice_for(&plain).is_ok());
        let mapped = Strategy { idmap: Some(Idmap::Parent), ..plain };
        let real = Strategy { runtime: Runtime::Runc, ..Strategy::default() };
        for strategy in [mapped, real] {
            let refused = Privileges::UserNamespace.suffice_for(&strategy).unwrap_err();
            assert!(refused.is_refusal(), "{refused}");
            assert!(Privileges::Callers.suffice_for(&strategy).is_ok());
        }
    }

    #[test]
    fn a_user_namespace_that_may_not_mount_is_told_from_a_start_that_fails() {
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        let explained = Privileges::UserNamespace.explain(Op::MakePrivate, denied());
        assert!(matches!(explained, StormError::NoUserNamespace(_)), "{explained}");
        for (privileges, op) in
            [(Privileges::Callers, Op::MakePrivate), (Privileges::UserNamespace, Op::Bind)]
        {
            let explained = privileges.explain(op, denied());
            assert!(matches!(explained, StormError::FirstStart { .. }), "{explained}");
        }
    }
}
