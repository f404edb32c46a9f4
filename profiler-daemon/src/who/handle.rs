//! A cgroup's path by its id, in a fixed number of system calls.
//!
//! The id of a cgroup is the number of its kernfs node, and kernfs lets a node
//! be opened by it: `FILEID_KERNFS` of `kernfs_fh_to_dentry` in
//! fs/kernfs/mount.c, Linux 5.5; hierarchies of v1 and v2
//! both allow it (`KERNFS_ROOT_SUPPORT_EXPORTOP` in `cgroup_setup_root`). It
//! needs `CAP_DAC_READ_SEARCH`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::io::Errno;

/// `FILEID_KERNFS` (include/linux/exportfs.h).
const FILEID_KERNFS: libc::c_int = 0xfe;

/// What `d_path` puts behind the path of a directory that was removed.
const DELETED: &[u8] = b" (deleted)";

/// `struct file_handle` with the eight bytes that kernfs puts into it.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

/// What the kernel answers for an id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The absolute path.
    Path(OsString),
    /// There is one, but its path is longer than the kernel can tell (a page).
    TooLong,
    /// There is none, or none any more.
    Gone,
    /// Ids cannot be asked for: no capability, or no such handles.
    Refused,
    /// It did not work out this time (no memory, no file descriptor).
    Failed,
}

/// Whether the handles of this file system are made of ids, as `root`'s own is.
pub(super) fn are_ids(root: BorrowedFd<'_>) -> bool {
    let mut handle = Handle { bytes: 8, kind: 0, id: 0 };
    let mut mount_id = 0;
    // SAFETY: the path is an empty C string, `handle` has room for the eight
    // bytes that it says, and both outlive the call.
    let result = unsafe {
        libc::name_to_handle_at(
            root.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    result == 0 && handle.kind == FILEID_KERNFS && handle.bytes == 8
}

/// The path of the cgroup `id` in the hierarchy that `root` is open in.
pub(super) fn path(root: BorrowedFd<'_>, id: u64) -> Answer {
    let path = match open(root, id).and_then(|cgroup| path_of(cgroup.as_fd())) {
        Ok(path) => path,
        Err(Errno::NAMETOOLONG) => return Answer::TooLong,
        Err(errno) => return failure(errno),
    };
    let Some(before) = path.as_bytes().strip_suffix(DELETED) else { return Answer::Path(path) };
    // Removed since it was opened, unless it is called so.
    if open(root, id).is_ok() {
        return Answer::Path(path);
    }
    Answer::Path(OsStr::from_bytes(before).to_owned())
}

/// Whether there is a cgroup `id`; `None` where this cannot be asked.
pub(super) fn exists(root: BorrowedFd<'_>, id: u64) -> Option<bool> {
    match open(root, id).map_err(failure) {
        Ok(_) => Some(true),
        Err(Answer::Gone) => Some(false),
        Err(_) => None,
    }
}

fn open(root: BorrowedFd<'_>, id: u64) -> Result<OwnedFd, Errno> {
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `handle` has the eight bytes that it says and outlives the call.
    let fd = unsafe { libc::open_by_handle_at(root.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_of(cgroup: BorrowedFd<'_>) -> Result<OsString, Errno> {
    let link = format!("/proc/self/fd/{}", cgroup.as_raw_fd());
    // Without procfs nothing can be told this way.
    let path = rustix::fs::readlink(link, Vec::new()).map_err(|errno| match errno {
        Errno::NOENT => Errno::PERM,
        errno => errno,
    })?;
    Ok(OsString::from_vec(path.into_bytes()))
}

fn failure(errno: Errno) -> Answer {
    match errno {
        Errno::STALE | Errno::NOENT => Answer::Gone,
        Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::INTR | Errno::IO => Answer::Failed,
        _ => Answer::Refused,
    }
}
