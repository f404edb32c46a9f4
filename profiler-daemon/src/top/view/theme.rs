//! Colours and glyphs: of a terminal that has them, and of one that has not.

use ratatui::style::{Color, Modifier, Style};

use crate::top::tables::Tone;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours; without, importance shows as bold and dim.
    pub colour: bool,
    /// Nothing but ASCII.
    pub ascii: bool,
}

impl Theme {
    /// The style of a tone. The sixteen colours of the terminal alone: these
    /// follow its own scheme, and every terminal has them.
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        let (colour, style) = match tone {
            Tone::Dim => return style.add_modifier(Modifier::DIM),
            Tone::Plain => return style,
            Tone::Accent => (Color::Cyan, style),
            Tone::Good => (Color::Green, style),
            Tone::Warn => (Color::Yellow, style),
            Tone::Bad => (Color::Red, style.add_modifier(Modifier::BOLD)),
        };
        if self.colour { style.fg(colour) } else { style }
    }

    /// Of titles.
    pub(super) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of what is chosen.
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of a cell of the heat map, `level` of [`Theme::shades`].
    pub(super) fn heat(self, level: usize) -> Style {
        let colours = [Color::Reset, Color::Blue, Color::Cyan, Color::Yellow, Color::Red];
        match colours.get(level) {
            Some(colour) if self.colour => Style::new().fg(*colour),
            _ => Style::new(),
        }
    }

    /// From nothing to most, for the heat map.
    pub(super) const fn shades(self) -> [&'static str; 5] {
        if self.ascii { [".", ":", "=", "#", "@"] } else { ["·", "░", "▒", "▓", "█"] }
    }

    /// From nothing to most, for sparklines.
    pub(super) const fn levels(self) -> [&'static str; 9] {
        if self.ascii {
            [" ", ".", ":", "-", "=", "+", "*", "#", "@"]
        } else {
            [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        }
    }

    /// A part of a bar; the parts differ without colours as well.
    pub(super) const fn bar(self, tone: Tone) -> &'static str {
        match (self.ascii, tone) {
            (true, Tone::Bad) => "#",
            (true, Tone::Warn) => "=",
            (true, _) => ".",
            (false, Tone::Bad) => "█",
            (false, Tone::Warn) => "▓",
            (false, _) => "░",
        }
    }

    /// Where text was cut.
    pub(super) const fn ellipsis(self) -> &'static str {
        if self.ascii { "~" } else { "…" }
    }

    /// A horizontal line.
    pub(super) const fn rule(self) -> &'static str {
        if self.ascii { "-" } else { "─" }
    }

    /// Behind the title of the column that sorts.
    pub(super) const fn sorted(self, descending: bool) -> &'static str {
        match (self.ascii, descending) {
            (true, true) => "v",
            (true, false) => "^",
            (false, true) => "▼",
            (false, false) => "▲",
        }
    }
}
