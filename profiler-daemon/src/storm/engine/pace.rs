//! When workers start: all at once when everything is prepared, in turn if
//! there is a rate, and never again when the storm is over.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::storm::load::Stop;

/// Nothing has started yet. Zero, as the memory is to begin with.
const PREPARING: u32 = 0;
const RUNNING: u32 = 1;
const OVER: u32 = 2;

/// What all workers go by, in memory that they share.
#[repr(C)]
pub(super) struct Pace {
    phase: AtomicU32,
    /// Starts that may still begin.
    tickets: AtomicU64,
    /// When the next start may begin, in ns of `CLOCK_MONOTONIC`.
    next_ns: AtomicU64,
}

impl Pace {
    /// Lays down how many starts there may be. Called before anybody waits.
    pub(super) fn limit(&self, stop: Stop) {
        let starts = match stop {
            Stop::After(_) => u64::MAX,
            Stop::Starts(n) => n,
        };
        self.tickets.store(starts, Ordering::Relaxed);
    }

    /// Whether all the starts that there may be have begun.
    pub(super) fn used_up(&self) -> bool {
        self.tickets.load(Ordering::Relaxed) == 0
    }

    /// Lets everybody begin, unless it is over already.
    pub(super) fn open(&self) {
        let swap =
            self.phase.compare_exchange(PREPARING, RUNNING, Ordering::Release, Ordering::Relaxed);
        if swap.is_ok() {
            self.wake();
        }
    }

    /// Ends it, also for those who sleep.
    pub(super) fn tell_to_stop(&self) {
        self.phase.store(OVER, Ordering::Release);
        self.wake();
    }

    pub(super) fn must_stop(&self) -> bool {
        self.phase.load(Ordering::Acquire) == OVER
    }

    /// Waits for [`Self::open`], or the end.
    pub(super) fn wait_for_opening(&self) {
        while self.phase.load(Ordering::Acquire) == PREPARING {
            // Whatever ended the wait, the phase tells.
            let _ = futex::wait(&self.phase, futex::Flags::empty(), PREPARING, None);
        }
    }

    /// Waits for this worker's turn to start one container; `false` when there
    /// is none any more. `interval` is the time from one start to the next, of
    /// all workers.
    pub(super) fn turn(&self, interval: Option<Duration>) -> bool {
        let take_one = |left: u64| left.checked_sub(1);
        let taken = || self.tickets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one);
        if self.must_stop() || taken().is_err() {
            return false;
        }
        if let Some(interval) = interval {
            self.sleep_until(self.take_slot(interval));
        }
        !self.must_stop()
    }

    /// Sleeps, but not beyond the end.
    pub(super) fn sleep(&self, time: Duration) {
        self.sleep_until(now_ns().saturating_add(nanoseconds(time)));
    }

    fn take_slot(&self, interval: Duration) -> u64 {
        let now = now_ns();
        let interval = nanoseconds(interval);
        let take = |next| Some(slot(next, now).saturating_add(interval));
        let took = self.next_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        slot(took.unwrap_or(now), now)
    }

    fn sleep_until(&self, at_ns: u64) {
        const NS: u64 = 1_000_000_000;
        let at = Timespec {
            tv_sec: i64::try_from(at_ns / NS).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at_ns % NS).unwrap_or(0),
        };
        // By a futex, which the end wakes, and not `clock_nanosleep`. The time of
        // a wait with a set is absolute, on the same clock.
        let any = NonZeroU32::MAX;
        while self.phase.load(Ordering::Acquire) == RUNNING {
            let flags = futex::Flags::empty();
            match futex::wait_bitset(&self.phase, flags, RUNNING, Some(&at), any) {
                Ok(()) | Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return,
            }
        }
    }

    fn wake(&self) {
        // That nobody waits is no error.
        let _ = futex::wake(&self.phase, futex::Flags::empty(), i32::MAX.unsigned_abs());
    }
}

