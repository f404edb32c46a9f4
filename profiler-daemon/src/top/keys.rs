//! Keys: one table that the footer, the help and the keyboard share.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Help,
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    NextTab,
    PreviousTab,
    Tab(u8),
    Open,
    Scope,
    Back,
    SortRight,
    SortLeft,
    SortReverse,
    Filter,
    Pause,
    Worst,
    Forget,
    Shorter,
    Longer,
    ReadNow,
    NextHost,
    PreviousHost,
    Metric,
    Suspend,
    Redraw,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    /// The keys, with the modifier that they need.
    pub(crate) keys: &'static [(KeyCode, KeyModifiers)],
    /// The keys as people read them.
    pub(crate) shown: &'static str,
    /// What they do.
    pub(crate) action: Action,
    /// What they do, in words.
    pub(crate) help: &'static str,
    /// In a word for the footer; empty to leave it out.
    pub(crate) footer: &'static str,
    /// Whether it takes several hosts to mean anything.
    pub(crate) several_hosts: bool,
}

const fn key(code: KeyCode) -> (KeyCode, KeyModifiers) {
    (code, KeyModifiers::NONE)
}

const fn char(c: char) -> (KeyCode, KeyModifiers) {
    key(KeyCode::Char(c))
}

const fn control(c: char) -> (KeyCode, KeyModifiers) {
    (KeyCode::Char(c), KeyModifiers::CONTROL)
}

const fn bind(
    keys: &'static [(KeyCode, KeyModifiers)],
    shown: &'static str,
    action: Action,
    footer: &'static str,
    help: &'static str,
) -> Binding {
    Binding { keys, shown, action, help, footer, several_hosts: false }
}

const fn hosts(binding: Binding) -> Binding {
    Binding { several_hosts: true, ..binding }
}

/// All keys, in the order of footer and help.
pub(crate) static BINDINGS: &[Binding] = &[
    bind(&[char('q'), control('c')], "q", Action::Quit, "quit", "quit"),
    bind(&[char('?'), char('h'), key(KeyCode::F(1))], "?", Action::Help, "help", "this help"),
    bind(
        &[key(KeyCode::Tab), key(KeyCode::Right)],
        "Tab",
        Action::NextTab,
        "tabs",
        "next tab (also Right; 1 to 9 go to one)",
    ),
    bind(
        &[key(KeyCode::BackTab), key(KeyCode::Left)],
        "S-Tab",
        Action::PreviousTab,
        "",
        "previous tab (also Left)",
    ),
    bind(&[char('1')], "1", Action::Tab(0), "", "Locks"),
    bind(&[char('2')], "2", Action::Tab(1), "", "Waiters: who waits"),
    bind(&[char('3')], "3", Action::Tab(2), "", "Blockers: who makes them wait"),
    bind(&[char('4')], "4", Action::Tab(3), "", "Calls: mount system calls"),
    bind(&[char('5')], "5", Action::Tab(4), "", "Mounts: readers of mount tables, table sizes"),
    bind(&[char('6')], "6", Action::Tab(5), "", "Slow: single slow waits with stacks"),
    bind(&[char('7')], "7", Action::Tab(6), "", "CPU: where the kernel's time goes"),
    bind(&[char('8')], "8", Action::Tab(7), "", "Hooks: coverage and losses"),
    bind(&[char('9')], "9", Action::Tab(8), "", "Findings: cause and remedy"),
    bind(
        &[key(KeyCode::Enter)],
        "Enter",
        Action::Open,
        "blockers",
        "on a lock: who makes others wait for it",
    ),
    bind(
        &[char('l')],
        "l",
        Action::Scope,
        "",
        "limit waiters, blockers, slow waits to the chosen lock, or not",
    ),
    bind(
        &[char('>'), char('s')],
        ">",
        Action::SortRight,
        "sort",
        "sort by the next column (also s)",
    ),
    bind(
        &[char('<'), char('S')],
        "<",
        Action::SortLeft,
        "",
        "sort by the previous column (also S)",
    ),
    bind(&[char('r')], "r", Action::SortReverse, "", "reverse the order"),
    bind(&[char('/')], "/", Action::Filter, "filter", "show only rows with a text"),
    bind(
        &[char(' '), char('p')],
        "Space",
        Action::Pause,
        "pause",
        "stop the screen, or go on (also p)",
    ),
    bind(
        &[char('w')],
        "w",
        Action::Worst,
        "worst",
        "the worst moment: the window with the most time waited, or now",
    ),
    bind(&[char('x')], "x", Action::Forget, "", "forget the worst moment and the history"),
    bind(&[char('-')], "-", Action::Shorter, "", "shorter interval"),
    bind(&[char('+'), char('=')], "+", Action::Longer, "", "longer interval"),
    bind(&[char('.')], ".", Action::ReadNow, "", "read now"),
    hosts(bind(&[char(']'), char('n')], "]", Action::NextHost, "host", "next host (also n)")),
    hosts(bind(&[char('['), char('N')], "[", Action::PreviousHost, "", "previous host (also N)")),
    hosts(bind(
        &[char('m')],
        "m",
        Action::Metric,
        "figure",
        "which figure the columns of the hosts show",
    )),
    bind(&[key(KeyCode::Up), char('k')], "Up", Action::Up, "", "row up (also k)"),
    bind(&[key(KeyCode::Down), char('j')], "Down", Action::Down, "", "row down (also j)"),
    bind(&[key(KeyCode::PageUp), control('b')], "PgUp", Action::PageUp, "", "page up"),
    bind(&[key(KeyCode::PageDown), control('f')], "PgDn", Action::PageDown, "", "page down"),
    bind(
        &[key(KeyCode::Home), char('g')],
        "Home",
        Action::First,
        "",
        "first row, and stay with whichever is first (also g)",
    ),
    bind(&[key(KeyCode::End), char('G')], "End", Action::Last, "", "last row (also G)"),
    bind(
        &[key(KeyCode::Esc)],
        "Esc",
        Action::Back,
        "",
        "undo: help, filter, limit to a lock, frozen moment, tab",
    ),
    bind(&[control('z')], "^Z", Action::Suspend, "", "suspend; `fg` goes on"),
    bind(&[control('l')], "^L", Action::Redraw, "", "draw everything anew"),
];

