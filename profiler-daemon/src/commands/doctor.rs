//! `lockprof doctor`: what this kernel and these privileges allow, which locks
//! resolve and how, which hooks attach, and what stays invisible.
//!
//! It attaches everything for a moment and detaches again.

mod render;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::limits::{self, Limit};
use super::needs::{self, Need, Needs};
use super::redact::without_addresses;
use super::session::{Facts, attach, gather_from};
use crate::cli::Settings;
use crate::hooks::samples::{SampledFunctions, Sampling};
use crate::hooks::{Family, HookState, KERNEL_SAMPLES, object};
use crate::kernel::capabilities::Capabilities;
use crate::kernel::fields::Known;
use crate::locks::catalogue::ENTRIES;
use crate::locks::resolve::{Resolution, Sources, Unresolved, resolve};
use crate::snapshot::Place;

/// What is asked of `doctor`.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Print JSON instead of text.
    pub json: bool,
    /// False to act as if kallsyms had no data symbols.
    pub use_data_symbols: bool,
}

/// What `doctor` found. With `--json` it is printed as it stands.
#[derive(Debug, Serialize)]
pub struct Report {
    kernel: String,
    cpus: u32,
    numa_nodes: u32,
    btf: bool,
    capabilities_missing: Vec<&'static str>,
    /// What a service without root needs to attach all this; `None` where nothing
    /// could be attached.
    capabilities_to_start: Option<Vec<Need>>,
    /// What it needs from then on, with `--drop-privileges`: what this process could
    /// try.
    capabilities_to_run: Option<Needs>,
    /// The whole catalogue, then the user's locks.
    locks: Vec<LockReport>,
    hooks: Vec<HookReport>,
    /// Why nothing could be attached, if so.
    refused: Option<String>,
    arrays_bytes: Option<u64>,
    /// Functions that samples of CPUs are told apart by; empty where they are not
    /// known, or not asked for.
    sampled_functions: Vec<FunctionReport>,
    /// Fields of kernel structures: where they are, or why that is not known.
    fields: Vec<FieldReport>,
    /// What is not measured because of this kernel or these privileges.
    limits: Vec<Limit>,
    invisible: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct LockReport {
    lock: String,
    /// Whether the settings ask for it. The others are looked up only.
    watched: bool,
    /// Whether this kernel is known not to have it.
    absent: bool,
    symbol: Option<String>,
    kind: Option<String>,
    method: Option<&'static str>,
    /// Hexadecimal; on a terminal only, since it defeats address randomisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    unresolved: Option<String>,
}

#[derive(Debug, Serialize)]
struct HookReport {
    hook: String,
    backend: &'static str,
    refused: Vec<Refusal>,
    /// This kernel does not have what the hook would observe.
    absent: bool,
    /// What it is for.
    family: Family,
}

#[derive(Debug, Serialize)]
struct FunctionReport {
    /// Name in the kernel's source.
    function: &'static str,
    /// The file there.
    file: &'static str,
    /// What samples in it count as.
    place: Place,
    /// What it does there.
    why: &'static str,
    /// Names under which this kernel has it: itself and copies that the compiler
    /// made. Empty if it is inlined, or belongs to other kernels.
    found: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FieldReport {
    /// Structure and member, as a recent kernel calls them.
    field: &'static str,
    /// In bytes.
    offset: Option<u32>,
    unknown: Option<String>,
    /// What lockprof does not do without the field, if anything.
    turned_off: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Refusal {
    backend: &'static str,
    reason: String,
}

/// What stays unseen, given what is attached.
fn invisible(hooks: &[HookState]) -> Vec<&'static str> {
    let attached = |name: &str| hooks.iter().any(|h| h.hook == name && h.backend.is_some());
    let by_tracepoint = attached("contention_begin");
    let mut lines = vec![if attached(KERNEL_SAMPLES) {
        "how long a reader spins on the sequence count of mount_lock (path walks): samples tell the share of CPU alone; and readers of that of rename_lock"
    } else {
        "readers that spin on the sequence count of mount_lock or rename_lock (path walks): they never enter a lock slow path"
    }];
    if by_tracepoint && !attached("rwsem_down_write_slowpath") {
        lines.push(
            "writers that win a rwsem by optimistic spinning: they leave before the tracepoint",
        );
    }
    if by_tracepoint {
        lines.extend([
            "the first waiter of a spinlock, unless paravirtual spinlocks queue at once: it spins on the pending bit",
            "spinlocks in guests without paravirtual spinlock support (virt_spin_lock): they never queue",
            "readers that steal a rwsem",
        ]);
    } else if !attached("native_queued_spin_lock_slowpath") {
        lines
            .push("waits for spinlocks and rwlocks: the attached hooks see locks that sleep alone");
    }
    lines.extend(["trylocks", "mount calls of 32-bit programs"]);
    lines
}

/// Prints the report; whether lock waits can be measured at all.
///
/// # Errors
///
/// The settings name what does not exist, or the kernel's own description
/// cannot be read.
pub fn run(settings: &Settings, request: Request) -> anyhow::Result<bool> {
    let json = request.json;
    let mut out = std::io::stdout().lock();
    // What is not for a terminal is stored or sent on.
    let show_addresses = !json && out.is_terminal() && rustix::process::geteuid().is_root();
    let report = examine(settings, request.use_data_symbols, show_addresses)?;
    let text = if json {
        let mut text =
            serde_json::to_string_pretty(&report).context("failed to write the report")?;
        text.push('\n');
        text
    } else {
        render::text(&report)
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("failed to print")?;
    Ok(report.refused.is_none())
}

fn examine(
    settings: &Settings,
    use_data_symbols: bool,
    show_addresses: bool,
) -> anyhow::Result<Report> {
    let sources = Sources::of_running_kernel(&settings.locks, object::bytes());
    let sources = Sources { use_data_symbols, ..sources };
    let facts = gather_from(settings, &sources)?;
    let others = resolve(&settings.locks.others(), &sources)?;
    drop(sources);
    let mut attached = attach(settings, &facts);
    let (to_start, to_run) = match &mut attached {
        Ok((programs, _)) => {
            let mut walks = programs.take_task_iter();
            let cgroups = facts.cgroups.as_ref().ok();
            let to_run = Needs::find(walks.as_mut(), programs, cgroups.map(AsRef::as_ref))?;
            (Some(needs::to_start(programs.hooks())?), Some(to_run))
        }
        Err(_) => (None, None),
    };
    let (hooks, refused, arrays_bytes) = match &attached {
        Ok((programs, _)) => (programs.hooks().to_vec(), None, Some(programs.bytes())),
        Err(error) => (Vec::new(), Some(format!("{error:#}")), None),
    };
    let invisible = if refused.is_some() { Vec::new() } else { invisible(&hooks) };
    let Facts { topology, kernel, resolutions, fields, btf, sampling, .. } = &facts;
    // When nothing attaches, one reason stands for everything.
    let limits = match &attached {
        Ok((programs, _)) => limits::limits(&facts, &hooks, programs.slow_waits()),
        Err(_) => Vec::new(),
    };
    let mut locks: Vec<_> = resolutions
        .iter()
        .map(|watched| lock_report(watched, true, show_addresses))
        .chain(others.iter().map(|other| lock_report(other, false, show_addresses)))
        .collect();
    let place = |lock: &LockReport| ENTRIES.iter().position(|entry| entry.name == lock.lock);
    locks.sort_by_key(|lock| place(lock).unwrap_or(ENTRIES.len()));
    Ok(Report {
        kernel: kernel.clone(),
        cpus: topology.cpus,
        numa_nodes: topology.nodes,
        btf: *btf,
        capabilities_missing: Capabilities::read(Path::new("/proc"))?.missing().collect(),
        capabilities_to_start: to_start,
        capabilities_to_run: to_run,
        locks,
        hooks: hooks.into_iter().map(hook_report).collect(),
        refused,
        arrays_bytes,
        sampled_functions: sampling.as_ref().map(function_reports).unwrap_or_default(),
        fields: fields.all().map(field_report).collect(),
        limits,
        invisible,
    })
}

fn lock_report(resolution: &Resolution, watched: bool, show_address: bool) -> LockReport {
    let lock = resolution.outcome.as_ref().ok();
    LockReport {
        lock: resolution.name.clone(),
        watched,
        absent: matches!(resolution.outcome, Err(Unresolved::Absent(_))),
        symbol: lock.map(|lock| lock.symbol.clone()),
        kind: lock.map(|lock| lock.kind.to_string()),
        method: lock.map(|lock| lock.method.as_str()),
        address: lock.filter(|_| show_address).map(|lock| format!("{:#x}", lock.address)),
        unresolved: resolution.outcome.as_ref().err().map(|why| {
            let why = why.to_string();
            if show_address { why } else { without_addresses(&why) }
        }),
    }
}

fn hook_report(hook: HookState) -> HookReport {
    HookReport {
        backend: hook.backend_name(),
        absent: hook.absent,
        family: hook.family(),
        hook: hook.hook,
        refused: hook
            .refused
            .into_iter()
            .map(|(backend, reason)| Refusal { backend, reason })
            .collect(),
    }
}

fn function_reports(sampling: &Sampling) -> Vec<FunctionReport> {
    let functions = sampling.functions.iter().flat_map(SampledFunctions::all);
    functions
        .map(|(function, found)| FunctionReport {
            function: function.name,
            file: function.file,
            place: function.place,
            why: function.why,
            found: found.into_iter().map(str::to_owned).collect(),
        })
        .collect()
}

fn field_report(known: Known<'_>) -> FieldReport {
    FieldReport {
        field: known.name,
        offset: known.offset.ok(),
        unknown: known.offset.err().map(str::to_owned),
        turned_off: known.without.filter(|_| known.offset.is_err()),
    }
}
