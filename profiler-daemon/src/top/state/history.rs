//! The last windows, for sparklines.

use std::collections::{HashMap, VecDeque};

use super::LockKey;
use crate::top::window::Window;

/// How many windows are kept.
const KEPT: usize = 120;

/// Time waited in the last windows, by lock and mode.
#[derive(Debug, Default)]
pub(crate) struct History {
    windows: VecDeque<HashMap<LockKey, f64>>,
}

impl History {
    /// Adds a window, and drops the oldest when there are too many.
    pub(crate) fn push(&mut self, window: &Window) {
        let mut waited: HashMap<LockKey, f64> = HashMap::new();
        for row in &window.window.locks {
            let per_second = row.waits.sum_ns as f64 / 1e9 / window.seconds();
            *waited.entry((row.lock.clone(), row.mode)).or_default() += per_second;
        }
        if self.windows.len() >= KEPT {
            self.windows.pop_front();
        }
        self.windows.push_back(waited);
    }

    /// Seconds waited per second for `key`, oldest first.
    pub(crate) fn of(&self, key: &LockKey) -> Vec<f64> {
        self.windows.iter().map(|window| window.get(key).copied().unwrap_or(0.0)).collect()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.windows.clear();
    }
}
