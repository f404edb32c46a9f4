//! A table of charges: count, total, share, mean and maximum by some key.

use std::fmt::Write as _;

use textwrap::core::display_width;

use crate::findings::text::{count, duration, percent};
use crate::snapshot::Charge;

/// Rows that are shown; what follows them is added up in one line.
pub(super) const ROWS: usize = 20;

/// Columns that a key may take; what is longer pushes its line to the right.
const WIDEST_KEY: usize = 24;

/// One row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// One cell for each heading.
    pub(super) keys: Vec<String>,
    /// What is charged to it.
    pub(super) charge: Charge,
    /// What stands at the end of the line; may be empty.
    pub(super) note: String,
    /// What stands below it, wrapped; may be empty.
    pub(super) below: String,
}

/// A table.
#[derive(Debug)]
pub(super) struct Breakdown {
    headings: &'static [&'static str],
    note_heading: &'static str,
    /// Longest total first.
    rows: Vec<Row>,
}

impl Breakdown {
    /// Of `rows`, those that nothing is charged to left out.
    pub(super) fn new(
        headings: &'static [&'static str],
        note_heading: &'static str,
        rows: impl IntoIterator<Item = Row>,
    ) -> Self {
        let mut rows: Vec<_> = rows.into_iter().filter(|row| row.charge.count != 0).collect();
        rows.sort_by(|a, b| {
            b.charge.sum_ns.cmp(&a.charge.sum_ns).then_with(|| a.keys.cmp(&b.keys))
        });
        Self { headings, note_heading, rows }
    }

    /// All rows together.
    pub(super) fn total(&self) -> Charge {
        sum(&self.rows)
    }

    /// The rows that are shown, and those that are only counted.
    pub(super) fn cut(&self) -> (&[Row], &[Row]) {
        self.rows.split_at(self.rows.len().min(ROWS))
    }

    /// Heading, rows, what was left out, and the total.
    pub(super) fn write(&self, out: &mut String, width: usize) {
        let (shown, left_out) = self.cut();
        let total = self.total();
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = shown.iter().map(|row| display_width(&row.keys[column]));
                let widest = cells.max().unwrap_or(0).min(WIDEST_KEY);
                widest.max(self.headings[column].len())
            })
            .collect();
        let headings = self.headings.iter().map(|heading| (*heading).to_owned());
        let mut heading = keys(headings, &widths);
        let _ = write!(
            heading,
            " {:>10} {:>10} {:>6} {:>10} {:>10}  {}",
            "COUNT", "TOTAL", "SHARE", "MEAN", "MAX", self.note_heading
        );
        let _ = writeln!(out, "\n{}", heading.trim_end());
        for row in shown {
            let mut line = keys(row.keys.iter().cloned(), &widths);
            let _ = write!(line, " {}  {}", figures(row.charge, total), row.note);
            let _ = writeln!(out, "{}", line.trim_end());
            if !row.below.is_empty() {
                let indented = textwrap::Options::new(width)
                    .initial_indent("    ")
                    .subsequent_indent("    ")
                    .break_words(false);
                let _ = writeln!(out, "{}", textwrap::fill(&row.below, indented));
            }
        }
        let all: usize = widths.iter().sum::<usize>() + widths.len().saturating_sub(1);
        if !left_out.is_empty() {
            let rows = u64::try_from(left_out.len()).unwrap_or(u64::MAX);
            let what = format!("and {} more", count(rows, "row"));
            let _ = writeln!(out, "{what:<all$} {}", figures(sum(left_out), total));
        }
        let _ = writeln!(out, "{:<all$} {}", "total", figures(total, total));
    }
}

fn sum(rows: &[Row]) -> Charge {
    let mut total = Charge::default();
    rows.iter().for_each(|row| total.add(row.charge));
    total
}

/// Cells side by side, as wide as terminals show them.
fn keys(cells: impl Iterator<Item = String>, widths: &[usize]) -> String {
    let padded = cells.zip(widths).map(|(cell, width)| {
        let missing = width.saturating_sub(display_width(&cell));
        cell + &" ".repeat(missing)
    });
    padded.collect::<Vec<_>>().join(" ")
}

fn figures(charge: Charge, total: Charge) -> String {
    let mean = charge.sum_ns.checked_div(charge.count).unwrap_or(0);
    format!(
        "{:>10} {:>10} {:>6} {:>10} {:>10}",
        charge.count,
        duration(charge.sum_ns),
        percent(charge.sum_ns, total.sum_ns),
        duration(mean),
        duration(charge.max_ns)
    )
}