/// When a start may begin that asks at `now`, if the next one may at `next`:
/// time that went by unused is not made up for.
const fn slot(next: u64, now: u64) -> u64 {
    if next > now { next } else { now }
}

/// The time from one start to the next at `rate` starts per second, rounded up.
pub(super) fn interval(rate: f64) -> Duration {
    let ns = (1e9 / rate).ceil();
    // Rates are positive; what is beyond a century is never.
    Duration::try_from_secs_f64(ns / 1e9).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `CLOCK_MONOTONIC`, which all processes share.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn running(stop: Stop) -> Arc<Pace> {
        let pace = Pace {
            phase: AtomicU32::default(),
            tickets: AtomicU64::default(),
            next_ns: AtomicU64::default(),
        };
        pace.limit(stop);
        pace.open();
        Arc::new(pace)
    }

    fn workers<T: Send + 'static>(
        pace: &Arc<Pace>,
        work: impl Fn(&Pace) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let work = Arc::new(work);
        let start = |_| {
            let (pace, work) = (Arc::clone(pace), Arc::clone(&work));
            thread::spawn(move || work(&pace))
        };
        let threads: Vec<_> = (0..4).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn exactly_as_many_start_as_may() {
        let pace = running(Stop::Starts(1001));
        let turns =
            workers(&pace, |pace| std::iter::repeat(()).take_while(|()| pace.turn(None)).count());
        assert_eq!(turns.iter().sum::<usize>(), 1001, "{turns:?}");
        assert!(pace.used_up());
    }

    #[test]
    fn slots_of_all_workers_lie_apart_and_never_in_the_past() {
        let pace = running(Stop::After(Duration::ZERO));
        let interval = Duration::from_micros(3);
        let slots = workers(&pace, move |pace| {
            let take = |_| {
                let asked = now_ns();
                let slot = pace.take_slot(interval);
                assert!(slot >= asked, "{slot} lies before {asked}");
                slot
            };
            (0..2000).map(take).collect::<Vec<_>>()
        });
        let mut slots: Vec<_> = slots.into_iter().flatten().collect();
        slots.sort_unstable();
        let apart = |pair: &[u64]| pair[1] - pair[0] >= 3000;
        assert!(slots.windows(2).all(apart), "two starts within an interval");
    }

    #[test]
    fn time_that_went_by_unused_is_not_made_up_for() {
        assert_eq!(slot(50, 40), 50, "early: at its time");
        assert_eq!(slot(50, 500), 500, "late: at once, and the next one after that");
    }

    #[test]
    fn those_who_sleep_hear_of_the_end() {
        // An hour from one start to the next: without being told, the test
        // would not end.
        let pace = running(Stop::After(Duration::ZERO));
        let hour = Duration::from_secs(3600);
        assert!(pace.turn(Some(hour)), "the first one starts at once");
        let sleeper = {
            let pace = Arc::clone(&pace);
            thread::spawn(move || pace.turn(Some(hour)))
        };
        pace.tell_to_stop();
        assert!(!sleeper.join().unwrap());
    }

    #[test]
    fn nobody_begins_before_the_opening_nor_after_the_end() {
        let pace = Arc::new(Pace {
            phase: AtomicU32::default(),
            tickets: AtomicU64::new(1),
            next_ns: AtomicU64::default(),
        });
        let waiting = {
            let pace = Arc::clone(&pace);
            thread::spawn(move || {
                pace.wait_for_opening();
                pace.turn(None)
            })
        };
        pace.tell_to_stop();
        pace.open();
        assert!(!waiting.join().unwrap());
        assert!(pace.must_stop(), "what is over does not open again");
        assert!(!pace.used_up());
    }

    #[test]
    fn an_interval_keeps_the_rate() {
        assert_eq!(interval(20.0), Duration::from_millis(50));
        assert_eq!(interval(0.5), Duration::from_secs(2));
        assert_eq!(interval(3.0), Duration::from_nanos(333_333_334));
        assert!(interval(1e-300) > Duration::from_secs(1 << 31));
    }
}
