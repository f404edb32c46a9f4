//! Coverage: what was lost, which locks were found, which hooks are attached.

use super::{Cell, Column, Row, Table, Tone};
use crate::top::format;
use crate::top::window::Window;

/// What was lost comes first, then what is missing, then the rest.
pub(super) fn table(window: &Window) -> Table {
    let mut rows = Vec::new();
    let mut row = |sort: [&str; 2], cells: [Cell; 4]| {
        let index = rows.len();
        rows.push((
            sort[1] == "fine",
            Row { id: sort.join("\n") + &index.to_string(), index, cells: cells.into() },
        ));
    };
    for dropped in &window.window.dropped {
        let all = window.totals.dropped.iter().find(|all| all.reason == dropped.reason);
        let all = all.map_or(0, |all| all.count);
        let (tone, state) = match (dropped.count, all) {
            (0, 0) => (Tone::Dim, "fine"),
            (0, _) => (Tone::Warn, "lost"),
            _ => (Tone::Bad, "lost"),
        };
        let text =
            format!("{} in window, {} in all", format::count(dropped.count), format::count(all));
        row(
            [&dropped.reason, state],
            [
                Cell::text("lost"),
                Cell::text(&dropped.reason).tone(Tone::Accent),
                Cell::number(dropped.count as f64, text).tone(tone),
                Cell::text(""),
            ],
        );
    }
    for lock in &window.totals.resolved {
        let (how, tone, state) = match lock.method {
            Some(method) => (method.as_str(), Tone::Good, "fine"),
            None => ("not found", Tone::Bad, "missing"),
        };
        row(
            [&lock.lock, state],
            [
                Cell::text("lock"),
                Cell::text(&lock.lock).tone(Tone::Accent),
                Cell::text(how).tone(tone),
                Cell::text(&lock.symbol),
            ],
        );
    }
    for hook in &window.totals.hooks {
        let (tone, state) =
            if hook.backend == "none" { (Tone::Bad, "missing") } else { (Tone::Good, "fine") };
        let how = if hook.backend == "none" { "not attached" } else { &hook.backend };
        row(
            [&hook.hook, state],
            [
                Cell::text("hook"),
                Cell::text(&hook.hook).tone(Tone::Accent),
                Cell::text(how).tone(tone),
                Cell::text(""),
            ],
        );
    }
    rows.sort_by_key(|(fine, _)| *fine);
    Table {
        columns: vec![
            Column::left("WHAT", 4, 0, 0),
            Column::left("NAME", 18, 20, 0),
            Column::left("STATE", 23, 6, 0),
            Column::left("SYMBOL", 22, 14, 1),
        ],
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        sort: None,
        empty: "There are no hooks, no locks and no loss counters in this snapshot.".to_owned(),
        hidden: 0,
    }
}
