//! What tasks do to `namespace_sem`, each in a mount namespace of its own.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::time::Duration;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};

use super::tasks::Ready;

/// Folders that mounts of a large table are on.
const POINTS: usize = 100;

/// A mount namespace of one's own that no other hears of, with a tmpfs at `/mnt`.
pub(crate) fn own_namespace() -> io::Result<()> {
    // SAFETY: file descriptors stay as they are; only the process's view of
    // mounts changes.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount(c"lockprof-test", c"/mnt", c"tmpfs", MountFlags::empty(), c"mode=755")?;
    for folder in ["/mnt/from", "/mnt/to"] {
        fs::create_dir(folder)?;
    }
    Ok(())
}

/// Adds `mounts` mounts to the namespace, below `/mnt/from`, which is one.
pub(crate) fn large_table(mounts: usize) -> io::Result<()> {
    mount_bind(c"/mnt/from", c"/mnt/from")?;
    for index in 0..mounts {
        let point = format!("/mnt/from/{}", index % POINTS);
        if index < POINTS {
            fs::create_dir(&point)?;
        }
        mount_bind(c"/proc", point.as_str())?;
    }
    Ok(())
}

/// Mounts and unmounts `times` times.
pub(crate) fn mount_and_unmount(times: usize) -> io::Result<()> {
    for _ in 0..times {
        mount_bind(c"/mnt/from", c"/mnt/to")?;
        unmount(c"/mnt/to", UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Mounts and unmounts for ever, with a pause after each.
pub(crate) fn keep_mounting(ready: &Ready, pause: Duration) -> io::Result<()> {
    own_namespace()?;
    ready.say()?;
    loop {
        mount_and_unmount(1)?;
        std::thread::sleep(pause);
    }
}

/// Reads the table of a namespace with `mounts` mounts for ever.
pub(crate) fn keep_reading(ready: &Ready, mounts: usize) -> io::Result<()> {
    own_namespace()?;
    large_table(mounts)?;
    ready.say()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        read_table(&mut buffer)?;
    }
}

/// Reads the table of one's own namespace; its lines.
pub(crate) fn read_table(buffer: &mut [u8]) -> io::Result<usize> {
    let mut table = File::open("/proc/self/mountinfo")?;
    let mut lines = 0;
    loop {
        match table.read(buffer)? {
            0 => return Ok(lines),
            n => lines += buffer[..n].iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}

/// Copies and drops a tree of `mounts` mounts for ever.
pub(crate) fn keep_binding(ready: &Ready, mounts: usize) -> io::Result<()> {
    own_namespace()?;
    large_table(mounts)?;
    ready.say()?;
    loop {
        mount_bind_recursive(c"/mnt/from", c"/mnt/to")?;
        unmount(c"/mnt/to", UnmountFlags::DETACH)?;
    }
}
