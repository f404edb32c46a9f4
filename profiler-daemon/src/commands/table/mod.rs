//! A snapshot as text for people: what `stat` prints.
//!
//! In: a window, what this kernel does not let lockprof measure, and what the
//! rules find. Out: the overview or one [`By`] breakdown, what has not ended,
//! what was lost, what is not measured, and the findings in words.

mod breakdown;
mod by;
mod overview;
mod words;

use std::fmt::Write as _;

use super::limits::Limit;
use crate::cli::args::By;
use crate::findings::Finding;
use crate::findings::text::{count, duration};
use crate::snapshot::Snapshot;

/// The text. Sentences are wrapped to `width` columns; tables are not.
pub fn render(
    snapshot: &Snapshot,
    by: Option<By>,
    limits: &[Limit],
    findings: &[Finding],
    width: usize,
) -> String {
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
    match by {
        Some(by) => by::write(&mut out, snapshot, by, width),
        None => overview::write(&mut out, snapshot),
    }
    inflight(&mut out, snapshot);
    lost(&mut out, snapshot);
    for limit in limits {
        let _ = writeln!(out, "\n{}", limit.what);
        let _ = writeln!(out, "  because {}", limit.why);
        if let Some(remedy) = &limit.remedy {
            let _ = writeln!(out, "  it takes {remedy}");
        }
    }
    words::write(&mut out, findings, width);
    out
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

#[cfg(test)]
mod tests;
