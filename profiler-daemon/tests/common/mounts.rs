//! Mounts of tests, in mount namespaces that go with the threads that make them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::CString;
use std::io;
use std::path::Path;

/// Puts the calling thread into a copy of its mount namespace.
pub(crate) fn copy_namespace() {
    // SAFETY: takes no pointer.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(left, 0, "unshare: {}", io::Error::last_os_error());
}

/// Puts the calling thread into a mount namespace of its own, from which nothing
/// gets out, with an empty tmpfs on `folder`.
pub(crate) fn enter_namespace(folder: &Path) {
    copy_namespace();
    mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE);
    mount("lockprof-test", folder, "tmpfs", 0);
}

/// mount(2), which must do it.
pub(crate) fn mount(source: &str, target: &Path, fstype: &str, flags: libc::c_ulong) {
    let c = |text: &str| CString::new(text).expect("no NUL");
    let (source, fstype) = (c(source), c(fstype));
    let target = c(target.to_str().expect("UTF-8"));
    // SAFETY: strings that outlive the call; no data.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, std::ptr::null())
    };
    assert_eq!(result, 0, "mount: {}", io::Error::last_os_error());
}

/// Makes `count` bind mounts of `folder` on one below it.
pub(crate) fn bind(folder: &Path, count: usize) {
    let target = folder.join("bind");
    std::fs::create_dir_all(&target).expect("a tmpfs takes folders");
    let source = folder.to_str().expect("UTF-8");
    for _ in 0..count {
        mount(source, &target, "", libc::MS_BIND);
    }
}

/// Puts the calling thread into a mount namespace of its own, as
/// [`enter_namespace`] does, with `mounts` mounts on a hundred folders in `/mnt`.
pub(crate) fn enter_large_table(mounts: usize) {
    enter_namespace(Path::new("/mnt"));
    for index in 0..mounts {
        let point = format!("/mnt/{}", index % 100);
        if index < 100 {
            std::fs::create_dir(&point).expect("a tmpfs takes folders");
        }
        mount("/proc", Path::new(&point), "", libc::MS_BIND);
    }
}
