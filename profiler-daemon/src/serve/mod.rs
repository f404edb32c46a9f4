//! Serving a snapshot over HTTP.
//!
//! In: a [`SnapshotSource`], which hands out the latest [`Snapshot`] without
//! asking the kernel anything. Out: `/metrics` in three formats, `/healthz`,
//! `/readyz` and `/api/v1/snapshot`.
//!
//! [`metrics`] declares each metric once, as data; `exposition` writes them
//! through `prometheus-client`, and the reference page `docs/metrics.md` is
//! generated from the same declarations. No output of this room holds a kernel
//! address, because the snapshot holds none.

pub mod access;
mod activation;
mod answers;
mod buckets;
mod connection;
mod exposition;
mod http;
mod listen;
pub mod metrics;
mod negotiate;
mod places;
mod process;
mod watched;

#[cfg(test)]
mod example;
#[cfg(test)]
mod reference;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::activation::{ActivationError, Passed};
pub use self::exposition::{Format, RenderError, render};
pub use self::http::STALE_AFTER;
pub use self::listen::{BindError, MAX_CONNECTIONS, bind, serve};
pub use self::process::Process;
use crate::snapshot::Snapshot;
use crate::snapshot::containers::ContainerTimes;

/// Where scrapes get their figures. The calls must return at once: they run on
/// the threads that serve HTTP.
pub trait SnapshotSource: Send + Sync + 'static {
    /// Totals since the programs were attached.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// The same without the list of slow waits, and with the times of selected
    /// containers at that moment; empty where none are wanted.
    fn with_containers(&self) -> (Arc<Snapshot>, Arc<ContainerTimes>);
    /// How the reader fares.
    fn health(&self) -> Health;
}

/// How the reader fares, for `/healthz` and `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// When measuring began: all counters were zero then. The same in every
    /// answer, or each scrape would look like a counter reset.
    pub since: SystemTime,
    /// Time since the reader last finished a round.
    pub since_tick: Duration,
    /// Whether lock waits are measured: both ends of a wait are hooked.
    pub attached: bool,
}
