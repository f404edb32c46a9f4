//! Arguments of `storm`, and the short forms in which strategies to compare and
//! values to sweep are written.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, value_parser};

use super::args::{HookArgs, LockArgs};
use super::duration::parse_duration;
use crate::kernel::topology::numbers_of_list;
use crate::storm::{
    Idmap, MaskWith, MountQuery, Options, Place, Propagation, RootFs, Runtime, Stop, Strategy,
};

mod compare;
mod sweep;

pub use self::compare::Change;
pub use self::sweep::{Knob, Sweep};

/// Largest figure that a count of mounts, masks or layers takes.
const MOST: i64 = 100_000;
/// Largest concurrency.
const MOST_CONCURRENT: i64 = 4096;
/// overlayfs takes no more lower layers (`OVL_MAX_STACK`, fs/overlayfs/params.h).
const MOST_LAYERS: i64 = 500;

/// Arguments of `storm`.
#[derive(Args, Debug)]
pub struct StormArgs {
    /// How each start gets its root file system
    #[arg(long, help_heading = "Strategy", value_name = "WAY", default_value = "legacy", value_parser = named(RootFs::ALL, RootFs::as_str))]
    pub rootfs: RootFs,
    /// Start containers by a real runtime found on PATH, which then decides on its own how to mount
    #[arg(long, help_heading = "Strategy", value_name = "RUNTIME", default_value = "builtin", value_parser = named(Runtime::ALL, Runtime::as_str))]
    pub runtime: Runtime,
    /// Lower layers of the overlayfs that is the root; 0 for a tmpfs as root
    #[arg(long, help_heading = "Strategy", value_name = "N", default_value_t = 0)]
    #[arg(value_parser = value_parser!(u32).range(0..=MOST_LAYERS))]
    pub layers: u32,
    /// Map the layers to user IDs of the container, each or all by their parent directory
    #[arg(long, help_heading = "Strategy", value_name = "WHICH", value_parser = named(Idmap::ALL, Idmap::as_str))]
    pub idmap: Option<Idmap>,
    /// Bind mounts in each start
    #[arg(long, help_heading = "Strategy", value_name = "N", default_value_t = Strategy::default().binds)]
    #[arg(value_parser = value_parser!(u32).range(0..=MOST))]
    pub binds: u32,
    /// Masked directories in each start
    #[arg(long, help_heading = "Strategy", value_name = "N", default_value_t = Strategy::default().masks)]
    #[arg(value_parser = value_parser!(u32).range(0..=MOST))]
    pub masks: u32,
    /// What covers a masked directory: a tmpfs each, or bind mounts of one
    #[arg(long, help_heading = "Strategy", value_name = "WHAT", default_value = "tmpfs", value_parser = named(MaskWith::ALL, MaskWith::as_str))]
    pub mask_with: MaskWith,
    /// Further mounts in the table that every start copies
    #[arg(long, help_heading = "Strategy", value_name = "N", default_value_t = 0)]
    #[arg(value_parser = value_parser!(u32).range(0..=MOST))]
    pub host_mounts: u32,
    /// Propagation of the mounts
    #[arg(long, help_heading = "Strategy", value_name = "KIND", default_value = "private", value_parser = named(Propagation::ALL, Propagation::as_str))]
    pub propagation: Propagation,
    /// How often each start asks for the whole mount table
    #[arg(long, help_heading = "Strategy", value_name = "N", default_value_t = 0)]
    #[arg(value_parser = value_parser!(u32).range(0..=MOST))]
    pub mountinfo_reads: u32,
    /// How it and the pollers ask
    #[arg(long, help_heading = "Strategy", value_name = "WAY", default_value = "mountinfo", value_parser = named(MountQuery::ALL, MountQuery::as_str))]
    pub mount_query: MountQuery,

