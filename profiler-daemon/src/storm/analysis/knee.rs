//! Where a curve has its knee, if it has one.
//!
//! In both senses below, two figures differ if they do by more than a
//! **margin**: 5 %, or what trials of one value differ by on this host (largest
//! less least over their median, the median of that over the values), whichever
//! is more.

use super::least_squares::Observations;
use super::usl::as_f64;
use super::{Knee, Spread};

/// A value of the axis, and starts per second there.
pub(super) type Measured = (u64, Spread);

/// Values with starts that a knee of gains and one of costs need: one on each
/// side of it, and for costs one more than two lines that meet have unknowns.
const LEAST_FOR_GAINS: usize = 3;
const LEAST_FOR_COSTS: usize = 4;

/// Differences below are not worth telling.
const LEAST_MARGIN: f64 = 0.05;

/// Of an axis that should bring gains, such as concurrency: the smallest value
/// that no later one gains upon by more than the margin.
///
/// A curve has to be given room to gain: the values must go on beyond it by
/// four margins at least. A curve that gained half as much as the axis would
/// then be two margins higher at its end, one for the knee and one for noise. A
/// curve that still grows at its last value therefore has no knee, however
/// close together its last values are.
pub(super) fn of_gains(points: &[Measured]) -> Option<Knee> {
    let points = with_starts(points, LEAST_FOR_GAINS)?;
    let margin = margin(&points);
    let (last, _) = points.last()?;
    points.iter().enumerate().find_map(|(i, (value, spread))| {
        let room = as_f64(*last) >= as_f64(*value) * (1.0 + 4.0 * margin);
        let highest = points[i..].iter().map(|(_, later)| later.median).fold(0.0, f64::max);
        let gains = highest > spread.median * (1.0 + margin);
        (room && !gains).then_some(Knee { value: *value, starts_per_second: spread.median })
    })
}

/// Of an axis that costs, such as layers or mounts of the host: the value from
/// which on each further unit makes a start take at least twice as much longer
/// as before.
///
/// Time per start (1 / starts per second) is fitted by a line, and by two lines
/// that meet at one of the values (segmented regression), residuals being
/// relative. There is a knee if
///
/// - no line is closer than the margin to every point, neither of time per
///   start nor of starts per second: costs that are the same for each unit make
///   the first one straight;
/// - the two lines that fit best halve what is left, and the second one rises at
///   least twice as steeply as the first.
pub(super) fn of_costs(points: &[Measured]) -> Option<Knee> {
    let points = with_starts(points, LEAST_FOR_COSTS)?;
    let margin = margin(&points);
    let rate = |spread: &Spread| spread.median;
    let time = |spread: &Spread| 1.0 / spread.median;
    let line = straight(&points, time)?;
    if line.largest <= margin || straight(&points, rate)?.largest <= margin {
        return None;
    }
    let inner = &points[1..points.len() - 1];
    let bent = inner.iter().filter_map(|(value, spread)| {
        let at = as_f64(*value);
        let rows = points.iter().map(|(value, spread)| {
            let value = as_f64(*value);
            ([1.0, value, (value - at).max(0.0)], time(spread))
        });
        let fit = Observations::relative(rows).fit(&[0, 1, 2])?;
        Some((fit, Knee { value: *value, starts_per_second: spread.median }))
    });
    let (fit, knee) = bent.min_by(|(a, _), (b, _)| a.residual.total_cmp(&b.residual))?;
    let [_, before, further] = fit.coefficients;
    let steeper = further > 0.0 && before + further >= 2.0 * before.max(0.0);
    (steeper && fit.residual <= line.residual / 4.0).then_some(knee)
}

/// How far a line is from its points, relative to them.
struct Straight {
    residual: f64,
    largest: f64,
}

fn straight(points: &[Measured], figure: impl Fn(&Spread) -> f64) -> Option<Straight> {
    let rows = points.iter().map(|(value, spread)| ([1.0, as_f64(*value)], figure(spread)));
    let observations = Observations::relative(rows);
    let fit = observations.fit(&[0, 1])?;
    let largest = observations.residuals(fit.coefficients).map(f64::abs).fold(0.0, f64::max);
    Some(Straight { residual: fit.residual, largest })
}

/// At least `least` points. A value without any start says nothing about a
/// curve: what it asked for does not work here.
fn with_starts(points: &[Measured], least: usize) -> Option<Vec<Measured>> {
    let points: Vec<_> = points.iter().copied().filter(|(_, x)| x.median > 0.0).collect();
    (points.len() >= least).then_some(points)
}

/// What is needed to call two figures different. Points without starts do not
/// count.
pub(super) fn margin(points: &[Measured]) -> f64 {
    let with_starts = points.iter().filter(|(_, spread)| spread.median > 0.0);
    let ranges = with_starts.map(|(_, spread)| (spread.max - spread.min) / spread.median);
    let noise = Spread::of(ranges).map_or(0.0, |ranges| ranges.median);
    noise.max(LEAST_MARGIN)
}

#[cfg(test)]
mod tests;
