//! Who reads mount tables through `/proc`.

use super::parties::place;
use super::{Cell, Column, Row, Table, Tone};
use crate::top::format;
use crate::top::window::Window;

/// A row for each reader and file.
pub(super) fn table(window: &Window) -> Table {
    let seconds = window.seconds();
    let readers = window.window.mountinfo_readers.as_deref();
    let rows = readers.unwrap_or_default().iter().enumerate().map(|(index, row)| {
        let rate = |count: u64| {
            let rate = count as f64 / seconds;
            Cell::number(rate, format::rate(rate))
        };
        let reading = row.reads.sum_ns as f64 / 1e9 / seconds;
        let max_ns = row.reads.max_ns;
        Row {
            id: format!("{}\n{:?}", row.file, row.party),
            index,
            cells: vec![
                Cell::text(row.party.task()).tone(Tone::Accent),
                Cell::text(place(&row.party)),
                Cell::text(&row.file),
                rate(row.opens),
                rate(row.entries),
                Cell::number(reading, format::percent(reading)).tone(Tone::of_share(reading)),
                Cell::number(max_ns as f64, format::duration(max_ns))
                    .tone(Tone::of_wait_ns(max_ns)),
                rate(row.reads.count),
            ],
        }
    });
    let empty = if readers.is_none() {
        "Readers of mountinfo are not seen there: the kernel refuses hooks on show_mountinfo and \
         its like (it takes fentry or kprobes). What is still known: waiters and blockers of \
         namespace_sem whose call is mountinfo_read."
    } else {
        "Nobody read a mount table through /proc in this window."
    };
    Table {
        columns: vec![
            Column::left("READER", 15, 1, 0),
            Column::left("CONTAINER", 13, 24, 2),
            Column::left("FILE", 10, 0, 3),
            Column::right("OPENS/S", 7, 1),
            Column::right("ENTRIES/S", 9, 4),
            Column::right("TIME", 6, 0),
            Column::right("MAX", 6, 5),
            Column::right("READS/S", 7, 6),
        ],
        rows: rows.collect(),
        sort: Some((5, true)),
        empty: empty.to_owned(),
        hidden: 0,
    }
}
