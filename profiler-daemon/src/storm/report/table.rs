//! Tables for a terminal, 100 columns wide.

use std::fmt::Write as _;

use textwrap::core::display_width;

use super::figures::{all_points, nanoseconds, number, range, times, top_locks, wait_of};
use super::words;
use crate::findings::text::{duration, percent};
use crate::storm::analysis::{Axis, Comparison, Curve, Point, Report};
use crate::storm::trial::{Measured, Trial};

/// Columns of a terminal that all of it fits.
const WIDTH: usize = 100;

/// Columns of a strategy; a longer one has a line of its own.
const STRATEGY: usize = 24;

/// Columns of [`rates`] and [`latencies`].
const FIGURES: usize = 10 + 1 + 16 + 2 + 9 + 1 + 9;

/// A report of several trials.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let basis = words::basis(report);
    let _ = writeln!(out, "storm on {}; {basis}", words::host(&report.host));
    let locks = top_locks(all_points(report));
    match &report.axis {
        None => {
            strategies(&mut out, report, &locks);
            comparisons(&mut out, report, &locks);
        }
        Some(axis) => {
            for curve in &report.curves {
                sweep(&mut out, curve, axis);
            }
            compared_along(&mut out, report, axis, &locks);
        }
    }
    let caveats = words::caveats(report);
    if !caveats.is_empty() {
        out.push('\n');
        caveats.iter().for_each(|caveat| sentence(&mut out, caveat));
    }
    out
}

fn sentence(out: &mut String, text: &str) {
    let options = textwrap::Options::new(WIDTH).subsequent_indent("  ").break_words(false);
    let _ = writeln!(out, "{}", textwrap::fill(text, options));
}

/// Columns of locks, as many as there is room for beside `taken` columns.
struct Locks<'a>(Vec<&'a str>);

impl<'a> Locks<'a> {
    const LEAST: usize = 9;

