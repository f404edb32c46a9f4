//! Trials for tests of what is made of them.

use super::analysis::{Axis, Host, Report, Step, steps};
use super::engine::{Latency, Summary};
use super::strategy::Strategy;
use super::trial::{Measured, Trial, Waits};

/// Seconds that [`trial`] lasts.
const SECONDS: u64 = 10;

/// A trial of ten seconds with `waits`, of which [`waits`] says what they are
/// per start.
pub(super) fn trial(starts_per_second: f64, waits: &[Waits]) -> Trial {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small figures")]
    let starts = (starts_per_second * 10.0).round() as u64;
    let waits = waits.iter().map(|row| Waits {
        count: row.count * starts,
        sum_ns: row.sum_ns * starts,
        ..row.clone()
    });
    Trial {
        summary: Summary {
            duration_ns: SECONDS * 1_000_000_000,
            strategy: Strategy::default(),
            concurrency: 4,
            pollers: 2,
            cpus: None,
            starts,
            starts_per_second,
            failed_starts: 0,
            lost_processes: 0,
            start_latency: match starts {
                0 => Latency::default(),
                _ => Latency { p50_ns: 9_000_000, p99_ns: 31_000_000, max_ns: 45_000_000 },
            },
            mounts: 40 * starts,
            umounts: starts,
            root_change: "pivot_root",
            mountinfo_reads: 0,
            mountinfo_bytes: 0,
            errors: Vec::new(),
            interrupted: false,
            killed: false,
        },
        measured: Some(Measured {
            window_ns: SECONDS * 1_000_000_000,
            waits: waits.collect(),
            ..Measured::default()
        }),
    }
}

/// Waits of one lock, `count` and `sum_ns` per start.
pub(super) fn waits(lock: &str, count: u64, sum_ns: u64) -> Waits {
    Waits {
        lock: lock.to_owned(),
        mode: "write".to_owned(),
        numa_node: 0,
        count,
        sum_ns,
        max_ns: sum_ns,
        p99_ns: sum_ns,
    }
}

fn host() -> Host {
    Host { kernel: "7.0.3".to_owned(), cpus: 8, numa_nodes: 2 }
}

fn strategies(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Trials of one point differ by this.
const DRIFT: [f64; 3] = [1.0, 0.97, 1.02];

/// Two strategies, three rounds.
pub(super) fn comparison() -> Report {
    let run = |step: Step| {
        let (rate, wait_ns) = [(290.0, 9_100_000), (412.0, 2_800_000)][step.strategy];
        let rate = rate * DRIFT[(step.round as usize + step.strategy) % 3];
        let waits = [waits("namespace_sem", 31, wait_ns), waits("mount_lock", 4, 13_500)];
        (step, trial(rate, &waits))
    };
    let ran: Vec<_> = steps(3, 2, 1).map(run).collect();
    let notes = vec!["waits of tasks outside the storm are in the figures as well".to_owned()];
    let names = strategies(&["legacy", "open-tree-namespace"]);
    Report::new(host(), None, &names, &ran, false, notes)
}

/// Two strategies along concurrency: one that falls again, one that still grows.
pub(super) fn sweep() -> Report {
    let values = vec![1, 2, 4, 8, 16, 32, 64];
    let axis = Axis { name: "concurrency".to_owned(), values: values.clone() };
    let run = |step: Step| {
        #[expect(clippy::cast_precision_loss, reason = "small figures")]
        let n = values[step.value] as f64;
        let (contention, coherency) = [(0.05, 0.004), (0.02, 0.0)][step.strategy];
        let rate = 62.0 * n / (1.0 + contention * (n - 1.0) + coherency * n * (n - 1.0));
        let rate = rate * DRIFT[(step.round as usize + step.strategy) % 3];
        let wait_ns = 90_000 * values[step.value].pow(2) / [1, 8][step.strategy];
        let waits = [waits("namespace_sem", 20, wait_ns), waits("mount_lock", 5, wait_ns / 9)];
        (step, trial(rate, &waits))
    };
    let ran: Vec<_> = steps(3, 2, values.len()).map(run).collect();
    Report::new(host(), Some(axis), &strategies(&["legacy", "fd"]), &ran, false, Vec::new())
}
