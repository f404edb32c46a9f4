use std::sync::Arc;

use super::*;
use crate::hooks::samples::SampledFunctions;
use crate::kernel::btf::BtfError;
use crate::kernel::fields::Fields;
use crate::kernel::kallsyms::Kallsyms;
use crate::kernel::topology::Topology;
use crate::locks::Method;
use crate::locks::resolve::{Reason, Resolution, Unresolved};
use crate::who::{self, Cgroups, Hierarchy};

/// A kernel with NUMA, without BTF.
fn facts(data_symbols: DataSymbols, unresolved: &[&str]) -> Facts {
    let unresolved = unresolved.iter().map(|name| Resolution {
        name: (*name).to_owned(),
        outcome: Err(Unresolved::NotFound(vec![Reason {
            method: Method::Text,
            why: "functions do not agree: 0xffffffff81234560".to_owned(),
        }])),
    });
    // Any directory opens; no name is looked up here.
    let hierarchy = Hierarchy { root: "/".into(), controller: None };
    let cgroups = Cgroups::at(hierarchy, who::Limits::default()).unwrap();
    Facts {
        topology: Topology {
            cpus: 1,
            nodes: 1,
            node_of_cpu: vec![0],
            cpus_of_node: vec![(0, vec![0])],
            numa: true,
        },
        kernel: "6.1.0".to_owned(),
        resolutions: unresolved.collect(),
        fields: Fields::find(Err(&BtfError::Malformed { offset: 0 })),
        btf: false,
        data_symbols,
        cgroups: Ok(Arc::new(cgroups)),
        sampling: None,
    }
}

fn hook(hook: &str, backend: Option<&'static str>, refused: &str) -> HookState {
    let refused = (!refused.is_empty()).then(|| ("tracepoint", refused.to_owned()));
    HookState {
        hook: hook.to_owned(),
        backend,
        refused: refused.into_iter().collect(),
        absent: false,
    }
}

/// What is not measured where slow waits can be listed.
fn found(facts: &Facts, hooks: &[HookState]) -> Vec<Limit> {
    limits(facts, hooks, Ok(()))
}

/// What is not measured, but for what is missing without fields.
fn whats(all: &[Limit]) -> Vec<&str> {
    let (rest, fields): (Vec<_>, Vec<_>) =
        all.iter().map(|limit| limit.what.as_str()).partition(|what| !FIELDS.contains(what));
    assert_eq!(fields, FIELDS);
    rest
}

/// What is missing without any field of the kernel's structures.
const FIELDS: [&str; 3] = [
    "setns(fd, 0) into another mount namespace is not counted as a mount call",
    "who holds a lock is not read when others begin to wait for it",
    "waits are charged to task names without their cgroups",
];

#[test]
fn an_unresolved_lock_has_its_reason_without_addresses_and_what_would_help() {
    let remedy = |symbols| {
        let all = found(&facts(symbols, &["sb_lock"]), &[]);
        assert_eq!(whats(&all), ["sb_lock is not watched"]);
        assert_eq!(all[0].why, "not found: text: functions do not agree: 0x(hidden)");
        all[0].remedy.clone()
    };
    assert!(remedy(DataSymbols::NotListed).unwrap().contains("--system-map"));
    assert!(remedy(DataSymbols::Unreadable).unwrap().contains("CAP_SYSLOG"));
    // The symbol is not there: another table would not have it either.
    assert_eq!(remedy(DataSymbols::Listed), None);
}

#[test]
fn calls_refused_for_one_reason_are_one_limit() {
    let hooks = [
        hook("contention_begin", Some("tp_btf"), ""),
        hook("sys_mount", None, "no tracepoint syscalls:sys_exit_mount"),
        hook("sys_umount2", None, "no tracepoint syscalls:sys_exit_umount"),
        hook("sys_setns", Some("tracepoint"), ""),
        hook("sys_unshare", None, "EPERM"),
    ];
    let all = found(&facts(DataSymbols::Listed, &[]), &hooks);
    assert_eq!(
        whats(&all),
        ["mount calls are not measured: unshare", "mount calls are not measured: mount, umount2",]
    );
}

#[test]
fn when_no_call_is_seen_they_are_not_listed_one_by_one() {
    let hooks = [hook("sys_mount", None, "EPERM"), hook("sys_setns", None, "EPERM")];
    let all = found(&facts(DataSymbols::Listed, &[]), &hooks);
    assert_eq!(whats(&all), ["mount calls are not measured"]);
    assert_eq!(all[0].why, "tracepoint: EPERM");
    assert!(all[0].remedy.as_deref().unwrap().contains("CONFIG_FTRACE_SYSCALLS"));
}

