use std::time::Duration;

use super::*;
use crate::top::fixture::{Fixture, totals_of};
use crate::top::state::Showing;
use crate::top::window::Windows;

const THEME: Theme = Theme { colour: false, ascii: true };

fn state() -> State {
    let mut state = State::new(["a".to_owned()], Duration::from_secs(1), Instant::now());
    let mut windows = Windows::default();
    for fixture in [Fixture::Before, Fixture::Rich] {
        let window = windows.next(totals_of(fixture)).expect("the totals moved");
        state.receive(0, Update::Window(Box::new(window)));
    }
    state
}

fn press_code(state: &mut State, code: KeyCode) -> Reaction {
    press(state, THEME, KeyEvent::new(code, KeyModifiers::NONE), (Rect::new(0, 0, 80, 24), 10))
}

fn press_all(state: &mut State, keys: &str) -> Vec<Reaction> {
    keys.chars().map(|c| press_code(state, KeyCode::Char(c))).collect()
}

fn chosen(state: &State) -> usize {
    tables::table(state, state.tab).position(state.list(state.tab).selected.as_deref())
}

#[test]
fn keys_move_over_the_rows_and_stop_at_both_ends() {
    let mut state = state();
    press_all(&mut state, "jjk");
    assert_eq!(chosen(&state), 1);
    press_all(&mut state, "G");
    assert_eq!(chosen(&state), 6);
    press_all(&mut state, "j");
    assert_eq!(chosen(&state), 6);
    press_code(&mut state, KeyCode::PageUp);
    press_all(&mut state, "k");
    assert_eq!(chosen(&state), 0);
    press_all(&mut state, "jg");
    assert_eq!(state.list(Tab::Locks).selected, None, "g stays with whichever is first");
}

#[test]
fn enter_on_a_lock_shows_who_blocks_it() {
    let mut state = state();
    press_all(&mut state, "jj");
    press_code(&mut state, KeyCode::Enter);
    assert_eq!((state.tab, state.scope.as_deref()), (Tab::Blockers, Some("mount_lock")));
    press_all(&mut state, "l");
    assert_eq!(state.scope, None);
    press_all(&mut state, "l");
    assert_eq!(state.scope.as_deref(), Some("mount_lock"));
}

#[test]
fn what_is_typed_into_the_filter_is_no_command() {
    let mut state = state();
    let reactions = press_all(&mut state, "/qp?");
    assert!(reactions.iter().all(|reaction| *reaction == Reaction::Draw));
    assert_eq!(state.filter, "qp?");
    press_code(&mut state, KeyCode::Backspace);
    press_code(&mut state, KeyCode::Enter);
    assert_eq!((state.filter.as_str(), state.overlay), ("qp", Overlay::None));
    assert_eq!(press_all(&mut state, "q"), [Reaction::Quit]);
    press_all(&mut state, "/x");
    press_code(&mut state, KeyCode::Esc);
    assert!(state.filter.is_empty() && state.overlay == Overlay::None);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press_all(&mut state, "/");
    let reaction = press(&mut state, THEME, control_c, (Rect::default(), 1));
    assert_eq!(reaction, Reaction::Quit, "leaving is always possible");
}

#[test]
fn the_help_scrolls_to_its_end_and_keeps_other_keys_away() {
    let mut state = state();
    press_all(&mut state, "?4w");
    assert_eq!((state.tab, state.showing), (Tab::Locks, Showing::Live));
    (0..300).for_each(|_| drop(press_all(&mut state, "j")));
    let Overlay::Help(end) = state.overlay else { panic!("{:?}", state.overlay) };
    assert!(end > 10 && end < 100, "{end}");
    press_all(&mut state, "k");
    assert_eq!(state.overlay, Overlay::Help(end - 1));
    press_all(&mut state, "?");
    assert_eq!(state.overlay, Overlay::None);
}

#[test]
fn the_order_goes_through_all_columns_and_round() {
    let mut state = state();
    let columns = tables::table(&state, Tab::Locks).columns.len();
    press_all(&mut state, &">".repeat(columns));
    assert_eq!(state.list(Tab::Locks).sort, Some((2, true)));
    press_all(&mut state, "<<<r");
    assert_eq!(state.list(Tab::Locks).sort, Some((columns - 1, false)));
}

#[test]
fn intervals_and_reads_are_told_to_the_sources() {
    let mut state = state();
    let told = press_all(&mut state, "+-.");
    let interval = |seconds| Reaction::Tell(Command::Interval(Duration::from_secs(seconds)));
    assert_eq!(told, [interval(2), interval(1), Reaction::Tell(Command::Now)]);
}

#[test]
fn signals_end_suspend_or_redraw() {
    let mut state = state();
    let mut of = |signal| react(&mut state, THEME, Event::Signal(signal), (Rect::default(), 1));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        assert_eq!(of(signal).unwrap(), Reaction::Quit);
    }
    assert_eq!(of(SIGTSTP).unwrap(), Reaction::Suspend);
    assert_eq!(of(SIGCONT).unwrap(), Reaction::Redraw);
}

#[test]
fn a_reader_that_panicked_ends_it_with_the_name_of_its_host() {
    let error = react(&mut state(), THEME, Event::Panicked(0), (Rect::default(), 1)).unwrap_err();
    assert!(error.to_string().contains("web-17"), "{error}");
}

/// Every key on every tab, without and with figures.
#[test]
fn no_key_breaks_anything_anywhere() {
    let empty =
        || State::new(["a".to_owned(), "b".to_owned()], Duration::from_secs(1), Instant::now());
    for mut state in [state(), empty()] {
        for tab in Tab::ALL {
            for binding in keys::BINDINGS.iter().filter(|b| b.action != Action::Suspend) {
                for (code, modifiers) in binding.keys {
                    state.tab = tab;
                    let key = KeyEvent::new(*code, *modifiers);
                    press(&mut state, THEME, key, (Rect::new(0, 0, 20, 5), 1));
                }
            }
        }
    }
}
