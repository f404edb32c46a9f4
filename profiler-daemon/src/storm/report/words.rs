//! What a report says in sentences.

use std::collections::BTreeMap;

use super::figures::{coefficient, number, range, times};
use crate::findings::text::count;
use crate::storm::analysis::{Axis, Comparison, Curve, Host, Point, Report, Scaling};

/// A law that is off by more, on average, does not describe the host.
const POOR_FIT: f64 = 0.15;

/// Locks that a comparison names.
const LOCKS: usize = 3;

/// `6.18.0, 4 CPUs, 1 NUMA node`.
pub(super) fn host(host: &Host) -> String {
    let nodes = count(u64::from(host.numa_nodes), "NUMA node");
    format!("{}, {}, {nodes}", host.kernel, count(u64::from(host.cpus), "CPU"))
}

/// What medians are of: `medians of 3 trials`.
pub(super) fn basis(report: &Report) -> String {
    let trials = || super::figures::all_points(report).map(|point| point.trials.len());
    match (trials().min(), trials().max()) {
        (Some(least), Some(most)) if least != most => {
            format!("medians of {least} to {most} trials")
        }
        (_, Some(1)) => "one trial each".to_owned(),
        (_, Some(n)) => format!("medians of {n} trials, with the least and the largest"),
        (_, None) => "no trial was run".to_owned(),
    }
}

/// `fd against legacy at concurrency 8: 1.42 x starts per second (1.38 to 1.47);
/// wait per start: namespace_sem 0.31 x (0.25 to 0.38)`; locks in the order of
/// `locks`.
pub(super) fn comparison(comparison: &Comparison, axis: Option<&Axis>, locks: &[&str]) -> String {
    let Comparison { baseline, strategy, value, starts_ratio, wait_ratio } = comparison;
    let at = match (axis, value) {
        (Some(axis), Some(value)) => format!(" at {} {value}", axis.name),
        _ => String::new(),
    };
    let starts = times(starts_ratio.median);
    let ends = range(starts_ratio, |ratio| format!("{ratio:.2}"));
    let mut text =
        format!("{strategy} against {baseline}{at}: {starts} starts per second ({ends})");
    let waits: Vec<_> = locks
        .iter()
        .filter_map(|lock| wait_ratio.iter().find(|(name, _)| name == lock))
        .take(LOCKS)
        .map(|(lock, ratio)| {
            let ends = range(ratio, |ratio| format!("{ratio:.2}"));
            format!("{lock} {} ({ends})", times(ratio.median))
        })
        .collect();
    if !waits.is_empty() {
        text += &format!("; wait per start: {}", waits.join(", "));
    }
    text
}

/// Where a curve has its knee, and how it scales.
pub(super) fn scaling(curve: &Curve, axis: &Axis) -> Vec<String> {
    let mut sentences = vec![knee(curve, axis)];
    if axis.is_concurrency() {
        sentences.push(match &curve.scaling {
            Some(scaling) => law(scaling, curve),
            None => "USL: not fitted, it takes four values of concurrency with starts".to_owned(),
        });
    }
    sentences
}

fn knee(curve: &Curve, axis: &Axis) -> String {
    let name = &axis.name;
    let measured: Vec<(u64, f64)> = curve
        .points
        .iter()
        .filter_map(|point| Some((point.value?, point.starts_per_second.median)))
        .filter(|(_, starts)| *starts > 0.0)
        .collect();
    let (Some((first, from)), Some((last, to))) = (measured.first(), measured.last()) else {
        return format!("no knee: no value of {name} had any start");
    };
    let highest = measured.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(*last, |(v, _)| *v);
    match (&curve.knee, axis.is_concurrency()) {
        (Some(knee), true) => format!(
            "this host stops gaining at {name} {} ({} starts/s)",
            knee.value,
            number(knee.starts_per_second)
        ),
        (Some(knee), false) => format!(
            "beyond {name} {} ({} starts/s), each further one costs at least twice as much as before",
            knee.value,
            number(knee.starts_per_second)
        ),
        (None, true) if measured.len() < 3 => {
            "no knee: it takes three values with starts".to_owned()
        }
        (None, true) if highest == *last => format!("no knee up to {name} {last}: it still gains"),
        (None, true) => format!(
            "no knee: {name} {last} is too close to the highest point, {highest}, to tell whether it \
             gains no more"
        ),
        (None, false) if measured.len() < 4 => {
            "no knee: it takes four values with starts".to_owned()
        }
        (None, false) => format!(
            "no knee from {name} {first} to {last}: starts/s go from {} to {} without a bend",
            number(*from),
            number(*to)
        ),
    }
}

