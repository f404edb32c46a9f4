//! A table: which columns there is room for, and the rows around the chosen one.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr as _;

use super::{Theme, put};
use crate::top::tables::{Cell, Column, Content, Table, Tone};

/// Draws `table` into `area`, its title first.
pub(super) fn draw(
    table: &Table,
    chosen: Option<usize>,
    theme: Theme,
    buffer: &mut Buffer,
    area: Rect,
) {
    let mut rest = area;
    let shown = widths(&table.columns, area.width);
    if !table.columns.is_empty() {
        put(buffer, &mut rest, &title(table, &shown, theme));
    }
    if table.rows.is_empty() {
        for line in theme.wrap(&table.empty, rest.width) {
            put(buffer, &mut rest, &Line::from(line));
        }
        return;
    }
    let height = usize::from(rest.height);
    // The chosen row in the middle, unless an end is near.
    let last = table.rows.len().saturating_sub(height);
    let first = chosen.unwrap_or(0).saturating_sub(height / 2).min(last);
    for (number, row) in table.rows.iter().enumerate().skip(first).take(height) {
        let mut line = Line::default();
        for (at, (column, width)) in shown.iter().enumerate() {
            if at != 0 {
                line.push_span(" ");
            }
            let Some(cell) = row.cells.get(*column) else { continue };
            line.spans.extend(spans(cell, *width, table.columns[*column].right, theme));
        }
        if chosen == Some(number) {
            // The bar goes from edge to edge, whatever the columns take.
            let fill = usize::from(rest.width).saturating_sub(line.width());
            line.push_span(" ".repeat(fill));
            line = line.patch_style(theme.chosen());
            for span in &mut line.spans {
                span.style = span.style.patch(theme.chosen());
            }
        }
        put(buffer, &mut rest, &line);
    }
}

fn title(table: &Table, shown: &[(usize, u16)], theme: Theme) -> Line<'static> {
    let mut line = Line::default();
    for (at, (number, width)) in shown.iter().enumerate() {
        if at != 0 {
            line.push_span(" ");
        }
        let column = &table.columns[*number];
        let sorted = table.sort.filter(|(by, _)| by == number);
        let style = theme.title();
        let text = match sorted {
            Some((_, descending)) => {
                // The title is worth more than the mark.
                let room = usize::from(*width) > column.title.width();
                let mark = if room { theme.sorted(descending) } else { "" };
                let title = theme.clean(&column.title);
                let text =
                    if column.right { format!("{mark}{title}") } else { format!("{title}{mark}") };
                // Already clean; the mark may not be ASCII.
                theme.pad(&text, *width, column.right)
            }
            None => theme.pad(&column.title, *width, column.right),
        };
        let style = if sorted.is_some() {
            style.patch(theme.style(Tone::Accent)).add_modifier(Modifier::UNDERLINED)
        } else {
            style
        };
        line.push_span(Span::styled(text, style));
    }
    line
}

/// Numbers of the columns that fit into `width`, with their widths.
fn widths(columns: &[Column], width: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| -> usize {
        shown.iter().map(|at| usize::from(columns[*at].width) + 1).sum::<usize>().saturating_sub(1)
    };
    while shown.len() > 1 && needed(&shown) > usize::from(width) {
        let Some(least) = shown.iter().copied().max_by_key(|at| (columns[*at].rank, *at)) else {
            break;
        };
        shown.retain(|at| *at != least);
    }
    let mut left = width.saturating_sub(u16::try_from(needed(&shown)).unwrap_or(u16::MAX));
    let mut widths: Vec<_> = shown.iter().map(|at| (*at, columns[*at].width)).collect();
    // The growth is shared evenly, the first in line takes what is odd.
    while left > 0 {
        let growing: Vec<usize> = (0..widths.len())
            .filter(|i| {
                let (at, now) = widths[*i];
                now < columns[at].width.saturating_add(columns[at].grow)
            })
            .collect();
        if growing.is_empty() {
            break;
        }
        for i in growing {
            if left > 0 {
                widths[i].1 += 1;
                left -= 1;
            }
        }
    }
    widths
}

fn spans(cell: &Cell, width: u16, right: bool, theme: Theme) -> Vec<Span<'static>> {
    match &cell.content {
        Content::Text(text) => {
            vec![Span::styled(theme.pad(text, width, right), theme.style(cell.tone))]
        }
        Content::Spark(values) => {
            vec![Span::styled(spark(values, width, theme), theme.style(cell.tone))]
        }
        Content::Bar(parts) => bar(parts, width, theme),
    }
}

/// The latest values flush right, each as high as it is beside the highest.
pub(super) fn spark(values: &[f64], width: u16, theme: Theme) -> String {
    let width = usize::from(width);
    let values = &values[values.len().saturating_sub(width)..];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let levels = theme.levels();
    let mut text = " ".repeat(width - values.len());
    for value in values {
        let level = (1..levels.len() - 1)
            .rev()
            .find(|level| *value > highest * (*level as f64) / (levels.len() - 1) as f64);
        // Nothing is nothing; anything else is seen.
        let level = if *value <= 0.0 { 0 } else { level.map_or(1, |level| level + 1) };
        text.push_str(levels[level]);
    }
    text
}

/// Parts of a whole, side by side.
pub(super) fn bar(parts: &[(f64, Tone)], width: u16, theme: Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    let (mut before, mut drawn) = (0.0, 0);
    for (share, tone) in parts {
        before += share.clamp(0.0, 1.0);
        let end = (0..=width)
            .take_while(|at| f64::from(*at) <= before * f64::from(width) + 0.5)
            .last()
            .unwrap_or(0)
            .max(drawn);
        let text = theme.bar(*tone).repeat(usize::from(end - drawn));
        spans.push(Span::styled(text, theme.style(*tone)));
        drawn = end;
    }
    spans.push(Span::raw(" ".repeat(usize::from(width - drawn))));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEME: Theme = Theme { colour: false, ascii: true };

    #[test]
    fn columns_of_the_highest_rank_go_first_and_names_grow() {
        let columns =
            [Column::left("A", 4, 3, 0), Column::right("B", 4, 2), Column::right("C", 4, 1)];
        assert_eq!(widths(&columns, 20), [(0, 7), (1, 4), (2, 4)]);
        assert_eq!(widths(&columns, 14), [(0, 4), (1, 4), (2, 4)]);
        assert_eq!(widths(&columns, 13), [(0, 7), (2, 4)]);
        assert_eq!(widths(&columns, 5), [(0, 5)]);
        assert_eq!(widths(&columns, 0), [(0, 4)]);
        assert_eq!(widths(&[], 5), []);
    }

    #[test]
    fn a_spark_shows_the_latest_and_the_slightest() {
        assert_eq!(spark(&[9.0, 0.0, 0.001, 4.0, 8.0], 4, THEME), " .=@");
        assert_eq!(spark(&[1.0], 3, THEME), "  @");
        assert_eq!(spark(&[], 2, THEME), "  ");
    }

    #[test]
    fn a_bar_is_as_long_as_its_whole() {
        let text = |parts: &[(f64, Tone)], width| -> String {
            bar(parts, width, THEME).iter().map(|span| span.content.as_ref()).collect()
        };
        assert_eq!(text(&[(0.25, Tone::Bad), (0.75, Tone::Dim)], 8), "##......");
        assert_eq!(text(&[(0.9, Tone::Bad), (0.9, Tone::Dim)], 4), "####");
        assert_eq!(text(&[(f64::NAN, Tone::Bad)], 2), "  ");
        assert_eq!(text(&[], 0), "");
    }
}
