//! Metrics of where CPUs are in the kernel, by sampling.

use super::Value::{Number, Text};
use super::definitions::NUMA_NODE;
use super::{Figure, Kind, Label, Metric, Row};

const SAMPLED_NODE: Label = Label { about: "NUMA node of the CPU", ..NUMA_NODE };
const PLACE: Label = Label {
    name: "place",
    about: "Where in the kernel the CPU was: `mount_seqcount` is the functions that read the sequence count of \
            `mount_lock`, again while a writer changes it, or walk the hash of mounts; `lock_slow_path` those that \
            wait for locks of any name; `elsewhere` the rest",
    bound: "these three",
};
const SOURCE: Label =
    Label { name: "source", about: "What paces the samples", bound: "`cycles` or `cpu-clock`" };

pub(super) const KERNEL_SAMPLES: Metric = Metric {
    name: "lockprof_kernel_samples_total",
    help: "Times that a CPU was found in the kernel when it was looked at.",
    kind: Kind::Counter,
    unit: None,
    labels: &[SAMPLED_NODE, PLACE],
    note: "Each CPU is looked at `lockprof_sampling_frequency_hertz` times a second, in user space to no effect. \
           Divided by that frequency, samples are seconds of CPU time. How many CPUs of a node are spent on \
           `mount_lock`'s sequence count, which no lock tracepoint shows: \
           `sum by (instance, numa_node) (rate(lockprof_kernel_samples_total{place=\"mount_seqcount\"}[1m])) / on \
           (instance) group_left () sum by (instance) (lockprof_sampling_frequency_hertz)`. Divided by the node's CPUs \
           it is the share of them; this place over all places is the share of the kernel's time. As every path walk passes \
           `path_init`, a few percent are usual; a share that rises with mounts is walks that wait for writers. \
           Idle tasks do not count, nor do interrupts that come meanwhile. With `cpu-clock`, code that has \
           interrupts off shows where it turns them on again, and the timer also wakes idle CPUs; it never \
           competes for a counter. With `cycles`, a second is as many cycles as there were in one when lockprof \
           started, so that a CPU at a higher clock gives more samples; and where other users of perf take all \
           hardware counters, the kernel gives each its turn, so that samples are missing, of all places alike. \
           CPUs that come online after the start are not sampled until lockprof is started again. Absent where \
           sampling is off or refused.",
    rows: |s| {
        let counts = s.snapshot.samples.iter().flat_map(|samples| &samples.counts);
        Box::new(counts.map(|c| {
            Row::new([Number(c.numa_node), Text(c.place.as_str())], Figure::Count(c.count))
        }))
    },
};

pub(super) const SAMPLING_FREQUENCY: Metric = Metric {
    name: "lockprof_sampling_frequency_hertz",
    help: "Samples of a CPU that is in the kernel all the time, in a second.",
    kind: Kind::Gauge,
    unit: None,
    labels: &[SOURCE],
    note: "As configured (`sampling.frequency_hz`). Absent where sampling is off or refused.",
    rows: |s| {
        Box::new(
            s.snapshot
                .samples
                .iter()
                .map(|p| Row::new([Text(&p.source)], Figure::Count(p.frequency_hz))),
        )
    },
};
