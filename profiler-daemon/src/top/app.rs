//! The loop: events in, frames out.

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use rustix::process::{Signal, kill_current_process_group};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use super::acquire::{Acquisition, Command};
use super::keys::{self, Action};
use super::source::{Recorder, Source};
use super::state::{ListState, Overlay, State, Tab, Update};
use super::terminal::Screen;
use super::view::{self, Theme};
use super::{Options, TopError, priority, tables};

/// How old the figures are is shown in tenths, and looked at this often.
const TICK: Duration = Duration::from_millis(500);

/// What there is for threads to say.
pub(super) enum Event {
    /// The terminal.
    Terminal(event::Event),
    /// The terminal cannot be read any more.
    TerminalGone(std::io::Error),
    /// Source of this number.
    Source(usize, Update),
    /// The thread of this source panicked.
    Panicked(usize),
    /// A signal.
    Signal(i32),
}

/// What an event asks of the loop.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Draw,
    Quit,
    Suspend,
    Redraw,
    /// To all sources.
    Tell(Command),
}

/// Shows `sources` until the user has seen enough.
///
/// # Errors
///
/// There is no terminal, or it goes away.
pub fn run(
    sources: Vec<Box<dyn Source>>,
    recorder: Option<Recorder>,
    options: Options,
) -> Result<(), TopError> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    // Threads inherit it.
    priority::raise();
    let (send, events) = mpsc::channel();
    let (send_done, done) = mpsc::channel();
    let names: Vec<String> = sources.iter().map(|source| source.name().to_owned()).collect();
    let mut state = State::new(names, options.interval, Instant::now());
    await_signals(send.clone())?;
    let mut screen = Screen::enter()?;
    let mut commands = Vec::new();
    let mut recorder = recorder;
    for (host, source) in sources.into_iter().enumerate() {
        let (command, receive) = mpsc::channel();
        commands.push(command);
        let recorder = recorder.take();
        let (interval, events) = (options.interval, send.clone());
        let acquisition =
            Acquisition { host, source, recorder, interval, commands: receive, events };
        let send_done: Sender<()> = send_done.clone();
        spawn("read", move || {
            acquisition.run();
            // Not before the source, and with it the programs, is gone.
            drop(send_done);
        })?;
    }
    drop(send_done);
    spawn("keys", move || await_keys(&send))?;
    let ended = show(&mut state, options.theme, &mut screen, &events, &commands);
    screen.leave();
    // Lets sources detach what they attached; one that hangs must not keep the
    // user, and what it has ends with the process.
    drop(commands);
    let _ = done.recv_timeout(Duration::from_secs(1));
    ended
}

/// A thread with a stack that locked memory can afford.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(1 << 20);
    builder.spawn(run).map(drop)
}

