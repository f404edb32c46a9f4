//! A snapshot as text for people: what `stat` prints.

use std::fmt::Write as _;

use super::limits::Limit;
use crate::snapshot::{Snapshot, Times};

/// The tables by lock, mode and node, by system call and node, what has not
/// ended, what was lost, and what this kernel does not let lockprof measure.
pub fn render(snapshot: &Snapshot, limits: &[Limit]) -> String {
    let mut out = String::new();
    let host = &snapshot.host;
    let _ = writeln!(
        out,
        "{} on {}, {} CPUs, {} NUMA {}",
        duration(snapshot.duration_ns),
        host.kernel,
        host.cpus,
        host.numa_nodes.len().max(1),
        if host.numa_nodes.len() > 1 { "nodes" } else { "node" },
    );
    locks(&mut out, snapshot);
    holds(&mut out, snapshot);
    syscalls(&mut out, snapshot);
    inflight(&mut out, snapshot);
    lost(&mut out, snapshot);
    for limit in limits {
        let _ = writeln!(out, "\n{}", limit.what);
        let _ = writeln!(out, "  because {}", limit.why);
        if let Some(remedy) = &limit.remedy {
            let _ = writeln!(out, "  it takes {remedy}");
        }
    }
    out
}

const TIMES_HEADER: &str = "     COUNT      TOTAL       MEAN        P50        P99        MAX";

fn locks(out: &mut String, snapshot: &Snapshot) {
    let _ = writeln!(out, "\n{:<18} {:<10} {:>4} {TIMES_HEADER}", "LOCK WAITS", "MODE", "NODE");
    let mut rows: Vec<_> = snapshot.locks.iter().filter(|row| row.waits.count != 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.waits.sum_ns));
    for row in &rows {
        let _ = writeln!(
            out,
            "{:<18} {:<10} {:>4} {}",
            row.lock,
            row.mode,
            row.numa_node,
            times(&row.waits)
        );
    }
    let mut quiet: Vec<&str> = Vec::new();
    for row in &snapshot.locks {
        let waited = rows.iter().any(|other| other.lock == row.lock);
        if !waited && !quiet.contains(&row.lock.as_str()) {
            quiet.push(&row.lock);
        }
    }
    if !quiet.is_empty() {
        let _ = writeln!(out, "no waits: {}", quiet.join(", "));
    }
}

/// Where contended releases are observed and there were any.
fn holds(out: &mut String, snapshot: &Snapshot) {
    let mut rows: Vec<_> = snapshot.holds.iter().filter(|row| row.holds.count != 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.holds.sum_ns));
    if !rows.is_empty() {
        let _ = writeln!(out, "\n{:<18} {:<10} {:>4} {TIMES_HEADER}", "LOCK HOLDS", "MODE", "NODE");
    }
    for row in rows {
        let _ = writeln!(
            out,
            "{:<18} {:<10} {:>4} {}",
            row.lock,
            row.mode,
            row.numa_node,
            times(&row.holds)
        );
    }
    let unmeasured: Vec<_> = snapshot
        .releases
        .iter()
        .filter(|row| row.unmeasured != 0)
        .map(|row| format!("{} {}", row.lock, row.unmeasured))
        .collect();
    if !unmeasured.is_empty() {
        let _ = writeln!(out, "contended holds of unknown length: {}", unmeasured.join(", "));
    }
}

