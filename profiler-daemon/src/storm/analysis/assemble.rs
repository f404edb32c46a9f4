//! From trials to a report.

use std::collections::{BTreeMap, BTreeSet};

use super::{Axis, Comparison, Curve, Host, Point, Report, Spread, Step, WaitsPerStart, knee, usl};
use crate::snapshot::Name;
use crate::storm::trial::Trial;

/// Version of the JSON form of [`Report`].
const SCHEMA: u32 = 1;

/// The axis along which throughput may grow.
const CONCURRENCY: &str = "concurrency";

impl Report {
    /// What `ran`, the trials in the order in which they ran, says.
    ///
    /// Trials may be missing, because one failed or the run was cut short:
    /// values without a trial have no point, strategies without a trial have an
    /// empty curve, and ratios are of the rounds in which both ran. `strategies`
    /// and `axis` are what the indices of a [`Step`] are about. Texts are made
    /// harmless for terminals and pages ([`Name`]).
    pub fn new(
        host: Host,
        axis: Option<Axis>,
        strategies: &[String],
        ran: &[(Step, Trial)],
        interrupted: bool,
        notes: Vec<String>,
    ) -> Self {
        let harmless = |text: String| Name::from(text).as_str().to_owned();
        let host = Host { kernel: harmless(host.kernel), ..host };
        let strategies: Vec<String> = strategies.iter().cloned().map(harmless).collect();
        let axis = axis.map(|axis| Axis { name: harmless(axis.name), ..axis });
        let notes = notes.into_iter().map(harmless).collect();
        let values: Vec<Option<u64>> = match &axis {
            Some(axis) => axis.values.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let mut cells: BTreeMap<(usize, usize), Vec<(u32, &Trial)>> = BTreeMap::new();
        for (step, trial) in ran {
            cells.entry((step.strategy, step.value)).or_default().push((step.round, trial));
        }
        let cell = |strategy: usize, value: usize| -> &[(u32, &Trial)] {
            cells.get(&(strategy, value)).map_or(&[], Vec::as_slice)
        };

        let curves = strategies.iter().enumerate().map(|(s, strategy)| {
            let points = values.iter().enumerate().filter_map(|(v, value)| {
                let trials: Vec<Trial> = cell(s, v).iter().map(|(_, t)| (*t).clone()).collect();
                (!trials.is_empty()).then(|| Point::of(*value, trials))
            });
            Curve::of(strategy.clone(), axis.as_ref(), points.collect())
        });
        let mut comparisons = Vec::new();
        for (v, value) in values.iter().enumerate() {
            let further = strategies.iter().enumerate().skip(1);
            comparisons.extend(further.filter_map(|(s, strategy)| {
                let names = (strategies[0].as_str(), strategy.as_str());
                Comparison::of(names, *value, cell(0, v), cell(s, v))
            }));
        }
        Self {
            schema: SCHEMA,
            host,
            curves: curves.collect(),
            axis,
            comparisons,
            interrupted,
            notes,
        }
    }
}

impl Axis {
    /// Whether throughput may grow along it; along any other, each value costs
    /// more than the one before.
    pub(in crate::storm) fn is_concurrency(&self) -> bool {
        self.name == CONCURRENCY
    }
}

impl Curve {
    fn of(strategy: String, axis: Option<&Axis>, points: Vec<Point>) -> Self {
        let measured: Vec<knee::Measured> = points
            .iter()
            .filter_map(|point| Some((point.value?, point.starts_per_second)))
            .collect();
        let (scaling, knee) = match axis {
            None => (None, None),
            Some(axis) if axis.is_concurrency() => {
                let medians: Vec<_> = measured.iter().map(|(n, x)| (*n, x.median)).collect();
                (usl::fit(&medians, knee::margin(&measured)), knee::of_gains(&measured))
            }
            Some(_) => (None, knee::of_costs(&measured)),
        };
        Self { strategy, points, scaling, knee }
    }
}

impl Point {
    /// The `trials` at a value of the axis, in the order in which they ran.
    ///
    /// One that a signal cut short is shown and not counted, unless there is no
    /// other: what little it ran was not the same load.
    pub fn of(value: Option<u64>, trials: Vec<Trial>) -> Self {
        let whole = trials.iter().any(|trial| !trial.summary.interrupted);
        let counted = || trials.iter().filter(move |trial| !(whole && trial.summary.interrupted));
        let latency = |of: fn(&Trial) -> u64| {
            // A trial without starts has no latency, rather than a short one.
            let some = counted().filter(|trial| trial.summary.starts > 0);
            Spread::of(some.map(|trial| nanoseconds(of(trial)))).unwrap_or_default()
        };
        let starts = counted().map(|trial| trial.summary.starts_per_second);
        Self {
            value,
            starts_per_second: Spread::of(starts).unwrap_or_default(),
            start_latency_p50_ns: latency(|trial| trial.summary.start_latency.p50_ns),
            start_latency_p99_ns: latency(|trial| trial.summary.start_latency.p99_ns),
            waits_per_start: WaitsPerStart::of(counted()),
            trials,
        }
    }
}

impl WaitsPerStart {
    /// Of the trials that were measured and had starts; the longest waits first.
    fn of<'a>(trials: impl Iterator<Item = &'a Trial>) -> Vec<Self> {
        let trials: Vec<_> = trials.filter_map(per_start).collect();
        let locks: BTreeSet<&str> =
            trials.iter().flat_map(|by_lock| by_lock.keys().copied()).collect();
        let row = |lock: &str| {
            // Nobody waited for it in trials that do not list it.
            let figures =
                || trials.iter().map(|by_lock| by_lock.get(lock).copied().unwrap_or_default());
            Some(Self {
                lock: lock.to_owned(),
                count: Spread::of(figures().map(|(count, _)| count))?,
                wait_ns: Spread::of(figures().map(|(_, ns)| ns))?,
            })
        };
        let mut rows: Vec<Self> = locks.into_iter().filter_map(row).collect();
        rows.sort_by(|a, b| b.wait_ns.median.total_cmp(&a.wait_ns.median));
        rows
    }
}

