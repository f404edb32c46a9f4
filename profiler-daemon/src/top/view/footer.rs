//! The last line: keys, or the filter that is being written.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Theme, put};
use crate::top::keys::BINDINGS;
use crate::top::state::{Overlay, State};
use crate::top::tables::Tone;

/// Draws it into `area`.
pub(super) fn draw(state: &State, theme: Theme, buffer: &mut Buffer, mut area: Rect) {
    let width = area.width;
    let line = if state.overlay == Overlay::Filter {
        let text = theme.fit(
            &format!("show rows with: {}_   (Enter keeps it, Esc drops it)", state.filter),
            width,
        );
        Line::from(Span::styled(text, theme.style(Tone::Accent)))
    } else {
        keys(state, theme, width)
    };
    put(buffer, &mut area, &line);
}

/// As many keys as fit, after what limits the rows on the screen.
fn keys(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let mut line = Line::default();
    let limits = [
        (!state.filter.is_empty()).then(|| format!("rows with \"{}\"", state.filter)),
        state.scope.as_ref().map(|lock| format!("of {lock} alone")),
    ];
    for limit in limits.into_iter().flatten() {
        let text = theme.fit(&limit, width / 2);
        line.push_span(Span::styled(text, theme.style(Tone::Warn)));
        line.push_span("  ");
    }
    let several = state.hosts.len() > 1;
    for binding in BINDINGS {
        if binding.footer.is_empty() || (binding.several_hosts && !several) {
            continue;
        }
        let needed = binding.shown.len() + 1 + binding.footer.len();
        if line.width() + needed > usize::from(width) {
            break;
        }
        line.push_span(Span::styled(binding.shown, theme.title()));
        line.push_span(Span::styled(format!(" {}  ", binding.footer), theme.style(Tone::Dim)));
    }
    line
}