#[test]
fn a_call_that_the_kernel_does_not_have_is_no_limit() {
    let mut statmount = hook("sys_statmount", None, "no tracepoint");
    statmount.absent = true;
    let hooks = [hook("sys_mount", Some("tracepoint"), ""), statmount];
    assert_eq!(whats(&found(&facts(DataSymbols::Listed, &[]), &hooks)), [""; 0]);
}

#[test]
fn kprobes_see_no_spin_waits_and_tracepoints_do() {
    let facts = facts(DataSymbols::Listed, &[]);
    let with = |backend| found(&facts, &[hook("rwsem_down_read_slowpath", Some(backend), "")]);
    assert_eq!(
        whats(&with("kprobe")),
        ["waits for spinlocks are not seen, and of many waits at once some are lost"]
    );
    assert_eq!(whats(&with("tp_btf")), [""; 0]);
    // Mount calls by kprobe see what any backend sees.
    assert_eq!(whats(&found(&facts, &[hook("sys_mount", Some("kprobe"), "")])), [""; 0]);
}

#[test]
fn a_kernel_without_numa_says_so() {
    let mut facts = facts(DataSymbols::Listed, &[]);
    facts.topology.numa = false;
    let all = found(&facts, &[]);
    assert!(all.last().unwrap().what.contains("NUMA node"), "{all:?}");
    assert!(all.last().unwrap().remedy.as_deref().unwrap().contains("CONFIG_NUMA"));
}

/// With CPU sampling asked for, on a kernel with these symbols.
fn sampled(symbols: Result<&str, &str>) -> Facts {
    let functions = symbols.map_err(str::to_owned).map(|symbols| {
        let table = format!("1000 T _stext\n{symbols}9000 T _etext\n");
        let names = FUNCTIONS.iter().map(|function| function.name);
        let kallsyms = Kallsyms::collect_from(table.as_bytes(), "table", names).unwrap();
        SampledFunctions::find(&kallsyms)
    });
    let sampling = Sampling { frequency_hz: 99, functions, cpus: vec![0] };
    Facts { sampling: Some(sampling), ..facts(DataSymbols::Listed, &[]) }
}

#[test]
fn sampling_that_is_refused_is_a_limit_with_the_reason() {
    let refused = hook("kernel_samples", None, "perf events are refused");
    let all = found(&sampled(Ok("2000 t path_init\n")), std::slice::from_ref(&refused));
    assert!(all[0].what.contains("CPUs are not sampled"), "{all:?}");
    assert_eq!(all[0].why, "tracepoint: perf events are refused");
    // Nobody asked.
    assert_eq!(whats(&found(&facts(DataSymbols::Listed, &[]), &[refused])), [""; 0]);
}

#[test]
fn samples_that_cannot_be_told_apart_are_a_limit() {
    let attached = [hook("kernel_samples", Some("cpu-clock"), "")];
    assert_eq!(whats(&found(&sampled(Ok("2000 t path_init\n")), &attached)), [""; 0]);
    let all = found(&sampled(Ok("2000 t osq_lock\n")), &attached);
    assert!(all[0].what.contains("not told apart"), "{all:?}");
    assert!(all[0].why.contains("path_init, "), "{all:?}");
}

#[test]
fn without_a_hierarchy_of_cgroups_containers_are_not_known() {
    let why = "no hierarchy of cgroups at /sys/fs/cgroup: mount one there";
    let facts = Facts { cgroups: Err(why.to_owned()), ..facts(DataSymbols::Listed, &[]) };
    let all = found(&facts, &[]);
    assert_eq!(whats(&all), ["cgroups have ids without names, and containers are not known"]);
    // It says itself what would help.
    assert_eq!((all[0].why.as_str(), &all[0].remedy), (why, &None));
}

#[test]
fn slow_waits_that_cannot_be_listed_are_a_limit_with_the_reason() {
    let facts = facts(DataSymbols::Listed, &[]);
    let all = limits(&facts, &[], Err("unknown opcode c3 at 0xffffffff81234560"));
    assert!(whats(&all)[0].starts_with("slow waits are not listed one by one"), "{all:?}");
    assert!(all[0].why.ends_with("unknown opcode c3 at 0x(hidden)"), "{all:?}");
    assert_eq!(all[0].remedy.as_deref(), Some("Linux 5.12 or later"));
    assert_eq!(whats(&found(&facts, &[])), [""; 0]);
}
