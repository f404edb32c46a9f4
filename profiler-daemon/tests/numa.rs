//! Figures by NUMA node, on a machine with several: waits are booked where the
//! waiters run, and locks are seen to move between nodes.
//!
//! Meant for a machine with nothing else to do: whoever else mounts anything
//! waits for the same locks.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::LOCKPROF;
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::kernel::topology::Topology;
use lockprof::snapshot::Snapshot;

/// Locks that are taken by the tasks that make mount calls, on their behalf
/// alone. Two more have takers that no affinity of a process reaches:
/// `pcpu_alloc_mutex` is taken by a kernel worker (`pcpu_balance_workfn` in
/// mm/percpu.c), and `tasklist_lock` by every fork and exit, those of kernel
/// threads included. `rcu_exp_mutex` is here because the task that wants the
/// grace period takes it; the workers of RCU have another one, `exp_wake_mutex`
/// (`exp_funnel_lock` and `rcu_exp_wait_wake` in kernel/rcu/tree_exp.h).
const OF_MOUNTS: [&str; 6] = [
    "namespace_sem",
    "mount_lock",
    "mnt_id_lock",
    "shrinker_rwsem",
    "rcu_exp_mutex",
    "list_lrus_mutex",
];

/// The NUMA nodes with their CPUs; `None`, and `test` skipped, if there is one.
fn nodes(test: &str) -> Option<Vec<(u32, Vec<u32>)>> {
    let nodes = Topology::read(Path::new("/sys")).expect("sysfs is mounted").cpus_of_node;
    if nodes.len() < 2 {
        common::skip(test, "this machine has one NUMA node");
        return None;
    }
    Some(nodes)
}

#[test]
fn work_pinned_to_a_node_waits_on_that_node_and_no_other() {
    let test = "work_pinned_to_a_node_waits_on_that_node_and_no_other";
    needs_bpf!("work_pinned_to_a_node_waits_on_that_node_and_no_other");
    let Some(nodes) = nodes(test) else { return };
    let alone = nodes.len();
    let mut compared = 0;
    for (node, cpus) in nodes {
        let window = pinned_storm(node, &cpus);
        let mut waits_there = 0;
        for row in &window.locks {
            let waits = row.waits.count;
            println!(
                "storm on node {node}: {} {} node {}: {waits}",
                row.lock, row.mode, row.numa_node
            );
            if !OF_MOUNTS.contains(&row.lock.as_str()) {
                continue;
            }
            if row.numa_node == node {
                waits_there += waits;
                assert_eq!(row.migrated, 0, "{} waits came from another node", row.lock);
            } else {
                assert_eq!(waits, 0, "{} {} on node {}", row.lock, row.mode, row.numa_node);
            }
        }
        // One CPU alone still waits for locks that sleep.
        assert!(waits_there > 0, "nobody waited on node {node}");
        let of_mounts = |lock: &str| OF_MOUNTS.contains(&lock);
        for handoff in window.handoffs.iter().filter(|h| of_mounts(&h.lock)) {
            assert_eq!((handoff.from_node, handoff.to_node), (node, node), "{handoff:?}");
        }
        for row in &window.syscalls {
            assert_eq!(row.numa_node, node, "{}", row.syscall);
        }
        compared += 1;
    }
    assert_eq!(compared, alone);
}

/// What `stat` sees of a storm on one node, everything of its own kept there.
fn pinned_storm(node: u32, cpus: &[u32]) -> Snapshot {
    let mut command = Command::new(LOCKPROF);
    let node = format!("node:{node}");
    let workers = ["--no-measure", "--concurrency", "8", "--duration", "2s", "--pin", &node];
    command.args(["stat", "--json", "--", LOCKPROF, "storm"]).args(workers);
    command.stderr(Stdio::inherit());
    let cpus = cpus.to_vec();
    // SAFETY: a system call and plain arithmetic, which a forked child may do.
    unsafe { command.pre_exec(move || pin(&cpus)) };
    let output = command.output().expect("stat can be run");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("stat prints JSON")
}

fn pin(cpus: &[u32]) -> io::Result<()> {
    let mut mask = [0_u64; 1024];
    for cpu in cpus {
        if let Some(word) = mask.get_mut(*cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    // SAFETY: the kernel reads at most the length given from the mask.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn locks_go_from_node_to_node_once_for_each_contended_acquisition() {
    let test = "locks_go_from_node_to_node_once_for_each_contended_acquisition";
    needs_bpf!("locks_go_from_node_to_node_once_for_each_contended_acquisition");
    if nodes(test).is_none() {
        return;
    }
    let session = Session::start(&Settings::default()).expect("lockprof attaches");
    common::settle(&session);
    let before = session.fresh_snapshot();
    assert!(common::storm(5).status().expect("storm runs").success());
    common::settle(&session);
    let window = session.fresh_snapshot().since(&before);
    common::handoffs_fit(&window);
    let (mut within, mut across) = (0, 0);
    for handoff in &window.handoffs {
        println!("{handoff:?}");
        if handoff.from_node == handoff.to_node {
            within += handoff.count;
        } else {
            across += handoff.count;
        }
    }
    assert!(across > 0, "no lock went to another node; {within} stayed");
    let busy: Vec<_> = window.locks.iter().filter(|row| row.waits.count > 0).collect();
    let first = busy.first().map(|row| row.numa_node);
    assert!(busy.iter().any(|row| Some(row.numa_node) != first), "all waits were on {first:?}");
}
