//! Where CPUs are in the kernel when they are sampled: against the kernel's own
//! account of its time, and path walks that wait for mount writers.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::LOCKPROF;
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::KERNEL_SAMPLES;
use lockprof::kernel::topology::{Topology, online_cpus};
use lockprof::snapshot::{Place, Samples};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Functions that every kernel has as such, from 5.10 to 7.3.
const EVERYWHERE: [&str; 4] = ["path_init", "lookup_mnt", "__lookup_mnt", "__legitimize_mnt"];

fn samples(session: &Session) -> Samples {
    session.fresh_snapshot().samples.expect("CPUs are sampled")
}

fn total(samples: &Samples) -> u64 {
    samples.counts.iter().map(|row| row.count).sum()
}

/// Seconds that all CPUs together have spent in the kernel, by `/proc/stat`.
fn kernel_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("procfs is mounted");
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .expect("a line for all CPUs")
        .split_ascii_whitespace()
        .skip(1)
        .map(|field| field.parse().expect("a number"))
        .collect();
    // system, irq, softirq, in USER_HZ.
    (fields[2] + fields[5] + fields[6]) / 100.0
}

fn pin(cpus: &[u32]) {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(usize::try_from(*cpu).expect("a CPU number"));
    }
    sched_setaffinity(None, &set).expect("the CPUs are online");
}

