//! Metrics of the load that mount tables are: who reads them, how large they are,
//! and superblocks.

use std::collections::BTreeMap;

use super::Value::Text;
use super::definitions::{LOCK, count, watched};
use super::{Figure, Kind, Label, Metric, Row, Rows, Scrape, Unit, seconds};
use crate::snapshot::{Charge, MountinfoReader};

const FILE: Label = Label {
    name: "file",
    about: "Which file of `/proc/<pid>`",
    bound: "`mountinfo`, `mounts`, `mountstats`",
};
const RUNTIME: Label = Label {
    name: "runtime",
    about: "Container runtime of the tasks",
    bound: "the 13 runtimes that are told apart, and `other`",
};
const FSTYPE: Label = Label {
    name: "fstype",
    about: "Type of the file system, for instance `tmpfs`",
    bound: "64 types, and `other`",
};

pub(super) const MOUNTINFO_OPENS: Metric = Metric {
    name: "lockprof_mountinfo_opens_total",
    help: "Times that tasks opened a file that shows a mount table.",
    kind: Kind::Counter,
    unit: None,
    labels: &[FILE, RUNTIME],
    note: "Where fentry or kprobes can be used (see `lockprof_hook_attached`), as the other \
           `lockprof_mountinfo_*`. A pair of file and runtime appears when it is first seen. lockprof's own \
           opens do not count, of which there is one of each file, when it starts; it reads none.",
    rows: |s| reader_rows(s, |r| Figure::Count(r.opens)),
};

pub(super) const MOUNTINFO_READS: Metric = Metric {
    name: "lockprof_mountinfo_reads_total",
    help: "Reads of a mount table.",
    kind: Kind::Counter,
    unit: None,
    labels: &[FILE, RUNTIME],
    note: "System calls: the kernel hands out some 4 KiB at a time, and walks on under a read lock of \
           `namespace_sem` in each.",
    rows: |s| reader_rows(s, |r| Figure::Count(r.reads.count)),
};

pub(super) const MOUNTINFO_ENTRIES: Metric = Metric {
    name: "lockprof_mountinfo_entries_total",
    help: "Mounts that were written out to readers of mount tables.",
    kind: Kind::Counter,
    unit: None,
    labels: &[FILE, RUNTIME],
    note: "Divided by the opens, it is the size of the mount tables that are read. Exact, but for reads at an \
           offset that the file is not at; where a mount takes more than 4 KiB of text, an estimate from the \
           first 8 KiB of each read.",
    rows: |s| reader_rows(s, |r| Figure::Count(r.entries)),
};

pub(super) const MOUNTINFO_READ_SECONDS: Metric = Metric {
    name: "lockprof_mountinfo_read_seconds_total",
    help: "Time that reads of mount tables took, with their waits for locks.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[FILE, RUNTIME],
    note: "",
    rows: |s| reader_rows(s, |r| Figure::Number(seconds(r.reads.sum_ns))),
};

pub(super) const MOUNTINFO_LOCK_WAIT: Metric = Metric {
    name: "lockprof_mountinfo_lock_wait_seconds_total",
    help: "Time that reads of mount tables spent waiting for the lock.",
    kind: Kind::Counter,
    unit: Some(Unit::Seconds),
    labels: &[LOCK],
    note: "All readers together. Booked when a wait ends, so reads that have not returned are included. A wait \
           inside another wait counts for both locks. The rest of `lockprof_mountinfo_read_seconds_total` is the \
           walk over the mounts, most of it under `namespace_sem`.",
    rows: lock_wait_rows,
};

pub(super) const MOUNT_NAMESPACES: Metric = Metric {
    name: "lockprof_mount_namespaces",
    help: "Mount namespaces that tasks are in.",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    note: "Counted every `mounts.interval` by a walk over all tasks, as the other two \
           `lockprof_mount_namespace_*`. A namespace that only a bind mount or an open file keeps has no task \
           and does not count.",
    rows: |s| count(s.snapshot.mount_tables.as_ref().map(|t| t.namespaces)),
};

