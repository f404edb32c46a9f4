//! The lock table: a row for each lock and mode; for several hosts a column for
//! each host.

use super::{Cell, Column, Row, Table, Tone};
use crate::locks::Mode;
use crate::top::format;
use crate::top::rows::LockRow;
use crate::top::state::{LockKey, State};

/// A figure of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Waited,
    Rate,
    P50,
    P99,
    Max,
    Now,
    Oldest,
}

impl Metric {
    /// All of them, in the order of the columns.
    pub(crate) const ALL: [Self; 7] =
        [Self::Waited, Self::Rate, Self::P50, Self::P99, Self::Max, Self::Now, Self::Oldest];

    /// Title of the column, width, and rank.
    const fn column(self) -> (&'static str, u16, u8) {
        match self {
            Self::Waited => ("WAITED", 7, 0),
            Self::Rate => ("WAITS/S", 7, 4),
            Self::P50 => ("P50", 6, 6),
            Self::P99 => ("P99", 6, 2),
            Self::Max => ("MAX", 6, 5),
            Self::Now => ("NOW", 4, 1),
            Self::Oldest => ("OLDEST", 6, 3),
        }
    }

    /// Title of the column.
    pub(crate) const fn title(self) -> &'static str {
        self.column().0
    }

    /// The one after this, round and round.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    fn cell(self, row: &LockRow, seconds: f64) -> Cell {
        let time =
            |ns: u64| Cell::number(ns as f64, format::duration(ns)).tone(Tone::of_wait_ns(ns));
        match self {
            Self::Waited => {
                let waited = row.waits.sum_ns as f64 / 1e9 / seconds;
                // One task that always waits, or ten.
                Cell::number(waited, format::percent(waited)).tone(Tone::of(waited, 1.0, 10.0))
            }
            Self::Rate => {
                let rate = row.waits.count as f64 / seconds;
                Cell::number(rate, format::rate(rate))
            }
            Self::P50 => time(row.waits.p50_ns),
            Self::P99 => time(row.waits.p99_ns),
            Self::Max => time(row.waits.max_ns),
            Self::Now => Cell::number(row.waiters as f64, format::count(row.waiters)),
            Self::Oldest => time(row.oldest_ns),
        }
    }
}

/// As a column of a few letters.
const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Optimistic => "optim",
        other => other.as_str(),
    }
}

pub(super) fn table(state: &State) -> Table {
    if state.hosts.len() == 1 { of_one(state) } else { of_several(state) }
}

fn names() -> Vec<Column> {
    vec![Column::left("LOCK", 14, 10, 0), Column::left("MODE", 5, 0, 2)]
}

fn row(index: usize, key: &LockKey, figures: impl IntoIterator<Item = Cell>) -> Row {
    let (lock, mode) = key;
    let mut cells = vec![Cell::text(lock).tone(Tone::Accent), Cell::text(mode_name(*mode))];
    cells.extend(figures);
    Row { id: format!("{lock}\n{mode}"), index, cells }
}

fn of_one(state: &State) -> Table {
    let mut columns = names();
    columns.extend(Metric::ALL.map(|metric| {
        let (title, width, rank) = metric.column();
        Column::right(title, width, rank)
    }));
    columns.push(Column::left("HISTORY", 8, 60, 7));
    let host = state.current();
    let Some(window) = state.shown() else { return no_locks(columns) };
    let seconds = window.seconds();
    let rows = window.locks.iter().enumerate().map(|(index, (key, lock))| {
        let quiet = lock.waits.count == 0 && lock.waiters == 0;
        let figures = Metric::ALL.map(|metric| metric.cell(lock, seconds));
        let mut row = row(index, key, figures);
        row.cells.push(Cell::spark(host.history.of(key)));
        if quiet {
            row.cells[0].tone = Tone::Dim;
            row.cells[1].tone = Tone::Dim;
        }
        row
    });
    Table { rows: rows.collect(), sort: Some((2, true)), ..no_locks(columns) }
}

fn of_several(state: &State) -> Table {
    let metric = state.metric;
    let mut columns = names();
    // Of the worst host: what the rows are sorted by.
    columns.push(Column::right(metric.title(), 7, 0));
    for (number, host) in state.hosts.iter().enumerate() {
        let mark = if number == state.host { "*" } else { "" };
        let title = format!("{mark}{}", host.name());
        let rank = u8::try_from(number).unwrap_or(u8::MAX).saturating_add(3);
        // The one that the other tabs are about stays longest.
        let rank = if number == state.host { 1 } else { rank };
        columns.push(Column { grow: 16, ..Column::right(&title, 9, rank) });
    }
    let hosts: Vec<_> = state
        .hosts
        .iter()
        .map(|host| host.shown(state.showing).map(|window| (&window.locks, window.seconds())))
        .collect();
    let mut keys: Vec<&LockKey> =
        hosts.iter().flatten().flat_map(|(rows, _)| rows.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let rows = keys.iter().enumerate().map(|(index, key)| {
        let cells: Vec<Cell> = hosts
            .iter()
            .map(|host| match host {
                Some((rows, seconds)) => match rows.get(key) {
                    Some(row) => metric.cell(row, *seconds),
                    None => Cell::number(-1.0, "not seen".to_owned()).tone(Tone::Dim),
                },
                None => Cell::number(-1.0, "no data".to_owned()).tone(Tone::Dim),
            })
            .collect();
        let worst = cells.iter().max_by(|a, b| a.compare(b)).cloned();
        let mut row = row(index, key, worst.into_iter().chain(cells));
        if row.cells[2].tone == Tone::Dim {
            row.cells[0].tone = Tone::Dim;
            row.cells[1].tone = Tone::Dim;
        }
        row
    });
    Table { rows: rows.collect(), sort: Some((2, true)), ..no_locks(columns) }
}

fn no_locks(columns: Vec<Column>) -> Table {
    let empty = "No lock is watched there; the Hooks tab and `lockprof doctor` say why.".to_owned();
    Table { columns, rows: vec![], sort: None, empty, hidden: 0 }
}