/// Samples taken while `work` runs again and again on every CPU, how long that
/// was, and how much of it the kernel says it took itself, in CPU seconds.
fn while_busy(session: &Session, work: fn()) -> (Samples, f64, f64) {
    let cpus = online_cpus(Path::new("/sys")).expect("sysfs is mounted");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cpu in cpus {
            let stop = &stop;
            scope.spawn(move || {
                pin(&[cpu]);
                while !stop.load(Ordering::Relaxed) {
                    work();
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        let (before, kernel_before, began) = (samples(session), kernel_seconds(), Instant::now());
        std::thread::sleep(Duration::from_secs(4));
        let (after, kernel_after, took) = (samples(session), kernel_seconds(), began.elapsed());
        stop.store(true, Ordering::Relaxed);
        (after.since(&before), took.as_secs_f64(), kernel_after - kernel_before)
    })
}

#[test]
fn as_many_samples_are_taken_as_the_kernel_says_it_was_busy() {
    needs_bpf!("as_many_samples_are_taken_as_the_kernel_says_it_was_busy");
    let session = Session::start(&Settings::default()).expect("lockprof attaches");
    let hooks = session.programs().hooks();
    let hook = hooks.iter().find(|hook| hook.hook == KERNEL_SAMPLES).expect("it is tried");
    assert!(hook.backend.is_some(), "cpu-clock is there on every machine: {hook:?}");
    let of_kernel = samples(&session);
    assert_eq!(Some(of_kernel.source.as_str()), hook.backend);
    assert_eq!(of_kernel.frequency_hz, 99);

    let cpus = online_cpus(Path::new("/sys")).expect("sysfs is mounted").len();
    // Samples, those that the kernel's own account is worth, and all that there
    // could be.
    #[expect(clippy::cast_precision_loss, reason = "counts of samples in seconds")]
    let measure = |what: &str, work: fn()| {
        let (samples, took, kernel_seconds) = while_busy(&session, work);
        let (count, expected) = (total(&samples) as f64, kernel_seconds * 99.0);
        let most = took * 99.0 * cpus as f64;
        println!("{what}: {count} samples, {expected:.0} by /proc/stat, {most:.0} at most");
        (count, expected, most)
    };

    let (count, expected, most) = measure("in the kernel", || {
        for _ in 0..1000 {
            let _ = std::fs::metadata("/proc/self/status");
        }
    });
    assert!(count > 0.0 && count <= 2.0 * most, "{count} samples, {most} at most");
    // Emulated timers come when the host gets to it, so that some are missed.
    if !common::emulated() {
        assert!(count >= expected / 2.0, "{count} samples, {expected} by /proc/stat");
        assert!(count <= expected * 2.0, "{count} samples, {expected} by /proc/stat");
    }
    let elsewhere = [
        measure("in user space", || {
            let mut value = 1u64;
            for _ in 0..1_000_000 {
                value = std::hint::black_box(value.wrapping_mul(3));
            }
        }),
        measure("idle", || std::thread::sleep(Duration::from_millis(100))),
    ];
    for (count, expected, most) in elsewhere {
        // Interrupts, and whoever else is busy here; a tenth for what the ticks of
        // the kernel's account miss.
        assert!(
            count <= 2.0 * expected + most / 10.0,
            "{count} samples, {expected} by /proc/stat, {most} at most"
        );
    }
}

#[test]
fn sampling_can_be_switched_off() {
    needs_bpf!("sampling_can_be_switched_off");
    let settings = Settings { sampling_hz: 0, ..Settings::default() };
    let session = Session::start(&settings).expect("lockprof attaches");
    assert_eq!(session.fresh_snapshot().samples, None);
    assert!(session.programs().hooks().iter().all(|hook| hook.hook != KERNEL_SAMPLES));
    assert!(session.limits().iter().all(|limit| !limit.what.contains("sampled")));
}

#[test]
fn doctor_names_the_functions_that_samples_are_told_apart_by() {
    needs_bpf!("doctor_names_the_functions_that_samples_are_told_apart_by");
    let output =
        Command::new(LOCKPROF).args(["doctor", "--json"]).output().expect("doctor can be run");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let functions = report["sampled_functions"].as_array().expect("a list");
    for name in EVERYWHERE {
        let function = functions.iter().find(|function| function["function"] == name);
        let function = function.expect("it is in the table");
        assert_eq!(function["place"], "mount_seqcount");
        assert_eq!(function["found"][0], name, "{function}");
    }
}

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
    needs_bpf!("walks_that_wait_for_mount_writers_take_most_of_the_walkers_kernel_time");
    let nodes = Topology::read(Path::new("/sys")).expect("sysfs is mounted").cpus_of_node;
    let [(_, theirs), (walkers_node, walkers_cpus), ..] = nodes.as_slice() else {
        return common::skip(test, "this machine has one NUMA node");
    };
    let session = Session::start(&Settings::default()).expect("lockprof attaches");
    pin(theirs);
    let (stop, write) = (AtomicBool::new(false), AtomicBool::new(false));
    let ready = AtomicUsize::new(0);
    let (quiet, racing) = std::thread::scope(|scope| {
        let (stop, write, ready) = (&stop, &write, &ready);
        for cpu in theirs {
            scope.spawn(move || {
                pin(&[*cpu]);
                large_table().expect("a private table of many mounts can be made");
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
                pin(&[*cpu]);
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

/// The samples of one node.
fn of_node(session: &Session, node: u32) -> Samples {
    let mut samples = samples(session);
    samples.counts.retain(|row| row.numa_node == node);
    samples
}

/// A path of many components on a tmpfs of its own, in a mount namespace that
/// goes with the thread.
fn deep_path() -> io::Result<String> {
    new_namespace()?;
    mount("none", Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount("lockprof-test", Path::new("/mnt"), Some("tmpfs"), 0)?;
    let path = (0..40).fold("/mnt".to_owned(), |path, depth| format!("{path}/d{depth}"));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Gives this thread a mount namespace of its own, with many mounts in it. It
/// goes with the thread.
fn large_table() -> io::Result<()> {
    new_namespace()?;
    mount("none", Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount("lockprof-test", Path::new("/mnt"), Some("tmpfs"), 0)?;
    for index in 0..MOUNTS {
        let point = format!("/mnt/{}", index % 100);
        if index < 100 {
            std::fs::create_dir(&point)?;
        }
        mount("/proc", Path::new(&point), None, libc::MS_BIND)?;
    }
    Ok(())
}

fn new_namespace() -> io::Result<()> {
    // SAFETY: takes no pointers.
    ok(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
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
        let result = ok(unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                c"/mnt".as_ptr(),
                libc::AT_RECURSIVE,
                &raw const attr,
                size_of::<libc::mount_attr>(),
            )
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                mount("none", Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
            }
            result => result?,
        }
    }
    Ok(())
}

const NO_CHANGE: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

fn mount(source: &str, target: &Path, kind: Option<&str>, flags: libc::c_ulong) -> io::Result<()> {
    let c = |text: &str| CString::new(text).expect("no NUL");
    let (source, target) = (c(source), c(&target.to_string_lossy()));
    let kind = kind.map(c);
    let kind = kind.as_ref().map_or(std::ptr::null(), |kind| kind.as_ptr());
    // SAFETY: C strings that outlive the call, and no data.
    ok(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()) }
        .into())
}

fn ok(result: i64) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
