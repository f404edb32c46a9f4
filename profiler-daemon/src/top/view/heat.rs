//! Waits of one lock by NUMA node and duration.

use std::collections::BTreeMap;

use ratatui::text::{Line, Span};

use super::Theme;
use crate::snapshot::{Histogram, Snapshot};
use crate::top::format;
use crate::top::state::LockKey;
use crate::top::tables::Tone;

/// The columns are powers of two: from below 256 ns to beyond 34 s.
const FIRST: u32 = 8;
const LAST: u32 = 35;
const COLUMNS: usize = (LAST - FIRST + 1) as usize;

/// Marks of the axis: the power of two that the column begins at.
const MARKS: [(u32, &str); 6] =
    [(10, "1us"), (15, "32us"), (20, "1ms"), (25, "32ms"), (30, "1s"), (35, "34s")];

const LABEL: u16 = 9;

/// Counts by column.
fn columns(buckets: &Histogram) -> [u64; COLUMNS] {
    let mut counts = [0; COLUMNS];
    let mut below = 0;
    for (at, count) in counts.iter_mut().enumerate() {
        let end = FIRST + 1 + u32::try_from(at).unwrap_or(0);
        let up_to = if end > LAST { buckets.total() } else { buckets.count_up_to_ns(1 << end) };
        *count = up_to - below;
        below = up_to;
    }
    counts
}

/// The axis and a line for each node, at most `height` lines.
pub(super) fn lines(
    window: &Snapshot,
    key: &LockKey,
    theme: Theme,
    width: u16,
    height: u16,
) -> Vec<Line<'static>> {
    let (lock, mode) = key;
    let mut nodes: BTreeMap<u32, Histogram> = BTreeMap::new();
    for row in window.locks.iter().filter(|row| row.lock == *lock && row.mode == *mode) {
        nodes.entry(row.numa_node).or_default().add(&row.waits.buckets);
    }
    let wide = usize::from(width) >= usize::from(LABEL) + 2 * COLUMNS + 7;
    let cell = if wide { 2 } else { 1 };
    let counts: Vec<_> = nodes.iter().map(|(node, buckets)| (node, columns(buckets))).collect();
    let most = counts.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(0);
    if most == 0 || height < 2 {
        return Vec::new();
    }
    let mut axis = format!("{:<width$}", "by node", width = usize::from(LABEL));
    for (power, mark) in MARKS {
        let at = usize::from(LABEL) + (power - FIRST) as usize * cell;
        if at >= axis.len() && at + mark.len() <= usize::from(width) {
            axis += &" ".repeat(at - axis.len());
            axis += mark;
        }
    }
    let mut lines = vec![Line::from(Span::styled(axis, theme.style(Tone::Dim)))];
    let room = usize::from(height) - 1;
    // The nodes with the most waits, if not all fit.
    let mut ranked: Vec<_> =
        counts.iter().map(|(node, counts)| (counts.iter().sum::<u64>(), **node)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    let kept: Vec<u32> = ranked.iter().take(room).map(|(_, node)| *node).collect();
    for (node, counts) in counts.iter().filter(|(node, _)| kept.contains(node)) {
        let mut line =
            Line::from(format!("{:<w$}", format!("node {node}"), w = usize::from(LABEL)));
        for count in counts {
            let level = level(*count, most);
            line.push_span(Span::styled(theme.shades()[level].repeat(cell), theme.heat(level)));
        }
        line.push_span(format!(" {}", format::count(counts.iter().sum())));
        lines.push(line);
    }
    let hidden = nodes.len().saturating_sub(kept.len());
    if hidden > 0 {
        lines[0].push_span(Span::styled(format!("  +{hidden} nodes"), theme.style(Tone::Warn)));
    }
    lines
}

/// 0 for nothing, else 1 to 4: by order of magnitude, as the slowest waits are
/// the rarest.
fn level(count: u64, most: u64) -> usize {
    if count == 0 {
        return 0;
    }
    let share = (count as f64).ln_1p() / (most as f64).ln_1p();
    [0.4, 0.65, 0.85].into_iter().take_while(|step| share > *step).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_in_the_column_of_its_power_of_two() {
        let waits = [0, 1, 256, 257, 1024, 1025, 1 << 34, (1 << 34) + 1, u64::MAX];
        let counts = columns(&Histogram::from_values_ns(waits));
        assert_eq!(counts.iter().sum::<u64>(), waits.len() as u64);
        assert_eq!(counts[0], 4, "up to 512 ns");
        assert_eq!((counts[1], counts[2]), (1, 1), "1024 ns is the last of its column");
        assert_eq!(counts[COLUMNS - 3..], [1, 1, 1]);
    }

    #[test]
    fn one_wait_among_many_is_seen() {
        assert_eq!([level(0, 9), level(1, 1_000_000), level(1_000_000, 1_000_000)], [0, 1, 4]);
        assert_eq!(level(1, 1), 4);
    }
}
