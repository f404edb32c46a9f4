//! How long contended locks are held, against an independent counter of the same
//! tracepoint (`lock:contended_release`, Linux 7.2) and against the clock.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;

use std::time::Instant;

use common::{ReleaseWitness, settle, storm};
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::CONTENDED_RELEASE;
use lockprof::locks::Mode;

/// Holds of `namespace_sem` that must be measured at least.
const HOLDS: u64 = 1000;
/// Storms that are run at most to get there.
const ROUNDS: u32 = 12;

#[test]
fn contended_holds_are_measured_or_counted_as_unmeasured_and_none_is_longer_than_it_can_be() {
    let test =
        "contended_holds_are_measured_or_counted_as_unmeasured_and_none_is_longer_than_it_can_be";
    needs_bpf!(
        "contended_holds_are_measured_or_counted_as_unmeasured_and_none_is_longer_than_it_can_be"
    );
    let session = Session::start(&Settings::default()).expect("lockprof attaches");
    let hook = session.programs().hooks().iter().find(|hook| hook.hook == CONTENDED_RELEASE);
    let Some(hook) = hook.filter(|hook| !hook.absent) else {
        assert!(session.fresh_snapshot().holds.is_empty(), "no holds without the hook");
        assert!(session.fresh_snapshot().releases.is_empty(), "no releases without the hook");
        return common::skip(test, "this kernel has no lock:contended_release (Linux 7.2)");
    };
    assert!(hook.backend.is_some(), "it attaches: {hook:?}");
    let locks = session.watch().locks.clone();
    let addresses: Vec<_> = locks.iter().map(|lock| lock.address).collect();
    let witness = ReleaseWitness::attach(&addresses);

    settle(&session);
    let (before, theirs_before) = (session.fresh_snapshot(), witness.counts(locks.len()));
    let began = Instant::now();
    let written = |window: &lockprof::snapshot::Snapshot| -> u64 {
        let of = |lock: &str, mode| lock == "namespace_sem" && mode == Mode::Write;
        window.holds.iter().filter(|row| of(&row.lock, row.mode)).map(|row| row.holds.count).sum()
    };
    for _ in 0..ROUNDS {
        assert!(storm(5).status().expect("storm runs").success());
        if written(&session.fresh_snapshot().since(&before)) >= HOLDS {
            break;
        }
    }
    settle(&session);
    let window = session.fresh_snapshot().since(&before);
    let passed_ns = u64::try_from(began.elapsed().as_nanos()).expect("short");
    let theirs = witness.counts(locks.len());
    assert!(written(&window) >= HOLDS, "{ROUNDS} storms made only {} holds", written(&window));

    for (index, lock) in locks.iter().enumerate() {
        let events = theirs[index] - theirs_before[index];
        let rows = || window.holds.iter().filter(|row| row.lock == lock.name);
        let Some(releases) = window.releases.iter().find(|row| row.lock == lock.name) else {
            // Some kernels let spinlocks tell as well.
            println!("{}: {events} releases, none of them looked at", lock.name);
            assert!(!lock.kind.sleeps(), "{} has no releases", lock.name);
            assert_eq!(rows().count(), 0, "{}", lock.name);
            continue;
        };
        let measured: u64 = rows().map(|row| row.holds.count).sum();
        println!(
            "{}: {events} releases, {measured} holds measured, {} unmeasured, {} by one of several readers",
            lock.name, releases.unmeasured, releases.one_of_readers
        );
        assert_eq!(
            measured + releases.unmeasured + releases.one_of_readers,
            events,
            "releases of {}",
            lock.name
        );
        for row in rows().filter(|row| row.holds.count != 0) {
            let holds = &row.holds;
            let [p50, p99] = holds.quantiles_ns([0.5, 0.99]);
            println!(
                "  {} on node {}: {} holds, {} ns, p50 {p50} ns, p99 {p99} ns, max {} ns",
                row.mode, row.numa_node, holds.count, holds.sum_ns, holds.max_ns
            );
            assert_eq!(holds.buckets.total(), holds.count, "{} {}", row.lock, row.mode);
            assert!(holds.max_ns <= holds.sum_ns, "{} {}", row.lock, row.mode);
        }
        // One at a time, readers together, so that all of them fit into the time
        // that passed.
        let total_ns: u64 = rows().map(|row| row.holds.sum_ns).sum();
        assert!(total_ns <= passed_ns, "{} was held {total_ns} ns of {passed_ns} ns", lock.name);
    }
}
