//! What the rules find in the window.

use super::{Cell, Column, Row, Table, Tone};
use crate::top::format;
use crate::top::window::Window;

/// A row for each finding, the weightiest first.
pub(super) fn table(window: &Window) -> Table {
    let rows = window.findings.iter().enumerate().map(|(index, finding)| Row {
        id: finding.rule.to_owned(),
        index,
        cells: vec![
            Cell::number(finding.weight, format::percent(finding.weight))
                .tone(Tone::of_share(finding.weight)),
            Cell::text(&finding.title),
            Cell::text(finding.rule).tone(Tone::Accent),
        ],
    });
    Table {
        columns: vec![
            Column::right("WEIGHT", 6, 0),
            Column::left("FINDING", 20, 200, 0),
            Column::left("RULE", 20, 10, 1),
        ],
        rows: rows.collect(),
        sort: Some((0, true)),
        empty: "No rule finds anything in this window.".to_owned(),
        hidden: 0,
    }
}
