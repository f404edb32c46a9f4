//! The tables of `docs/storm.md`: written from what `lockprof storm --json`
//! printed, and read back, so that a run on some kernels leaves the others.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::experiments::{EXPERIMENTS, Experiment};

/// Place of what ran on the machine itself.
pub(super) const HERE: &str = "host";

/// Between the text and the tables.
const MARK: &str = "<!-- Below: written by `cargo xtask storm`. -->\n";

/// Locks that a row shows at most.
const LOCKS: usize = 3;

/// Rows by place: each without its first cell.
pub(super) type Answers = BTreeMap<String, BTreeMap<Place, Vec<String>>>;

/// A series, or [`HERE`]; ordered by number, the host last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    number: Vec<u32>,
    name: String,
}

impl Place {
    pub(super) fn new(name: &str) -> Self {
        let number: Option<Vec<u32>> = name.split('.').map(|part| part.parse().ok()).collect();
        Self { number: number.unwrap_or_else(|| vec![u32::MAX]), name: name.to_owned() }
    }
}

/// Of `storm --json`: what the page shows of it.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    axis: Option<Axis>,
    curves: Vec<Curve>,
    comparisons: Vec<Comparison>,
}

#[derive(Debug, Deserialize)]
struct Axis {
    values: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct Curve {
    strategy: String,
    points: Vec<Point>,
    scaling: Option<Scaling>,
    knee: Option<Knee>,
}

#[derive(Debug, Deserialize)]
struct Point {
    value: Option<u64>,
    trials: Vec<serde_json::Value>,
    starts_per_second: Spread,
    start_latency_p50_ns: Spread,
    waits_per_start: Vec<Waits>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
struct Waits {
    lock: String,
    wait_ns: Spread,
}

#[derive(Debug, Deserialize)]
struct Comparison {
    strategy: String,
    starts_ratio: Spread,
}

#[derive(Debug, Deserialize)]
struct Scaling {
    contention: f64,
    coherency: f64,
    relative_error: f64,
}

#[derive(Debug, Deserialize)]
struct Knee {
    value: u64,
}

impl Report {
    /// Its rows, without the place; they show `lock` if it was waited for.
    pub(super) fn rows(&self, lock: Option<&str>) -> Vec<String> {
        match &self.axis {
            Some(axis) => self.curves.iter().map(|curve| sweep_row(axis, curve)).collect(),
            None => self.curves.iter().filter_map(|curve| self.strategy_row(curve, lock)).collect(),
        }
    }

