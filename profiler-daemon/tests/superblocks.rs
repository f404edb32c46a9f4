//! Superblocks by type of file system, against the mounts that a test makes.
//!
//! lockprof counts the whole machine, so another run is made if somebody else
//! mounted meanwhile. Fewer than the test made are wrong in any run.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;
#[path = "common/mounts.rs"]
mod mounts;

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::SUPERBLOCKS;
use lockprof::hooks::backend::{Backends, CallBackend};
use lockprof::snapshot::Snapshot;

/// Mounts of tmpfs, each of which has a superblock of its own.
const TMPFS: u64 = 40;
/// Mounts of sysfs, which has one for each network namespace.
const SYSFS: u64 = 10;
/// Runs until one has the machine for itself.
const RUNS: usize = 5;

fn made(window: &Snapshot, filesystem: &str) -> u64 {
    let rows = window.superblocks.as_ref().expect("they are observed");
    rows.iter().filter(|row| row.filesystem.as_str() == filesystem).map(|row| row.count).sum()
}

/// Mounts in a thread with a namespace of its own.
fn mount_all() {
    std::thread::spawn(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        mounts::enter_namespace(folder.path());
        for _ in 1..TMPFS {
            mounts::mount("none", folder.path(), "tmpfs", 0);
        }
        mounts::mount("none", folder.path(), "tmpfs", libc::MS_REMOUNT | libc::MS_NOSUID);
        for index in 0..SYSFS {
            // The kernel refuses it where it is mounted already.
            let target = folder.path().join(index.to_string());
            std::fs::create_dir(&target).expect("a tmpfs takes folders");
            mounts::mount("none", &target, "sysfs", 0);
        }
    })
    .join()
    .expect("it mounts");
}

fn counts_superblocks(test: &str, backend: CallBackend) {
    if let Some(reason) = common::bpf_refused() {
        return common::skip(test, &reason);
    }
    let backends = Backends { calls: Some(backend), ..Backends::default() };
    let session = Session::start(&Settings { backends, ..Settings::default() }).expect("attaches");
    let hooks = session.programs().hooks();
    let hook = hooks.iter().find(|hook| hook.hook == SUPERBLOCKS[0]).expect("it is listed");
    if hook.backend.is_none() {
        assert_eq!(session.fresh_snapshot().superblocks, None);
        return common::skip(test, &format!("{:?}", hook.refused));
    }
    for hook in hooks.iter().filter(|hook| SUPERBLOCKS.contains(&&*hook.hook) && !hook.absent) {
        assert_eq!(hook.backend, Some(backend.name()), "{hook:?}");
    }
    let mut seen = Vec::new();
    for _ in 0..RUNS {
        let before = session.fresh_snapshot();
        mount_all();
        let window = session.fresh_snapshot().since(&before);
        let counted = (made(&window, "tmpfs"), made(&window, "sysfs"));
        println!("by {}: {:?}", backend.name(), window.superblocks);
        assert!(counted.0 >= TMPFS, "{counted:?}");
        assert!(counted.1 < SYSFS, "a mount of sysfs makes no superblock of its own: {counted:?}");
        if counted == (TMPFS, 0) {
            return;
        }
        seen.push(counted);
    }
    panic!("made {TMPFS} of tmpfs and none of sysfs, counted {seen:?}");
}

#[test]
fn fentry_counts_superblocks() {
    counts_superblocks("fentry_counts_superblocks", CallBackend::Fentry);
}

#[test]
fn kprobe_counts_superblocks() {
    counts_superblocks("kprobe_counts_superblocks", CallBackend::Kprobe);
}
