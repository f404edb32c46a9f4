//! `lockprof storm`: makes the load that lockprof measures, container-like
//! starts by a choice of strategies, and says what follows from several of them.
//!
//! - `strategy`, `load`: what to do, as data;
//! - `start`: what one start does, by strategy;
//! - `runtime`: a start by a real runtime;
//! - `engine`: the processes that make starts, and their figures;
//! - `trial`: those figures with what the hooks saw meanwhile;
//! - `analysis`: several trials together: ratios, knees, scaling;
//! - `report`: all of it as a table and as a page.

mod analysis;
mod engine;
mod error;
#[cfg(test)]
mod fixture;
mod load;
pub mod report;
mod runtime;
mod start;
mod strategy;
mod sys;
mod trial;

pub use self::analysis::{
    Axis, Comparison, Curve, Host, Knee, Point, Report, Scaling, Spread, Step, WaitsPerStart, steps,
};
pub use self::engine::{Engine, ErrorCount, Latency, Place, Progress, Summary};
pub use self::error::StormError;
pub use self::load::{Options, Stop};
pub use self::runtime::{Driver, RuntimeError};
pub use self::start::Op;
pub use self::strategy::{Idmap, MaskWith, MountQuery, Propagation, RootFs, Runtime, Strategy};
pub use self::trial::{Calls, Measured, Trial, Waits};
