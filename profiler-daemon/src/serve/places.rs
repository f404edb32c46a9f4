//! Places for connections, and who has to leave when they run short.
//!
//! A connection is always in one [`Phase`]. In most of them it waits for its
//! client, for a bounded time. As long as there are places, nobody is hurried;
//! when there are none and somebody waits for one, the connection with nothing
//! to do is closed, or else the one whose client has kept it waiting longest,
//! if that is longer than [`Limits::patience`]. So clients that are silent or
//! slow, however many, hold a place for that long and not longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep_until, timeout};

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its client opened it, or has begun a request: waits for the TLS handshake
    /// or the head of the request to be complete.
    Asking,
    /// A request is being answered: waits for us.
    Working,
    /// The response is made: waits for the client to take it.
    Taking,
    /// Kept alive after a response.
    Idle,
}

/// How long a client may keep its connection waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the TLS handshake, and for the head of a request.
    pub(super) asking: Duration,
    /// To take a whole response.
    pub(super) taking: Duration,
    /// Until the next request.
    pub(super) idle: Duration,
    /// For any of these when others wait for a place; idle connections then go
    /// at once.
    pub(super) patience: Duration,
    /// How often it is looked whether a limit has passed.
    pub(super) look: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            asking: Duration::from_secs(10),
            taking: Duration::from_secs(60),
            // Longer than most intervals between scrapes, so that these need no
            // new connection each time.
            idle: Duration::from_secs(75),
            patience: Duration::from_secs(2),
            look: Duration::from_secs(1),
        }
    }
}

impl Limits {
    fn of(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Asking => Some(self.asking),
            Phase::Working => None,
            Phase::Taking => Some(self.taking),
            Phase::Idle => Some(self.idle),
        }
    }

    fn when_short(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Working => None,
            Phase::Idle => Some(Duration::ZERO),
            Phase::Asking | Phase::Taking => Some(self.patience),
        }
    }
}

/// One connection, as others see it.
#[derive(Debug)]
pub(super) struct Seat {
    state: Mutex<State>,
    leave: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    since: Instant,
    leaving: bool,
}

impl Seat {
    fn new() -> Self {
        let state = State { phase: Phase::Asking, since: Instant::now(), leaving: false };
        Self { state: Mutex::new(state), leave: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What the connection does now.
    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// It does something else from now on.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// As [`Self::enter`], if it does `from` now.
    pub(super) fn pass(&self, from: Phase, to: Phase) {
        let mut state = self.state();
        if state.phase == from {
            (state.phase, state.since) = (to, Instant::now());
        }
    }

    /// Ready when the connection has to be closed.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    fn send_away(&self) {
        self.state().leaving = true;
        self.leave.notify_one();
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    free: Arc<Semaphore>,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    by_number: HashMap<u64, Arc<Seat>>,
}

/// A place that is taken, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// The connection that has it.
    pub(super) seat: Arc<Seat>,
    _taken: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.seats).by_number.remove(&self.number);
    }
}