/// What `event` does.
pub(crate) fn action(event: KeyEvent) -> Option<Action> {
    // Shift is in the character already, and some terminals report it besides.
    let modifiers = event.modifiers - KeyModifiers::SHIFT;
    let pressed = (event.code, modifiers);
    BINDINGS.iter().find(|binding| binding.keys.contains(&pressed)).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::state::Tab;

    #[test]
    fn no_key_does_two_things() {
        let all: Vec<_> = BINDINGS.iter().flat_map(|binding| binding.keys).collect();
        for (number, key) in all.iter().enumerate() {
            assert!(!all[number + 1..].contains(key), "{key:?}");
        }
    }

    #[test]
    fn every_tab_has_its_digit_and_its_name() {
        for (number, tab) in Tab::ALL.into_iter().enumerate() {
            let digit = char::from_digit(u32::try_from(number).unwrap() + 1, 10).unwrap();
            let event = KeyEvent::new(KeyCode::Char(digit), KeyModifiers::NONE);
            assert_eq!(action(event), Some(Action::Tab(u8::try_from(number).unwrap())));
            let binding = BINDINGS.iter().find(|b| b.shown == digit.to_string()).unwrap();
            assert!(binding.help.starts_with(tab.title()), "{}", binding.help);
        }
    }

    #[test]
    fn shift_changes_nothing_and_control_does() {
        let event = |c, modifiers| KeyEvent::new(KeyCode::Char(c), modifiers);
        assert_eq!(action(event('G', KeyModifiers::SHIFT)), Some(Action::Last));
        assert_eq!(action(event('c', KeyModifiers::CONTROL)), Some(Action::Quit));
        assert_eq!(action(event('c', KeyModifiers::NONE)), None);
        assert_eq!(action(event('q', KeyModifiers::ALT)), None);
    }
}
