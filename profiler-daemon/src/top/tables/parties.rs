//! Who waits, and who makes them wait.

use std::collections::HashMap;

use super::{Cell, Column, Row, Table, Tone};
use crate::snapshot::{Basis, Charge, Party, Snapshot};
use crate::top::format;
use crate::top::state::State;

/// Where a party lives: its container, else the end of its cgroup's path.
pub(crate) fn place(party: &Party) -> String {
    let Some(who) = party.who() else { return String::new() };
    if let Some(container) = who.container() {
        let id: String = container.id.as_str().chars().take(12).collect();
        return match container.manager.as_str() {
            "unknown" | "" => id,
            manager => format!("{manager}/{id}"),
        };
    }
    match &who.cgroup {
        None => String::new(),
        Some(cgroup) if cgroup.path.as_str().is_empty() => format!("gone ({})", cgroup.id),
        Some(cgroup) => {
            let path = cgroup.path.as_str().trim_end_matches('/');
            path.rsplit('/').next().filter(|end| !end.is_empty()).unwrap_or("/").to_owned()
        }
    }
}

/// Task name and [`place`].
pub(crate) fn name_and_place(party: &Party) -> String {
    format!("{} {}", party.task(), place(party)).trim_end().to_owned()
}

/// One party's part of the time waited for a lock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Share {
    /// Of all time waited for the lock, 0 to 1.
    pub(crate) share: f64,
    /// Their task name and where they live.
    pub(crate) who: String,
    /// The call that they are in, and how sure that is.
    pub(crate) how: String,
}

/// Who made others wait for `lock`, the worst first.
pub(crate) fn blocked_by(window: &Snapshot, lock: &str) -> Vec<Share> {
    let rows = window.blockers.iter().filter(|row| row.lock == lock).map(|row| {
        let call = row.call.clone().unwrap_or_default();
        let how = match row.basis {
            Basis::Owner | Basis::Unknown => call,
            // Likely, not sure.
            Basis::ReaderHint | Basis::Inferred => format!("~{call}"),
        };
        (&row.party, how, row.waits.sum_ns)
    });
    shares(rows)
}

/// Who waited for `lock`, the longest first.
pub(crate) fn waited_by(window: &Snapshot, lock: &str) -> Vec<Share> {
    let rows = window.waiters.iter().filter(|row| row.lock == lock);
    shares(rows.map(|row| (&row.party, row.call.clone().unwrap_or_default(), row.waits.sum_ns)))
}

fn shares<'a>(rows: impl Iterator<Item = (&'a Party, String, u64)>) -> Vec<Share> {
    let mut sums: HashMap<(String, String), u64> = HashMap::new();
    for (party, how, sum_ns) in rows {
        *sums.entry((name_and_place(party), how)).or_default() += sum_ns;
    }
    let all = sums.values().sum::<u64>().max(1) as f64;
    let mut shares: Vec<_> = sums
        .into_iter()
        .map(|((who, how), sum_ns)| Share { share: sum_ns as f64 / all, who, how })
        .collect();
    shares.sort_by(|a, b| {
        b.share.total_cmp(&a.share).then_with(|| (&a.who, &a.how).cmp(&(&b.who, &b.how)))
    });
    shares
}

pub(super) fn waiters(state: &State, window: &Snapshot) -> Table {
    let rows = window.waiters.iter().map(|row| Charged {
        lock: &row.lock,
        party: &row.party,
        call: row.call.as_deref().unwrap_or_default(),
        how: row.mode.map_or("", crate::locks::Mode::as_str),
        waits: row.waits,
    });
    let empty = nobody(window, window.waiters.is_empty(), "Nobody waited");
    let columns = Columns { how: Column::left("MODE", 5, 0, 6), total: 4, max: 5 };
    table(state, columns, rows, empty)
}