fn law(scaling: &Scaling, curve: &Curve) -> String {
    let last = curve.points.iter().filter_map(|point| point.value).max().unwrap_or(0);
    let peak = match (scaling.peak_concurrency, scaling.peak_throughput) {
        (Some(at), Some(starts)) => {
            let beyond = at > last as f64;
            let beyond = if beyond { ", beyond what was measured" } else { "" };
            format!("peak at {at:.1} ({} starts/s{beyond})", number(starts))
        }
        (None, Some(limit)) => format!("no peak, limit {} starts/s", number(limit)),
        (_, None) => "neither peak nor limit".to_owned(),
    };
    let mut text = format!(
        "USL: {} starts/s per worker, contention {}, coherency {}, {peak}, R2 {:.2}, error {:.0} %",
        number(scaling.per_worker),
        coefficient(scaling.contention),
        coefficient(scaling.coherency),
        scaling.r_squared,
        scaling.relative_error * 100.0
    );
    if scaling.relative_error > POOR_FIT {
        text += "; this host does not keep to the law, do not rely on the peak";
    }
    text
}

/// What the reader has to know beside the figures: what went wrong, then the
/// notes.
pub(super) fn caveats(report: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    if report.interrupted {
        caveats.push("interrupted: trials are missing".to_owned());
    }
    for curve in &report.curves {
        if curve.points.is_empty() {
            caveats.push(format!("{}: no trial was run", curve.strategy));
        }
        caveats.extend(curve.points.iter().filter_map(|point| {
            let at = match (&report.axis, point.value) {
                (Some(axis), Some(value)) => format!(" at {} {value}", axis.name),
                _ => String::new(),
            };
            let troubles = troubles(point);
            (!troubles.is_empty())
                .then(|| format!("{}{at}: {}", curve.strategy, troubles.join(", ")))
        }));
    }
    caveats.extend(report.notes.iter().cloned());
    caveats
}

/// Events that were not booked, by reason.
pub(super) fn reasons(dropped: &BTreeMap<String, u64>) -> String {
    let reasons = dropped.iter().map(|(reason, count)| format!("{count} {reason}"));
    reasons.collect::<Vec<_>>().join(", ")
}

fn troubles(point: &Point) -> Vec<String> {
    let sum = |of: fn(&crate::storm::Trial) -> u64| point.trials.iter().map(of).sum::<u64>();
    let mut troubles = Vec::new();
    let failed = sum(|t| t.summary.failed_starts);
    if failed > 0 {
        let errors = point.trials.iter().flat_map(|t| &t.summary.errors);
        let most = errors.max_by_key(|e| e.count).map(|e| format!(" ({}: {})", e.step, e.message));
        troubles.push(format!("{}{}", count(failed, "failed start"), most.unwrap_or_default()));
    }
    let lost = sum(|t| t.summary.lost_processes);
    if lost > 0 {
        let processes = if lost == 1 { "process" } else { "processes" };
        troubles.push(format!("{lost} {processes} killed by something else"));
    }
    if sum(|t| u64::from(t.summary.killed)) > 0 {
        troubles.push("starts that did not end in time were killed".to_owned());
    }
    let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
    let measured = point.trials.iter().filter_map(|trial| trial.measured.as_ref());
    for (reason, count) in measured.flat_map(|measured| &measured.dropped) {
        *dropped.entry(reason.clone()).or_default() += count;
    }
    if !dropped.is_empty() {
        troubles.push(format!("not booked: {}", reasons(&dropped)));
    }
    let cut = sum(|t| u64::from(t.summary.interrupted));
    if cut > 0 {
        let counted = point.trials.iter().all(|t| t.summary.interrupted);
        let what = if counted { "cut short" } else { "cut short and not counted" };
        troubles.push(format!("{} {what}", count(cut, "trial")));
    }
    troubles
}
