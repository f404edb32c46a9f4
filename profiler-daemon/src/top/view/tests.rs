use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::top::fixture::{self, Fixture, totals_of};
use crate::top::state::{Showing, Update};
use crate::top::window::Windows;

const PLAIN: Theme = Theme { colour: true, ascii: false };
const ASCII: Theme = Theme { colour: false, ascii: true };

fn state(hosts: &[&[Fixture]]) -> State {
    let start = Instant::now();
    let names = (0..hosts.len()).map(|host| format!("host-{host}"));
    let mut state = State::new(names, Duration::from_secs(1), start);
    for (host, fixtures) in hosts.iter().enumerate() {
        let mut windows = Windows::default();
        for fixture in *fixtures {
            let mut totals = totals_of(*fixture);
            if host != 0 {
                totals.host.name = format!("web-{}", 17 + host).into();
            }
            let mut window = windows.next(totals).expect("the totals moved");
            window.findings =
                if *fixture == Fixture::Rich { fixture::findings() } else { Vec::new() };
            state.receive(host, Update::Window(Box::new(window)));
        }
    }
    state.now = start + Duration::from_millis(400);
    state
}

const RICH: &[Fixture] = &[Fixture::Before, Fixture::Rich];

fn screen(state: &State, theme: Theme, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            let area = frame.area();
            draw(state, theme, frame.buffer_mut(), area);
        })
        .unwrap();
    terminal
}

fn shot(state: &State, theme: Theme, width: u16, height: u16) -> String {
    screen(state, theme, width, height).backend().to_string()
}

macro_rules! shots {
    ($($name:ident: $tab:ident;)*) => {$(
        #[test]
        fn $name() {
            let mut state = state(&[RICH]);
            state.tab = Tab::$tab;
            for (width, height) in [(80, 24), (120, 40), (40, 12)] {
                let name = format!("{}_{width}x{height}", stringify!($name));
                insta::assert_snapshot!(name, shot(&state, PLAIN, width, height));
            }
        }
    )*};
}

shots! {
    locks: Locks;
    waiters: Waiters;
    blockers: Blockers;
    calls: Calls;
    mounts: Mounts;
    slow: Slow;
    cpu: Cpu;
    hooks: Hooks;
    findings: Findings;
}

#[test]
fn help() {
    let mut state = state(&[RICH, RICH]);
    state.overlay = Overlay::Help(0);
    for (width, height) in [(80, 24), (120, 40), (40, 12)] {
        insta::assert_snapshot!(
            format!("help_{width}x{height}"),
            shot(&state, PLAIN, width, height)
        );
    }
}

#[test]
fn three_hosts_of_which_one_does_not_answer() {
    let mut state = state(&[RICH, RICH, &[]]);
    state.receive(2, Update::Failed("http://c:9723: connection refused".into()));
    insta::assert_snapshot!("hosts_80x24", shot(&state, PLAIN, 80, 24));
    state.host = 2;
    insta::assert_snapshot!("hosts_no_answer_80x24", shot(&state, PLAIN, 80, 24));
}

#[test]
fn a_kernel_that_refuses_everything() {
    let mut state = state(&[&[Fixture::Bare]]);
    let mut all = String::new();
    for tab in Tab::ALL {
        state.tab = tab;
        all += &shot(&state, PLAIN, 80, 14);
        all.push('\n');
    }
    insta::assert_snapshot!("bare_80x14", all);
}

#[test]
fn ascii_without_colours() {
    let state = state(&[RICH]);
    let terminal = screen(&state, ASCII, 80, 24);
    let text = terminal.backend().to_string();
    assert!(text.is_ascii(), "{text}");
    for cell in terminal.backend().buffer().content() {
        assert_eq!(cell.fg, ratatui::style::Color::Reset);
    }
    insta::assert_snapshot!("ascii_80x24", text);
}

