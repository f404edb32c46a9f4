//! What the tabs list, as tables free of any terminal: columns, cells, sorting,
//! filtering. Keys move over them and the view draws them.

mod calls;
mod findings;
mod hooks;
mod locks;
mod mounts;
mod parties;
mod samples;
mod slow;

use std::cmp::Ordering;

pub(crate) use self::locks::Metric;
pub(crate) use self::parties::{Share, blocked_by, name_and_place, place, waited_by};
pub(crate) use self::samples::{parts, place_name, place_tone};
pub(crate) use self::slow::clock;
use super::state::{State, Tab};

/// How much a figure matters. The view decides what that looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tone {
    /// Nothing to see.
    Dim,
    /// As it is.
    #[default]
    Plain,
    /// A name to look for.
    Accent,
    /// Well.
    Good,
    /// Worth a look.
    Warn,
    /// What the incident is about.
    Bad,
}

impl Tone {
    /// By size: dim when nothing, and from each threshold on worse.
    pub(crate) fn of(value: f64, warn: f64, bad: f64) -> Self {
        if value >= bad {
            Self::Bad
        } else if value >= warn {
            Self::Warn
        } else if value > 0.0 {
            Self::Plain
        } else {
            Self::Dim
        }
    }

    /// Of a single wait: from 10 ms on it shows in request latencies, from 100 ms
    /// on health checks and sessions stall.
    pub(crate) fn of_wait_ns(ns: u64) -> Self {
        Self::of(ns as f64, 1e7, 1e8)
    }

    /// Of a share.
    pub(crate) fn of_share(share: f64) -> Self {
        Self::of(share, 0.25, 0.5)
    }
}

/// What a cell shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// Text.
    Text(String),
    /// Values over time, the latest last.
    Spark(Vec<f64>),
    /// Parts of a whole of 1.
    Bar(Vec<(f64, Tone)>),
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// What it shows.
    pub(crate) content: Content,
    /// What it sorts by; text sorts as text.
    value: Option<f64>,
    /// How much it matters.
    pub(crate) tone: Tone,
}

impl Cell {
    /// A name.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { content: Content::Text(text.into()), value: None, tone: Tone::Plain }
    }

    /// A figure.
    pub(crate) fn number(value: f64, text: String) -> Self {
        let tone = if value == 0.0 { Tone::Dim } else { Tone::Plain };
        Self { content: Content::Text(text), value: Some(value), tone }
    }

    /// Values over time; sorts by the last.
    pub(crate) fn spark(values: Vec<f64>) -> Self {
        let value = values.last().copied();
        Self { value, content: Content::Spark(values), tone: Tone::Accent }
    }

    /// Parts of a whole; sorts by the first.
    pub(crate) fn bar(parts: Vec<(f64, Tone)>) -> Self {
        let value = parts.first().map(|(share, _)| *share);
        Self { value, content: Content::Bar(parts), tone: Tone::Plain }
    }

    /// With another tone.
    #[must_use]
    pub(crate) const fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    fn as_text(&self) -> &str {
        if let Content::Text(text) = &self.content { text } else { "" }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.value, other.value) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => a.is_some().cmp(&b.is_some()).then_with(|| {
                // Reversed, so that the first click on a column of names gives
                // A to Z, as it gives the largest figures first.
                other.as_text().cmp(self.as_text())
            }),
        }
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its title.
    pub(crate) title: String,
    /// Terminal columns that it needs.
    pub(crate) width: u16,
    /// Further terminal columns that it can use.
    pub(crate) grow: u16,
    /// Whether it is set flush right.
    pub(crate) right: bool,
    /// Where there is no room the columns with the highest rank go first.
    pub(crate) rank: u8,
}

impl Column {
    /// Of names, flush left.
    pub(crate) fn left(title: &str, width: u16, grow: u16, rank: u8) -> Self {
        Self { title: title.to_owned(), width, grow, right: false, rank }
    }

    /// Of figures, flush right.
    pub(crate) fn right(title: &str, width: u16, rank: u8) -> Self {
        Self { title: title.to_owned(), width, grow: 0, right: true, rank }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What it is recognised by in the next window.
    pub(crate) id: String,
    /// Its number in what the table was made from.
    pub(crate) index: usize,
    /// As many as there are columns.
    pub(crate) cells: Vec<Cell>,
}

/// What a tab lists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// The columns.
    pub(crate) columns: Vec<Column>,
    /// The rows, filtered and sorted.
    pub(crate) rows: Vec<Row>,
    /// The column that sorts, and whether the largest come first; `None` where
    /// the order means something by itself.
    pub(crate) sort: Option<(usize, bool)>,
    /// What to say when there are no rows.
    pub(crate) empty: String,
    /// Rows that the filter left out.
    pub(crate) hidden: usize,
}

impl Table {
    /// Number of the row with this id, or the first.
    pub(crate) fn position(&self, id: Option<&str>) -> usize {
        id.and_then(|id| self.rows.iter().position(|row| row.id == id)).unwrap_or(0)
    }
}

/// What `tab` lists.
pub(crate) fn table(state: &State, tab: Tab) -> Table {
    let mut table = match state.shown() {
        None if tab != Tab::Locks || state.hosts.len() == 1 => nothing_yet(state),
        shown => match (tab, shown) {
            (Tab::Locks, _) => locks::table(state),
            (_, None) => nothing_yet(state),
            (Tab::Waiters, Some(window)) => parties::waiters(state, &window.window),
            (Tab::Blockers, Some(window)) => parties::blockers(state, &window.window),
            (Tab::Calls, Some(window)) => calls::table(window),
            (Tab::Mounts, Some(window)) => mounts::table(window),
            (Tab::Slow, Some(window)) => slow::table(state, window),
            (Tab::Cpu, Some(window)) => samples::table(window),
            (Tab::Hooks, Some(window)) => hooks::table(window),
            (Tab::Findings, Some(window)) => findings::table(window),
        },
    };
    let all = table.rows.len();
    let needle = state.filter.to_lowercase();
    if !needle.is_empty() {
        table.rows.retain(|row| {
            row.cells.iter().any(|cell| cell.as_text().to_lowercase().contains(&needle))
        });
    }
    table.hidden = all - table.rows.len();
    if table.rows.is_empty() && table.hidden != 0 {
        table.empty = format!("No row contains \"{}\": Esc shows all again.", state.filter);
    }
    let chosen = state.list(tab).sort.filter(|(column, _)| *column < table.columns.len());
    table.sort = chosen.or(table.sort);
    if let Some((column, descending)) = table.sort {
        table.rows.sort_by(|a, b| {
            let order = a.cells[column].compare(&b.cells[column]);
            let order = if descending { order.reverse() } else { order };
            order.then_with(|| a.id.cmp(&b.id))
        });
    }
    table
}

fn nothing_yet(state: &State) -> Table {
    let host = state.current();
    let empty = match (&host.error, state.showing) {
        (Some(_), _) => "Nothing was received yet; it is tried again and again.",
        (None, super::state::Showing::Worst) => {
            "No window with waits went by yet: there is no worst moment. Esc goes back to now."
        }
        _ => "Waiting for the first figures.",
    };
    Table { columns: vec![], rows: vec![], sort: None, empty: empty.to_owned(), hidden: 0 }
}

#[cfg(test)]
mod tests;
