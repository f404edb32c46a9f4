//! lockprof's figures against an independent counter on the same tracepoints.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;

use common::{Witness, charges_fit, handoffs_fit, settle, storm};
use lockprof::commands::session::Session;
use lockprof::hooks::attribution::Wanted;
use lockprof::hooks::backend::WaitBackend;
use lockprof::locks::{Mode, ResolvedLock};
use lockprof::snapshot::{LockWaits, Snapshot};

/// Waits that must be compared at least.
const WAITS: u64 = 100_000;
/// The same on a machine that software emulates.
const WAITS_EMULATED: u64 = 1_000;
/// Waits for a lock, of all those compared, below which it is seldom waited for.
const SELDOM: u64 = 1_000;
/// Comparisons at most.
const ATTEMPTS: u32 = 3;
/// Storms that are run at most to get there.
const ROUNDS: u32 = 12;

#[test]
fn waits_by_tp_btf_are_those_of_an_independent_counter() {
    exact("waits_by_tp_btf_are_those_of_an_independent_counter", WaitBackend::TpBtf);
}

#[test]
fn waits_by_raw_tp_are_those_of_an_independent_counter() {
    exact("waits_by_raw_tp_are_those_of_an_independent_counter", WaitBackend::RawTp);
}

#[test]
fn waits_by_fentry_are_those_of_an_independent_counter() {
    exact("waits_by_fentry_are_those_of_an_independent_counter", WaitBackend::Fentry);
}

#[test]
fn waits_by_kprobe_are_those_of_an_independent_counter() {
    exact("waits_by_kprobe_are_those_of_an_independent_counter", WaitBackend::Kprobe);
}

fn exact(test: &str, backend: WaitBackend) {
    // The two programs run one after the other, so the second sees waits longer by
    // what the first does at their end. Times are compared with as little of that
    // as can be; counts again with all of it.
    let without = Wanted { rows: 0, ..Wanted::default() };
    let enough = if common::emulated() { WAITS_EMULATED } else { WAITS };
    for (attribution, times, waits) in
        [(without, true, enough), (Wanted::default(), false, WAITS_EMULATED)]
    {
        let Some(session) = common::session_with(test, backend, attribution) else { return };
        exact_in(test, &session, backend, times, waits);
    }
}

fn exact_in(test: &str, session: &Session, backend: WaitBackend, times: bool, waits: u64) {
    // Of spinlocks, kprobes see nothing.
    let seen = |lock: &ResolvedLock| backend != WaitBackend::Kprobe || lock.kind.sleeps();
    let locks: Vec<_> = session.watch().locks.iter().filter(|lock| seen(lock)).cloned().collect();
    let addresses: Vec<_> = locks.iter().map(|lock| lock.address).collect();
    let witness = match backend {
        WaitBackend::TpBtf | WaitBackend::RawTp => Witness::on_tracepoints(&addresses),
        WaitBackend::Fentry | WaitBackend::Kprobe => Witness::on_slow_paths(&addresses),
    };
    let witness = match witness {
        Ok(witness) => witness,
        Err(why) => return common::skip(test, &format!("nothing to compare with: {why}")),
    };
    // Counts have to be equal every time. Times may be disturbed: an interrupt,
    // or a hypervisor, may come between the two programs' looks at the clock.
    let mut disturbed = Vec::new();
    for _ in 0..ATTEMPTS {
        match compare(session, &witness, &locks, backend, waits) {
            Ok(()) => return,
            Err(_) if !times => return,
            Err(difference) => disturbed.push(difference),
        }
    }
    panic!("times differ in {ATTEMPTS} attempts: {disturbed:#?}");
}