    /// Containers that start at the same time [default: 2 per CPU]
    #[arg(long, help_heading = "Load", value_name = "N", value_parser = value_parser!(u32).range(1..=MOST_CONCURRENT))]
    pub concurrency: Option<u32>,
    /// Starts per second at most, evenly staggered
    #[arg(long, help_heading = "Load", value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Processes that ask for the mount table over and over
    #[arg(long, help_heading = "Load", value_name = "N", default_value_t = 2)]
    #[arg(value_parser = value_parser!(u32).range(0..=MOST_CONCURRENT))]
    pub pollers: u32,
    /// Keep all processes of the storm on a NUMA node or on CPUs: node:1 or cpus:0-3,8
    #[arg(long, help_heading = "Load", value_name = "WHERE", value_parser = parse_pin)]
    pub pin: Option<Place>,
    /// How long each storm goes on, for example 500ms, 10s or 1m
    #[arg(long, help_heading = "Load", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,
    /// End each storm after so many starts instead
    #[arg(long, help_heading = "Load", value_name = "N", conflicts_with = "duration")]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub starts: Option<u64>,

    /// Compare strategies, A B A B: `legacy,fd`, `tmpfs,shared-tmpfs` or `layers=1,layers=50+idmap=parent`
    #[arg(long, help_heading = "Several storms", value_name = "A,B,...", value_delimiter = ',', value_parser = Change::parse)]
    pub compare: Vec<Change>,
    /// Vary one figure and find where the host stops gaining: `concurrency=1..64` or `layers=1|10|50`
    #[arg(long, help_heading = "Several storms", value_name = "WHAT=RANGE", value_parser = Sweep::parse)]
    pub sweep: Option<Sweep>,
    /// Rounds of --compare and --sweep
    #[arg(long, help_heading = "Several storms", value_name = "N", default_value_t = 3)]
    #[arg(value_parser = value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Make the load alone: load no program, measure no waits
    #[arg(long)]
    pub no_measure: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write the report with its plots to this file as well
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Which locks.
    #[command(flatten)]
    pub locks: LockArgs,
    /// How to hook the kernel.
    #[command(flatten)]
    pub hooks: HookArgs,
}

impl StormArgs {
    /// The strategy that the flags describe.
    pub const fn strategy(&self) -> Strategy {
        Strategy {
            runtime: self.runtime,
            rootfs: self.rootfs,
            layers: self.layers,
            idmap: self.idmap,
            binds: self.binds,
            masks: self.masks,
            mask_with: self.mask_with,
            host_mounts: self.host_mounts,
            propagation: self.propagation,
            mountinfo_reads: self.mountinfo_reads,
            mount_query: self.mount_query,
        }
    }

    /// Those to compare, each by the name that it was asked for.
    pub fn strategies(&self) -> Vec<(String, Strategy)> {
        let base = self.strategy();
        let named = |change: &Change| (change.as_str().to_owned(), change.apply(&base));
        self.compare.iter().map(named).collect()
    }

    /// The storm to make: pinned to the CPUs `pinned_to`, or anywhere on a
    /// machine with `cpus` CPUs.
    pub fn options(&self, cpus: NonZeroU32, pinned_to: Option<Vec<u32>>) -> Options {
        let concurrency = self.concurrency.and_then(NonZeroU32::new);
        let usable = pinned_to.as_ref().and_then(|pinned| u32::try_from(pinned.len()).ok());
        let usable = usable.and_then(NonZeroU32::new).unwrap_or(cpus);
        Options {
            strategy: self.strategy(),
            concurrency: concurrency.unwrap_or_else(|| Options::default_concurrency(usable)),
            rate: self.rate,
            stop: self.starts.map_or(Stop::After(self.duration), Stop::Starts),
            pollers: self.pollers,
            cpus: pinned_to,
        }
    }
}

/// Takes the names of `all`.
fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(move |value| name(*value))).map(move |text| {
        let found = all.iter().find(|value| name(**value) == text);
        *found.expect("the parser takes these names alone")
    })
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("write starts per second, more than 0 and at most 1000000, for example 20 or 0.5"
            .to_owned()),
    }
}

fn parse_pin(text: &str) -> Result<Place, String> {
    let place = match text.split_once(':') {
        Some(("node", id)) => id.parse().ok().map(Place::NumaNode),
        Some(("cpus", list)) => {
            numbers_of_list(list).filter(|cpus| !cpus.is_empty()).map(Place::Cpus)
        }
        _ => None,
    };
    place.ok_or_else(|| "write a node like node:1, or CPUs like cpus:0-3,8".to_owned())
}

#[cfg(test)]
mod tests;
