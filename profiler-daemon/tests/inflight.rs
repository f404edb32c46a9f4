//! A wait that has not ended is visible, and seen to grow.
//!
//! One thread copies a mount table of twenty thousand entries again and again,
//! which holds `namespace_sem` for milliseconds; another one wants to read its
//! own table.

mod common;
#[path = "common/mounts.rs"]
mod mounts;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;

/// Mounts in the table that is copied.
const MOUNTS: usize = 20_000;

#[test]
fn a_wait_that_has_not_ended_is_seen_and_grows() {
    needs_bpf!("a_wait_that_has_not_ended_is_seen_and_grows");
    let session = Session::start(&Settings::default()).expect("lockprof attaches");
    let stop = AtomicBool::new(false);
    let ready = AtomicBool::new(false);
    let (longest, grew) = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            mounts::enter_large_table(MOUNTS);
            ready.store(true, Ordering::SeqCst);
            while !stop.load(Ordering::SeqCst) {
                mounts::copy_namespace();
            }
        });
        let waiter = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                std::fs::read("/proc/thread-self/mountinfo").expect("mountinfo can be read");
            }
        });
        while !ready.load(Ordering::SeqCst) && !holder.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = watch(&session);
        stop.store(true, Ordering::SeqCst);
        waiter.join().expect("the waiter ends");
        holder.join().expect("the holder ends");
        seen
    });
    assert!(grew >= 3, "a wait was seen to grow only {grew} times");
    assert!(longest >= 1_000_000, "the oldest wait seen was {longest} ns old");
}

/// Looks often, for up to 20 s: the oldest wait seen, and how often a look found
/// the wait of the look before it, grown by about the time between them.
fn watch(session: &Session) -> (u64, u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut longest, mut grew) = (0, 0);
    let mut before: Option<(Instant, u64)> = None;
    while Instant::now() < deadline && (grew < 10 || longest < 5_000_000) {
        let looked_at = Instant::now();
        let snapshot = session.fresh_snapshot();
        let row = snapshot.inflight.iter().find(|row| row.lock == "namespace_sem");
        let row = row.expect("namespace_sem is watched on every kernel");
        if row.waiters == 0 {
            assert_eq!(row.oldest_ns, 0, "nobody waits, so no wait is old");
            before = None;
            continue;
        }
        longest = longest.max(row.oldest_ns);
        if let Some((then, oldest_then)) = before {
            let between = u64::try_from((looked_at - then).as_nanos()).expect("short");
            if row.oldest_ns >= oldest_then + between / 2 {
                grew += 1;
            }
        }
        before = Some((looked_at, row.oldest_ns));
    }
    (longest, grew)
}
