//! Whether the kernel has what a strategy takes: the calls themselves, made
//! without a lasting effect.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};
use rustix::process::{WaitOptions, fchdir, waitpid};

use super::plan::ROOT;
use super::sys::{has_mount_setattr, listmount, open_tree_namespace};
use super::{Failure, Op, classic, fd};
use crate::storm::strategy::{MountQuery, RootFs, Strategy};
use crate::storm::sys::{Forked, exit, fork, unshare_mounts};

/// Asks for all that the strategy takes; [`Op::missing`] says what an error
/// means.
///
/// # Errors
///
/// The call that the kernel does not have.
pub(super) fn probe(strategy: &Strategy) -> Result<(), Failure> {
    let by_fd = strategy.rootfs != RootFs::Legacy;
    if by_fd || strategy.idmap.is_some() {
        fsopen(ROOT.filesystem, FsOpenFlags::FSOPEN_CLOEXEC).map_err(of(Op::Fsopen))?;
        has_mount_setattr().map_err(of(Op::MountSetattr))?;
    }
    match strategy.rootfs {
        RootFs::Legacy | RootFs::Fd => {}
        RootFs::OpenTreeNamespace => {
            let root = fd::fresh(&ROOT).map_err(of(Op::RootTmpfs))?;
            open_tree_namespace(root.as_fd()).map_err(of(Op::OpenTreeNamespace))?;
        }
        RootFs::Beneath => try_beneath()?,
    }
    if strategy.layers > 0 {
        // Loads the module where there is one. Whoever is without `fsopen(2)` is
        // told by the first start.
        match fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(_) | Err(Errno::NOSYS) => {}
            Err(error) => return Err(of(Op::Overlay)(error)),
        }
    }
    if strategy.mount_query == MountQuery::Statmount {
        listmount(0, &mut [0]).map_err(|error| (Op::Statmount, error))?;
    }
    Ok(())
}

fn of(op: Op) -> impl Fn(Errno) -> Failure {
    move |error| (op, error.into())
}

/// Swaps the root of a process that then ends.
fn try_beneath() -> Result<(), Failure> {
    match fork() {
        Ok(Forked::Child) => {
            let swap = || -> Result<(), Errno> {
                let root = fd::fresh(&ROOT)?;
                fchdir(&root)?;
                fd::attach_beneath(&root, c"/")
            };
            // Whatever else goes wrong, the first start says by its name.
            let ready = unshare_mounts().is_ok() && classic::make_private().is_ok();
            exit(if ready { swap().err().map_or(0, Errno::raw_os_error) } else { 0 })
        }
        Ok(Forked::Parent(child)) => loop {
            match waitpid(Some(child), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Ok(Some((_, status))) => match status.exit_status() {
                    Some(errno) if errno != 0 => {
                        return Err(of(Op::Beneath)(Errno::from_raw_os_error(errno)));
                    }
                    _ => return Ok(()),
                },
                Ok(None) => {}
                Err(error) => return Err(of(Op::Fork)(error)),
            }
        },
        Err(error) => Err((Op::Fork, error)),
    }
}
