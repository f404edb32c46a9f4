//! What the service manager is told (sd_notify(3)).

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use super::current::Current;
use crate::commands::session::Session;

/// How often the arrays are read when nobody scrapes: shows that reading works,
/// and frees slots of tasks that are gone.
const TICK: Duration = Duration::from_secs(5);

/// How long resolving and attaching may take: the kernel's types alone are some
/// megabytes to parse, and machines in trouble are where lockprof is started.
const ATTACH_TIMEOUT_USEC: u32 = 120_000_000;

/// Reads now and then, and tells systemd that it does, if that asked.
pub(super) async fn tick(current: Arc<Current>) {
    let watchdog = sd_notify::watchdog_enabled();
    let period = watchdog.map_or(TICK, |timeout| TICK.min(timeout / 3));
    let report = || {
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
    };
    beat(period, || current.tick(), report).await;
}

/// Reads, and after each time that this came to an end reports it, forever. A reader
/// that is stuck is one that is not reported.
async fn beat(period: Duration, read: impl Fn(), report: impl Fn()) {
    let mut ticks = tokio::time::interval(period);
    // After a pause of the machine, reads in a row would tell nothing new.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        read();
        report();
    }
}

/// Says that programs are about to be attached, which may take long.
pub(super) fn attaching() {
    notify(&[
        NotifyState::ExtendTimeoutUsec(ATTACH_TIMEOUT_USEC),
        NotifyState::Status("looking for locks and attaching programs"),
    ]);
}

/// Says that a reload has begun.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Of notify-reload units it is demanded.
    states.extend(NotifyState::monotonic_usec_now().ok());
    notify(&states);
}

/// Says that it is ready, and what it does.
pub(super) fn ready(session: &Session) {
    let nodes = session.counters().host.numa_nodes.len();
    let hooks = session.programs().hooks().iter();
    let refused = hooks.filter(|hook| hook.backend.is_none() && !hook.absent).count();
    let status = status(session.watch().locks.len(), nodes, refused);
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Says that it ends.
pub(super) fn stopping(why: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(why)]);
}

/// The line that `systemctl status` shows.
fn status(locks: usize, nodes: usize, refused: usize) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let watching = format!("watching {} on {}", count(locks, "lock"), count(nodes, "NUMA node"));
    if refused == 0 {
        return watching;
    }
    format!("{watching}, {} refused: see `lockprof doctor`", count(refused, "hook"))
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("failed to notify systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_reader_that_is_stuck_is_not_reported() {
        let reported = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel();
        let of_thread = reported.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(async {
                let ended = tokio::sync::Notify::new();
                let stuck_until_released = || {
                    if released.recv().is_err() {
                        ended.notify_one();
                    }
                };
                let report = || {
                    of_thread.fetch_add(1, Ordering::SeqCst);
                };
                tokio::select! {
                    () = beat(Duration::from_millis(1), stuck_until_released, report) => {}
                    () = ended.notified() => {}
                }
            });
        });
        for round in 1..=3 {
            release.send(()).unwrap();
            while reported.load(Ordering::SeqCst) < round {
                std::thread::yield_now();
            }
            // Many periods, in which the reader is stuck.
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(reported.load(Ordering::SeqCst), round);
        }
        drop(release);
        thread.join().unwrap();
    }

    #[test]
    fn the_status_says_what_is_watched_and_what_is_refused() {
        assert_eq!(status(8, 2, 0), "watching 8 locks on 2 NUMA nodes");
        assert_eq!(
            status(1, 1, 1),
            "watching 1 lock on 1 NUMA node, 1 hook refused: see `lockprof doctor`"
        );
    }
}
