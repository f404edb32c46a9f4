//! What the programs need to tell who waits and who makes them wait.
//!
//! In: how much of it is wanted, where the kernel has its fields, and which
//! hierarchy tells cgroups apart. Out: the read-only data of
//! `profiler-ebpf/src/attribution.rs`.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use profiler_common::charges::{GROUP, RESERVED};
use profiler_common::slow::Attribution;

use crate::kernel::fields::{Field, Fields};

/// How much is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Rows of the table of charges, rounded up to a power of two; 0 for no
    /// attribution.
    pub rows: u32,
    /// Places of the ring of slow waits, rounded up to a power of two; 0 for none.
    pub slow_waits: u32,
    /// Threshold of slow waits, in ns.
    pub slow_ns: u64,
    /// The controller whose hierarchy tells cgroups apart; `None` for the unified
    /// one.
    pub controller: Option<String>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { rows: 8192, slow_waits: 256, slow_ns: 10_000_000, controller: None }
    }
}

/// The read-only data, for `locks` watched locks.
pub(super) fn data(wanted: &Wanted, locks: u32, fields: &Fields, owners: bool) -> Attribution {
    let mut data = Attribution::default();
    // Readers of mount tables have names too, whether or not waits are charged.
    if let Some(comm) = fields.offset(Field::TaskComm) {
        data.task_comm = comm;
        data.owners = u32::from(owners);
        if let Some((path, steps)) = cgroup_path(wanted.controller.as_deref(), fields) {
            data.cgroup_path = path;
            data.cgroup_steps = steps;
        }
    }
    if wanted.rows == 0 {
        return data;
    }
    data.rows_mask = wanted.rows.max(GROUP).next_power_of_two() - 1;
    data.group = GROUP;
    data.reserved = RESERVED * locks;
    data.slow_ns = wanted.slow_ns;
    data.seed = RandomState::new().build_hasher().finish();
    if wanted.slow_waits != 0 {
        data.slow_mask = wanted.slow_waits.max(2).next_power_of_two() - 1;
    }
    data
}

/// Offsets that lead from a task to the id of its cgroup, and how many.
fn cgroup_path(controller: Option<&str>, fields: &Fields) -> Option<([u32; 5], u32)> {
    let of = |field| fields.offset(field);
    let cgroups = of(Field::TaskCgroups)?;
    let (directory, id) = (of(Field::CgroupDirectory)?, of(Field::KernfsId)?);
    Some(match controller {
        None => ([cgroups, of(Field::CssSetDefault)?, directory, id, 0], 4),
        Some(controller) => {
            let pointer = u32::try_from(size_of::<u64>()).ok()?;
            let state = of(Field::CssSetControllers)? + fields.controller(controller)? * pointer;
            ([cgroups, state, of(Field::CssCgroup)?, directory, id], 5)
        }
    })
}
