//! `lockprof doctor`: what this kernel and these privileges allow, which locks
//! resolve and how, which hooks attach, and what stays invisible.
//!
//! It attaches everything for a moment and detaches again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::limits::{self, Limit};
use super::redact::without_addresses;
use super::session::{Facts, attach, gather};
use crate::cli::Settings;
use crate::hooks::{CONTENDED_RELEASE, HookState};
use crate::kernel::calls;
use crate::kernel::capabilities::Capabilities;
use crate::kernel::fields::Known;
use crate::locks::resolve::Resolution;

/// What `doctor` found. With `--json` it is printed as it stands.
#[derive(Debug, Serialize)]
pub struct Report {
    kernel: String,
    cpus: u32,
    numa_nodes: u32,
    btf: bool,
    capabilities_missing: Vec<&'static str>,
    locks: Vec<LockReport>,
    hooks: Vec<HookReport>,
    /// Why nothing could be attached, if so.
    refused: Option<String>,
    arrays_bytes: Option<u64>,
    /// Fields of kernel structures: where they are, or why that is not known.
    fields: Vec<FieldReport>,
    /// What is not measured because of this kernel or these privileges.
    limits: Vec<Limit>,
    invisible: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct LockReport {
    lock: String,
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

#[derive(Debug, Serialize)]
struct Refusal {
    backend: &'static str,
    reason: String,
}

/// What the attached backends cannot see, whatever the kernel.
const INVISIBLE: [&str; 6] = [
    "readers that spin on the sequence count of mount_lock or rename_lock (path walks): they never enter a lock slow path",
    "writers that win a rwsem by optimistic spinning: they leave before the tracepoint",
    "the first waiter of a spinlock, unless paravirtual spinlocks queue at once: it spins on the pending bit",
    "trylocks, and readers that steal a rwsem",
    "spinlocks in guests without paravirtual spinlock support (virt_spin_lock): they never queue",
    "mount calls of 32-bit programs",
];

/// Prints the report; whether lock waits can be measured at all.
///
/// # Errors
///
/// The settings name what does not exist, or the kernel's own description
/// cannot be read.
pub fn run(settings: &Settings, json: bool) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    // What is not for a terminal is stored or sent on.
    let show_addresses = !json && out.is_terminal() && rustix::process::geteuid().is_root();
    let report = examine(settings, show_addresses)?;
    let text = if json {
        let mut text =
            serde_json::to_string_pretty(&report).context("failed to write the report")?;
        text.push('\n');
        text
    } else {
        render(&report)
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("failed to print")?;
    Ok(report.refused.is_none())
}

fn examine(settings: &Settings, show_addresses: bool) -> anyhow::Result<Report> {
    let facts = gather(settings)?;
    let attached = attach(settings, &facts);
    let (hooks, refused, arrays_bytes) = match &attached {
        Ok((programs, _)) => (programs.hooks().to_vec(), None, Some(programs.layout().bytes())),
        Err(error) => (Vec::new(), Some(format!("{error:#}")), None),
    };
    let Facts { topology, kernel, resolutions, fields, btf, .. } = &facts;
    // When nothing attaches, one reason stands for everything.
    let limits = if refused.is_some() { Vec::new() } else { limits::limits(&facts, &hooks) };
    Ok(Report {
        kernel: kernel.clone(),
        cpus: topology.cpus,
        numa_nodes: topology.nodes,
        btf: *btf,
        capabilities_missing: Capabilities::read(Path::new("/proc"))?.missing().collect(),
        locks: resolutions.iter().map(|r| lock_report(r, show_addresses)).collect(),
        hooks: hooks.into_iter().map(hook_report).collect(),
        refused,
        arrays_bytes,
        fields: fields.all().map(field_report).collect(),
        limits,
        invisible: INVISIBLE.to_vec(),
    })
}

fn lock_report(resolution: &Resolution, show_address: bool) -> LockReport {
    let lock = resolution.outcome.as_ref().ok();
    LockReport {
        lock: resolution.name.clone(),
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
        hook: hook.hook,
        refused: hook
            .refused
            .into_iter()
            .map(|(backend, reason)| Refusal { backend, reason })
            .collect(),
    }
}

fn field_report(known: Known<'_>) -> FieldReport {
    FieldReport {
        field: known.name,
        offset: known.offset.ok(),
        unknown: known.offset.err().map(str::to_owned),
        turned_off: known.without.filter(|_| known.offset.is_err()),
    }
}

fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "kernel {}, {} possible CPUs, {} possible NUMA nodes, BTF {}",
        report.kernel,
        report.cpus,
        report.numa_nodes,
        if report.btf { "present" } else { "absent" },
    );
    let _ = if report.capabilities_missing.is_empty() {
        writeln!(out, "capabilities: all that lockprof can use")
    } else {
        writeln!(out, "capabilities missing: {}", report.capabilities_missing.join(", "))
    };

