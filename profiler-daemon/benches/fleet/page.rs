//! The measured tables of `docs/fleet.md`.

use std::fmt::Write as _;
use std::sync::Arc;

use lockprof::serve::{Format, Process, render};
use lockprof::snapshot::Snapshot;

use crate::hosts::Recording;
use crate::measure::{Asked, Load};
use crate::shape::{Histograms, OF_TARGET, Shape, TERMS};

/// Containers with series of their own, in the table of what they add.
const CONTAINERS: u64 = 20;

/// The formula, and what the recordings come to by it and in fact.
pub(crate) fn series() -> String {
    let mut page = String::from(
        "### Series of a host\n\n\
         The sum over these lines; a classic histogram counts 18 times (16 buckets, `_sum`, `_count`), a native one \
         once.\n\n\
         | rows | metrics |\n| --- | --- |\n",
    );
    for term in TERMS {
        let metrics: Vec<_> = term.metrics.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {} | {} |", term.words, metrics.join(", "));
    }
    let _ = writeln!(
        page,
        "\nAs it comes out for the recorded hosts, after a storm, and when every label has every value that it can \
         have (`at most`; errors and file systems as after the storm). A Prometheus adds \
         {OF_TARGET} series for each target. Bytes are of one scrape, which is not compressed.\n\n\
         | recorded host | NUMA nodes | locks | series, classic | at most | series, native | at most | \
         text | OpenMetrics | protobuf |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for recording in Recording::all() {
        let shape = Shape::of(&recording.totals, 0);
        let most = shape.at_most();
        let [text, open, proto] = [Format::Text, Format::OpenMetrics, Format::Protobuf]
            .map(|f| kib(&recording.totals, f));
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} | {} | {text} | {open} | {proto} |",
            recording.name,
            shape.nodes,
            shape.locks,
            shape.series(Histograms::Classic),
            most.series(Histograms::Classic),
            shape.series(Histograms::Native),
            most.series(Histograms::Native),
        );
    }
    let large = Shape { nodes: 8, ..widest() }.at_most();
    let with = Shape { containers: CONTAINERS, ..large };
    let _ = writeln!(
        page,
        "\nThe number of CPUs is in none of them: a machine with 384 CPUs in 8 nodes has the series of one with 16 in \
         8. {CONTAINERS} containers (`metrics.containers`) add {}, and each more {}.",
        with.series(Histograms::Classic) - large.series(Histograms::Classic),
        2 * large.locks + 1,
    );
    page
}

/// The recorded host with the most hooks and locks.
fn widest() -> Shape {
    let shapes = Recording::all().into_iter().map(|recording| Shape::of(&recording.totals, 0));
    shapes.max_by_key(|shape| shape.series(Histograms::Classic)).expect("there are recordings")
}

fn kib(snapshot: &Snapshot, format: Format) -> String {
    let since = std::time::SystemTime::now();
    let body = render(Arc::new(snapshot.clone()), Arc::default(), since, Process::read(), format);
    format!("{} KiB", body.expect("it renders").len().div_ceil(1024))
}

/// What a run took with classic and with native histograms.
pub(crate) fn loads(classic: &Load, native: &Load) -> String {
    let mut page =
        String::from("| | classic histograms | native histograms |\n| --- | --- | --- |\n");
    let mib = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    let ms = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    let mut row = |what: &str, of: &dyn Fn(&Load) -> String| {
        let _ = writeln!(page, "| {what} | {} | {} |", of(classic), of(native));
    };
    row("targets up", &|l| l.up.to_string());
    row("series scraped", &|l| l.scraped.to_string());
    row("series scraped from a host, on average", &|l| format!("{:.0}", l.scraped / l.up));
    row("series recorded by rules", &|l| l.recorded.to_string());
    row("series in the head block", &|l| l.head_series.to_string());
    row("samples scraped in a second", &|l| format!("{:.0}", l.samples_per_second));
    row("resident memory", &|l| mib(l.resident));
    row("Go heap in use", &|l| mib(l.heap));
    row("resident memory for each series", &|l| {
        format!("{:.1} KiB", l.resident / l.head_series / 1024.0)
    });
    row("CPUs used", &|l| format!("{:.2}", l.cpus));
    row("scrape, median", &|l| ms(l.scrape[0]));
    row("scrape, 99th percentile", &|l| ms(l.scrape[1]));
    row("scrape, longest", &|l| ms(l.scrape[2]));
    for (at, (name, _)) in classic.groups.iter().enumerate() {
        row(&format!("evaluation of `{name}`"), &|l| {
            l.groups.get(at).map_or("-".to_owned(), |(_, took)| ms(*took))
        });
    }
    let _ = writeln!(page, "\n| longest rules, classic histograms | |\n| --- | --- |");
    for (name, took) in classic.rules.iter().take(5) {
        let _ = writeln!(page, "| `{name}` | {} |", ms(*took));
    }
    page
}

/// Times of queries.
pub(crate) fn queries(asked: &[Asked]) -> String {
    let mut page =
        String::from("| panel | kind | series | median of three |\n| --- | --- | --- | --- |\n");
    for query in asked {
        let kind = if query.is_range { "range" } else { "instant" };
        let _ = writeln!(
            page,
            "| {} | {kind} | {} | {:.0} ms |",
            query.place,
            query.series,
            query.took.as_secs_f64() * 1e3
        );
    }
    page
}
