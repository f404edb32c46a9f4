//! Writes `docs/metrics.md` from the declarations.
//!
//! In: [`METRICS`] and the example snapshot, rendered by the real exposition.
//! Out: the page. A test compares it with the file.

use std::fmt::Write as _;

use profiler_common::syscalls::MOUNT_SYSCALLS;

use super::buckets::CLASSIC_NS;
use super::example;
use super::exposition::Format;
use super::metrics::{Kind, METRICS, Metric, REASONS, seconds};

/// Sample lines that the page shows of one metric; a histogram shows its whole
/// first series.
const SAMPLES: usize = 4;

const HEAD: &str = "\
<!-- Generated from profiler-daemon/src/serve/metrics. To change it, change that, then run
     LOCKPROF_BLESS=1 cargo test -p profiler-daemon --lib serve::reference -->
# Metrics

What `lockprof daemon` exposes at `/metrics`. Times are in seconds, sizes in bytes, counters end in \
`_total` and count since the programs were attached. The samples come from a made-up machine with two \
NUMA nodes.

## Formats

The `Accept` header chooses; without one, or with `*/*`, it is the first. An `Accept` header that matches \
none is answered with 406 and this list.

";

const HISTOGRAMS: &str = "
Every histogram has classic buckets in all formats, and native buckets (schema 3) in protobuf. To store the \
native ones, let Prometheus ask for protobuf: `scrape_native_histograms: true` (Prometheus 3.8 and later), \
before that `--enable-feature=native-histograms`. It then leaves out the classic ones, unless told \
`always_scrape_classic_histograms: true` (before Prometheus 3.0 `scrape_classic_histograms`). The \
[rules and dashboards](../dashboards/README.md#classic-and-native-histograms) take either form; in a query of your \
own, the native form of `rate(X_sum[5m])` is `histogram_sum(rate(X[5m]))`, of `rate(X_count[5m])` it is \
`histogram_count(rate(X[5m]))`, and `histogram_quantile` takes `rate(X[5m])` without `le`.

- `_count` and `_sum` are exact, and so is every classic bucket: each bound is a power of two in nanoseconds, \
which is a bound of the underlying histogram as well.
- A native bucket is filled from the underlying buckets whose upper bound it holds. Its upper bound is never \
below a duration that it counts, and less than 22.7 % above it. All native buckets together equal `_count`.
- Durations beyond 68.7 s count in `+Inf`, and in the native bucket that ends at 76.1 s, whatever their \
length. `_sum` and the maximum stay exact.
- Mount system calls of less than 256 ns count as 256 ns in the buckets.
- Do not select a bucket by the text of its `le`: the same bound is written `0.000001024` in text and \
`1.024e-06` by a scraper that read protobuf.
- The counts come from memory that the kernel goes on writing, so a wait may show in one series of a scrape \
and in another only in the next.
";

const BLIND: &str = "
## What is not seen

The lock waits come from the kernel tracepoints `contention_begin` and `contention_end` (Linux 5.19 and later), \
or, where a kernel has none, from hooks on the entry and the return of the slow paths (`fentry`, `kprobe`; see \
`lockprof_hook_attached`). Some ways to lose time on a lock do not pass there. None of what follows is in the \
figures above, but where the last column says so. `lockprof doctor` lists what applies to the machine.

| not seen | why | what it means for the figures |
|---|---|---|
| Readers of a sequence count | `path_init()` and others that look at `mount_lock` without taking it retry until no \
writer is active. They spin in their own code. | `mount_lock` shows the waits of those who take the spinlock \
inside the seqlock. Path lookups that retry show as a share of CPU time in `lockprof_kernel_samples_total`, not as \
waits; those of `rename_lock` do not show. |
| Writers that win by optimistic spinning | A writer of a rwsem may spin while the owner runs on another CPU, and \
take the lock before it would queue. | Where fentry attaches to `rwsem_down_write_slowpath`, these waits are in \
mode `optimistic`. Elsewhere short write waits are missing for `namespace_sem`. The longer the hold, the fewer: a \
writer that gives up spinning queues and is seen. |
| Readers that steal a rwsem | A reader may take the lock in the slow path without queueing. | No time is lost, but \
the acquisition does not count as a wait. |
| The first waiter of a spinlock | It sets the pending bit and spins on it; only those after it queue. With \
paravirtual spinlocks the first one may queue at once. | With two contenders, waits on spinlocks are missing; from \
three on they show. By fentry on the slow paths the first one shows too. |
| Spinning waits by kprobe | A return probe does not tell which lock was waited for, and an interrupt may wait in the \
middle of a wait. | Where kprobes are the backend, spinlocks and rwlocks show no waits. Of each function the \
kernel probes no more returns at a time than there are CPUs, or twice as many; a wait whose return it missed counts as `unmatched_begin` or `task_gone`. |
| Guests with `virt_spin_lock()` | A guest without paravirtual spinlocks falls back to test-and-set. | Spinlock waits \
are missing altogether. |
| Trylocks | A failed try does not wait. | Loops around a trylock do not show. |
| Locks that are not watched | Only those in the catalogue and the configuration are booked. | See \
`lockprof_lock_resolved`; `lockprof doctor` says why one was not found. |

A wait that has not ended is in no histogram; it is in `lockprof_lock_waiters` and \
`lockprof_lock_oldest_wait_seconds`. The wait is booked on the CPU, hence the NUMA node, on which it ended. Who \
held the lock meanwhile is not recorded: a handoff counts from the contended acquirer before, and an acquirer that \
did not have to wait is none.
";

const SERIES: &str = "
## What bounds the number of series

Every label has a bound, which its table above names. Names of tasks, paths of cgroups and kernel stacks are no \
labels; they are in `/api/v1/snapshot`, `lockprof stat` and `lockprof top`. Ids of containers are labels only where \
`metrics.containers` in the configuration asks for them.

| what there can be many of | bound | what is beyond |
|---|---|---|
| locks | the catalogue and `[[lock]]` in the configuration, 32 watched at once | refused at the start |
| NUMA nodes | those of the machine | |
| runtimes, mount calls, errors, reasons | fixed lists | `other` |
| containers | `metrics.containers` in the configuration, by default 0, and `none` and `other`. Series: locks x \
(containers + 2) x 2. In five minutes at most as many new containers as there may be | `other` |
| task names and cgroups in memory | `attribution.rows` | the task `other`; counted as `charges_full` |
| slow waits in memory | `attribution.slow_waits` | the oldest is overwritten |
| tasks in flight in memory | `limits.tasks_in_flight` | not measured; counted as `inflight_full` or \
`syscall_inflight_full` |
";

/// The page.
fn page() -> String {
    let text = example::text(example::snapshot(), Format::Text);
    let mut page = HEAD.to_owned();
    for format in Format::ALL {
        line(&mut page, &format!("- `{}`", format.content_type()));
    }
    page += "\n## Histograms\n";
    page += HISTOGRAMS;
    let bounds: Vec<String> = CLASSIC_NS.iter().map(|ns| seconds(*ns).to_string()).collect();
    line(&mut page, &format!("\nClassic bounds, in seconds: {}, +Inf.", bounds.join(", ")));
    page += "\n## Overview\n\n| metric | type | labels |\n|---|---|---|\n";
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{}`", l.name)).collect();
        let name = metric.name;
        line(
            &mut page,
            &format!("| [`{name}`](#{name}) | {} | {} |", metric.kind.as_str(), labels.join(", ")),
        );
    }
    for metric in METRICS {
        section(&mut page, metric, &text);
    }
    page += SERIES;
    page += BLIND;
    page
}

fn section(page: &mut String, metric: &Metric, text: &str) {
    let unit = metric.unit.map_or(String::new(), |unit| format!(", in {}", unit.as_str()));
    line(page, &format!("\n## {}\n", metric.name));
    line(page, &format!("{}{unit}. {}", capital(metric.kind.as_str()), metric.help));
    if !metric.note.is_empty() {
        line(page, &format!("\n{}", metric.note));
    }
    if !metric.labels.is_empty() {
        *page += "\n| label | what it says | values |\n|---|---|---|\n";
        for label in metric.labels {
            line(page, &format!("| `{}` | {} | {} |", label.name, label.about, label.bound));
        }
    }
    match metric.name {
        "lockprof_mount_syscall_duration_seconds" => {
            let calls: Vec<String> =
                MOUNT_SYSCALLS.iter().map(|call| format!("`{}`", call.name)).collect();
            line(page, &format!("\nThe calls are {}.", calls.join(", ")));
        }
        "lockprof_events_dropped_total" => {
            *page += "\n| reason | meaning |\n|---|---|\n";
            for (reason, meaning) in REASONS {
                line(page, &format!("| `{reason}` | {meaning} |"));
            }
        }
        _ => {}
    }
    *page += "\n```text\n";
    for sample in samples(metric, text) {
        line(page, sample);
    }
    *page += "```\n";
}

/// The first lines of a metric in the exposition.
fn samples<'a>(metric: &Metric, text: &'a str) -> Vec<&'a str> {
    let of_metric = text.lines().filter(|sample| {
        sample.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with([' ', '{', '_']))
    });
    let shown = if metric.kind == Kind::Histogram { CLASSIC_NS.len() + 3 } else { SAMPLES };
    of_metric.take(shown).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

fn line(page: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

#[test]
fn the_reference_page_matches_the_declarations() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = page();
    if std::env::var_os("LOCKPROF_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        file == page,
        "docs/metrics.md differs from the declarations; to write it anew, run\n  \
         LOCKPROF_BLESS=1 cargo test -p profiler-daemon --lib serve::reference"
    );
}

#[test]
fn every_metric_has_a_sample_on_the_page() {
    let text = example::text(example::snapshot(), Format::Text);
    for metric in METRICS {
        assert!(!samples(metric, &text).is_empty(), "{}", metric.name);
    }
}