    fn strategy_row(&self, curve: &Curve, lock: Option<&str>) -> Option<String> {
        let point = curve.points.first()?;
        let against = self.comparisons.iter().find(|c| c.strategy == curve.strategy);
        let failed: u64 =
            point.trials.iter().filter_map(|trial| trial["failed_starts"].as_u64()).sum();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let mut locks: Vec<_> = point.waits_per_start.iter().collect();
        locks.sort_by(|a, b| b.wait_ns.median.total_cmp(&a.wait_ns.median));
        let measured = point.trials.iter().any(|trial| !trial["measured"].is_null());
        let long: Vec<_> =
            locks.iter().filter(|lock| lock.wait_ns.median >= 1000.0).take(LOCKS).collect();
        let also = locks.iter().filter(|other| Some(&*other.lock) == lock);
        let also = also.filter(|other| !long.iter().any(|shown| shown.lock == other.lock));
        let shown = long.iter().copied().chain(also);
        let locks: Vec<_> =
            shown.map(|lock| format!("`{}` {}", lock.lock, time(lock.wait_ns.median))).collect();
        let locks = match (measured, locks.is_empty()) {
            (false, _) => "not measured".to_owned(),
            (true, true) => "below 1 us".to_owned(),
            (true, false) => locks.join(", "),
        };
        Some(format!(
            "`{}` | {}{failed} | {} | {} | {locks} |",
            curve.strategy,
            spread(point.starts_per_second, 1),
            against.map_or_else(|| "-".to_owned(), |c| spread(c.starts_ratio, 2)),
            time(point.start_latency_p50_ns.median),
        ))
    }
}

fn sweep_row(axis: &Axis, curve: &Curve) -> String {
    let mut row = format!("`{}` |", curve.strategy);
    for value in &axis.values {
        let point = curve.points.iter().find(|point| point.value == Some(*value));
        let figure = point.map(|point| format!("{:.1}", point.starts_per_second.median));
        let _ = write!(row, " {} |", figure.as_deref().unwrap_or("-"));
    }
    let knee =
        curve.knee.as_ref().map_or_else(|| "no knee".to_owned(), |knee| knee.value.to_string());
    match &curve.scaling {
        Some(fit) => {
            let _ = write!(
                row,
                " {knee} | {:.3} | {:.5} | {:.0} % |",
                fit.contention,
                fit.coherency,
                fit.relative_error * 100.0
            );
        }
        None => {
            let _ = write!(row, " {knee} | - | - | - |");
        }
    }
    row
}

/// `31.2 (30.0 to 33.1)`
fn spread(figures: Spread, digits: usize) -> String {
    let Spread { median, min, max } = figures;
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
}

/// Of ns, with three digits.
fn time(ns: f64) -> String {
    let (figure, unit) = match ns {
        ns if ns >= 1e9 => (ns / 1e9, "s"),
        ns if ns >= 1e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e3, "us"),
    };
    let digits = if figure >= 99.95 { 0 } else { usize::from(figure < 9.995) + 1 };
    format!("{figure:.digits$} {unit}")
}

/// The page's answers.
///
/// # Errors
/// When the page has no tables of this form.
pub(super) fn parse(page: &str) -> Result<Answers> {
    let (_, tables) = page.split_once(MARK).with_context(|| format!("the page has no `{MARK}`"))?;
    let mut answers = Answers::new();
    let mut title = None;
    for line in tables.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            title = Some(heading.to_owned());
        } else if let Some((place, row)) =
            line.strip_prefix("| ").and_then(|line| line.split_once(" | "))
        {
            if place == "kernel" || place == "---" {
                continue;
            }
            let Some(title) = &title else { bail!("a row stands below no heading: {line}") };
            let rows = answers.entry(title.clone()).or_default();
            rows.entry(Place::new(place)).or_default().push(row.to_owned());
        }
    }
    Ok(answers)
}

/// The page with these answers in place of those that it has.
///
/// # Errors
/// When there is no mark where the tables begin.
pub(super) fn render(page: &str, answers: &Answers) -> Result<String> {
    let (text, _) = page.split_once(MARK).with_context(|| format!("the page has no `{MARK}`"))?;
    let mut out = format!("{text}{MARK}");
    for experiment in EXPERIMENTS {
        let Some(places) = answers.get(experiment.title) else { continue };
        let Experiment { title, why, .. } = experiment;
        let _ = write!(
            out,
            "\n### {title}\n\n{why}\n\n```\nlockprof {}\n```\n\n{}\n",
            experiment.command(),
            header(experiment)
        );
        for (place, rows) in places {
            for row in rows {
                let _ = writeln!(out, "| {} | {row}", place.name);
            }
        }
    }
    Ok(out)
}

