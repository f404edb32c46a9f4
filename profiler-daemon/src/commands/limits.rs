//! What this kernel does not let lockprof do, why, and what would allow it.
//!
//! In: the facts about the kernel, what became of each hook, and whether slow
//! waits can be listed ([`Programs::slow_waits`]). Out: a [`Limit`] for each thing that is not measured. `stat` prints them below its
//! figures, `daemon` logs them, `doctor` lists them.
//!
//! A mount call that this kernel does not have is no limit: nobody can make it.

use std::collections::BTreeMap;

use profiler_common::syscalls::{MOUNT_SYSCALLS, implementation_name};
use serde::Serialize;

use super::redact::without_addresses;
use super::session::Facts;
use crate::hooks::backend::WaitBackend;
use crate::hooks::samples::{FUNCTIONS, Sampling};
use crate::hooks::{
    CONTENDED_RELEASE, Family, HookState, KERNEL_SAMPLES, MOUNTINFO_OPEN, MOUNTINFO_READ,
    SUPERBLOCKS, TASK_ITER,
};
use crate::locks::resolve::Unresolved;
use crate::snapshot::Place;

/// Something that is not measured on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What is not measured.
    pub what: String,
    /// Why not. Without kernel addresses.
    pub why: String,
    /// What would allow it; `None` if nothing that lockprof knows of would, or
    /// if `why` says it.
    pub remedy: Option<String>,
}

/// Which table of data symbols the kernel gives to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSymbols {
    /// Functions and data.
    Listed,
    /// Functions only.
    NotListed,
    /// None that can be read, or none with addresses.
    Unreadable,
}

/// Everything that is not measured, the gravest first.
pub fn limits(facts: &Facts, hooks: &[HookState], slow_waits: Result<(), &str>) -> Vec<Limit> {
    let mut all = Vec::new();
    locks(&mut all, facts);
    spin_waits(&mut all, hooks);
    holds(&mut all, hooks);
    calls(&mut all, hooks);
    samples(&mut all, facts.sampling.as_ref(), hooks);
    mounts(&mut all, hooks);
    attribution(&mut all, facts, slow_waits);
    for off in facts.fields.turned_off() {
        all.push(Limit {
            what: off.what.to_owned(),
            why: format!("the place of {} is not known: {}", off.fields.join(" and "), off.why),
            remedy: None,
        });
    }
    if !facts.topology.numa {
        all.push(Limit {
            what: "figures are not by NUMA node: all are under node 0".to_owned(),
            why: "the kernel has no /sys/devices/system/node".to_owned(),
            remedy: Some("a kernel with CONFIG_NUMA".to_owned()),
        });
    }
    all
}

/// Locks whose address is not known. One that this kernel does not have is no
/// limit.
fn locks(all: &mut Vec<Limit>, facts: &Facts) {
    for resolution in &facts.resolutions {
        let Err(why @ Unresolved::NotFound(_)) = &resolution.outcome else { continue };
        let remedy = match facts.data_symbols {
            DataSymbols::Listed => None,
            DataSymbols::NotListed => Some(
                "--system-map with the System.map of this very kernel, or a kernel with \
                 CONFIG_KALLSYMS_ALL",
            ),
            DataSymbols::Unreadable => {
                Some("CAP_SYSLOG, and the sysctl kernel.kptr_restrict below 2")
            }
        };
        all.push(Limit {
            what: format!("{} is not watched", resolution.name),
            why: without_addresses(&why.to_string()),
            remedy: remedy.map(str::to_owned),
        });
    }
}

/// Backends on the slow paths of the locks that sleep see nothing of those that
/// spin.
fn spin_waits(all: &mut Vec<Limit>, hooks: &[HookState]) {
    let mut waits = hooks.iter().filter(|hook| hook.family() == Family::Waits);
    let kprobe = WaitBackend::Kprobe.name();
    if waits.any(|hook| hook.backend == Some(kprobe)) {
        all.push(Limit {
            what: "waits for spinlocks are not seen, and of many waits at once some are lost"
                .to_owned(),
            why: "kprobes are set on the slow paths of locks that sleep alone, and the kernel \
                  probes the return of few tasks at a time in each (no more than there are CPUs, or twice \
                  as many)"
                .to_owned(),
            remedy: Some(
                "the contention tracepoints (Linux 5.19), or fentry (CONFIG_DEBUG_INFO_BTF)"
                    .to_owned(),
            ),
        });
    }
}

/// How long contended locks are held, where the kernel could tell.
fn holds(all: &mut Vec<Limit>, hooks: &[HookState]) {
    let refused = |hook: &&HookState| hook.backend.is_none() && !hook.absent;
    let mut hooks = hooks.iter().filter(|hook| hook.hook == CONTENDED_RELEASE);
    if let Some(hook) = hooks.find(refused) {
        let why: Vec<_> = hook.refused.iter().map(|(b, why)| format!("{b}: {why}")).collect();
        all.push(Limit {
            what: "how long contended locks are held is not measured".to_owned(),
            why: without_addresses(&why.join("; ")),
            remedy: None,
        });
    }
}

