//! From settings to attached programs and a reader: what `daemon` and `stat`
//! have in common.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::redact::without_addresses;
use crate::cli::Settings;
use crate::hooks::programs::NamespaceOffsets;
use crate::hooks::{HookState, Programs, Sizes, WatchList, object};
use crate::kernel::btf::Btf;
use crate::kernel::capabilities::Capabilities;
use crate::kernel::topology::{Topology, kernel_release};
use crate::locks::resolve::{self, NothingToWatch, Resolution, Sources};
use crate::reader::{Reader, Subject};
use crate::snapshot::{self, Host, NumaNode, Snapshot};

/// A snapshot younger than this is not read again: many scrapes at once cost
/// one read.
const FRESH: Duration = Duration::from_millis(50);

/// The reader, and what it read last.
struct Reading {
    reader: Reader,
    latest: Option<(Instant, Arc<Snapshot>)>,
}

/// Attached programs with their reader. Dropping it detaches everything.
pub struct Session {
    reading: Mutex<Reading>,
    programs: Programs,
    watch: WatchList,
    since: SystemTime,
}

impl Session {
    /// Resolves the locks, loads and attaches the programs.
    ///
    /// # Errors
    ///
    /// The kernel or the privileges do not allow it, no lock resolves, or the
    /// locks cannot be watched together.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let facts = gather(settings)?;
        // If there is none, one error says so.
        let some_resolved = facts.resolutions.iter().any(|r| r.outcome.is_ok());
        for resolution in &facts.resolutions {
            match &resolution.outcome {
                Ok(lock) => {
                    tracing::debug!(lock = lock.name, symbol = lock.symbol, method = %lock.method, "resolved");
                }
                Err(why) if some_resolved => {
                    let why = without_addresses(&why.to_string());
                    tracing::warn!(lock = resolution.name, "not watched: {why}");
                }
                Err(_) => {}
            }
        }
        let (programs, watch) = attach(settings, &facts)?;
        for hook in programs.hooks() {
            for (backend, why) in &hook.refused {
                tracing::debug!(hook = hook.hook, backend, "refused: {why}");
            }
        }
        warn_of_refused_calls(settings, programs.hooks());
        let subject = Subject {
            host: host(&facts),
            node_of_cpu: facts.topology.node_of_cpu.clone(),
            resolved: facts.resolutions.iter().map(record).collect(),
        };
        let reader = Reader::new(&programs, &watch, subject)?;
        drop(facts);
        give_back_memory();
        Ok(Self {
            reading: Mutex::new(Reading { reader, latest: None }),
            programs,
            watch,
            since: SystemTime::now(),
        })
    }

    /// Totals since the programs were attached, at most 50 ms old.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match &reading.latest {
            Some((read_at, snapshot)) if read_at.elapsed() < FRESH => snapshot.clone(),
            _ => {
                let snapshot = Arc::new(reading.reader.read());
                reading.latest = Some((Instant::now(), snapshot.clone()));
                snapshot
            }
        }
    }

    /// Totals as of now.
    pub fn fresh_snapshot(&self) -> Snapshot {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).reader.read()
    }

    /// When measuring began.
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// The attached programs.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The watched locks.
    pub const fn watch(&self) -> &WatchList {
        &self.watch
    }
}

/// Says so when the one backend that was asked for sees no mount call. Without
/// such a wish, views say that none is seen, and `doctor` why.
fn warn_of_refused_calls(settings: &Settings, hooks: &[HookState]) {
    let Some(backend) = settings.backends.calls else { return };
    let calls = || hooks.iter().filter(|hook| hook.hook.starts_with("sys_"));
    if calls().any(|hook| hook.backend.is_some()) {
        return;
    }
    if let Some((_, why)) = calls().find_map(|hook| hook.refused.first()) {
        tracing::warn!(backend = backend.name(), "no mount call is measured: {why}");
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
    namespace: Option<NamespaceOffsets>,
}

/// Looks at the kernel; attaches nothing.
///
/// # Errors
///
/// The settings name what does not exist, or the kernel's own description
/// cannot be read.
pub fn gather(settings: &Settings) -> anyhow::Result<Facts> {
    let topology = Topology::read(Path::new("/sys"))?;
    let sources = Sources::of_running_kernel(&settings.locks, object::bytes());
    let resolutions = resolve::resolve(&settings.locks, &sources)?;
    let namespace = sources.btf.as_ref().ok().and_then(namespace_offsets);
    Ok(Facts { topology, kernel: kernel_release(), resolutions, namespace })
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
    let watch = WatchList::new(locks, realtime)?;
    let topology = &facts.topology;
    let sizes = Sizes {
        cpus: settings.assume_cpus.unwrap_or(0).max(topology.cpus),
        nodes: settings.assume_nodes.unwrap_or(0).max(topology.nodes),
        tasks: settings.tasks_in_flight,
    };
    let programs =
        Programs::attach(object::bytes(), &watch, sizes, facts.namespace, settings.backends)?;
    Ok((programs, watch))
}

fn namespace_offsets(btf: &Btf) -> Option<NamespaceOffsets> {
    Some(NamespaceOffsets {
        task_nsproxy: btf.offset("task_struct", "nsproxy").ok()?,
        nsproxy_mnt_ns: btf.offset("nsproxy", "mnt_ns").ok()?,
    })
}

fn host(facts: &Facts) -> Host {
    Host {
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
