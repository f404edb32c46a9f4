//! Mount system calls and reads of mount tables, and how much of their time is waiting for locks.

use super::{Cell, Column, Row, Table, Tone};
use crate::top::format;
use crate::top::window::Window;

/// A row for each call, all nodes together.
pub(super) fn table(window: &Window) -> Table {
    let seconds = window.seconds();
    let rows = window.calls.iter().enumerate().map(|(index, (name, call))| {
        let total = call.calls.sum_ns;
        let waited = call.waited_total_ns();
        // Waits of calls that have not returned are booked, their calls are not.
        let share = if total == 0 { 0.0 } else { (waited as f64 / total as f64).min(1.0) };
        let most = call.waited_ns.first();
        let (p50, p99) = (call.calls.p50_ns, call.calls.p99_ns);
        let time = |ns: u64| Cell::number(ns as f64, format::duration(ns));
        let quantile = |ns: u64| if call.has_quantiles { time(ns) } else { Cell::text("") };
        let rate = call.calls.count as f64 / seconds;
        let in_calls = total as f64 / 1e9 / seconds;
        Row {
            id: name.clone(),
            index,
            cells: vec![
                Cell::text(name).tone(Tone::Accent),
                Cell::number(rate, format::rate(rate)),
                Cell::number(in_calls, format::percent(in_calls)),
                Cell::number(share, format::percent(share)).tone(Tone::of_share(share)),
                if total == 0 {
                    Cell::text("")
                } else {
                    Cell::bar(vec![(share, Tone::Bad), (1.0 - share, Tone::Dim)])
                },
                Cell::text(most.map(|(lock, _)| lock.clone()).unwrap_or_default()),
                quantile(p50),
                quantile(p99).tone(Tone::of_wait_ns(p99)),
                time(call.calls.max_ns),
                Cell::number(call.errors as f64, format::count(call.errors)).tone(Tone::of(
                    call.errors as f64,
                    1.0,
                    f64::INFINITY,
                )),
            ],
        }
    });
    let hooked = window
        .window
        .hooks
        .iter()
        .any(|hook| hook.hook.starts_with("sys_") && hook.backend != "none");
    let empty = if hooked {
        "No mount call returned in this window."
    } else {
        "Mount calls are not measured there: no hook of theirs is attached (the Hooks tab lists \
         them, `lockprof doctor` says why)."
    };
    Table {
        columns: vec![
            Column::left("CALL", 13, 6, 0),
            Column::right("CALLS/S", 7, 3),
            Column::right("INSIDE", 7, 1),
            Column::right("LOCKS", 5, 0),
            Column::left("LOCKS / REST", 12, 30, 4),
            Column::left("MOSTLY", 13, 8, 2),
            Column::right("P50", 6, 7),
            Column::right("P99", 6, 5),
            Column::right("MAX", 6, 8),
            Column::right("ERR", 4, 6),
        ],
        rows: rows.collect(),
        sort: Some((2, true)),
        empty: empty.to_owned(),
        hidden: 0,
    }
}
