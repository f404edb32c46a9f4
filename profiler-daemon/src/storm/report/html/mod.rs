//! A report as one HTML page: plots, all figures, and what to know about them.
//!
//! It is one file that asks for nothing from elsewhere and runs no script; its
//! policy header forbids both.

mod plot;
mod scale;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::plot::{Bars, Law, Lines, Series};
use super::figures::{all_points, nanoseconds, number, times, top_locks, wait_of, with_range};
use super::words;
use crate::storm::analysis::{Axis, Curve, Point, Report, Spread};

const STYLE: &str = include_str!("style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Locks that a plot shows.
const LOCKS: usize = 6;

/// The page.
pub fn page(report: &Report) -> String {
    let heading = match &report.axis {
        Some(axis) => format!("Storm along {}", axis.name),
        None => "Storm".to_owned(),
    };
    let host = words::host(&report.host);
    let caveats = words::caveats(report);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "lockprof: " (heading) " on " (host) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (heading) }
                    p class="dim" { (host) "; " (words::basis(report)) }
                    @if !caveats.is_empty() {
                        ul class="caveats" { @for caveat in &caveats { li { (caveat) } } }
                    }
                    (conclusions(report))
                    @match &report.axis {
                        Some(axis) => (along(report, axis)),
                        None => (side_by_side(report)),
                    }
                    h2 { "Starts" }
                    (points(report))
                    h2 { "Waits per start" }
                    (waits(report))
                    @if !report.comparisons.is_empty() {
                        h2 { "Ratios, round by round" }
                        (ratios(report))
                    }
                }
            }
        }
    };
    document.into_string()
}

/// What follows, in sentences.
fn conclusions(report: &Report) -> Markup {
    let locks = top_locks(all_points(report));
    html! {
        @if let Some(axis) = &report.axis {
            @for curve in &report.curves {
                h2 { (curve.strategy) }
                ul { @for sentence in words::scaling(curve, axis) { li { (sentence) } } }
            }
        } @else if !report.comparisons.is_empty() {
            ul {
                @for comparison in &report.comparisons {
                    li { (words::comparison(comparison, None, &locks)) }
                }
            }
        }
    }
}

/// Plots against the axis: starts of all strategies, and waits of each.
fn along(report: &Report, axis: &Axis) -> Markup {
    let series = report.curves.iter().filter(|curve| !curve.points.is_empty());
    let series = series.map(|curve| Series {
        name: curve.strategy.clone(),
        points: along_axis(curve, |point| Some(point.starts_per_second)),
        law: curve.scaling.map(|scaling| Law {
            name: format!("{}: Universal Scalability Law", curve.strategy),
            at: Box::new(move |n| scaling.throughput(n)),
        }),
    });
    let starts = Lines {
        id: "starts".to_owned(),
        title: format!("Starts per second against {}", axis.name),
        description:
            "Median of the trials at each value, with a line from the least to the largest. \
                      The table below has the figures."
                .to_owned(),
        x_label: axis.name.clone(),
        y_label: "starts per second".to_owned(),
        series: series.collect(),
    };
    html! {
        @if !starts.series.is_empty() { figure { (starts.svg()) } }
        @for (i, curve) in report.curves.iter().enumerate() {
            @let plot = waits_along(curve, axis, i);
            @if !plot.series.is_empty() { figure { (plot.svg()) } }
        }
    }
}

fn waits_along(curve: &Curve, axis: &Axis, index: usize) -> Lines {
    let locks: Vec<_> = top_locks(&curve.points).into_iter().take(LOCKS).collect();
    let unit = Unit::of(&curve.points, &locks);
    let series = locks.iter().map(|lock| Series {
        name: (*lock).to_owned(),
        points: along_axis(curve, |point| wait_of(point, lock).map(|wait| unit.in_it(wait))),
        law: None,
    });
    Lines {
        id: format!("waits-{index}"),
        title: format!("Waits per start against {}: {}", axis.name, curve.strategy),
        description: "Time that a start waits for each lock, all modes and NUMA nodes together: median \
                      of the trials, with a line from the least to the largest. The table below has \
                      the figures."
            .to_owned(),
        x_label: axis.name.clone(),
        y_label: format!("wait per start ({})", unit.name),
        series: series.collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "values of an axis are small")]
fn along_axis(curve: &Curve, figure: impl Fn(&Point) -> Option<Spread>) -> Vec<(f64, Spread)> {
    let points = curve.points.iter();
    points.filter_map(|point| Some((point.value? as f64, figure(point)?))).collect()
}

