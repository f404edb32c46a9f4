//! What trials say together: medians, ratios, and how a host scales. Pure.
//!
//! - `order`: which trial runs when;
//! - `assemble`: from trials to a [`Report`];
//! - `usl`: the fit of [`Scaling`], by `least_squares`;
//! - `knee`: where a curve has its [`Knee`].

mod assemble;
mod knee;
mod least_squares;
mod order;
mod usl;

use serde::Serialize;

pub use self::order::{Step, steps};

use super::trial::Trial;

/// All trials of a run and what follows from them: what tables, JSON and the
/// HTML page show.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of this form: 1.
    pub schema: u32,
    /// Where it ran.
    pub host: Host,
    /// What was varied along a curve; `None` for a plain comparison.
    pub axis: Option<Axis>,
    /// One for each strategy, in the order asked for.
    pub curves: Vec<Curve>,
    /// Each further strategy against the first one, at each value of the axis.
    pub comparisons: Vec<Comparison>,
    /// A signal ended it before all trials were run.
    pub interrupted: bool,
    /// What the reader has to know, such as waits that were not measured and
    /// why.
    pub notes: Vec<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// As `uname -r` has it.
    pub kernel: String,
    /// CPUs that are online.
    pub cpus: u32,
    /// NUMA nodes with CPUs.
    pub numa_nodes: u32,
}

/// What a sweep varies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Axis {
    /// The flag without its dashes: `concurrency`, `layers`, `binds`, ...
    pub name: String,
    /// The values, ascending.
    pub values: Vec<u64>,
}

/// A strategy's trials.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The strategy as it was asked for.
    pub strategy: String,
    /// By value of the axis, ascending; one point without an axis.
    pub points: Vec<Point>,
    /// How throughput scales, for an axis of concurrency alone.
    pub scaling: Option<Scaling>,
    /// Where the curve stops gaining, or begins to lose.
    pub knee: Option<Knee>,
}

/// The trials at one value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Value of the axis; `None` without one.
    pub value: Option<u64>,
    /// In the order in which they ran.
    pub trials: Vec<Trial>,
    /// Starts per second.
    pub starts_per_second: Spread,
    /// Median latency of a start, in ns.
    pub start_latency_p50_ns: Spread,
    /// 99th percentile of the latency of a start, in ns.
    pub start_latency_p99_ns: Spread,
    /// Waits by lock, all modes and nodes together, per start.
    pub waits_per_start: Vec<WaitsPerStart>,
}

/// Median and extremes over trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Middle one; mean of the two in the middle for an even number.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// What a start waits for a lock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaitsPerStart {
    /// Its name.
    pub lock: String,
    /// Waits per start.
    pub count: Spread,
    /// ns waited per start.
    pub wait_ns: Spread,
}

/// A strategy against the first one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The first strategy.
    pub baseline: String,
    /// The other.
    pub strategy: String,
    /// Value of the axis; `None` without one.
    pub value: Option<u64>,
    /// Starts per second over those of the baseline, round by round: each
    /// round's trial over the same round's trial of the baseline.
    pub starts_ratio: Spread,
    /// By lock: ns waited per start over those of the baseline; a lock that the
    /// baseline never waited for is left out.
    pub wait_ratio: Vec<(String, Spread)>,
}

/// The Universal Scalability Law fitted to a curve: `X(N) = g N / (1 + s (N - 1)
/// + k N (N - 1))` (N. Gunther).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scaling {
    /// `g`: starts per second of one worker.
    pub per_worker: f64,
    /// `s`: share that is serialised (contention).
    pub contention: f64,
    /// `k`: cost of keeping workers coherent (crosstalk).
    pub coherency: f64,
    /// Concurrency at which throughput is largest; `None` where it never falls.
    pub peak_concurrency: Option<f64>,
    /// Throughput there, or the limit that it tends to; `None` where it grows
    /// without one.
    pub peak_throughput: Option<f64>,
    /// Coefficient of determination of the fit.
    pub r_squared: f64,
    /// Root mean square of the relative residuals.
    pub relative_error: f64,
}

/// Where it stops being worth it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Knee {
    /// Value of the axis.
    pub value: u64,
    /// Starts per second there.
    pub starts_per_second: f64,
}
