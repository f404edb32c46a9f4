//! The text of a report.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{FieldReport, FunctionReport, HookReport, Need, Needs, Refusal, Report};
use crate::hooks::{CONTENDED_RELEASE, Family};
use crate::kernel::calls;
use crate::snapshot::Place;

/// The report as `doctor` prints it.
pub(super) fn text(report: &Report) -> String {
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

    if let (Some(start), Some(run)) = (&report.capabilities_to_start, &report.capabilities_to_run) {
        without_root(&mut out, start, run);
    }

    let _ =
        writeln!(out, "\n{:<18} {:<8} {:<9} {:<11} SYMBOL", "LOCK", "WATCHED", "KIND", "FOUND BY");
    for lock in &report.locks {
        let how = lock.method.unwrap_or(if lock.absent { "(absent)" } else { "(not found)" });
        let what = match (&lock.symbol, &lock.address, &lock.unresolved) {
            (Some(symbol), Some(address), _) => &format!("{symbol} at {address}"),
            (Some(text), None, _) | (None, _, Some(text)) => text,
            (None, _, None) => "",
        };
        let _ = writeln!(
            out,
            "{:<18} {:<8} {:<9} {how:<11} {what}",
            lock.lock,
            if lock.watched { "yes" } else { "no" },
            lock.kind.as_deref().unwrap_or("-"),
        );
    }

    if let Some(refused) = &report.refused {
        let _ = writeln!(out, "\nnothing attached: {refused}");
    } else {
        hooks(&mut out, &report.hooks);
    }
    if let Some(bytes) = report.arrays_bytes {
        let _ = writeln!(
            out,
            "\nkernel arrays: {} KiB, {:.1} KiB for each possible CPU",
            bytes.div_ceil(1024),
            bytes_per_cpu_kib(bytes, report.cpus)
        );
    }
    functions(&mut out, &report.sampled_functions);
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
    if !report.invisible.is_empty() {
        let _ = writeln!(out, "\nwhat stays invisible:");
    }
    for line in &report.invisible {
        let _ = writeln!(out, "- {line}");
    }
    out
}

/// What a service without root needs.
fn without_root(out: &mut String, start: &[Need], run: &Needs) {
    let _ = writeln!(out, "\na service without root needs (docs/service.md):");
    for need in start {
        let _ = writeln!(out, "- {} to start: {}", need.capability.name(), need.what);
    }
    if run.iter().next().is_none() {
        let _ = writeln!(out, "- no capability once it has started (--drop-privileges)");
    }
    for need in run.iter() {
        let _ = writeln!(out, "- {} while it runs: {}", need.capability.name(), need.what);
    }
}

/// The hooks with their backends, then why better ones were refused, each reason
/// once.
fn hooks(out: &mut String, hooks: &[HookReport]) {
    let width = hooks.iter().map(|hook| hook.hook.len()).max().unwrap_or(0);
    let _ = writeln!(out, "\n{:<width$} BACKEND", "HOOK");
    let mut refusals: Vec<(&Refusal, Vec<&str>)> = Vec::new();
    for hook in hooks {
        if hook.absent {
            let what = hook.hook.trim_start_matches("sys_");
            let since = if what == CONTENDED_RELEASE { Some("7.2") } else { calls::since(what) };
            let since = since.map(|v| format!(", Linux {v} has it")).unwrap_or_default();
            let _ = writeln!(out, "{:<width$} -  (this kernel has no {what}{since})", hook.hook);
            continue;
        }
        let _ = writeln!(out, "{:<width$} {}", hook.hook, hook.backend);
        for refusal in &hook.refused {
            match refusals.iter_mut().find(|(known, _)| *known == refusal) {
                Some((_, names)) => names.push(&hook.hook),
                None => refusals.push((refusal, vec![&hook.hook])),
            }
        }
    }
    if !refusals.is_empty() {
        let _ = writeln!(out, "\nbackends that were refused:");
    }
    let present = |family: Family| -> Vec<&str> {
        let hooks = hooks.iter().filter(|hook| !hook.absent && hook.family == family);
        hooks.map(|hook| hook.hook.as_str()).collect()
    };
    for (refusal, names) in refusals {
        let all = |family| names.len() > 1 && names == present(family);
        let names = if all(Family::Calls) {
            "all mount calls".to_owned()
        } else if all(Family::Waits) {
            "all lock waits".to_owned()
        } else {
            names.join(", ")
        };
        let _ = writeln!(out, "- {} for {names}: {}", refusal.backend, refusal.reason);
    }
}

/// By which functions samples are told apart.
fn functions(out: &mut String, functions: &[FunctionReport]) {
    for place in [Place::MountSeqcount, Place::LockSlowPath] {
        let of_place = || functions.iter().filter(|function| function.place == place);
        let found: Vec<_> = of_place().flat_map(|f| &f.found).map(String::as_str).collect();
        let missing: Vec<_> =
            of_place().filter(|f| f.found.is_empty()).map(|f| f.function).collect();
        if found.is_empty() && missing.is_empty() {
            continue;
        }
        let or_none = |names: Vec<&str>| match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        let _ = writeln!(out, "\nsampled as {}: {}", place.as_str(), or_none(found));
        let _ = writeln!(out, "- not in this kernel, or inlined: {}", or_none(missing));
    }
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
