//! `stat` around the standard load.

mod common;

use std::process::{Command, Stdio};

use clap::ValueEnum as _;
use common::LOCKPROF;
use lockprof::cli::args::By;
use lockprof::findings::RULES;
use lockprof::locks::Mode;
use lockprof::snapshot::Snapshot;

#[test]
fn ten_seconds_of_storm_show_waits_for_every_named_lock() {
    needs_bpf!("ten_seconds_of_storm_show_waits_for_every_named_lock");
    let output = Command::new(LOCKPROF)
        .args([
            "stat",
            "--json",
            "--",
            LOCKPROF,
            "storm",
            "--concurrency",
            "8",
            "--duration",
            "10s",
        ])
        .stderr(Stdio::inherit())
        .output()
        .expect("stat can be run");
    assert!(output.status.success(), "{}", output.status);
    let snapshot: Snapshot = serde_json::from_slice(&output.stdout).expect("stat prints JSON");

    let mut wanted = vec![("namespace_sem", Mode::Read), ("namespace_sem", Mode::Write)];
    // Held so briefly that a few emulated CPUs meet at it by luck alone.
    let brief = !common::emulated();
    if brief {
        wanted.push(("shrinker_rwsem", shrinker_mode(&snapshot)));
    }
    if spin_waits_are_traced() {
        wanted.push(("mount_lock", Mode::Spin));
        if brief {
            wanted.push(("mnt_id_lock", Mode::Spin));
        }
    } else {
        common::skip(
            "ten_seconds_of_storm_show_waits_for_every_named_lock (spinlocks)",
            "two CPUs without paravirtual spinlocks: the one waiter spins on the pending bit",
        );
    }
    for (lock, mode) in wanted {
        let count: u64 = snapshot
            .locks
            .iter()
            .filter(|row| row.lock == lock && row.mode == mode)
            .map(|row| row.waits.count)
            .sum();
        assert!(count > 0, "no {mode} waits for {lock}");
    }
    for row in &snapshot.locks {
        let (waits, name) = (&row.waits, format!("{} {}", row.lock, row.mode));
        assert_eq!(waits.buckets.total(), waits.count, "{name}");
        assert!(waits.max_ns <= waits.sum_ns, "{name}");
        let [p50, p90, p99] = waits.quantiles_ns([0.5, 0.9, 0.99]);
        assert!(p50 <= p90 && p90 <= p99 && p99 <= waits.max_ns, "{name}");
    }
    // What the document says about a row is what the type makes of it.
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let row = &json["locks"][0];
    for key in [
        "lock",
        "mode",
        "numa_node",
        "count",
        "sum_ns",
        "max_ns",
        "p50_ns",
        "p90_ns",
        "p99_ns",
        "buckets",
    ] {
        assert!(!row[key].is_null(), "no {key} in {row}");
    }
    for finding in json["findings"].as_array().expect("findings") {
        assert!(RULES.iter().any(|rule| finding["rule"] == rule.name), "{finding}");
    }
    let mount = snapshot.syscalls.iter().find(|row| row.syscall == "mount").expect("mount calls");
    assert!(mount.lock_wait_ns["namespace_sem"] <= mount.calls.sum_ns);
}

#[test]
fn every_breakdown_shows_a_total_or_says_why_there_is_none() {
    needs_bpf!("every_breakdown_shows_a_total_or_says_why_there_is_none");
    for by in By::value_variants() {
        let name = by.to_possible_value().expect("none is hidden").get_name().to_owned();
        let storm =
            ["--", LOCKPROF, "storm", "--no-measure", "--concurrency", "8", "--duration", "500ms"];
        let output = Command::new(LOCKPROF)
            .args(["stat", "--by", &name])
            .args(storm)
            .stderr(Stdio::inherit())
            .output()
            .expect("stat can be run");
        assert!(output.status.success(), "{name}: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("text");
        let total = text.lines().any(|line| line.starts_with("total "));
        let reasons =
            ["\nno waits\n", "\nno mount system calls\n", " on this kernel; ", "\n0 waits took "];
        let reasons: Vec<_> = reasons.iter().filter(|reason| text.contains(*reason)).collect();
        assert_eq!(total, reasons.is_empty(), "{name}: {reasons:?}\n{text}");
        if matches!(by, By::Lock | By::Node) {
            assert!(total, "nobody waited in a storm:\n{text}");
        }
        let findings = text.contains("\nFINDINGS\n");
        assert_ne!(findings, text.ends_with("\nno findings\n"), "{name}:\n{text}");
    }
}

/// The shrinker's lock is a mutex since Linux 6.7.
fn shrinker_mode(snapshot: &Snapshot) -> Mode {
    let row = snapshot.locks.iter().find(|row| row.lock == "shrinker_rwsem");
    match row.expect("the shrinker lock is watched").mode {
        Mode::Mutex => Mode::Mutex,
        _ => Mode::Write,
    }
}

/// A single waiter of a spinlock does not queue unless the spinlocks are
/// paravirtual, and only queued waiters are traced.
fn spin_waits_are_traced() -> bool {
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("procfs is mounted");
    cpus > 2 || cpuinfo.contains(" hypervisor")
}