/// Makes waits and compares what both saw of them; times that differ are an
/// error, everything else that differs a panic.
fn compare(
    session: &Session,
    witness: &Witness,
    locks: &[ResolvedLock],
    backend: WaitBackend,
    wanted: u64,
) -> Result<(), String> {
    // A wait that one of the two saw begin and the other did not would spoil
    // the comparison: everything before this moment is left out.
    settle(session);
    let (mine_before, theirs_before) = (session.fresh_snapshot(), witness.totals(locks.len()));
    let skipped_before = witness.skipped();

    let mut waits = 0;
    for _ in 0..ROUNDS {
        assert!(storm(5).status().expect("storm runs").success());
        let window = session.fresh_snapshot().since(&mine_before);
        waits = window.locks.iter().map(|row| row.waits.count).sum();
        if waits >= wanted {
            break;
        }
    }
    assert!(waits >= wanted, "{ROUNDS} storms made only {waits} waits");

    settle(session);
    let window = session.fresh_snapshot().since(&mine_before);
    let theirs: Vec<_> = witness
        .totals(locks.len())
        .into_iter()
        .zip(theirs_before)
        .map(|(now, before)| (now.0 - before.0, now.1 - before.1))
        .collect();

    figures_fit(&window, backend);
    handoffs_fit(&window);
    if session.programs().attribution().rows() != 0 {
        charges_fit(&window);
    }
    let mut missed = 0;
    // The kernel does not run a program inside itself on one CPU: not for an
    // interrupt that contends in the middle of one, and not for a task that runs
    // where another was preempted in one. It counts what it skips, of lockprof's
    // programs and of the other counter's.
    let mut skipped = dropped(&window, "recursion_miss") + (witness.skipped() - skipped_before);
    let all_ns: u64 = theirs.iter().map(|(_, total_ns)| total_ns).sum();
    let mut differences = Vec::new();
    for (lock, (count, total_ns)) in locks.iter().zip(theirs) {
        // Of writers that do not queue the tracepoints know nothing.
        let seen = |row: &&LockWaits| row.lock == lock.name && row.mode != Mode::Optimistic;
        let rows = || window.locks.iter().filter(seen);
        let my_count: u64 = rows().map(|row| row.waits.count).sum();
        let my_total: u64 = rows().map(|row| row.waits.sum_ns).sum();
        let line = format!(
            "{}: {my_count} waits, {my_total} ns; witness {count}, {total_ns} ns",
            lock.name
        );
        println!("{line}");
        if backend == WaitBackend::Kprobe && my_count < count {
            missed += count - my_count;
            continue;
        }
        let differ = my_count.abs_diff(count);
        assert!(differ <= skipped, "waits for {}: {my_count} and {count}", lock.name);
        skipped -= differ;
        if differ != 0 {
            continue;
        }
        // The two programs read the clock at two moments. Waiters of a mutex
        // that get it by spinning wait for a microsecond, of which a thousandth
        // is less than a clock can tell: they are held to what spinlocks are.
        // The one that looks second does so when the first has booked the wait, for
        // which, of a lock that is seldom waited for, nothing is in the caches.
        let apart_ns = if count < SELDOM { 400 } else { 200 };
        let allowed = apart_ns * count;
        let allowed = if lock.kind.sleeps() { allowed.max(total_ns / 1000) } else { allowed };
        // Between the two looks an emulated CPU may stand still for many times
        // the length of the wait, whichever lock it is for: such pauses are held
        // against all the time that was waited.
        let allowed = if common::emulated() { allowed.max(all_ns / 100) } else { allowed };
        // Probes enclose the trampoline with the other counter's programs: every
        // wait is longer by the time that these take, and by that of the traps.
        let allowed = match backend {
            WaitBackend::Kprobe if common::emulated() => allowed + 100_000 * count,
            WaitBackend::Kprobe => allowed + 5_000 * count,
            _ => allowed,
        };
        if my_total.abs_diff(total_ns) > allowed {
            differences.push(line);
        }
    }
    let lost: u64 = LEFT_BEHIND.iter().map(|reason| dropped(&window, reason)).sum();
    assert!(missed <= lost, "{missed} waits missed, {lost} counted as lost");
    if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
}

/// Losses of waits. Those of mount calls are not what is compared here.
const OF_WAITS: [&str; 5] =
    ["inflight_full", "spin_stack_full", "unmatched_end", "unmatched_begin", "clock_backwards"];

/// Where waits are counted whose return the kernel did not probe: it has a few
/// return probes for each function, and more tasks may wait than that.
const LEFT_BEHIND: [&str; 2] = ["unmatched_begin", "task_gone"];

fn dropped(window: &Snapshot, reason: &str) -> u64 {
    window.dropped.iter().filter(|row| row.reason == reason).map(|row| row.count).sum()
}

/// Nothing was lost, and the figures of a row fit each other.
fn figures_fit(window: &Snapshot, backend: WaitBackend) {
    for row in window.dropped.iter().filter(|row| row.count != 0) {
        println!("dropped: {} {}", row.reason, row.count);
    }
    // Not the events that the kernel skipped inside the running program, whichever
    // lock they were about: an interrupt may contend on its own locks while one of
    // ours is being booked. Had it been a watched lock, the other end of the wait
    // would have been counted as unmatched.
    for reason in OF_WAITS {
        let allowed = backend == WaitBackend::Kprobe && LEFT_BEHIND.contains(&reason);
        let skipped = match backend {
            WaitBackend::TpBtf | WaitBackend::RawTp => 0,
            WaitBackend::Fentry | WaitBackend::Kprobe => dropped(window, "recursion_miss"),
        };
        assert!(allowed || dropped(window, reason) <= skipped, "dropped: {reason}");
    }
    for row in &window.locks {
        let waits = &row.waits;
        assert_eq!(waits.buckets.total(), waits.count, "{} {}", row.lock, row.mode);
        assert!(waits.max_ns <= waits.sum_ns, "{} {}", row.lock, row.mode);
        let [p50, p99] = waits.quantiles_ns([0.5, 0.99]);
        assert!(p50 <= p99 && p99 <= waits.max_ns, "{} {}", row.lock, row.mode);
    }
}