fn await_keys(events: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event) => Event::Terminal(event),
            Err(error) => {
                let _ = events.send(Event::TerminalGone(error));
                return;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn await_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT])?;
    spawn("signals", move || {
        let mut asked_to_end = false;
        for signal in signals.forever() {
            let ends = ![SIGTSTP, SIGCONT].contains(&signal);
            if ends && asked_to_end {
                // The first was not obeyed: the terminal takes no more output.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            asked_to_end |= ends;
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })
}

/// Until an event ends it.
fn show(
    state: &mut State,
    theme: Theme,
    screen: &mut Screen,
    events: &Receiver<Event>,
    commands: &[Sender<Command>],
) -> Result<(), TopError> {
    let mut shown = (Rect::default(), 1);
    loop {
        state.now = Instant::now();
        screen.draw(|buffer, area| shown = (area, view::draw(state, theme, buffer, area)))?;
        let first = match events.recv_timeout(TICK) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        state.now = Instant::now();
        // All that came meanwhile shares one frame.
        for event in first.into_iter().chain(events.try_iter()) {
            match react(state, theme, event, shown)? {
                Reaction::Draw => {}
                Reaction::Quit => return Ok(()),
                Reaction::Redraw => screen.enter_again()?,
                Reaction::Suspend => {
                    screen.leave();
                    signal_hook::low_level::raise(signal_hook::consts::SIGSTOP)?;
                    screen.enter_again()?;
                }
                // One that ended needs no telling.
                Reaction::Tell(command) => {
                    for source in commands {
                        let _ = source.send(command);
                    }
                }
            }
        }
    }
}

fn react(
    state: &mut State,
    theme: Theme,
    event: Event,
    shown: (Rect, u16),
) -> Result<Reaction, TopError> {
    Ok(match event {
        Event::Source(host, update) => {
            state.receive(host, update);
            Reaction::Draw
        }
        Event::Terminal(event::Event::Key(key)) if key.kind != KeyEventKind::Release => {
            press(state, theme, key, shown)
        }
        Event::Terminal(_) => Reaction::Draw,
        Event::TerminalGone(error) => return Err(error.into()),
        Event::Panicked(host) => {
            let name = state.hosts.get(host).map(|host| host.name().to_owned());
            return Err(TopError::Panicked(name.unwrap_or_default()));
        }
        Event::Signal(SIGTSTP) => Reaction::Suspend,
        Event::Signal(SIGCONT) => Reaction::Redraw,
        Event::Signal(_) => Reaction::Quit,
    })
}

/// A key, with the size of the screen and of a page.
fn press(state: &mut State, theme: Theme, key: KeyEvent, shown: (Rect, u16)) -> Reaction {
    if state.overlay == Overlay::Filter && write_filter(state, key) {
        return Reaction::Draw;
    }
    let (area, page) = shown;
    let page = isize::try_from(page).unwrap_or(1);
    let Some(action) = keys::action(key) else { return Reaction::Draw };
    if let Overlay::Help(scroll) = state.overlay {
        let last = view::last_help_scroll(state, theme, area);
        let to =
            |by: i32| Overlay::Help(u16::try_from(i32::from(scroll) + by).unwrap_or(0).min(last));
        match action {
            Action::Up => state.overlay = to(-1),
            Action::Down => state.overlay = to(1),
            Action::PageUp => state.overlay = to(1 - i32::from(area.height)),
            Action::PageDown => state.overlay = to(i32::from(area.height) - 1),
            Action::First => state.overlay = Overlay::Help(0),
            Action::Last => state.overlay = Overlay::Help(last),
            Action::Help | Action::Back => state.overlay = Overlay::None,
            // Quit and what is about the terminal work everywhere.
            Action::Quit => return Reaction::Quit,
            Action::Suspend => return suspend(),
            Action::Redraw => return Reaction::Redraw,
            _ => {}
        }
        return Reaction::Draw;
    }
    match action {
        Action::Quit => return Reaction::Quit,
        Action::Suspend => return suspend(),
        Action::Redraw => return Reaction::Redraw,
        Action::ReadNow => return Reaction::Tell(Command::Now),
        Action::Shorter | Action::Longer => {
            state.step_interval(action == Action::Longer);
            return Reaction::Tell(Command::Interval(state.interval));
        }
        Action::Help => state.overlay = Overlay::Help(0),
        Action::Filter => state.overlay = Overlay::Filter,
        Action::Up => select(state, -1),
        Action::Down => select(state, 1),
        Action::PageUp => select(state, -page),
        Action::PageDown => select(state, page),
        Action::First => state.list_mut().selected = None,
        Action::Last => select(state, isize::MAX),
        Action::NextTab => state.step_tab(1),
        Action::PreviousTab => state.step_tab(-1),
        Action::Tab(number) => {
            state.tab = Tab::ALL.get(usize::from(number)).copied().unwrap_or_default();
        }
        Action::Open if state.tab == Tab::Locks => {
            state.scope = chosen_lock(state);
            state.tab = Tab::Blockers;
        }
        Action::Open => {}
        Action::Scope => {
            state.scope = if state.scope.is_some() { None } else { chosen_lock(state) };
        }
        Action::Back => state.back(),
        Action::SortRight => sort(state, 1),
        Action::SortLeft => sort(state, -1),
        Action::SortReverse => sort(state, 0),
        Action::Pause => state.toggle_pause(),
        Action::Worst => state.toggle_worst(),
        Action::Forget => state.forget(),
        Action::NextHost => state.step_host(1),
        Action::PreviousHost => state.step_host(-1),
        Action::Metric => state.metric = state.metric.next(),
    }
    Reaction::Draw
}

/// A key for the filter; whether it was one.
fn write_filter(state: &mut State, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Enter => state.overlay = Overlay::None,
        KeyCode::Backspace => drop(state.filter.pop()),
        KeyCode::Char('u') if key.modifiers == KeyModifiers::CONTROL => state.filter.clear(),
        KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
            // Longer than any name there is to find.
            if state.filter.chars().count() < 64 {
                state.filter.push(c);
            }
        }
        _ => return false,
    }
    true
}

/// The whole process group, as a terminal does: `sudo` before it stops as well.
fn suspend() -> Reaction {
    match kill_current_process_group(Signal::TSTP) {
        Ok(()) => Reaction::Draw,
        Err(_) => Reaction::Suspend,
    }
}

/// The row `by` further on.
fn select(state: &mut State, by: isize) {
    let table = tables::table(state, state.tab);
    let at = table.position(state.list(state.tab).selected.as_deref());
    let to = at.saturating_add_signed(by).min(table.rows.len().saturating_sub(1));
    state.list_mut().selected = table.rows.get(to).map(|row| row.id.clone());
}

fn chosen_lock(state: &State) -> Option<String> {
    let table = tables::table(state, Tab::Locks);
    let row = table.rows.get(table.position(state.list(Tab::Locks).selected.as_deref()))?;
    row.id.split_once('\n').map(|(lock, _)| lock.to_owned())
}

/// Sorts by the column `by` further on, or turns the order around.
fn sort(state: &mut State, by: isize) {
    let table = tables::table(state, state.tab);
    let columns = table.columns.len();
    if columns == 0 {
        return;
    }
    let sort = match table.sort {
        Some((column, descending)) if by == 0 => (column, !descending),
        Some((column, _)) => ((column + columns).saturating_add_signed(by) % columns, true),
        None => (0, true),
    };
    let list: &mut ListState = state.list_mut();
    list.sort = Some(sort);
}

#[cfg(test)]
mod tests;