pub(super) fn blockers(state: &State, window: &Snapshot) -> Table {
    let rows = window.blockers.iter().map(|row| Charged {
        lock: &row.lock,
        party: &row.party,
        call: row.call.as_deref().unwrap_or_default(),
        how: match row.basis {
            Basis::Owner => "owner",
            Basis::ReaderHint => "a reader",
            Basis::Inferred => "inferred",
            Basis::Unknown => "unknown",
        },
        waits: row.waits,
    });
    let empty = nobody(window, window.blockers.is_empty(), "Nobody made others wait");
    let columns = Columns { how: Column::left("HOW", 8, 3, 4), total: 5, max: 6 };
    table(state, columns, rows, empty)
}

/// What a row of waiters and one of blockers have in common.
struct Charged<'a> {
    lock: &'a str,
    party: &'a Party,
    call: &'a str,
    /// The mode of a waiter; how a blocker was found.
    how: &'a str,
    waits: Charge,
}

/// Where the tables of waiters and of blockers differ.
struct Columns {
    how: Column,
    /// When the sum gives way on narrow terminals.
    total: u8,
    /// The same of the longest wait.
    max: u8,
}

/// A row for each of `rows` whose lock is in scope, with its place among all.
fn table<'a>(
    state: &State,
    columns: Columns,
    rows: impl Iterator<Item = Charged<'a>>,
    empty: String,
) -> Table {
    let in_scope = |lock: &str| state.scope.as_deref().is_none_or(|scope| scope == lock);
    let rows: Vec<_> = rows.enumerate().filter(|(_, row)| in_scope(row.lock)).collect();
    let all: u64 = rows.iter().map(|(_, row)| row.waits.sum_ns).sum();
    let rows = rows.into_iter().map(|(index, row)| Row {
        id: format!("{}\n{}\n{}\n{:?}", row.lock, row.how, row.call, row.party),
        index,
        cells: cells(&row, all),
    });
    Table {
        rows: rows.collect(),
        columns: vec![
            Column::right("SHARE", 6, 0),
            Column::left("TASK", 15, 1, 0),
            Column::left("CONTAINER", 12, 24, 2),
            Column::left("CALL", 14, 4, 3),
            Column::left("LOCK", 13, 8, 1),
            columns.how,
            Column::right("TOTAL", 6, columns.total),
            Column::right("MAX", 6, columns.max),
            Column::right("WAITS", 6, 7),
            Column::left("RUNTIME", 10, 5, 8),
        ],
        sort: Some((0, true)),
        empty,
        hidden: 0,
    }
}

fn cells(row: &Charged<'_>, all_ns: u64) -> Vec<Cell> {
    let (party, waits) = (row.party, row.waits);
    let share = waits.sum_ns as f64 / all_ns.max(1) as f64;
    let time = |ns: u64| Cell::number(ns as f64, format::duration(ns));
    vec![
        Cell::number(share, format::percent(share)).tone(Tone::of_share(share)),
        Cell::text(party.task()).tone(match party {
            Party::Task(_) => Tone::Accent,
            Party::Other | Party::Evicted { .. } | Party::Unknown => Tone::Dim,
        }),
        Cell::text(place(party)),
        Cell::text(row.call),
        Cell::text(row.lock),
        Cell::text(row.how),
        time(waits.sum_ns),
        time(waits.max_ns).tone(Tone::of_wait_ns(waits.max_ns)),
        Cell::number(waits.count as f64, format::count(waits.count)),
        Cell::text(party.runtime().as_str()),
    ]
}

/// Whether there is nobody, or nobody is observed.
fn nobody(window: &Snapshot, none: bool, nobody: &str) -> String {
    let waits = window.locks.iter().any(|row| row.waits.count != 0);
    if none && waits {
        "There were waits, and by whom is not observed there: lockprof is older, or the kernel \
         refuses it (`lockprof doctor` says why)."
            .to_owned()
    } else if none {
        format!("{nobody} for a watched lock in this window.")
    } else {
        format!("{nobody} for this lock in this window; `l` shows all locks.")
    }
}