/// Waits and ns waited per start, by lock; `None` where they were not measured,
/// and without starts.
fn per_start(trial: &Trial) -> Option<BTreeMap<&str, (f64, f64)>> {
    // Without starts there is no such figure, not even a zero.
    trial.per_start(0)?;
    let by_lock = trial.measured.as_ref()?.by_lock().into_iter();
    by_lock
        .map(|(lock, (count, ns))| Some((lock, (trial.per_start(count)?, trial.per_start(ns)?))))
        .collect()
}

impl Comparison {
    /// `None` if there is no round in which both ran and the first one had
    /// starts.
    fn of(
        (baseline, strategy): (&str, &str),
        value: Option<u64>,
        first: &[(u32, &Trial)],
        other: &[(u32, &Trial)],
    ) -> Option<Self> {
        let pairs = first.iter().filter_map(|(round, first)| {
            Some((*first, other.iter().find(|(same, _)| same == round)?.1))
        });
        let mut pairs: Vec<(&Trial, &Trial)> = pairs.collect();
        let whole = |(a, b): &(&Trial, &Trial)| !a.summary.interrupted && !b.summary.interrupted;
        if pairs.iter().any(whole) {
            pairs.retain(whole);
        }
        let starts = pairs.iter().filter_map(|(first, other)| {
            ratio(other.summary.starts_per_second, first.summary.starts_per_second)
        });
        let mut waits: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (first, other) in &pairs {
            let (Some(first), Some(other)) = (per_start(first), per_start(other)) else { continue };
            for (lock, (_, baseline_ns)) in first {
                let (_, ns) = other.get(lock).copied().unwrap_or_default();
                waits.entry(lock).or_default().extend(ratio(ns, baseline_ns));
            }
        }
        let waits = waits.into_iter();
        Some(Self {
            baseline: baseline.to_owned(),
            strategy: strategy.to_owned(),
            value,
            starts_ratio: Spread::of(starts)?,
            wait_ratio: waits
                .filter_map(|(lock, ratios)| Some((lock.to_owned(), Spread::of(ratios)?)))
                .collect(),
        })
    }
}

/// `None` over nothing.
fn ratio(figure: f64, baseline: f64) -> Option<f64> {
    (baseline > 0.0).then(|| figure / baseline)
}

impl Spread {
    /// Of `values`; `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
const fn nanoseconds(ns: u64) -> f64 {
    ns as f64
}

#[cfg(test)]
mod tests;