    let _ = writeln!(out, "\n{:<18} {:<9} {:<11} SYMBOL", "LOCK", "KIND", "FOUND BY");
    for lock in &report.locks {
        let _ = match (&lock.symbol, &lock.unresolved) {
            (Some(symbol), _) => {
                let address = lock.address.as_ref().map(|a| format!(" at {a}")).unwrap_or_default();
                writeln!(
                    out,
                    "{:<18} {:<9} {:<11} {symbol}{address}",
                    lock.lock,
                    lock.kind.as_deref().unwrap_or_default(),
                    lock.method.unwrap_or_default(),
                )
            }
            (None, why) => writeln!(
                out,
                "{:<18} {:<9} {:<11} {}",
                lock.lock,
                "-",
                "-",
                why.as_deref().unwrap_or_default()
            ),
        };
    }

    if let Some(refused) = &report.refused {
        let _ = writeln!(out, "\nnothing attached: {refused}");
    } else {
        let _ = writeln!(out, "\n{:<18} BACKEND", "HOOK");
        for hook in &report.hooks {
            let _ = writeln!(out, "{:<18} {}", hook.hook, how_hooked(hook));
        }
    }
    if let Some(bytes) = report.arrays_bytes {
        let _ = writeln!(
            out,
            "\nkernel arrays: {} KiB, {:.1} KiB for each possible CPU",
            bytes.div_ceil(1024),
            bytes_per_cpu_kib(bytes, report.cpus)
        );
    }
    fields(&mut out, &report.fields);
    if !report.limits.is_empty() {
        let _ = writeln!(out, "\nnot measured here:");
    }
    for limit in &report.limits {
        // Reasons stand above, with the lock, hook or field.
        let _ = match &limit.remedy {
            Some(remedy) => writeln!(out, "- {}; it takes {remedy}", limit.what),
            None => writeln!(out, "- {}", limit.what),
        };
    }
    let _ = writeln!(out, "\nwhat stays invisible:");
    for line in &report.invisible {
        let _ = writeln!(out, "- {line}");
    }
    out
}

/// The backend of a hook, and what was refused before it.
fn how_hooked(hook: &HookReport) -> String {
    if hook.absent && hook.hook == CONTENDED_RELEASE {
        return format!("-  (this kernel has no lock:{}, Linux 7.2 has it)", hook.hook);
    }
    if hook.absent {
        let call = hook.hook.trim_start_matches("sys_");
        let since = calls::since(call).map(|v| format!(", Linux {v} has it")).unwrap_or_default();
        return format!("-  (this kernel has no {call}{since})");
    }
    let refused: Vec<_> =
        hook.refused.iter().map(|r| format!("{}: {}", r.backend, r.reason)).collect();
    if refused.is_empty() {
        return hook.backend.to_owned();
    }
    format!("{}  ({})", hook.backend, refused.join("; "))
}

/// How many fields are known, and those that are not, by reason.
fn fields(out: &mut String, fields: &[FieldReport]) {
    let known = fields.iter().filter(|f| f.offset.is_some()).count();
    let _ = writeln!(out, "\nfields of kernel structures: {known} of {} known", fields.len());
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for field in fields {
        let Some(why) = field.unknown.as_deref() else { continue };
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, names)) => names.push(field.field),
            None => reasons.push((why, vec![field.field])),
        }
    }
    for (why, names) in reasons {
        let off: BTreeSet<_> = fields
            .iter()
            .filter(|f| names.contains(&f.field))
            .filter_map(|f| f.turned_off)
            .collect();
        let off = if off.is_empty() {
            "nothing reads them yet".to_owned()
        } else {
            format!("hence {}", off.into_iter().collect::<Vec<_>>().join("; "))
        };
        let names = if names.len() == fields.len() { "all".to_owned() } else { names.join(", ") };
        let _ = writeln!(out, "- {names}: {why}; {off}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn bytes_per_cpu_kib(bytes: u64, cpus: u32) -> f64 {
    bytes as f64 / 1024.0 / f64::from(cpus)
}
