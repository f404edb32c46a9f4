//! Which capabilities the running of attached programs needs, found by trying.
//!
//! Measuring itself needs none: arrays are mapped, programs and samplers are
//! attached, and the file descriptors that keep them so are open. What may need
//! one is asked of the kernel by a thread that has none, and not told by version
//! or sysctl.

use anyhow::Context as _;
use rustix::thread::CapabilitySet;
use serde::{Serialize, Serializer};

use crate::hooks::backend::CallBackend;
use crate::hooks::{HookState, Programs, TaskIter};
use crate::kernel::capabilities::{Capability, without_any};
use crate::kernel::kallsyms::shows_addresses;
use crate::who::Cgroups;

/// Something that goes on while lockprof runs and that this kernel allows to
/// somebody with a capability alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The capability.
    #[serde(serialize_with = "by_name")]
    pub capability: Capability,
    /// What for.
    pub what: &'static str,
}

/// Takes a reference as serde does.
fn by_name<S: Serializer>(capability: &Capability, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(capability.name())
}

/// What a user who is not root needs to attach what is attached by `hooks`.
///
/// # Errors
///
/// No thread can be started that has no capabilities.
pub fn to_start(hooks: &[HookState]) -> anyhow::Result<Vec<Need>> {
    let need = |capability, what| Need { capability, what };
    let mut needs = vec![
        need(Capability::Bpf, "arrays and programs"),
        need(Capability::Perfmon, "tracing programs, and samples of CPUs"),
    ];
    if !without_any(shows_addresses).context(NO_THREAD)? {
        needs
            .push(need(Capability::Syslog, "addresses of locks, which kallsyms hides from others"));
    }
    if hooks.iter().any(|hook| hook.backend == Some(CallBackend::Tracepoint.name())) {
        needs.push(need(Capability::DacReadSearch, "tracefs, for mount calls by tracepoints"));
    }
    Ok(needs)
}

const NO_THREAD: &str = "failed to see what the kernel allows without capabilities";

/// All of them, one capability each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Needs(Vec<Need>);

impl Needs {
    /// Tries what goes on while lockprof runs, without any capability: walks over
    /// tasks that count mounts, the freeing of words in kernels without a
    /// compare-exchange, and the names of cgroups.
    ///
    /// # Errors
    ///
    /// No thread can be started that has no capabilities.
    pub fn find(
        task_iter: Option<&mut TaskIter>,
        programs: &Programs,
        cgroups: Option<&Cgroups>,
    ) -> anyhow::Result<Self> {
        // What even this thread may not do is no need of this capability.
        let task_iter = task_iter.and_then(|iter| iter.may_walk().then_some(iter));
        let claims = programs.claims()?.filter(|claims| claims.may_remove());
        let cgroups = cgroups.filter(|cgroups| cgroups.may_ask_by_id());
        let (walks, frees, names) = without_any(move || {
            (
                task_iter.is_none_or(TaskIter::may_walk),
                claims.is_none_or(|claims| claims.may_remove()),
                cgroups.is_none_or(Cgroups::may_ask_by_id),
            )
        })
        .context(NO_THREAD)?;
        let mut needs = Vec::new();
        let bpf = match (walks, frees) {
            (true, true) => None,
            (false, true) => Some("this kernel refuses bpf(2) without it: counting mounts"),
            (true, false) => Some("this kernel refuses bpf(2) without it: freeing places of waits"),
            (false, false) => Some(
                "this kernel refuses bpf(2) without it: counting mounts, freeing places of waits",
            ),
        };
        needs.extend(bpf.map(|what| Need { capability: Capability::Bpf, what }));
        if !names {
            let what = "names of cgroups by their ids, before they are gone";
            needs.push(Need { capability: Capability::DacReadSearch, what });
        }
        Ok(Self(needs))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Need> {
        self.0.iter()
    }

    /// What to keep of `permitted`: `CAP_SYS_ADMIN` stands for `CAP_BPF` where that
    /// is not there (`bpf_capable` in include/linux/capability.h).
    pub fn kept_of(&self, permitted: CapabilitySet) -> CapabilitySet {
        let kept = self.0.iter().map(|need| match need.capability {
            Capability::Bpf if !permitted.contains(CapabilitySet::BPF) => Capability::SysAdmin,
            capability => capability,
        });
        permitted & kept.fold(CapabilitySet::empty(), |kept, capability| kept | capability.set())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(capabilities: &[Capability]) -> Needs {
        let need = |capability: &Capability| Need { capability: *capability, what: "" };
        Needs(capabilities.iter().map(need).collect())
    }

    #[test]
    fn nothing_is_kept_that_nothing_needs_or_that_was_not_there() {
        let root = CapabilitySet::all();
        assert_eq!(needs(&[]).kept_of(root), CapabilitySet::empty());
        let both = needs(&[Capability::Bpf, Capability::DacReadSearch]);
        assert_eq!(both.kept_of(root), CapabilitySet::BPF | CapabilitySet::DAC_READ_SEARCH);
        assert_eq!(both.kept_of(CapabilitySet::BPF | CapabilitySet::SYSLOG), CapabilitySet::BPF);
    }

    #[test]
    fn sys_admin_is_kept_where_it_is_what_allows_bpf() {
        let admin = CapabilitySet::SYS_ADMIN | CapabilitySet::SYSLOG;
        assert_eq!(needs(&[Capability::Bpf]).kept_of(admin), CapabilitySet::SYS_ADMIN);
    }
}
