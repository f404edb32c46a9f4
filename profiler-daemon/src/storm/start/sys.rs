//! System calls on mounts that rustix does not wrap.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

/// `OPEN_TREE_NAMESPACE` (include/uapi/linux/mount.h): the copy goes into a new
/// mount namespace, on top of a copy of the caller's lowest root, and the
/// descriptor is that of the namespace (`open_new_namespace`, fs/namespace.c,
/// Linux 7.0).
const OPEN_TREE_NAMESPACE: OpenTreeFlags = OpenTreeFlags::from_bits_retain(1 << 1);

/// Numbers that are the same on all architectures, as of all calls since Linux
/// 5.1; libc does not know them yet.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;

/// `LSMT_ROOT`: the root of the caller's namespace.
const LSMT_ROOT: u64 = u64::MAX;

/// What mountinfo tells as well: `STATMOUNT_SB_BASIC`, `_MNT_BASIC`,
/// `_PROPAGATE_FROM`, `_MNT_ROOT`, `_MNT_POINT` and `_FS_TYPE`.
const STATMOUNT_ALL: u64 = 0x3f;

/// `struct mnt_id_req` of the first version.
#[repr(C)]
struct MntIdReq {
    size: u32,
    spare: u32,
    mnt_id: u64,
    param: u64,
}

impl MntIdReq {
    const fn new(mnt_id: u64, param: u64) -> Self {
        Self { size: 24, spare: 0, mnt_id, param }
    }
}

const _: () = assert!(size_of::<MntIdReq>() == 24, "MNT_ID_REQ_SIZE_VER0");

/// A mount namespace whose root is a copy of `root`.
pub(super) fn open_tree_namespace(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OPEN_TREE_NAMESPACE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(root, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)
}

/// What to change of a mount.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    /// Read-only.
    ReadOnly,
    /// Owners are mapped by this user namespace.
    MappedBy(BorrowedFd<'a>),
}

/// `mount_setattr(2)` of the mount that `mount` is the root of.
pub(super) fn set_attribute(
    mount: BorrowedFd<'_>,
    attribute: Attribute<'_>,
) -> rustix::io::Result<()> {
    let (attr_set, userns_fd) = match attribute {
        Attribute::ReadOnly => (libc::MOUNT_ATTR_RDONLY, 0),
        Attribute::MappedBy(users) => {
            (libc::MOUNT_ATTR_IDMAP, u64::try_from(users.as_raw_fd()).map_err(|_| Errno::BADF)?)
        }
    };
    let change = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd };
    mount_setattr(mount, c"", libc::AT_EMPTY_PATH, &change)
}

/// Sets the propagation, `MS_PRIVATE` or `MS_SLAVE`, of all mounts of the
/// namespace.
pub(super) fn set_propagation(propagation: u64) -> rustix::io::Result<()> {
    let change = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 };
    mount_setattr(CWD, c"/", libc::AT_RECURSIVE, &change)
}

/// Whether there is `mount_setattr(2)`: asks for nothing to be changed, and the
/// kernel returns early.
pub(super) fn has_mount_setattr() -> rustix::io::Result<()> {
    let nothing = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    mount_setattr(CWD, c"/", 0, &nothing)
}

fn mount_setattr(
    at: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    change: &libc::mount_attr,
) -> rustix::io::Result<()> {
    // SAFETY: the path and the attributes are valid for the call, which reads as
    // much as the size tells.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(change),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// `listmount(2)`: IDs of mounts of this namespace that come after `last`, in
/// their order; how many.
pub(super) fn listmount(last: u64, ids: &mut [u64]) -> io::Result<usize> {
    let request = MntIdReq::new(LSMT_ROOT, last);
    // SAFETY: the kernel reads the request and writes at most as many IDs as it
    // is told that there is room for.
    let listed =
        unsafe { libc::syscall(SYS_LISTMOUNT, &raw const request, ids.as_mut_ptr(), ids.len(), 0) };
    Ok(usize::try_from(done(listed)?).unwrap_or(0))
}

/// `statmount(2)`: all that mountinfo tells of a mount; its bytes.
pub(super) fn statmount(id: u64, into: &mut [u64]) -> io::Result<u64> {
    let request = MntIdReq::new(id, STATMOUNT_ALL);
    // SAFETY: the kernel reads the request and writes at most as many bytes as it
    // is told that there is room for; integers take any bytes.
    let told = unsafe {
        libc::syscall(SYS_STATMOUNT, &raw const request, into.as_mut_ptr(), size_of_val(into), 0)
    };
    done(told)?;
    // `size` of `struct statmount`, its first field.
    let first = into.first().map_or([0; 8], |word| word.to_ne_bytes());
    Ok(u64::from(u32::from_ne_bytes([first[0], first[1], first[2], first[3]])))
}

fn done(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}
