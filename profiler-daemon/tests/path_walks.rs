//! Path walks that wait for mount writers: samples of CPUs tell them apart, on
//! the node where they run.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;
#[path = "common/mounts.rs"]
mod mounts;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::LoadError;
use lockprof::kernel::topology::Topology;
use lockprof::snapshot::{Place, Samples};

/// Mounts in the table of a writer.
const MOUNTS: usize = 2000;
/// Samples of the walkers that a phase is judged by, and when it is given up.
const ENOUGH: u64 = 150;
const PATIENCE: Duration = Duration::from_secs(60);

/// Walkers on the CPUs of one node, writers on those of another: `mount_lock` is
/// one for all of them.
#[test]
fn walks_that_wait_for_mount_writers_take_most_of_the_walkers_kernel_time() {
    let test = "walks_that_wait_for_mount_writers_take_most_of_the_walkers_kernel_time";
    let nodes = Topology::read(Path::new("/sys")).expect("sysfs is mounted").cpus_of_node;
    let [(_, theirs), (walkers_node, walkers_cpus), ..] = nodes.as_slice() else {
        return common::skip(test, "this machine has one NUMA node");
    };
    // Without asking `doctor` first, which attaches everything for a moment: see
    // xtask/src/test/matrix.rs on what emulation bears.
    let session = match Session::start(&Settings::default()) {
        Ok(session) => session,
        Err(why) => {
            let load = why.downcast_ref::<LoadError>();
            assert!(load.is_some_and(LoadError::is_environment), "{why:#}");
            return common::skip(test, &format!("{why:#}"));
        }
    };
    common::pin(theirs);
    let (stop, write) = (AtomicBool::new(false), AtomicBool::new(false));
    let ready = AtomicUsize::new(0);
    let (quiet, racing) = std::thread::scope(|scope| {
        let (stop, write, ready) = (&stop, &write, &ready);
        for cpu in theirs {
            scope.spawn(move || {
                common::pin(&[*cpu]);
                mounts::enter_large_table(MOUNTS);
                ready.fetch_add(1, Ordering::SeqCst);
                while !stop.load(Ordering::SeqCst) {
                    if write.load(Ordering::SeqCst) {
                        change_all().expect("all mounts of the table can be changed");
                    } else {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        for cpu in walkers_cpus {
            scope.spawn(move || {
                common::pin(&[*cpu]);
                let path = deep_path().expect("a deep path can be made");
                ready.fetch_add(1, Ordering::SeqCst);
                while !stop.load(Ordering::SeqCst) {
                    for _ in 0..100 {
                        let _ = std::fs::metadata(&path);
                    }
                }
            });
        }
        while ready.load(Ordering::SeqCst) < theirs.len() + walkers_cpus.len() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let phase = || {
            let (before, began) = (of_node(&session, *walkers_node), Instant::now());
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let window = of_node(&session, *walkers_node).since(&before);
                if total(&window) >= ENOUGH || began.elapsed() > PATIENCE {
                    break window;
                }
            }
        };
        let quiet = phase();
        write.store(true, Ordering::SeqCst);
        let racing = phase();
        stop.store(true, Ordering::SeqCst);
        (quiet, racing)
    });
    let shares = [("without", &quiet), ("with", &racing)].map(|(writers, window)| {
        assert!(total(window) >= ENOUGH, "{} samples {writers} writers", total(window));
        let share = window.share(Place::MountSeqcount).expect("there are samples");
        println!("{writers} writers: {:.1} % of {} samples", share * 100.0, total(window));
        for place in Place::ALL {
            println!("  {}: {}", place.as_str(), window.of(place));
        }
        share
    });
    let [without, with] = shares;
    assert!(with > 0.5, "a share of {with} with writers is no majority");
    assert!(without < 0.25 && with > 3.0 * without, "from {without} without to {with} with");
}

fn total(samples: &Samples) -> u64 {
    samples.counts.iter().map(|row| row.count).sum()
}

/// The samples of one node.
fn of_node(session: &Session, node: u32) -> Samples {
    let mut samples = session.fresh_snapshot().samples.expect("CPUs are sampled");
    samples.counts.retain(|row| row.numa_node == node);
    samples
}

/// A path of many components on a tmpfs of its own, in a mount namespace that
/// goes with the thread.
fn deep_path() -> io::Result<String> {
    mounts::enter_namespace(Path::new("/mnt"));
    let path = (0..40).fold("/mnt".to_owned(), |path, depth| format!("{path}/d{depth}"));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Changes every mount of the table in one go, as container runtimes do: the
/// kernel holds `mount_lock` all the while (`do_mount_setattr` in fs/namespace.c;
/// before Linux 5.12, which has no such call, `do_change_type`).
fn change_all() -> io::Result<()> {
    for attr in [
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_NODEV, ..NO_CHANGE },
        libc::mount_attr { attr_clr: libc::MOUNT_ATTR_NODEV, ..NO_CHANGE },
    ] {
        // SAFETY: a C string, and an attribute of the size that is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                c"/mnt".as_ptr(),
                libc::AT_RECURSIVE,
                &raw const attr,
                size_of::<libc::mount_attr>(),
            )
        };
        if result == 0 {
            continue;
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => {
                mounts::mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE);
            }
            error => return Err(error),
        }
    }
    Ok(())
}

const NO_CHANGE: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
