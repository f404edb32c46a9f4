//! View: a [`State`] as cells of a terminal.
//!
//! Everything is drawn from memory; no size makes it fail.

mod detail;
mod footer;
mod header;
mod heat;
mod help;
mod list;
mod overview;
mod text;
mod theme;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

pub(super) use self::help::last_scroll as last_help_scroll;
pub use self::theme::Theme;
use super::state::{Overlay, State, Tab};
use super::tables;

/// Draws a frame into `area`; the number of rows of the list that are visible,
/// which is how far a page goes.
pub(super) fn draw(state: &State, theme: Theme, buffer: &mut Buffer, area: Rect) -> u16 {
    let mut rest = area.intersection(buffer.area);
    header::draw(state, theme, buffer, &mut rest);
    if area.height >= 5 {
        let bottom = cut_bottom(&mut rest, 1);
        footer::draw(state, theme, buffer, bottom);
    }
    let page = body(state, theme, buffer, rest);
    if let Overlay::Help(scroll) = state.overlay {
        help::draw(state, theme, buffer, area.intersection(buffer.area), scroll);
    }
    page
}

/// Draws a frame for paper: no tabs, no footer, nothing chosen, and as many
/// lines as it takes.
pub(super) fn print(state: &State, theme: Theme, width: u16) -> String {
    let table = tables::table(state, Tab::Locks);
    let rows = u16::try_from(table.rows.len()).unwrap_or(500).min(500);
    let area = Rect::new(0, 0, width.max(20), rows + 60);
    let mut buffer = Buffer::empty(area);
    let mut rest = area;
    header::print(state, theme, &mut buffer, &mut rest);
    rest.y += 1;
    rest.height = rest.height.saturating_sub(1);
    let list_area = cut_top(&mut rest, rows.max(1) + 1);
    list::draw(&table, None, theme, &mut buffer, list_area);
    rest.y += 1;
    rest.height = rest.height.saturating_sub(1);
    for line in overview::lines(state, theme, rest.width, rest.height.min(30)) {
        put(&mut buffer, &mut rest, &line);
    }
    for line in detail::findings(state, theme, rest.width) {
        put(&mut buffer, &mut rest, &line);
    }
    let mut text: String = (0..area.height)
        .map(|y| {
            let line: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned() + "\n"
        })
        .collect();
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The list of the tab and what there is to say about the chosen row.
fn body(state: &State, theme: Theme, buffer: &mut Buffer, area: Rect) -> u16 {
    let table = tables::table(state, state.tab);
    let chosen = table.position(state.list(state.tab).selected.as_deref());
    let width = area.width;
    // With its title; what is empty says so in a few lines.
    let all_rows = u16::try_from(table.rows.len().max(4)).unwrap_or(u16::MAX).saturating_add(1);
    let mut rest = area;
    let (list_area, details) = if state.tab == Tab::Locks {
        // What is behind the lock follows at once and takes all that is left.
        let least = if area.height < 9 { 0 } else { (area.height / 2).min(12) };
        let list_area = cut_top(&mut rest, all_rows.min(area.height - least));
        (list_area, overview::lines(state, theme, width, rest.height))
    } else {
        // At the bottom, so that it stays in place while rows come and go.
        let room = area.height.saturating_sub(all_rows.min(area.height.div_ceil(2)).max(4));
        let mut details = detail::lines(state, &table, chosen, theme, width);
        details.truncate(if room < 3 { 0 } else { usize::from(room) });
        let height = area.height - u16::try_from(details.len()).unwrap_or(0);
        (cut_top(&mut rest, height), details)
    };
    list::draw(&table, Some(chosen), theme, buffer, list_area);
    for line in &details {
        put(buffer, &mut rest, line);
    }
    list_area.height.saturating_sub(1).max(1)
}

/// Draws `line` at the top of `area` and cuts that off.
fn put(buffer: &mut Buffer, area: &mut Rect, line: &Line<'_>) {
    let row = cut_top(area, 1);
    if row.height == 1 && row.width > 0 {
        buffer.set_line(row.x, row.y, line, row.width);
    }
}

/// Takes up to `height` rows off the top of `area`.
fn cut_top(area: &mut Rect, height: u16) -> Rect {
    let height = height.min(area.height);
    let top = Rect { height, ..*area };
    area.y += height;
    area.height -= height;
    top
}

/// Takes up to `height` rows off the bottom of `area`.
fn cut_bottom(area: &mut Rect, height: u16) -> Rect {
    let height = height.min(area.height);
    area.height -= height;
    Rect { y: area.y + area.height, height, ..*area }
}

#[cfg(test)]
mod tests;
