//! How often CPUs are sampled in the kernel, against the kernel's own account of
//! its time.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::LOCKPROF;
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::KERNEL_SAMPLES;
use lockprof::kernel::topology::online_cpus;
use lockprof::snapshot::Samples;

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

/// Samples taken while `work` runs again and again on every CPU, how long that
/// was, and how much of it the kernel says it took itself, in CPU seconds.
fn while_busy(session: &Session, work: fn()) -> (Samples, f64, f64) {
    let cpus = online_cpus(Path::new("/sys")).expect("sysfs is mounted");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cpu in cpus {
            let stop = &stop;
            scope.spawn(move || {
                common::pin(&[cpu]);
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
