//! Mounts of tests, in mount namespaces that go with the threads that make them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::CString;
use std::io;
use std::path::Path;

/// Puts the calling thread into a mount namespace of its own, from which nothing
/// gets out, with an empty tmpfs on `folder`.
pub(crate) fn enter_namespace(folder: &Path) {
    // SAFETY: takes no pointer.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(left, 0, "unshare: {}", io::Error::last_os_error());
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
