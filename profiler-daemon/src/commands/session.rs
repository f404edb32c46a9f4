//! From settings to attached programs and a reader: what `daemon` and `stat`
//! have in common.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use super::limits::{self, DataSymbols, Limit};
use super::needs::Needs;
use super::redact::without_addresses;
use crate::cli::Settings;
use crate::hooks::attribution::Wanted;
use crate::hooks::samples::{SampledFunctions, Sampling};
use crate::hooks::{Abilities, Programs, Sizes, TaskIter, WatchList, object};
use crate::kernel::capabilities::Capabilities;
use crate::kernel::fields::Fields;
use crate::kernel::topology::{Topology, kernel_release, online_cpus};
use crate::locks::resolve::{self, NothingToWatch, Resolution, Sources};
use crate::reader::attribution::Charges;
use crate::reader::attribution::keeper::Keeper;
use crate::reader::{Extent, Reader, Subject};
use crate::snapshot::{self, Host, Name, NumaNode, Snapshot};
use crate::who::Cgroups;

/// A snapshot younger than this is not read again: many scrapes at once cost
/// one read.
const FRESH: Duration = Duration::from_millis(50);

/// The reader, and what it read last.
struct Reading {
    reader: Reader,
    latest: Option<(Instant, Extent, Arc<Snapshot>)>,
}

/// Attached programs with their reader. Dropping it detaches everything.
pub struct Session {
    _keeper: Option<Keeper>,
    charges: Option<Arc<Charges>>,
    reading: Mutex<Reading>,
    programs: Programs,
    watch: WatchList,
    limits: Vec<Limit>,
    since: SystemTime,
}

/// Attached programs, before any thread works on what they book: one that gives up
/// privileges in between has none that keeps them.
pub struct Attached {
    reader: Reader,
    task_iter: Option<TaskIter>,
    mounts_interval: Option<Duration>,
    programs: Programs,
    cgroups: Option<Arc<Cgroups>>,
    watch: WatchList,
    limits: Vec<Limit>,
    since: SystemTime,
}

impl Attached {
    /// Resolves the locks, loads and attaches the programs.
    ///
    /// # Errors
    ///
    /// The kernel or the privileges do not allow it, no lock resolves, or the
    /// locks cannot be watched together.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let facts = gather(settings)?;
        for resolution in &facts.resolutions {
            if let Ok(lock) = &resolution.outcome {
                tracing::debug!(lock = lock.name, symbol = lock.symbol, method = %lock.method, "resolved");
            }
        }
        // Before the first event: a counter is never older than its created timestamp.
        let since = SystemTime::now();
        let (mut programs, watch) = attach(settings, &facts)?;
        for hook in programs.hooks() {
            for (backend, why) in &hook.refused {
                tracing::debug!(hook = hook.hook, backend, "refused: {why}");
            }
        }
        let limits = limits::limits(&facts, programs.hooks(), programs.slow_waits());
        let subject = Subject {
            host: host(&facts),
            node_of_cpu: facts.topology.node_of_cpu.clone(),
            resolved: facts.resolutions.iter().map(record).collect(),
            cgroups: facts.cgroups.as_ref().ok().cloned(),
        };
        let reader = Reader::new(&programs, &watch, subject)?;
        let task_iter = programs.take_task_iter();
        let cgroups = facts.cgroups.as_ref().ok().cloned();
        drop(facts);
        give_back_memory();
        let mounts_interval = settings.mounts_interval;
        Ok(Self { reader, task_iter, mounts_interval, programs, cgroups, watch, limits, since })
    }

    /// What its running needs, found by trying.
    ///
    /// # Errors
    ///
    /// See [`Needs::find`].
    pub fn needs(&mut self) -> anyhow::Result<Needs> {
        let task_iter = self.task_iter.as_mut().filter(|_| self.mounts_interval.is_some());
        Needs::find(task_iter, &self.programs, self.cgroups.as_deref())
    }

    /// Starts the threads that look up names and count mounts.
    ///
    /// # Errors
    ///
    /// The system has no room for them.
    pub fn start(self) -> anyhow::Result<Session> {
        let Self { mut reader, task_iter, mounts_interval, programs, watch, limits, since, .. } =
            self;
        if let (Some(iter), Some(interval)) = (task_iter, mounts_interval) {
            reader.count_mount_tables(iter, interval);
        }
        let charges = reader.charges();
        let keeper = charges.clone().map(Keeper::start).transpose();
        let keeper = keeper.context("failed to start the thread that looks up names")?;
        Ok(Session {
            _keeper: keeper,
            charges,
            reading: Mutex::new(Reading { reader, latest: None }),
            programs,
            watch,
            limits,
            since,
        })
    }
}

