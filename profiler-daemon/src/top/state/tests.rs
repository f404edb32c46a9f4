use super::*;
use crate::snapshot::Snapshot;
use crate::top::fixture::{Fixture, totals_of};
use crate::top::window::Windows;

fn state(hosts: usize) -> State {
    let names = (0..hosts).map(|host| format!("host-{host}"));
    State::new(names, Duration::from_secs(1), Instant::now())
}

/// Windows of the totals in turn.
fn feed(state: &mut State, windows: &mut Windows, host: usize, totals: Snapshot) {
    let window = windows.next(totals).expect("the totals moved");
    state.receive(host, Update::Window(Box::new(window)));
}

/// Totals a second after `earlier`, with one more wait of `ns`.
fn later(earlier: &Snapshot, ns: u64) -> Snapshot {
    let mut totals = earlier.clone();
    totals.duration_ns += 1_000_000_000;
    let waits = &mut totals.locks[0].waits;
    waits.count += 1;
    waits.sum_ns += ns;
    waits.max_ns = waits.max_ns.max(ns);
    waits.buckets.add(&crate::snapshot::Histogram::from_values_ns([ns]));
    totals
}

fn waited_ns(window: &Window) -> u64 {
    window.window.locks.iter().map(|row| row.waits.sum_ns).sum()
}

#[test]
fn the_worst_moment_is_the_window_with_the_most_waits_and_stays() {
    let (mut state, mut windows) = (state(1), Windows::default());
    let mut totals = totals_of(Fixture::Rich);
    feed(&mut state, &mut windows, 0, totals.clone());
    state.toggle_worst();
    assert!(state.shown().is_none(), "what was before attaching to it is no moment");
    for ns in [5_000, 70_000, 300] {
        totals = later(&totals, ns);
        feed(&mut state, &mut windows, 0, totals.clone());
    }
    assert_eq!(waited_ns(state.shown().unwrap()), 70_000);
    state.toggle_worst();
    assert_eq!(waited_ns(state.shown().unwrap()), 300);
    state.forget();
    state.toggle_worst();
    assert!(state.shown().is_none());
}

#[test]
fn a_longer_window_is_not_worse_for_its_length() {
    let (mut state, mut windows) = (state(1), Windows::default());
    let first = totals_of(Fixture::Rich);
    let second = later(&first, 1000);
    let mut third = later(&second, 1500);
    third.duration_ns += 9_000_000_000;
    for totals in [first, second, third] {
        feed(&mut state, &mut windows, 0, totals);
    }
    state.toggle_worst();
    assert_eq!(waited_ns(state.shown().unwrap()), 1000);
}

#[test]
fn a_pause_keeps_what_was_on_the_screen_while_the_rest_goes_on() {
    let (mut state, mut windows) = (state(1), Windows::default());
    let first = totals_of(Fixture::Rich);
    feed(&mut state, &mut windows, 0, first.clone());
    let second = later(&first, 10);
    feed(&mut state, &mut windows, 0, second.clone());
    state.toggle_pause();
    feed(&mut state, &mut windows, 0, later(&second, 20));
    assert_eq!(waited_ns(state.shown().unwrap()), 10);
    state.toggle_pause();
    assert_eq!(waited_ns(state.shown().unwrap()), 20);
    let key = (first.locks[0].lock.clone(), first.locks[0].mode);
    assert_eq!(state.current().history.of(&key).len(), 2, "the history has no gap");
}

#[test]
fn a_restarted_daemon_begins_a_new_history() {
    let (mut state, mut windows) = (state(1), Windows::default());
    let first = totals_of(Fixture::Rich);
    feed(&mut state, &mut windows, 0, first.clone());
    feed(&mut state, &mut windows, 0, later(&first, 10));
    feed(&mut state, &mut windows, 0, totals_of(Fixture::Before));
    let key = (first.locks[0].lock.clone(), first.locks[0].mode);
    assert_eq!(state.current().history.of(&key), Vec::<f64>::new());
}

#[test]
fn a_failed_read_keeps_the_figures_and_says_why_until_one_succeeds() {
    let mut state = state(1);
    let mut windows = Windows::default();
    feed(&mut state, &mut windows, 0, totals_of(Fixture::Rich));
    state.receive(0, Update::Failed("refused".into()));
    assert!(state.shown().is_some());
    assert_eq!(state.current().error.as_deref(), Some("refused"));
    state.receive(0, Update::Same);
    assert_eq!(state.current().error, None);
}

#[test]
fn hosts_are_apart_and_named_by_themselves() {
    let mut state = state(2);
    let mut totals = totals_of(Fixture::Rich);
    totals.host.name = "db-1".into();
    feed(&mut state, &mut Windows::default(), 1, totals);
    assert!(state.shown().is_none());
    assert_eq!(state.current().name(), "host-0");
    state.step_host(-1);
    assert_eq!(state.current().name(), "db-1");
    assert!(state.shown().is_some());
    state.step_host(1);
    assert_eq!(state.host, 0);
    state.receive(7, Update::Ended);
}

#[test]
fn the_history_keeps_the_last_two_minutes_of_seconds() {
    let (mut state, mut windows) = (state(1), Windows::default());
    let mut totals = totals_of(Fixture::Rich);
    feed(&mut state, &mut windows, 0, totals.clone());
    for ns in 1..=130u64 {
        totals = later(&totals, ns * 1_000_000);
        feed(&mut state, &mut windows, 0, totals.clone());
    }
    let key = (totals.locks[0].lock.clone(), totals.locks[0].mode);
    let history = state.current().history.of(&key);
    assert_eq!(history.len(), 120);
    assert_eq!((history[0], history[119]), (0.011, 0.130));
}

#[test]
fn intervals_go_up_and_down_a_ladder_from_any_start() {
    let mut state = state(1);
    state.interval = Duration::from_millis(700);
    state.step_interval(true);
    assert_eq!(state.interval, Duration::from_secs(1));
    (0..20).for_each(|_| state.step_interval(false));
    assert_eq!(state.interval, Duration::from_millis(100));
    (0..20).for_each(|_| state.step_interval(true));
    assert_eq!(state.interval, Duration::from_secs(300));
}

#[test]
fn going_back_undoes_one_thing_at_a_time() {
    let mut state = state(1);
    state.tab = Tab::Slow;
    state.scope = Some("mount_lock".into());
    state.filter = "runc".into();
    state.overlay = Overlay::Help(0);
    state.toggle_pause();
    state.back();
    assert_eq!((state.overlay, state.filter.as_str()), (Overlay::None, "runc"));
    state.back();
    assert!(state.filter.is_empty() && state.scope.is_some());
    state.back();
    assert!(state.scope.is_none() && state.showing == Showing::Paused);
    state.back();
    assert_eq!((state.showing, state.tab), (Showing::Live, Tab::Slow));
    state.back();
    assert_eq!(state.tab, Tab::Locks);
}

#[test]
fn tabs_go_round() {
    let mut state = state(1);
    for tab in Tab::ALL {
        assert_eq!(state.tab, tab);
        state.step_tab(1);
    }
    assert_eq!(state.tab, Tab::Locks);
    state.step_tab(-1);
    assert_eq!(state.tab, Tab::Findings);
}
