//! The most recent slow waits, of this window and before.

use super::parties::name_and_place;
use super::{Cell, Column, Row, Table, Tone};
use crate::snapshot::Party;
use crate::top::format;
use crate::top::state::State;
use crate::top::window::Window;

/// Time of the day, as UTC: `13:40:01.250`.
pub(crate) fn clock(unix_ns: u64) -> String {
    let ms = unix_ns / 1_000_000;
    let (hours, minutes) = (ms / 3_600_000 % 24, ms / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", ms / 1000 % 60, ms % 1000)
}

/// A row for each wait, newest first. They come from the totals: in a window of
/// a second one would be gone before it is read.
pub(super) fn table(state: &State, window: &Window) -> Table {
    let slow = window.totals.slow_waits.as_ref();
    let in_scope = |lock: &str| state.scope.as_deref().is_none_or(|scope| scope == lock);
    let rows = slow.map(|slow| slow.recent.as_slice()).unwrap_or_default().iter().enumerate();
    let rows = rows.filter(|(_, wait)| in_scope(&wait.lock)).map(|(index, wait)| {
        let who = |party: &Party| Cell::text(name_and_place(party));
        Row {
            id: wait.number.to_string(),
            index,
            cells: vec![
                Cell::number(wait.ended_unix_ns as f64, clock(wait.ended_unix_ns)),
                Cell::number(wait.duration_ns as f64, format::duration(wait.duration_ns))
                    .tone(Tone::of_wait_ns(wait.duration_ns)),
                Cell::text(&wait.lock).tone(Tone::Accent),
                Cell::text(wait.mode.as_str()),
                who(&wait.waiter),
                who(&wait.blocker),
                Cell::number(wait.numa_node.into(), wait.numa_node.to_string()).tone(Tone::Plain),
                Cell::number(wait.cpu.into(), wait.cpu.to_string()).tone(Tone::Plain),
            ],
        }
    });
    let empty = match slow {
        None => "Slow waits are not recorded there: lockprof is older, or the kernel refuses it \
             (`lockprof doctor` says why)."
            .to_owned(),
        Some(slow) if slow.recent.is_empty() => {
            format!("No wait took {} or longer.", format::duration(slow.threshold_ns))
        }
        Some(_) => "No recent slow wait was for this lock; `l` shows all locks.".to_owned(),
    };
    Table {
        columns: vec![
            Column::left("ENDED (UTC)", 12, 0, 2),
            Column::right("WAITED", 6, 0),
            Column::left("LOCK", 13, 8, 0),
            Column::left("MODE", 5, 0, 4),
            Column::left("WAITER", 15, 24, 1),
            Column::left("BLOCKER", 15, 24, 3),
            Column::right("NODE", 4, 5),
            Column::right("CPU", 4, 6),
        ],
        rows: rows.collect(),
        sort: Some((0, true)),
        empty,
        hidden: 0,
    }
}