/// Mount calls that this kernel has and that could not be hooked, those with
/// the same reason together.
fn calls(all: &mut Vec<Limit>, hooks: &[HookState]) {
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let observable = || hooks.iter().filter(|hook| hook.call().is_some() && !hook.absent);
    for hook in observable().filter(|hook| hook.backend.is_none()) {
        let why: Vec<_> = hook.refused.iter().map(|(b, why)| format!("{b}: {why}")).collect();
        let call = hook.call().unwrap_or_default();
        by_reason.entry(of_any_call(&why.join("; "), call)).or_default().push(call);
    }
    let total = observable().count();
    for (why, calls) in by_reason {
        let what = if calls.len() == total {
            "mount calls are not measured".to_owned()
        } else {
            format!("mount calls are not measured: {}", calls.join(", "))
        };
        all.push(Limit {
            what,
            why,
            remedy: Some(
                "one of fentry (CONFIG_DEBUG_INFO_BTF), kprobes (CONFIG_KPROBES) or the tracepoints \
                 of system calls (CONFIG_FTRACE_SYSCALLS)"
                    .to_owned(),
            ),
        });
    }
}

/// Where CPUs are in the kernel, unless nobody asked.
fn samples(all: &mut Vec<Limit>, sampling: Option<&Sampling>, hooks: &[HookState]) {
    let Some(sampling) = sampling else { return };
    let mut hooks = hooks.iter().filter(|hook| hook.hook == KERNEL_SAMPLES);
    if let Some(hook) = hooks.find(|hook| hook.backend.is_none()) {
        let why: Vec<_> = hook.refused.iter().map(|(b, why)| format!("{b}: {why}")).collect();
        all.push(Limit {
            what: "path walks that spin on the sequence count of mount_lock are not seen: CPUs \
                   are not sampled"
                .to_owned(),
            why: without_addresses(&why.join("; ")),
            remedy: None,
        });
    } else if let Ok(functions) = &sampling.functions
        && functions.names(Place::MountSeqcount).next().is_none()
    {
        let names = FUNCTIONS.iter().filter(|f| f.place == Place::MountSeqcount).map(|f| f.name);
        all.push(Limit {
            what: "path walks that spin on the sequence count of mount_lock are not told apart"
                .to_owned(),
            why: format!(
                "the kernel's symbol table has none of {}",
                names.collect::<Vec<_>>().join(", ")
            ),
            remedy: None,
        });
    }
}

/// The load that mount tables are, as far as it could not be hooked.
fn mounts(all: &mut Vec<Limit>, hooks: &[HookState]) {
    let on_functions = Some("fentry (CONFIG_DEBUG_INFO_BTF) or kprobes (CONFIG_KPROBES)");
    let rows = [
        (
            [MOUNTINFO_OPEN, MOUNTINFO_READ],
            "who reads /proc/<pid>/mountinfo, mounts and mountstats is not measured; their waits are \
             among the read waits for namespace_sem",
            on_functions,
        ),
        (SUPERBLOCKS, "superblocks are not counted", on_functions),
        ([TASK_ITER; 2], "mount namespaces and their mounts are not counted", None),
    ];
    for (names, what, remedy) in rows {
        let mut hooks = hooks.iter().filter(|hook| names.contains(&hook.hook.as_str()));
        let refused = |hook: &&HookState| hook.backend.is_none() && !hook.absent;
        let Some(hook) = hooks.find(refused) else { continue };
        let why: Vec<_> = hook.refused.iter().map(|(b, why)| format!("{b}: {why}")).collect();
        all.push(Limit {
            what: what.to_owned(),
            why: without_addresses(&why.join("; ")),
            remedy: remedy.map(str::to_owned),
        });
    }
}

/// Who waits, and the stacks of those that wait long.
fn attribution(all: &mut Vec<Limit>, facts: &Facts, slow_waits: Result<(), &str>) {
    if let Err(why) = &facts.cgroups {
        all.push(Limit {
            what: "cgroups have ids without names, and containers are not known".to_owned(),
            why: without_addresses(why),
            remedy: None,
        });
    }
    if let Err(why) = slow_waits {
        all.push(Limit {
            what: "slow waits are not listed one by one, with the kernel's stack; they count in \
                   all other figures"
                .to_owned(),
            why: without_addresses(&format!("BPF has no compare-exchange here: {why}")),
            remedy: Some("Linux 5.12 or later".to_owned()),
        });
    }
}

/// A reason without the name of the call that it is about, so that those of
/// several calls compare equal.
fn of_any_call(why: &str, call: &str) -> String {
    let known = MOUNT_SYSCALLS.iter().find(|known| known.name == call);
    let traced: &str = known.map_or(call, |known| implementation_name(known));
    ["sys_enter_", "sys_exit_", "sys_"].iter().fold(why.to_owned(), |why, prefix| {
        why.replace(&format!("{prefix}{traced}"), &format!("{prefix}*"))
    })
}

#[cfg(test)]
mod tests;