/// Plots without an axis: a bar for each strategy.
fn side_by_side(report: &Report) -> Markup {
    let locks: Vec<_> = top_locks(all_points(report)).into_iter().take(LOCKS).collect();
    let unit = Unit::of(all_points(report), &locks);
    let each = || {
        let numbered = report.curves.iter().enumerate();
        numbered.flat_map(|(i, curve)| curve.points.iter().map(move |point| (i, curve, point)))
    };
    let starts = Bars {
        id: "starts".to_owned(),
        title: "Starts per second".to_owned(),
        description:
            "A bar for each strategy: median of its trials, with a line from the least to the \
                      largest. The table below has the figures."
                .to_owned(),
        label: "starts per second".to_owned(),
        rows: each()
            .map(|(i, c, point)| (c.strategy.clone(), point.starts_per_second, i))
            .collect(),
    };
    let row = |lock: &str, (i, curve, point): (usize, &Curve, &Point)| {
        Some((format!("{lock}, {}", curve.strategy), unit.in_it(wait_of(point, lock)?), i))
    };
    let waits = Bars {
        id: "waits".to_owned(),
        title: "Waits per start".to_owned(),
        description: "For each lock a bar for each strategy: time that a start waits for it, median of \
                      the trials, with a line from the least to the largest. The table below has the \
                      figures."
            .to_owned(),
        label: format!("wait per start ({})", unit.name),
        rows: locks.iter().flat_map(|lock| each().filter_map(move |at| row(lock, at))).collect(),
    };
    html! {
        @for plot in [starts, waits] {
            @if !plot.rows.is_empty() { figure { (plot.svg()) } }
        }
    }
}

/// A unit of time in which figures of a plot are neither huge nor tiny.
struct Unit {
    name: &'static str,
    ns: f64,
}

impl Unit {
    fn of<'a>(points: impl IntoIterator<Item = &'a Point>, locks: &[&str]) -> Self {
        let waits = points.into_iter().flat_map(|p| locks.iter().filter_map(|l| wait_of(p, l)));
        let (name, ns) = match waits.map(|wait| wait.max).fold(0.0, f64::max) {
            longest if longest < 1e3 => ("ns", 1.0),
            longest if longest < 1e6 => ("us", 1e3),
            longest if longest < 1e9 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        Self { name, ns }
    }

    fn in_it(&self, ns: Spread) -> Spread {
        Spread { median: ns.median / self.ns, min: ns.min / self.ns, max: ns.max / self.ns }
    }
}

/// A table that scrolls by itself where it is wider than the page.
fn table(label: &str, headings: &[&str], rows: &[Vec<String>]) -> Markup {
    html! {
        div class="scroll" role="region" aria-label=(label) tabindex="0" {
            table {
                thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}

/// Strategy and value of the axis, where there is one, before the figures.
fn keyed(
    axis: Option<&Axis>,
    strategy: &str,
    value: Option<u64>,
    rest: Vec<String>,
) -> Vec<String> {
    let value = axis.and(value).map(|value| value.to_string());
    std::iter::once(strategy.to_owned()).chain(value).chain(rest).collect()
}

fn headings<'a>(axis: Option<&'a Axis>, rest: &[&'a str]) -> Vec<&'a str> {
    let axis = axis.map(|axis| axis.name.as_str());
    std::iter::once("strategy").chain(axis).chain(rest.iter().copied()).collect()
}

fn points(report: &Report) -> Markup {
    let axis = report.axis.as_ref();
    let mut rows = Vec::new();
    for curve in &report.curves {
        for point in &curve.points {
            let figures = vec![
                point.trials.len().to_string(),
                with_range(&point.starts_per_second, number),
                with_range(&point.start_latency_p50_ns, nanoseconds),
                with_range(&point.start_latency_p99_ns, nanoseconds),
                point.trials.iter().map(|t| t.summary.failed_starts).sum::<u64>().to_string(),
            ];
            rows.push(keyed(axis, &curve.strategy, point.value, figures));
        }
    }
    let figures =
        ["trials", "starts/s (least to largest)", "latency p50", "latency p99", "failed starts"];
    table("Starts", &headings(axis, &figures), &rows)
}

fn waits(report: &Report) -> Markup {
    let axis = report.axis.as_ref();
    let mut rows = Vec::new();
    for curve in &report.curves {
        for point in &curve.points {
            for row in &point.waits_per_start {
                let figures = vec![
                    row.lock.clone(),
                    with_range(&row.count, number),
                    with_range(&row.wait_ns, nanoseconds),
                ];
                rows.push(keyed(axis, &curve.strategy, point.value, figures));
            }
        }
    }
    if rows.is_empty() {
        return html! { p { "No waits were measured." } };
    }
    let figures =
        ["lock", "waits per start (least to largest)", "time per start (least to largest)"];
    table("Waits per start", &headings(axis, &figures), &rows)
}

fn ratios(report: &Report) -> Markup {
    let axis = report.axis.as_ref();
    let mut rows = Vec::new();
    for row in &report.comparisons {
        let against = format!("{} against {}", row.strategy, row.baseline);
        let starts = ("starts per second".to_owned(), row.starts_ratio);
        let waits =
            row.wait_ratio.iter().map(|(lock, r)| (format!("wait for {lock} per start"), *r));
        for (what, ratio) in std::iter::once(starts).chain(waits) {
            rows.push(keyed(axis, &against, row.value, vec![what, with_range(&ratio, times)]));
        }
    }
    table("Ratios", &headings(axis, &["of", "ratio (least to largest)"]), &rows)
}

#[cfg(test)]
mod tests;
