//! Slow waits: all of them are counted, and what is listed of each is true.

use std::time::Duration;

use lockprof::hooks::attribution::Wanted;
use lockprof::locks::Mode;
use lockprof::snapshot::{Basis, SlowWait, Snapshot};

use super::tasks::Task;
use super::{NAMESPACE_SEM, alone, common, mounts, session, settled, waits, watch_until};
use crate::needs_bpf;

/// A power of two, at which a bucket of the histograms ends: they tell how many
/// waits were longer.
const BOUND_NS: u64 = 1 << 20;
/// The shortest of these.
const THRESHOLD_NS: u64 = BOUND_NS + 1;

/// Mounts in the tree that is copied, which takes longer than the threshold.
const TREE: usize = 5_000;

/// The load: one task that holds `namespace_sem` for long, and those that wait.
fn load() -> Vec<Task> {
    let pause = Duration::from_millis(1);
    let mut tasks =
        vec![Task::start(c"bigbinder", None, |ready| mounts::keep_binding(ready, TREE))];
    let start = |_| Task::start(c"patient", None, |ready| mounts::keep_mounting(ready, pause));
    tasks.extend((0..3).map(start));
    tasks.iter().for_each(Task::await_ready);
    tasks
}

#[test]
fn every_slow_wait_is_counted_and_the_recent_ones_are_listed_with_their_stack() {
    const TEST: &str = "every_slow_wait_is_counted_and_the_recent_ones_are_listed_with_their_stack";
    needs_bpf!("every_slow_wait_is_counted_and_the_recent_ones_are_listed_with_their_stack");
    let _alone = alone();
    let session = session(Wanted { slow_ns: THRESHOLD_NS, ..Wanted::default() });
    let before = settled(&session);
    let Some(slow) = &before.slow_waits else {
        return not_listed(TEST, &before);
    };
    assert_eq!(slow.threshold_ns, THRESHOLD_NS);
    let load = load();
    let of_the_load = |wait: &SlowWait| {
        wait.lock == NAMESPACE_SEM
            && wait.waiter.task() == "patient"
            && wait.blocker.task() == "bigbinder"
            && wait.blocker_basis == Basis::Owner
    };
    watch_until(&session, &before, "a slow wait of the load", |window| {
        listed(window).iter().any(of_the_load) && listed(window).len() >= 20
    });
    drop(load);
    let window = settled(&session).since(&before);

    let slow = window.slow_waits.as_ref().expect("they were listed before");
    let by_histograms: u64 = window
        .locks
        .iter()
        .map(|row| row.waits.count - row.waits.buckets.count_up_to_ns(BOUND_NS))
        .sum();
    assert_eq!(slow.count, by_histograms, "slow waits, against the histograms");
    let lost = window.dropped.iter().find(|row| row.reason == "slow_wait_not_listed");
    let lost = lost.expect("a loss that is counted").count;
    let places = u64::from(Wanted::default().slow_waits);
    let recent = u64::try_from(slow.recent.len()).expect("few");
    assert!(recent + lost >= slow.count.min(places), "{recent} of {} listed", slow.count);
    assert!(recent <= places);

    for wait in &slow.recent {
        is_plausible(wait, &window);
    }
    let json = serde_json::to_string(&window).expect("a snapshot is JSON");
    for address in ["0xffff", "ffffffff8", "ffffffff9", "ffffffffa", "ffffffffb", "ffffffffc"] {
        assert!(!json.contains(address), "{address}: kernel addresses stay on the machine");
    }
}

#[test]
fn with_no_threshold_every_wait_is_slow() {
    const TEST: &str = "with_no_threshold_every_wait_is_slow";
    needs_bpf!("with_no_threshold_every_wait_is_slow");
    let _alone = alone();
    let session = session(Wanted { slow_ns: 0, slow_waits: 64, ..Wanted::default() });
    let before = settled(&session);
    if before.slow_waits.is_none() {
        return not_listed(TEST, &before);
    }
    let load = load();
    watch_until(&session, &before, "waits", |window| waits(window) >= 100);
    drop(load);
    let window = settled(&session).since(&before);
    let slow = window.slow_waits.as_ref().expect("they were listed before");
    let all: u64 = window.locks.iter().map(|row| row.waits.count).sum();
    assert_eq!(slow.count, all, "slow waits, against all waits");
    assert!(slow.recent.len() <= 64);
}

fn listed(window: &Snapshot) -> &[SlowWait] {
    window.slow_waits.as_ref().map_or(&[], |slow| &slow.recent)
}

/// Where they are not listed there is a reason: the BPF of the kernel has no
/// compare-exchange (before Linux 5.12).
fn not_listed(test: &str, snapshot: &Snapshot) {
    let mut release = snapshot.host.kernel.split(|c: char| !c.is_ascii_digit());
    let mut number = || release.next().and_then(|n| n.parse::<u32>().ok()).expect("a release");
    let version = (number(), number());
    assert!(version < (5, 12), "slow waits are not listed on {version:?}");
    common::skip(test, "slow waits are not listed before Linux 5.12: no compare-exchange in BPF");
}

fn is_plausible(wait: &SlowWait, window: &Snapshot) {
    assert!(wait.duration_ns >= THRESHOLD_NS, "{wait:?}");
    let row = |row: &&lockprof::snapshot::LockWaits| {
        row.lock == wait.lock && row.mode == wait.mode && row.numa_node == wait.numa_node
    };
    let row = window.locks.iter().find(row).unwrap_or_else(|| panic!("no such row: {wait:?}"));
    assert!(row.waits.count > 0 && row.waits.max_ns >= wait.duration_ns, "{wait:?}");
    let node = window.host.numa_nodes.iter().find(|node| node.id == wait.numa_node);
    assert!(node.is_some_and(|node| node.cpus.contains(&wait.cpu)), "{wait:?}");
    assert!(wait.waiter.who().is_some() && wait.tid != 0, "{wait:?}");
    let frames: Vec<&str> = wait.stack.iter().map(|frame| frame.as_str()).collect();
    assert!(frames.iter().all(|frame| !frame.starts_with("0x")), "{frames:?}");
    if wait.lock != NAMESPACE_SEM {
        return;
    }
    // Where it waited, and the call that it is in. Of one that got the lock without
    // queueing the program runs after the slow path, whose frame is gone.
    let slow_path = match wait.mode {
        Mode::Read => "rwsem_down_read_slowpath",
        Mode::Write => "rwsem_down_write_slowpath",
        _ => "",
    };
    let has = |name: &str| frames.iter().any(|frame| frame.starts_with(name));
    assert!(has(slow_path), "{wait:?}");
    assert!(
        ["do_syscall_64", "__x64_sys_", "x64_sys_call", "invoke_syscall"].into_iter().any(has),
        "{wait:?}"
    );
}