    fn fitting(locks: &[&'a str], taken: usize) -> Self {
        let mut left = WIDTH.saturating_sub(taken);
        let fits = |lock: &&&str| {
            let width = Self::width(lock) + 2;
            let fits = left >= width;
            left = left.saturating_sub(width);
            fits
        };
        Self(locks.iter().take_while(fits).copied().collect())
    }

    fn width(lock: &str) -> usize {
        display_width(lock).max(Self::LEAST)
    }

    fn headings(&self) -> String {
        self.row(|lock| (*lock).to_owned())
    }

    fn row(&self, cell: impl Fn(&str) -> String) -> String {
        let cells = self.0.iter().map(|lock| format!("  {:>1$}", cell(lock), Self::width(lock)));
        cells.collect()
    }

    /// What stands under them.
    fn waits(&self, point: &Point) -> String {
        self.row(|lock| {
            wait_of(point, lock).map_or_else(|| "-".to_owned(), |wait| nanoseconds(wait.median))
        })
    }

    /// Says what the columns are.
    fn explain(&self, out: &mut String) {
        if !self.0.is_empty() {
            out.push_str("below the name of a lock: time waited for it per start\n");
        }
    }
}

/// Headings of [`rates`] and [`latencies`].
fn rate_headings() -> String {
    format!("{:>10} {:>16}", "STARTS/S", "MIN TO MAX")
}

fn latency_headings() -> String {
    format!("  {:>9} {:>9}", "P50", "P99")
}

fn rates(point: &Point) -> String {
    let starts = &point.starts_per_second;
    format!("{:>10} {:>16}", number(starts.median), range(starts, number))
}

fn latencies(point: &Point) -> String {
    // Without any start there is no latency.
    let some = point.starts_per_second.max > 0.0;
    let cell = |ns: f64| if some { nanoseconds(ns) } else { "-".to_owned() };
    let (p50, p99) = (&point.start_latency_p50_ns, &point.start_latency_p99_ns);
    format!("  {:>9} {:>9}", cell(p50.median), cell(p99.median))
}

fn strategies(out: &mut String, report: &Report, locks: &[&str]) {
    let names = report.curves.iter().map(|curve| display_width(&curve.strategy));
    let width = names.max().unwrap_or(0).clamp("STRATEGY".len(), STRATEGY);
    let locks = Locks::fitting(locks, width + 1 + FIGURES);
    locks.explain(out);
    let headings = rate_headings() + &latency_headings() + &locks.headings();
    let _ = writeln!(out, "\n{:<width$} {headings}", "STRATEGY");
    for curve in &report.curves {
        for point in &curve.points {
            let mut name = curve.strategy.as_str();
            if display_width(name) > width {
                let _ = writeln!(out, "{name}");
                name = "";
            }
            let figures = rates(point) + &latencies(point) + &locks.waits(point);
            let _ = writeln!(out, "{name:<width$} {figures}");
        }
    }
}

fn comparisons(out: &mut String, report: &Report, locks: &[&str]) {
    if !report.comparisons.is_empty() {
        out.push('\n');
    }
    for comparison in &report.comparisons {
        sentence(out, &words::comparison(comparison, None, locks));
    }
}

fn sweep(out: &mut String, curve: &Curve, axis: &Axis) {
    let _ = writeln!(out, "\n{}", curve.strategy);
    if curve.points.is_empty() {
        return;
    }
    let first = axis.name.to_uppercase();
    let width = first.len().max(7);
    let locks = top_locks(&curve.points);
    let previous = format!(" {:>10}", "X PREVIOUS");
    let locks = Locks::fitting(&locks, width + 1 + FIGURES + previous.len());
    locks.explain(out);
    let headings = rate_headings() + &previous + &latency_headings() + &locks.headings();
    let _ = writeln!(out, "{first:>width$} {headings}");
    let mut before: Option<f64> = None;
    for point in &curve.points {
        let median = point.starts_per_second.median;
        let ratio = before.filter(|before| *before > 0.0).map(|before| times(median / before));
        let ratio = format!(" {:>10}", ratio.unwrap_or_else(|| "-".to_owned()));
        let figures = rates(point) + &ratio + &latencies(point) + &locks.waits(point);
        let _ = writeln!(out, "{:>width$} {figures}", point.value.unwrap_or(0));
        before = Some(median);
    }
    words::scaling(curve, axis).iter().for_each(|text| sentence(out, text));
}

/// Ratios along an axis, a table for each further strategy.
fn compared_along(out: &mut String, report: &Report, axis: &Axis, locks: &[&str]) {
    let first = axis.name.to_uppercase();
    let width = first.len().max(7);
    for curve in report.curves.iter().skip(1) {
        let rows = || report.comparisons.iter().filter(|c| c.strategy == curve.strategy);
        let Some(Comparison { baseline, strategy, .. }) = rows().next() else { continue };
        let _ = writeln!(
            out,
            "\n{strategy} against {baseline}, ratios of starts/s and of waits per start"
        );
        let ratios: Vec<_> = locks
            .iter()
            .filter(|lock| rows().any(|c| c.wait_ratio.iter().any(|(name, _)| name == *lock)))
            .copied()
            .collect();
        let locks = Locks::fitting(&ratios, width + rate_headings().len() + 1);
        let _ = writeln!(out, "{first:>width$} {}{}", rate_headings(), locks.headings());
        for row in rows() {
            let waits = locks.row(|lock| {
                let found = row.wait_ratio.iter().find(|(name, _)| name == lock);
                found.map_or_else(|| "-".to_owned(), |(_, ratio)| times(ratio.median))
            });
            let ends = range(&row.starts_ratio, |ratio| format!("{ratio:.2}"));
            let starts = times(row.starts_ratio.median);
            let value = row.value.unwrap_or(0);
            let _ = writeln!(out, "{value:>width$} {starts:>10} {ends:>16}{waits}");
        }
    }
}

/// One storm: what it counted, and what the hooks saw of it.
pub fn of_trial(trial: &Trial) -> String {
    let mut out = trial.summary.to_string();
    if let Some(measured) = &trial.measured {
        waits(&mut out, trial, measured);
        calls(&mut out, trial, measured);
        superblocks(&mut out, trial, measured);
        if !measured.dropped.is_empty() {
            let reasons = words::reasons(&measured.dropped);
            let _ = writeln!(out, "\nnot booked: {reasons} (docs/metrics.md explains each)");
        }
    }
    out
}

fn waits(out: &mut String, trial: &Trial, measured: &Measured) {
    if measured.waits.is_empty() {
        out.push_str("\nno waits for watched locks\n");
        return;
    }
    let _ = writeln!(
        out,
        "\n{:<18} {:<6} {:>4} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "LOCK WAITS", "MODE", "NODE", "COUNT", "PER START", "TOTAL", "PER START", "P99", "MAX"
    );
    let mut rows: Vec<_> = measured.waits.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.sum_ns));
    for row in rows {
        let _ = writeln!(
            out,
            "{:<18} {:<6} {:>4} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            row.lock,
            row.mode,
            row.numa_node,
            row.count,
            per_start(trial, row.count, number),
            duration(row.sum_ns),
            per_start(trial, row.sum_ns, nanoseconds),
            duration(row.p99_ns),
            duration(row.max_ns)
        );
    }
}

fn calls(out: &mut String, trial: &Trial, measured: &Measured) {
    if measured.syscalls.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{:<18} {:>6} {:>15} {:>10} {:>10} {:>10} {:>10}",
        "CALLS", "ERRORS", "COUNT", "PER START", "TOTAL", "PER START", "LOCK WAIT"
    );
    let mut rows: Vec<_> = measured.syscalls.iter().collect();
    rows.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.sum_ns));
    for (name, calls) in rows {
        let _ = writeln!(
            out,
            "{name:<18} {:>6} {:>15} {:>10} {:>10} {:>10} {:>10}",
            calls.errors,
            calls.count,
            per_start(trial, calls.count, number),
            duration(calls.sum_ns),
            per_start(trial, calls.sum_ns, nanoseconds),
            percent(calls.lock_wait_ns, calls.sum_ns)
        );
    }
}

fn superblocks(out: &mut String, trial: &Trial, measured: &Measured) {
    if measured.superblocks.is_empty() {
        return;
    }
    let each: Vec<_> = measured
        .superblocks
        .iter()
        .map(|(filesystem, count)| format!("{filesystem} {}", per_start(trial, *count, number)))
        .collect();
    out.push('\n');
    sentence(out, &format!("superblocks per start: {}", each.join(", ")));
}

fn per_start(trial: &Trial, total: u64, figure: fn(f64) -> String) -> String {
    trial.per_start(total).map_or_else(|| "-".to_owned(), figure)
}

#[cfg(test)]
mod tests;