impl Session {
    /// Attaches and starts at once.
    ///
    /// # Errors
    ///
    /// As [`Attached::new`] and [`Attached::start`].
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        Attached::new(settings)?.start()
    }

    /// Totals since the programs were attached, at most 50 ms old.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.read(Extent::Whole)
    }

    /// The same without the list of slow waits.
    pub fn counters(&self) -> Arc<Snapshot> {
        self.read(Extent::Counters)
    }

    fn read(&self, wanted: Extent) -> Arc<Snapshot> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match &reading.latest {
            Some((read_at, extent, snapshot)) if *extent >= wanted && read_at.elapsed() < FRESH => {
                snapshot.clone()
            }
            _ => {
                let snapshot = Arc::new(reading.reader.read(wanted));
                reading.latest = Some((Instant::now(), wanted, snapshot.clone()));
                snapshot
            }
        }
    }

    /// Totals as of now, with every name that can be looked up.
    pub fn fresh_snapshot(&self) -> Snapshot {
        if let Some(charges) = &self.charges {
            charges.look_up_names();
        }
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).reader.read(Extent::Whole)
    }

    /// When measuring began.
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// The attached programs.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// What is not measured on this kernel.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Logs what is not measured on this kernel.
    pub fn log_limits(&self) {
        for limit in &self.limits {
            let remedy = limit.remedy.as_deref().unwrap_or_default();
            tracing::warn!(why = limit.why, remedy, "{}", limit.what);
        }
    }

    /// The watched locks.
    pub const fn watch(&self) -> &WatchList {
        &self.watch
    }
}

/// What the kernel offers for these settings.
pub struct Facts {
    /// CPUs and NUMA nodes.
    pub topology: Topology,
    /// Release, as in `uname -r`.
    pub kernel: String,
    /// What became of each wanted lock.
    pub resolutions: Vec<Resolution>,
    /// Where the kernel's structures have the fields that lockprof reads.
    pub fields: Fields,
    /// Whether the kernel tells its types.
    pub btf: bool,
    /// Whether the kernel's symbol table tells where data are.
    pub data_symbols: DataSymbols,
    /// What tells cgroups apart; else why nothing does.
    pub cgroups: Result<Arc<Cgroups>, String>,
    /// How to sample CPUs, unless the settings have it off.
    pub sampling: Option<Sampling>,
}

/// Looks at the kernel; attaches nothing.
///
/// # Errors
///
/// The settings name what does not exist, or the kernel's own description
/// cannot be read.
pub fn gather(settings: &Settings) -> anyhow::Result<Facts> {
    gather_from(settings, &Sources::of_running_kernel(&settings.locks, object::bytes()))
}

/// The same from `sources`.
///
/// # Errors
///
/// As [`gather`].
pub fn gather_from(settings: &Settings, sources: &Sources<'_>) -> anyhow::Result<Facts> {
    let topology = Topology::read(Path::new("/sys"))?;
    let resolutions = resolve::resolve(&settings.locks, sources)?;
    Ok(Facts {
        topology,
        kernel: kernel_release(),
        resolutions,
        fields: Fields::find(sources.btf.as_ref()),
        btf: sources.btf.is_ok(),
        data_symbols: match &sources.kallsyms {
            Ok(kallsyms) if kallsyms.has_data_symbols() => DataSymbols::Listed,
            Ok(_) => DataSymbols::NotListed,
            Err(_) => DataSymbols::Unreadable,
        },
        cgroups: Cgroups::of_system().map(Arc::new).map_err(|error| error.to_string()),
        sampling: sampling(settings)?,
    })
}