#[test]
fn states_of_the_screen_show_as_such() {
    let mut state = state(&[RICH]);
    for (showing, badge) in
        [(Showing::Live, "LIVE 1s"), (Showing::Paused, "PAUSED"), (Showing::Worst, "WORST MOMENT")]
    {
        match showing {
            Showing::Paused => state.toggle_pause(),
            showing => state.showing = showing,
        }
        let text = shot(&state, PLAIN, 80, 24);
        assert!(text.contains(badge), "{text}");
    }
    state.showing = Showing::Live;
    state.receive(0, Update::Ended);
    assert!(shot(&state, PLAIN, 80, 24).contains("END OF RECORDING"));
    state.receive(0, Update::Failed("connection refused".into()));
    let text = shot(&state, PLAIN, 80, 24);
    assert!(text.contains("NO ANSWER") && text.contains("connection refused"), "{text}");
}

#[test]
fn an_old_wait_is_said_before_anything_else() {
    let mut totals = totals_of(Fixture::Rich);
    totals.inflight[0].oldest_ns = 32_000_000_000;
    let mut state = State::new(["a".to_owned()], Duration::from_secs(1), Instant::now());
    let mut windows = Windows::default();
    for totals in [totals_of(Fixture::Before), totals] {
        let window = windows.next(totals).unwrap();
        state.receive(0, Update::Window(Box::new(window)));
    }
    let text = shot(&state, PLAIN, 80, 24);
    assert!(text.contains("14 tasks wait for namespace_sem now, the oldest for 32.0s"), "{text}");
}

#[test]
fn the_frame_for_paper_has_everything_and_no_blanks_at_line_ends() {
    let text = print(&state(&[RICH]), PLAIN, 100);
    assert!(text.lines().all(|line| line.trim_end() == line));
    insta::assert_snapshot!("print_100", text);
}

#[test]
fn no_cell_of_any_screen_can_move_the_cursor() {
    for theme in [PLAIN, ASCII] {
        let mut state = state(&[RICH]);
        for tab in Tab::ALL {
            state.tab = tab;
            for row in 0..12 {
                let table = tables::table(&state, tab);
                let id = table.rows.get(row).map(|row| row.id.clone());
                state.list_mut().selected = id;
                let terminal = screen(&state, theme, 130, 45);
                for cell in terminal.backend().buffer().content() {
                    let harmful = |c: char| {
                        c.is_control()
                            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
                    };
                    assert!(!cell.symbol().contains(harmful), "{tab:?}: {:?}", cell.symbol());
                }
            }
        }
    }
}

/// What can be on the screen: every tab and every overlay.
fn screens() -> Vec<(Tab, Overlay)> {
    let overlays = [Overlay::Help(3), Overlay::Filter].map(|overlay| (Tab::Locks, overlay));
    Tab::ALL.into_iter().map(|tab| (tab, Overlay::None)).chain(overlays).collect()
}

fn draw_at(state: &mut State, (tab, overlay): (Tab, Overlay), width: u16, height: u16) {
    (state.tab, state.overlay) = (tab, overlay);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(state, PLAIN, &mut buffer, area);
}

#[test]
fn no_size_below_a_terminals_usual_one_breaks_any_tab_or_overlay() {
    let mut state = state(&[RICH]);
    for screen in screens() {
        for (width, height) in (0..=40).flat_map(|width| (0..=26).map(move |h| (width, h))) {
            draw_at(&mut state, screen, width, height);
        }
    }
}

#[test]
fn no_size_breaks_the_screen_whatever_there_is_to_show() {
    let mut states =
        [state(&[RICH]), state(&[RICH, &[], RICH]), state(&[&[Fixture::Bare]]), state(&[&[]])];
    // Each size with some of the screens, each screen with many of the sizes.
    let screens = screens();
    let mut turn = 0;
    for (width, height) in (1..=130).flat_map(|width| (1..=45).map(move |h| (width, h))) {
        for state in &mut states {
            draw_at(state, screens[turn % screens.len()], width, height);
            turn += 1;
        }
        turn += 1;
    }
}
