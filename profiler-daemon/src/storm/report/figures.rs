//! Figures as text.

use crate::findings::text::duration;
use crate::storm::analysis::{Point, Report, Spread};

/// A rate or a number with three digits: `0.25`, `41.5`, `412`, `12345`.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size < 0.995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// A small coefficient with two significant digits: `0.031`, `0.00090`; `0` for
/// none.
pub(super) fn coefficient(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 12")]
    let digits = (1.0 - value.abs().log10().floor()).clamp(1.0, 12.0) as usize;
    format!("{value:.digits$}")
}

/// Nanoseconds as a duration.
pub(super) fn nanoseconds(ns: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let ns = ns.round() as u64;
    duration(ns)
}

/// The ends of a spread: `1.38 to 1.47`.
pub(super) fn range(spread: &Spread, figure: fn(f64) -> String) -> String {
    format!("{} to {}", figure(spread.min), figure(spread.max))
}

/// Median and ends: `1.42 (1.38 to 1.47)`.
pub(super) fn with_range(spread: &Spread, figure: fn(f64) -> String) -> String {
    format!("{} ({})", figure(spread.median), range(spread, figure))
}

/// A ratio: `1.42 x`.
pub(super) fn times(ratio: f64) -> String {
    format!("{ratio:.2} x")
}

/// Locks that starts waited for, over all points of `points`, the longest wait
/// first.
pub(super) fn top_locks<'a>(points: impl IntoIterator<Item = &'a Point>) -> Vec<&'a str> {
    let mut locks: Vec<(&str, f64)> = Vec::new();
    for row in points.into_iter().flat_map(|point| &point.waits_per_start) {
        match locks.iter_mut().find(|(lock, _)| *lock == row.lock) {
            Some((_, longest)) => *longest = longest.max(row.wait_ns.median),
            None => locks.push((&row.lock, row.wait_ns.median)),
        }
    }
    locks.retain(|(_, longest)| *longest > 0.0);
    locks.sort_by(|a, b| b.1.total_cmp(&a.1));
    locks.into_iter().map(|(lock, _)| lock).collect()
}

/// What `point` waited for `lock` per start, in ns. `None` where it is not known;
/// 0 where a lock is not listed among waits that were measured.
pub(super) fn wait_of(point: &Point, lock: &str) -> Option<Spread> {
    let listed = point.waits_per_start.iter().find(|row| row.lock == lock);
    let measured =
        |p: &Point| p.trials.iter().any(|t| t.measured.is_some() && t.summary.starts > 0);
    match listed {
        Some(row) => Some(row.wait_ns),
        None => measured(point).then(Spread::default),
    }
}

/// All points of a report.
pub(super) fn all_points(report: &Report) -> impl Iterator<Item = &Point> {
    report.curves.iter().flat_map(|curve| &curve.points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_about_three_digits() {
        let shown = [0.0, 0.25, 0.9951, 1.5, 41.53, 99.96, 412.4, 12_345.0].map(number);
        assert_eq!(shown, ["0", "0.250", "1.00", "1.50", "41.5", "100", "412", "12345"]);
        let shown = [0.0, 0.0312, 0.000_904, 0.5, 1.0, 1e-9].map(coefficient);
        assert_eq!(shown, ["0", "0.031", "0.00090", "0.50", "1.0", "0.0000000010"]);
        assert_eq!([0.4, 1_234_567.0, -1.0].map(nanoseconds), ["0ns", "1.23ms", "0ns"]);
    }
}