fn header(experiment: &Experiment) -> String {
    let mut columns = vec!["kernel".to_owned(), "strategy".to_owned()];
    match experiment.swept() {
        Some(values) => {
            columns.extend(values.iter().map(|value| format!("{value} at a time")));
            columns.extend(
                ["stops gaining at", "contention", "coherency", "error of the fit"]
                    .map(str::to_owned),
            );
        }
        None => columns.extend(
            ["starts/s", "against the first", "latency p50", "waited per start"].map(str::to_owned),
        ),
    }
    let line = " --- |".repeat(columns.len());
    format!("| {} |\n|{line}", columns.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: serde_json::Value) -> Report {
        serde_json::from_value(json).unwrap()
    }

    fn compared() -> Report {
        let spread =
            |median: f64| serde_json::json!({"median": median, "min": median, "max": median});
        let point = |starts: f64, measured: bool| {
            serde_json::json!({
                "value": null,
                "trials": [{"failed_starts": 0, "measured": measured.then_some(1)}],
                "starts_per_second": spread(starts),
                "start_latency_p50_ns": spread(1.5e6),
                "waits_per_start": [
                    {"lock": "tasklist_lock", "wait_ns": spread(10.0)},
                    {"lock": "mount_lock", "wait_ns": spread(4_200.0)},
                    {"lock": "namespace_sem", "wait_ns": spread(2.5e9)},
                ],
            })
        };
        report(serde_json::json!({
            "axis": null,
            "curves": [
                {"strategy": "legacy", "points": [point(30.0, true)], "scaling": null, "knee": null},
                {"strategy": "fd", "points": [point(45.0, false)], "scaling": null, "knee": null},
            ],
            "comparisons": [{"strategy": "fd", "starts_ratio": spread(1.5)}],
        }))
    }

    #[test]
    fn a_comparison_has_a_row_for_each_strategy() {
        assert_eq!(
            compared().rows(None),
            [
                "`legacy` | 30.0 (30.0 to 30.0) | - | 1.50 ms | \
                 `namespace_sem` 2.50 s, `mount_lock` 4.20 us |",
                "`fd` | 45.0 (45.0 to 45.0) | 1.50 (1.50 to 1.50) | 1.50 ms | not measured |",
            ]
        );
    }

    #[test]
    fn a_lock_that_is_asked_for_is_shown_however_short_its_waits_are() {
        let rows = compared().rows(Some("tasklist_lock"));
        assert!(rows[0].ends_with("`mount_lock` 4.20 us, `tasklist_lock` 0.01 us |"), "{rows:?}");
        assert!(!compared().rows(Some("sb_lock"))[0].contains("sb_lock"));
    }

    #[test]
    fn a_sweep_has_a_row_with_its_fit() {
        let spread = serde_json::json!({"median": 31.26, "min": 1, "max": 40});
        let report = report(serde_json::json!({
            "axis": {"values": [1, 2]},
            "curves": [{
                "strategy": "legacy",
                "points": [{
                    "value": 2, "trials": [], "starts_per_second": spread,
                    "start_latency_p50_ns": spread, "waits_per_start": [],
                }],
                "scaling": {"contention": 0.1234, "coherency": 0.00123, "relative_error": 0.034},
                "knee": {"value": 2},
            }],
            "comparisons": [],
        }));
        assert_eq!(report.rows(None), ["`legacy` | - | 31.3 | 2 | 0.123 | 0.00123 | 3 % |"]);
    }

    #[test]
    fn a_page_comes_back_as_it_was_and_keeps_what_was_not_run() {
        let mut answers = Answers::new();
        for place in ["7.0", "5.10", HERE, "6.12"] {
            for experiment in EXPERIMENTS {
                let rows = answers.entry(experiment.title.to_owned()).or_default();
                rows.insert(Place::new(place), compared().rows(None));
            }
        }
        let page = render(&format!("# Storm\n\n{MARK}gone"), &answers).unwrap();
        assert!(page.starts_with("# Storm\n\n"));
        assert!(!page.contains("gone"));
        assert_eq!(parse(&page).unwrap(), answers);
        assert_eq!(render(&page, &answers).unwrap(), page);
        let places: Vec<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" | `legacy`").map(|x| x.0))
            .take(4)
            .collect();
        assert_eq!(places, ["5.10", "6.12", "7.0", HERE]);
    }

    #[test]
    fn a_page_without_the_mark_is_refused() {
        assert!(parse("# Storm\n").is_err());
        assert!(render("# Storm\n", &Answers::new()).is_err());
    }

    #[test]
    fn times_have_three_digits() {
        for (ns, text) in
            [(4_200.0, "4.20 us"), (99_960.0, "100 us"), (12.3e6, "12.3 ms"), (2.5e9, "2.50 s")]
        {
            assert_eq!(time(ns), text);
        }
    }
}
