//! Where CPUs were when they were sampled in the kernel.

use serde::{Deserialize, Serialize};

use super::Name;
use super::attribution::subtract;

/// Samples of all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Samples of a CPU that is in the kernel all the time, in a second: samples
    /// divided by it are seconds of CPU time.
    pub frequency_hz: u64,
    /// What paces them: `cycles` or `cpu-clock`.
    pub source: String,
    /// Functions that count as [`Place::MountSeqcount`] and were found on this
    /// kernel.
    pub functions: Vec<Name>,
    /// Samples by node and place.
    pub counts: Vec<SampleCount>,
}

/// Samples on one NUMA node in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleCount {
    /// The node.
    pub numa_node: u32,
    /// The place.
    pub place: Place,
    /// How many.
    pub count: u64,
}

/// A part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Functions that read `mount_lock`'s sequence count, again while a writer
    /// changes it, or walk the hash of mounts.
    MountSeqcount,
    /// Slow paths of locks.
    LockSlowPath,
    /// The rest of the kernel, but for idling.
    Elsewhere,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MountSeqcount, Self::LockSlowPath, Self::Elsewhere];

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MountSeqcount => "mount_seqcount",
            Self::LockSlowPath => "lock_slow_path",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl Samples {
    /// Samples of a window.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut window = self.clone();
        subtract(
            &mut window.counts,
            &earlier.counts,
            |row| (row.numa_node, row.place),
            |row, then| row.count = row.count.saturating_sub(then.count),
            |_| false,
        );
        window
    }

    /// Samples in `place` on all nodes.
    pub fn of(&self, place: Place) -> u64 {
        self.counts.iter().filter(|row| row.place == place).map(|row| row.count).sum()
    }

    /// Share of the kernel's samples that are in `place`; `None` without any.
    pub fn share(&self, place: Place) -> Option<f64> {
        let all: u64 = self.counts.iter().map(|row| row.count).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        (all != 0).then(|| self.of(place) as f64 / all as f64)
    }
}
