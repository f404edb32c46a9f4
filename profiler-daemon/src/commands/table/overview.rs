//! The tables of `stat` without `--by`: locks, holds and calls by node.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::findings::text::{duration, percent};
use crate::locks::Mode;
use crate::snapshot::{Snapshot, Times};

const TIMES_HEADER: &str = "     COUNT      TOTAL       MEAN        P50        P99        MAX";

/// Lock waits and holds by lock, mode and node, and mount calls by node.
pub(super) fn write(out: &mut String, snapshot: &Snapshot) {
    locks(out, snapshot);
    holds(out, snapshot);
    syscalls(out, snapshot);
}

/// One line of the tables by lock, mode and node.
struct Line<'a> {
    lock: &'a str,
    mode: Mode,
    numa_node: u32,
    times: &'a Times,
}

fn locks(out: &mut String, snapshot: &Snapshot) {
    let rows = snapshot.locks.iter().map(|row| Line {
        lock: &row.lock,
        mode: row.mode,
        numa_node: row.numa_node,
        times: &row.waits,
    });
    let _ = writeln!(out);
    by_mode_and_node(out, "LOCK WAITS", rows);
    let mut quiet: Vec<&str> = Vec::new();
    for row in &snapshot.locks {
        let mut same = snapshot.locks.iter().filter(|other| other.lock == row.lock);
        if same.all(|row| row.waits.count == 0) && !quiet.contains(&row.lock.as_str()) {
            quiet.push(&row.lock);
        }
    }
    if !quiet.is_empty() {
        let _ = writeln!(out, "no waits: {}", quiet.join(", "));
    }
}

/// Where contended releases are observed and there were any.
fn holds(out: &mut String, snapshot: &Snapshot) {
    if snapshot.holds.iter().any(|row| row.holds.count != 0) {
        let _ = writeln!(out);
        let rows = snapshot.holds.iter().map(|row| Line {
            lock: &row.lock,
            mode: row.mode,
            numa_node: row.numa_node,
            times: &row.holds,
        });
        by_mode_and_node(out, "LOCK HOLDS", rows);
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

/// The rows in which something was counted, the longest total first.
fn by_mode_and_node<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = Line<'a>>) {
    let _ = writeln!(out, "{title:<18} {:<10} {:>4} {TIMES_HEADER}", "MODE", "NODE");
    let mut rows: Vec<_> = rows.filter(|row| row.times.count != 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.times.sum_ns));
    for Line { lock, mode, numa_node, times } in rows {
        let _ = writeln!(out, "{lock:<18} {mode:<10} {numa_node:>4} {}", columns(times));
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
        let line = format!(
            "{:<18} {:>6} {:>4} {}  {}",
            row.syscall,
            row.errors,
            row.numa_node,
            columns(&row.calls),
            lock_wait(&row.lock_wait_ns, row.calls.sum_ns),
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

/// The part of `sum_ns` that calls waited for locks, and for which most.
pub(super) fn lock_wait(by_lock: &BTreeMap<String, u64>, sum_ns: u64) -> String {
    let waited: u64 = by_lock.values().sum();
    let mut most: Vec<_> = by_lock.iter().collect();
    most.sort_by_key(|(_, ns)| std::cmp::Reverse(**ns));
    let most = most
        .iter()
        .take(2)
        // What would show as 0 % says nothing.
        .filter(|(_, ns)| **ns * 200 >= sum_ns)
        .map(|(lock, ns)| format!("{lock} {}", percent(**ns, sum_ns)))
        .collect::<Vec<_>>()
        .join(", ");
    format!("{:>9} {most}", percent(waited, sum_ns))
}

fn columns(times: &Times) -> String {
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