/// Which CPUs to sample, and where the functions are that samples are told apart
/// by.
fn sampling(settings: &Settings) -> anyhow::Result<Option<Sampling>> {
    if settings.sampling_hz == 0 {
        return Ok(None);
    }
    let functions = SampledFunctions::of_running_kernel();
    Ok(Some(Sampling {
        frequency_hz: settings.sampling_hz,
        functions: functions.map_err(|error| format!("{:#}", anyhow::Error::from(error))),
        cpus: online_cpus(Path::new("/sys"))?,
    }))
}

/// Attaches the programs for the locks that were resolved.
///
/// # Errors
///
/// As [`Session::start`].
pub fn attach(settings: &Settings, facts: &Facts) -> anyhow::Result<(Programs, WatchList)> {
    let locks: Vec<_> =
        facts.resolutions.iter().filter_map(|r| r.outcome.as_ref().ok().cloned()).collect();
    if locks.is_empty() {
        let why = facts.resolutions.iter().find_map(|r| r.outcome.as_ref().err());
        let mut why = why.map(|why| without_addresses(&why.to_string())).unwrap_or_default();
        let missing: Vec<_> = Capabilities::read(Path::new("/proc"))?.missing().collect();
        if !missing.is_empty() {
            why = format!("capabilities missing: {}; {why}", missing.join(", "));
        }
        return Err(NothingToWatch(why).into());
    }
    // Present on kernels with PREEMPT_RT, where spinlocks sleep.
    let realtime = std::fs::read_to_string("/sys/kernel/realtime").is_ok_and(|s| s.trim() == "1");
    let abilities = Abilities::probe(settings.backends)?;
    let watch = WatchList::new(locks, realtime, abilities.sees_optimistic_writers())?;
    let topology = &facts.topology;
    let sizes = Sizes {
        cpus: settings.assume_cpus.unwrap_or(0).max(topology.cpus),
        nodes: settings.assume_nodes.unwrap_or(0).max(topology.nodes),
        tasks: settings.tasks_in_flight,
        attribution: Wanted {
            controller: facts
                .cgroups
                .as_ref()
                .ok()
                .and_then(|cgroups| cgroups.hierarchy().controller.clone()),
            ..settings.attribution.clone()
        },
    };
    let programs =
        Programs::attach(abilities, &watch, &sizes, &facts.fields, facts.sampling.as_ref())?;
    Ok((programs, watch))
}

fn host(facts: &Facts) -> Host {
    Host {
        name: host_name(),
        uptime_ns: 0,
        kernel: facts.kernel.clone(),
        cpus: facts.topology.cpus,
        numa_nodes: facts
            .topology
            .cpus_of_node
            .iter()
            .map(|(id, cpus)| NumaNode { id: *id, cpus: cpus.clone() })
            .collect(),
    }
}

fn host_name() -> Name {
    Name::from_bytes(rustix::system::uname().nodename().to_bytes())
}

fn record(resolution: &Resolution) -> snapshot::Resolution {
    let lock = resolution.outcome.as_ref().ok();
    snapshot::Resolution {
        lock: resolution.name.clone(),
        symbol: lock.map(|lock| lock.symbol.clone()).unwrap_or_default(),
        method: lock.map(|lock| lock.method),
    }
}

/// Parsing the kernel's types takes tens of megabytes for a moment; hands the
/// freed pages back, as the daemon runs for months.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: trims the allocator's free lists, without arguments that matter.
    unsafe {
        libc::malloc_trim(0);
    }
}