pub(super) const MOUNTS: Metric = Metric {
    name: "lockprof_mount_namespace_mounts",
    help: "Mounts in all mount namespaces together.",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    note: "",
    rows: |s| count(s.snapshot.mount_tables.as_ref().map(|t| t.mounts)),
};

pub(super) const MOUNTS_MAX: Metric = Metric {
    name: "lockprof_mount_namespace_mounts_max",
    help: "Mounts in the mount namespace that has the most.",
    kind: Kind::Gauge,
    unit: None,
    labels: &[],
    note: "`lockprof stat --json` and `/api/v1/snapshot` have the largest namespaces with their owners.",
    rows: |s| {
        let tables = s.snapshot.mount_tables.as_ref();
        count(tables.and_then(|t| t.largest.first()).map(|t| t.mounts))
    },
};

pub(super) const SUPERBLOCKS_CREATED: Metric = Metric {
    name: "lockprof_superblocks_created_total",
    help: "Superblocks that were made.",
    kind: Kind::Counter,
    unit: None,
    labels: &[FSTYPE],
    note: "Each takes part in the list of shrinkers: see the lock `shrinker_rwsem`. Mounts of a file system \
           that has a superblock already make none. Where fentry or kprobes can be used. A type appears when it \
           is first seen.",
    rows: |s| {
        let rows = s.snapshot.superblocks.iter().flatten();
        Box::new(rows.map(|r| Row::new([Text(r.filesystem.as_str())], Figure::Count(r.count))))
    },
};

/// One row for each watched lock, zeros included: a counter that appears at its
/// first wait would hide that wait from `rate()`.
fn lock_wait_rows<'a>(scrape: &'a Scrape<'a>) -> Rows<'a> {
    let waits = scrape.snapshot.mountinfo_lock_wait_ns.iter();
    Box::new(waits.flat_map(|waits| {
        watched(scrape).into_iter().map(|lock| {
            let ns = waits.get(lock).copied().unwrap_or(0);
            Row::new([Text(lock)], Figure::Number(seconds(ns)))
        })
    }))
}

/// One row for each file and runtime that was seen.
fn reader_rows<'a>(
    scrape: &'a Scrape<'a>,
    figure: fn(&MountinfoReader) -> Figure<'static>,
) -> Rows<'a> {
    let mut sums: BTreeMap<(&str, &str), MountinfoReader> = BTreeMap::new();
    for row in scrape.snapshot.mountinfo_readers.iter().flatten() {
        let sum = sums.entry((&row.file, row.party.runtime().as_str())).or_insert_with(|| {
            let (opens, entries, reads) = (0, 0, Charge::default());
            MountinfoReader { opens, entries, reads, ..row.clone() }
        });
        sum.opens += row.opens;
        sum.entries += row.entries;
        sum.reads.add(row.reads);
    }
    Box::new(
        sums.into_iter()
            .map(move |((file, runtime), sum)| Row::new([Text(file), Text(runtime)], figure(&sum))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::example;

    #[test]
    fn lock_waits_of_reads_are_there_for_every_lock_or_where_no_read_is_seen_for_none() {
        let mut snapshot = example::snapshot();
        snapshot.mountinfo_lock_wait_ns = Some(BTreeMap::from([("mount_lock".into(), 5_000)]));
        let scrape = example::scrape(&snapshot);
        let rows: Vec<_> = lock_wait_rows(&scrape).collect();
        assert_eq!(rows.len(), watched(&scrape).len());
        for row in &rows {
            let expected = if row.values() == [Text("mount_lock")] { 5e-6 } else { 0.0 };
            assert!(matches!(row.figure, Figure::Number(n) if n == expected), "{:?}", row.values());
        }
        snapshot.mountinfo_lock_wait_ns = None;
        assert_eq!(lock_wait_rows(&example::scrape(&snapshot)).count(), 0);
    }
}
