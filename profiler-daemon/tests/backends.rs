//! Backends for lock waits against each other, over the same load.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;

use common::{session_by, settle, storm};
use lockprof::commands::session::Session;
use lockprof::hooks::backend::WaitBackend;
use lockprof::locks::{LockKind, Mode};
use lockprof::snapshot::Snapshot;

/// Waits that must be compared at least.
const WAITS: u64 = 1_000;
/// Storms that are run at most to get there.
const ROUNDS: u32 = 12;

/// What the slow paths show, the tracepoints show too, but for the waiters that
/// leave before they queue; of writers of a rwsem those have a series.
#[test]
fn slow_paths_and_tracepoints_agree() {
    const TEST: &str = "slow_paths_and_tracepoints_agree";
    let Some(tracepoints) = session_by(TEST, WaitBackend::TpBtf) else { return };
    let Some(fentry) = session_by(TEST, WaitBackend::Fentry) else { return };
    if !tracepoints.watch().series.iter().any(|series| series.mode == Mode::Optimistic) {
        return common::skip(TEST, "writers that spin are not seen beside the tracepoints");
    }
    let [by_tracepoints, by_fentry] = compare([&tracepoints, &fentry]);
    // The kernel may preempt a program on a slow path, and skips that program for
    // whoever runs there meanwhile; it counts that it did.
    let skipped = |window| lost(window, &["recursion_miss", "unmatched_end", "unmatched_begin"]);
    let mut missed_at_most = skipped(&by_fentry);
    println!("fentry: {missed_at_most} events lost; tracepoints: {}", skipped(&by_tracepoints));
    for lock in &tracepoints.watch().locks {
        let seen = |window: &Snapshot, modes: &[Mode]| count(window, &lock.name, modes);
        match lock.kind {
            LockKind::Mutex => same_but_for(
                &mut missed_at_most,
                &format!("{}, mutex", lock.name),
                seen(&by_tracepoints, &[Mode::Mutex]),
                seen(&by_fentry, &[Mode::Mutex]),
            ),
            LockKind::Rwsem => {
                same_but_for(
                    &mut missed_at_most,
                    &format!("{}, writers, those that spin included", lock.name),
                    seen(&by_tracepoints, &[Mode::Write, Mode::Optimistic]),
                    seen(&by_fentry, &[Mode::Write]),
                );
                // A reader may find the lock free again, or shared, before it
                // queues (rwsem_down_read_slowpath in kernel/locking/rwsem.c).
                no_less(
                    &format!("{}, readers", lock.name),
                    seen(&by_tracepoints, &[Mode::Read]),
                    seen(&by_fentry, &[Mode::Read]),
                );
            }
            // The first waiter spins on the pending bit and does not queue
            // (queued_spin_lock_slowpath in kernel/locking/qspinlock.c).
            LockKind::Spinlock | LockKind::Rwlock => no_less(
                &format!("{}, spinning", lock.name),
                seen(&by_tracepoints, &[Mode::Spin, Mode::Read, Mode::Write]),
                seen(&by_fentry, &[Mode::Spin, Mode::Read, Mode::Write]),
            ),
        }
    }
}

#[test]
fn kprobe_and_fentry_agree_on_the_slow_paths() {
    const TEST: &str = "kprobe_and_fentry_agree_on_the_slow_paths";
    let Some(fentry) = session_by(TEST, WaitBackend::Fentry) else { return };
    let Some(kprobe) = session_by(TEST, WaitBackend::Kprobe) else { return };
    let [by_fentry, by_kprobe] = compare([&fentry, &kprobe]);
    // Of waits whose return the kernel did not probe, as more tasks waited than it
    // has probes for, it is counted that they were left behind.
    let mut missed_at_most = lost(&by_kprobe, &["unmatched_begin", "task_gone"]);
    println!("kprobe: {missed_at_most} waits left behind");
    for lock in &fentry.watch().locks {
        for mode in lock.kind.modes() {
            let [fentry, kprobe] =
                [&by_fentry, &by_kprobe].map(|window| count(window, &lock.name, &[*mode]));
            if lock.kind.sleeps() {
                let what = format!("{}, {mode}", lock.name);
                same_but_for(&mut missed_at_most, &what, fentry, kprobe);
            } else {
                assert_eq!(kprobe, 0, "{}: kprobes see nothing of it", lock.name);
            }
        }
    }
}

/// What the sessions saw of the same load.
fn compare(sessions: [&Session; 2]) -> [Snapshot; 2] {
    sessions.iter().for_each(|session| settle(session));
    let before = sessions.map(Session::fresh_snapshot);
    let since = || {
        let [first, second] = &before;
        let [one, other] = sessions;
        [one.fresh_snapshot().since(first), other.fresh_snapshot().since(second)]
    };
    for _ in 0..ROUNDS {
        assert!(storm(5).status().expect("storm runs").success());
        if since()
            .iter()
            .all(|window| window.locks.iter().map(|row| row.waits.count).sum::<u64>() >= WAITS)
        {
            break;
        }
    }
    sessions.iter().for_each(|session| settle(session));
    let windows = since();
    for window in &windows {
        let waits: u64 = window.locks.iter().map(|row| row.waits.count).sum();
        assert!(waits >= WAITS, "{ROUNDS} storms made only {waits} waits");
    }
    windows
}

fn count(window: &Snapshot, lock: &str, modes: &[Mode]) -> u64 {
    let rows = window.locks.iter().filter(|row| row.lock == lock && modes.contains(&row.mode));
    rows.map(|row| row.waits.count).sum()
}

/// Events that were lost for these reasons.
fn lost(window: &Snapshot, reasons: &[&str]) -> u64 {
    let rows = window.dropped.iter().filter(|row| reasons.contains(&row.reason.as_str()));
    rows.map(|row| row.count).sum()
}

/// [`same`], but for what the other one lost and said so; that is lost once.
fn same_but_for(missed_at_most: &mut u64, what: &str, one: u64, other: u64) {
    let missed = one.saturating_sub(other).min(*missed_at_most);
    *missed_at_most -= missed;
    same(what, one, other + missed);
}

/// Equal within a hundredth: a wait may begin between the beginnings of the two.
fn same(what: &str, one: u64, other: u64) {
    println!("{what}: {one} and {other}");
    let allowed = (one.max(other) / 100).max(2);
    assert!(one.abs_diff(other) <= allowed, "{what}: {one} and {other}");
}

/// The slow path shows what the tracepoint shows, and more.
fn no_less(what: &str, tracepoint: u64, slow_path: u64) {
    println!("{what}: {tracepoint} by tracepoint, {slow_path} in the slow path");
    let missed = tracepoint.saturating_sub(slow_path);
    assert!(missed <= (tracepoint / 100).max(2), "{what}: {tracepoint} and {slow_path}");
}