fn syscalls(out: &mut String, snapshot: &Snapshot) {
    let mut rows: Vec<_> = snapshot.syscalls.iter().collect();
    if rows.is_empty() {
        // Calls that nothing sees are among the limits.
        if snapshot.hooks.iter().any(|h| h.hook.starts_with("sys_") && h.backend != "none") {
            let _ = writeln!(out, "\nno mount system calls");
        }
        return;
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.calls.sum_ns));
    let _ = writeln!(
        out,
        "\n{:<18} {:<6} {:>4} {TIMES_HEADER}  LOCK WAIT",
        "MOUNT CALLS", "ERRORS", "NODE"
    );
    for row in rows {
        let waited: u64 = row.lock_wait_ns.values().sum();
        let mut most: Vec<_> = row.lock_wait_ns.iter().collect();
        most.sort_by_key(|(_, ns)| std::cmp::Reverse(**ns));
        let most = most
            .iter()
            .take(2)
            // What would show as 0 % says nothing.
            .filter(|(_, ns)| **ns * 200 >= row.calls.sum_ns)
            .map(|(lock, ns)| format!("{lock} {}", percent(**ns, row.calls.sum_ns)))
            .collect::<Vec<_>>()
            .join(", ");
        let line = format!(
            "{:<18} {:>6} {:>4} {}  {:>9} {most}",
            row.syscall,
            row.errors,
            row.numa_node,
            times(&row.calls),
            percent(waited, row.calls.sum_ns),
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if !snapshot.syscall_errors.is_empty() {
        let errors: Vec<_> = snapshot
            .syscall_errors
            .iter()
            .map(|e| format!("{} {} {}", e.syscall, e.errno, e.count))
            .collect();
        let _ = writeln!(out, "errors: {}", errors.join(", "));
    }
}

fn inflight(out: &mut String, snapshot: &Snapshot) {
    for row in snapshot.inflight.iter().filter(|row| row.waiters != 0) {
        let _ = writeln!(
            out,
            "\nstill waiting: {} for {}, the oldest for {}",
            count(row.waiters, "task"),
            row.lock,
            duration(row.oldest_ns)
        );
    }
}

fn lost(out: &mut String, snapshot: &Snapshot) {
    let lost: Vec<_> = snapshot
        .dropped
        .iter()
        .filter(|d| d.count != 0)
        .map(|d| match d.reason.as_str() {
            // The kernel does not say what a skipped event was about.
            "recursion_miss" => {
                format!("{} {} (of any lock or call, watched or not)", d.reason, d.count)
            }
            _ => format!("{} {}", d.reason, d.count),
        })
        .collect();
    if !lost.is_empty() {
        let _ = writeln!(out, "\nnot booked: {} (docs/metrics.md explains each)", lost.join(", "));
    }
}

fn times(times: &Times) -> String {
    let [p50, p99] = times.quantiles_ns([0.5, 0.99]);
    let mean = times.sum_ns.checked_div(times.count).unwrap_or(0);
    format!(
        "{:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        times.count,
        duration(times.sum_ns),
        duration(mean),
        duration(p50),
        duration(p99),
        duration(times.max_ns)
    )
}

fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let percent = part as f64 * 100.0 / whole as f64;
    format!("{percent:.0}%")
}

/// A duration with three digits and a unit: `512ns`, `4.10us`, `12.3ms`, `1.50s`.
pub fn duration(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let value = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (value / 1e3, "us"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::{Limit, duration, render};
    use crate::snapshot::Snapshot;

    #[test]
    fn what_is_not_measured_is_not_shown_as_absent_but_with_its_reason() {
        let mut snapshot: Snapshot = serde_json::from_value(serde_json::json!({
            "schema": 1, "duration_ns": 1, "host": {"kernel": "6.18.0", "cpus": 2, "numa_nodes": []},
            "locks": [], "inflight": [], "handoffs": [], "syscalls": [], "dropped": [],
            "hooks": [{"hook": "sys_mount", "backend": "none"}],
        }))
        .expect("the documented JSON");
        let limit = Limit {
            what: "mount calls are not measured".into(),
            why: "tracepoint: tracefs is not there".into(),
            remedy: Some("CONFIG_FTRACE_SYSCALLS".into()),
        };
        let blind = render(&snapshot, &[limit]);
        assert!(!blind.contains("no mount system calls"), "{blind}");
        let said = "mount calls are not measured\n  because tracepoint: tracefs is not there\n  \
                    it takes CONFIG_FTRACE_SYSCALLS\n";
        assert!(blind.contains(said), "{blind}");
        snapshot.hooks[0].backend = "tracepoint".into();
        let seeing = render(&snapshot, &[]);
        assert!(seeing.contains("no mount system calls"), "{seeing}");
        assert!(!seeing.contains("because"), "{seeing}");
    }

    #[test]
    fn durations_keep_three_digits() {
        let shown: Vec<_> =
            [0, 999, 1_000, 9_994, 12_345, 123_456, 1_500_000, 2_000_000_000, 3_600_000_000_000]
                .map(duration)
                .into();
        assert_eq!(
            shown,
            ["0ns", "999ns", "1.00us", "9.99us", "12.3us", "123us", "1.50ms", "2.00s", "3600s"]
        );
    }
}
