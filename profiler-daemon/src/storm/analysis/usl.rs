//! Fit of the Universal Scalability Law.
//!
//! `X(N) = g N / (1 + s (N - 1) + k N (N - 1))` is linear in its coefficients
//! once it is turned over: `N / X = a + b (N - 1) + c N (N - 1)`, with `a = 1/g`,
//! `b = s/g`, `c = k/g`. Least squares of that, with residuals relative to `N /
//! X` (which are the relative residuals of `X`), has one optimum that is found
//! without iterations, initial values or anything that could fail to converge.
//!
//! `0 <= s <= 1` and `k >= 0` make it a quadratic programme in three unknowns.
//! Its optimum lies inside or on a face of what they allow, so that the best of
//! the fits with each combination of them held to equality, which are six, is
//! it.

use super::Scaling;
use super::least_squares::Observations;

/// Values of concurrency that a fit needs: one more than it has unknowns.
const LEAST_POINTS: usize = 4;

/// No storm is measured better than this, in proportion: what a fit leaves below
/// is rounding.
const ROUNDING: f64 = 1e-6;

/// `1`, `N - 1`, `N (N - 1)`, and `N` for the first two together where `s` is 1.
type Terms = [f64; 4];

/// Terms of each combination of bounds: `k` free, and `k` held to 0.
const WITH_CROSSTALK: [&[usize]; 3] = [&[0, 1, 2], &[0, 2], &[3, 2]];
const WITHOUT: [&[usize]; 3] = [&[0, 1], &[0], &[3]];

/// Student's t with 1, 2, ... degrees of freedom that chance exceeds once in
/// twenty, on one side; the limit for many is 1.64.
const STUDENT: [f64; 10] = [6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81];

/// The law for `(concurrency, starts per second)`, measured to within `margin`
/// in proportion. `None` for fewer than four values of concurrency with starts.
///
/// Any noise gives a straight line some curvature, and with it a peak far
/// beyond what was measured. So `k`, and without it `s`, are 0 unless the fit
/// with them is better than chance would make it in nineteen of twenty cases
/// (Student's t-test of the coefficient). What a fit leaves is noise up to
/// `margin`; beyond, it is a host that does not keep to the law, and no reason to
/// take a simpler one.
pub(super) fn fit(points: &[(u64, f64)], margin: f64) -> Option<Scaling> {
    let mut points: Vec<(f64, f64)> = points
        .iter()
        .filter(|(n, x)| *n > 0 && *x > 0.0 && x.is_finite())
        .map(|(n, x)| (as_f64(*n), *x))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if points.chunk_by(|a, b| a.0 == b.0).count() < LEAST_POINTS {
        return None;
    }
    let terms = |n: f64| [1.0, n - 1.0, n * (n - 1.0), n];
    let observations = Observations::relative(points.iter().map(|(n, x)| (terms(*n), n / x)));
    let linear = best(&observations, &[&[0]])?;
    let contended = best(&observations, &WITHOUT)?;
    let crosstalk = best(&observations, &WITH_CROSSTALK);
    let chosen = match crosstalk {
        Some(full) if full.beats(&contended, observations.len(), margin) => full,
        _ if contended.beats(&linear, observations.len(), margin) => contended,
        _ => linear,
    };
    Some(chosen.scaling(&points))
}

/// Coefficients of the law turned over, within bounds.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    a: f64,
    b: f64,
    c: f64,
    residual: f64,
    unknowns: usize,
}

/// The best fit within bounds of those with the terms in each of `faces`.
fn best(observations: &Observations<4>, faces: &[&[usize]]) -> Option<Candidate> {
    let candidates = faces.iter().filter_map(|used| {
        let fit = observations.fit(used)?;
        let [one, rest, pairs, both]: Terms = fit.coefficients;
        let (a, b, c) = (one + both, rest + both, pairs);
        let within = a > 0.0 && (0.0..=a).contains(&b) && c >= 0.0;
        let (residual, unknowns) = (fit.residual, used.len());
        within.then_some(Candidate { a, b, c, residual, unknowns })
    });
    candidates.min_by(|one, other| one.residual.total_cmp(&other.residual))
}

impl Candidate {
    /// Whether it is better than a `simpler` one by more than chance.
    fn beats(&self, simpler: &Self, observations: usize, margin: f64) -> bool {
        let freedom = observations.saturating_sub(self.unknowns).max(1);
        let variance = (self.residual / freedom as f64).clamp(ROUNDING.powi(2), margin.powi(2));
        let t = STUDENT[(freedom - 1).min(STUDENT.len() - 1)];
        simpler.residual - self.residual > t * t * variance
    }

    fn scaling(&self, points: &[(f64, f64)]) -> Scaling {
        let Self { a, b, c, residual, .. } = *self;
        let mut scaling = Scaling {
            per_worker: 1.0 / a,
            contention: b / a,
            coherency: c / a,
            peak_concurrency: None,
            peak_throughput: None,
            r_squared: 0.0,
            relative_error: (residual / points.len() as f64).sqrt(),
        };
        if scaling.coherency > 0.0 {
            let peak = ((1.0 - scaling.contention) / scaling.coherency).sqrt().max(1.0);
            scaling.peak_concurrency = Some(peak);
            scaling.peak_throughput = Some(scaling.throughput(peak));
        } else if scaling.contention > 0.0 {
            scaling.peak_throughput = Some(scaling.per_worker / scaling.contention);
        }
        let mean = points.iter().map(|(_, x)| x).sum::<f64>() / points.len() as f64;
        let total: f64 = points.iter().map(|(_, x)| (x - mean).powi(2)).sum();
        let left: f64 = points.iter().map(|(n, x)| (x - scaling.throughput(*n)).powi(2)).sum();
        // A level curve has nothing that a fit could explain.
        let level = (mean * ROUNDING).powi(2) * points.len() as f64;
        scaling.r_squared = if total > level { 1.0 - left / total } else { 1.0 };
        scaling
    }
}

impl Scaling {
    /// Starts per second that the law gives for `concurrency`.
    pub fn throughput(&self, concurrency: f64) -> f64 {
        let others = concurrency - 1.0;
        let slowed = 1.0 + self.contention * others + self.coherency * concurrency * others;
        self.per_worker * concurrency / slowed
    }
}

#[expect(clippy::cast_precision_loss, reason = "values of an axis are small")]
pub(super) const fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;
