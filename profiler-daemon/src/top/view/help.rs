//! The help: made from the table of keys, and what the columns mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Theme, put};
use crate::top::keys::BINDINGS;
use crate::top::state::State;
use crate::top::tables::Tone;

const COLUMNS: &[(&str, &str)] = &[
    ("WAITED", "time waited per time passed: 312% is 3.12 tasks waiting on average"),
    ("WAITS/S", "waits that ended, per second"),
    ("P50 P99 MAX", "of the waits that ended in the window"),
    ("NOW OLDEST", "tasks that wait for the lock now, in any mode, and the longest of these waits"),
    ("HISTORY", "WAITED of the last windows, each lock on its own scale"),
    ("optim", "writers that spun for a lock whose owner was running"),
    ("a reader", "blocker: the lock names one of its readers, it may be another by now"),
    ("inferred", "blocker: a spinlock names nobody; this one had it last"),
    ("INSIDE", "time inside the call per time passed"),
    ("LOCKS", "part of that time that is waiting for watched locks"),
    ("SEQCOUNT", "kernel samples in functions that walk the mount hash or retry it"),
];

/// Lines of the help.
fn lines(state: &State, theme: Theme, width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(Span::styled("KEYS", theme.title()))];
    let say = |name: &str, name_width: u16, text: &str, lines: &mut Vec<Line<'static>>| {
        let wrapped = theme.wrap(text, width.saturating_sub(name_width + 1));
        for (at, line) in wrapped.into_iter().enumerate() {
            let name = theme.pad(if at == 0 { name } else { "" }, name_width, false);
            lines.push(Line::from(vec![
                Span::styled(name, theme.style(Tone::Accent)),
                Span::raw(" "),
                Span::raw(line),
            ]));
        }
    };
    let several = state.hosts.len() > 1;
    for binding in BINDINGS.iter().filter(|binding| several || !binding.several_hosts) {
        say(binding.shown, 6, binding.help, &mut lines);
    }
    lines.push(Line::default());
    lines.push(Line::from(Span::styled("COLUMNS", theme.title())));
    for (name, text) in COLUMNS {
        say(name, 11, text, &mut lines);
    }
    lines
}

/// Number of lines that scrolling can skip.
pub(in crate::top) fn last_scroll(state: &State, theme: Theme, area: Rect) -> u16 {
    let all = lines(state, theme, area.width);
    u16::try_from(all.len()).unwrap_or(u16::MAX).saturating_sub(area.height.saturating_sub(1))
}

/// Draws it over `area`, from line `scroll` on.
pub(super) fn draw(state: &State, theme: Theme, buffer: &mut Buffer, area: Rect, scroll: u16) {
    for position in area.positions() {
        buffer[position].reset();
    }
    let mut rest = area;
    let all = lines(state, theme, area.width);
    let scroll = scroll.min(last_scroll(state, theme, area));
    let room = usize::from(area.height.saturating_sub(1));
    for line in all.iter().skip(usize::from(scroll)).take(room) {
        put(buffer, &mut rest, line);
    }
    let text = theme.fit("Up and Down scroll, Esc or ? closes", area.width);
    let mut last = Rect { y: area.bottom().saturating_sub(1), height: area.height.min(1), ..area };
    put(buffer, &mut last, &Line::from(Span::styled(text, theme.style(Tone::Dim))));
}
