//! Where CPUs spend the kernel's time, by sampling.

use std::collections::BTreeMap;

use super::{Cell, Column, Row, Table, Tone};
use crate::snapshot::{Place, Samples};
use crate::top::format;
use crate::top::window::Window;

/// What a place is called on the screen.
pub(crate) const fn place_name(place: Place) -> &'static str {
    match place {
        Place::MountSeqcount => "mount seqcount",
        Place::LockSlowPath => "lock slow paths",
        Place::Elsewhere => "elsewhere",
    }
}

/// The tone of a place in bars.
pub(crate) const fn place_tone(place: Place) -> Tone {
    match place {
        Place::MountSeqcount => Tone::Bad,
        Place::LockSlowPath => Tone::Warn,
        Place::Elsewhere => Tone::Dim,
    }
}

/// Shares of the places on all nodes together; `None` without samples.
pub(crate) fn parts(samples: &Samples) -> Option<[(Place, f64); 3]> {
    samples.share(Place::Elsewhere)?;
    Some(Place::ALL.map(|place| (place, samples.share(place).unwrap_or(0.0))))
}

/// A row for each node.
pub(super) fn table(window: &Window) -> Table {
    let samples = window.window.samples.as_ref();
    let mut nodes: BTreeMap<u32, Samples> = BTreeMap::new();
    for row in samples.map(|samples| samples.counts.as_slice()).unwrap_or_default() {
        nodes.entry(row.numa_node).or_default().counts.push(row.clone());
    }
    let rows = nodes.iter().enumerate().map(|(index, (node, of_node))| {
        let count: u64 = of_node.counts.iter().map(|row| row.count).sum();
        let shares = parts(of_node);
        let share = |at: usize| match shares {
            Some(shares) => {
                let (place, share) = shares[at];
                let tone = match place {
                    Place::Elsewhere => Tone::Plain,
                    _ => Tone::of_share(share),
                };
                Cell::number(share, format::percent(share)).tone(tone)
            }
            None => Cell::text(""),
        };
        let bar = shares.map(|shares| shares.map(|(place, share)| (share, place_tone(place))));
        Row {
            id: node.to_string(),
            index,
            cells: vec![
                Cell::number((*node).into(), format!("node {node}")).tone(Tone::Accent),
                share(0),
                share(1),
                share(2),
                Cell::bar(bar.map(Vec::from).unwrap_or_default()),
                Cell::number(count as f64, format::count(count)),
            ],
        }
    });
    let empty = if samples.is_none() {
        "CPUs are not sampled there: it is switched off, or the kernel refuses perf_event \
         (`lockprof doctor` says why)."
    } else {
        "No CPU was in the kernel when it was sampled."
    };
    Table {
        columns: vec![
            Column::left("NODE", 8, 0, 0),
            Column::right("SEQCOUNT", 8, 0),
            Column::right("SLOW PATHS", 10, 2),
            Column::right("ELSEWHERE", 9, 4),
            Column::left("SHARES", 12, 60, 3),
            Column::right("SAMPLES", 7, 5),
        ],
        rows: rows.collect(),
        sort: Some((0, false)),
        empty: empty.to_owned(),
        hidden: 0,
    }
}
