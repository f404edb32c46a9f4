//! What load to make.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::strategy::Strategy;

/// A load of one strategy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// What each start does.
    pub strategy: Strategy,
    /// Processes that start containers, one start after the other.
    pub concurrency: NonZeroU32,
    /// Starts per second, over all of them, evenly staggered; `None` for as
    /// many as they can.
    pub rate: Option<f64>,
    /// When it ends.
    pub stop: Stop,
    /// Processes that ask for a host-like mount table over and over, by
    /// [`Strategy::mount_query`].
    pub pollers: u32,
    /// CPUs that all of them are pinned to, ascending ([`super::Place::cpus`]);
    /// `None` for wherever the kernel puts them.
    pub cpus: Option<Vec<u32>>,
}

impl Options {
    /// Concurrency on a machine with `cpus` CPUs, unless told otherwise: enough
    /// that some wait while others run.
    pub const fn default_concurrency(cpus: NonZeroU32) -> NonZeroU32 {
        cpus.saturating_add(cpus.get())
    }
}

/// When a storm ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// After this time.
    After(Duration),
    /// After this many starts, failed ones included.
    Starts(u64),
}