impl Places {
    pub(super) fn new(count: usize, limits: Limits) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count));
        Arc::new(Self { limits, free, seats: Mutex::default() })
    }

    /// A place; if there is none, somebody else's.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        let taken = self.make_room(&self.free, |_| true).await;
        let seat = Arc::new(Seat::new());
        let mut seats = lock(&self.seats);
        let number = seats.next;
        seats.next += 1;
        seats.by_number.insert(number, seat.clone());
        drop(seats);
        Place { places: self.clone(), number, seat, _taken: taken }
    }

    /// One of `scarce`, which connections of the phases `held_in` hold; as long as
    /// there is none, these are closed as described above.
    pub(super) async fn make_room(
        &self,
        scarce: &Arc<Semaphore>,
        held_in: impl Fn(Phase) -> bool,
    ) -> OwnedSemaphorePermit {
        /// Time for a connection that was sent away to be gone.
        const LEAVING: Duration = Duration::from_millis(100);
        let mut permit = std::pin::pin!(Arc::clone(scarce).acquire_owned());
        loop {
            let wait_until = match self.longest_waiting(Instant::now(), &held_in) {
                Some((overdue, seat)) if overdue <= Instant::now() => {
                    // One may have come free without that.
                    if let Ok(Ok(permit)) = timeout(Duration::ZERO, &mut permit).await {
                        return permit;
                    }
                    seat.send_away();
                    Instant::now() + LEAVING
                }
                Some((overdue, _)) => overdue.min(Instant::now() + self.limits.look),
                None => Instant::now() + self.limits.look,
            };
            tokio::select! {
                // The semaphores are never closed.
                Ok(permit) = &mut permit => return permit,
                () = sleep_until(wait_until.into()) => {}
            }
        }
    }

    /// Who has to leave next, and when.
    fn longest_waiting(
        &self,
        now: Instant,
        held_in: impl Fn(Phase) -> bool,
    ) -> Option<(Instant, Arc<Seat>)> {
        let seats = lock(&self.seats);
        let due = |seat: &Arc<Seat>| {
            let state = *seat.state();
            if state.leaving || !held_in(state.phase) {
                return None;
            }
            let due = state.since + self.limits.when_short(state.phase)?;
            // Idle ones first, however long others are overdue.
            Some((state.phase != Phase::Idle || due > now, due, seat.clone()))
        };
        let all = seats.by_number.values().filter_map(due);
        all.min_by_key(|(busy, due, _)| (*busy, *due)).map(|(_, due, seat)| (due, seat))
    }

    /// Sends those away whose time is up, without end.
    pub(super) async fn keep_time(&self) {
        loop {
            tokio::time::sleep(self.limits.look).await;
            for seat in lock(&self.seats).by_number.values() {
                let state = *seat.state();
                let limit = self.limits.of(state.phase);
                if !state.leaving && limit.is_some_and(|limit| state.since.elapsed() >= limit) {
                    seat.send_away();
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    async fn full(phases: &[Phase]) -> (Arc<Places>, Vec<Place>) {
        let places = Places::new(phases.len(), Limits::default());
        let mut taken = Vec::new();
        for phase in phases {
            let place = places.take().await;
            place.seat.enter(*phase);
            taken.push(place);
        }
        (places, taken)
    }

    fn next(places: &Places, taken: &[Place], now: Instant) -> Option<(usize, Instant)> {
        let (due, seat) = places.longest_waiting(now, |_| true)?;
        Some((taken.iter().position(|place| Arc::ptr_eq(&place.seat, &seat))?, due))
    }

    #[tokio::test]
    async fn the_idle_go_first_then_who_has_waited_for_its_client_longest() {
        use Phase::{Asking, Idle, Taking, Working};
        let (places, mut taken) = full(&[Working, Asking, Taking, Idle]).await;
        let later = Instant::now() + Duration::from_secs(30);
        assert_eq!(next(&places, &taken, later).unwrap().0, 3, "the idle one, as the last to come");
        taken.pop();
        let (who, due) = next(&places, &taken, later).unwrap();
        assert_eq!((who, due), (1, taken[1].seat.state().since + PATIENCE));
        taken[1].seat.send_away();
        assert_eq!(next(&places, &taken, later).unwrap().0, 2, "nobody is told twice");
        taken[2].seat.send_away();
        assert_eq!(next(&places, &taken, later), None, "we keep nobody waiting but ourselves");
    }

    #[tokio::test]
    async fn only_those_are_sent_away_that_hold_what_is_scarce() {
        let (places, taken) = full(&[Phase::Idle, Phase::Taking]).await;
        let (_, seat) = places
            .longest_waiting(Instant::now(), |phase| phase == Phase::Taking)
            .expect("one holds it");
        assert!(Arc::ptr_eq(&seat, &taken[1].seat));
    }

    #[tokio::test]
    async fn a_free_place_costs_nobody_theirs() {
        let places = Places::new(2, Limits::default());
        let idle = places.take().await;
        idle.seat.enter(Phase::Idle);
        let _other = places.take().await;
        assert!(!idle.seat.state().leaving);
        let more = places.take();
        assert!(timeout(Duration::from_millis(20), more).await.is_err(), "there are two");
        assert!(idle.seat.state().leaving);
    }

    #[tokio::test]
    async fn whose_time_is_up_is_told() {
        let look = Duration::from_millis(1);
        let limits = Limits { taking: Duration::ZERO, look, ..Limits::default() };
        let places = Places::new(3, limits);
        let (taking, working) = (places.take().await, places.take().await);
        taking.seat.enter(Phase::Taking);
        working.seat.enter(Phase::Working);
        tokio::select! {
            () = places.keep_time() => unreachable!("without end"),
            () = taking.seat.told_to_leave() => {}
        }
        assert!(!working.seat.state().leaving);
    }
}
