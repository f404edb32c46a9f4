//! Trials for tests of what is made of them.

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
