//! The formula against what is exposed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lockprof::serve::metrics::METRICS;
use lockprof::serve::{Format, Process, render};
use lockprof::snapshot::Snapshot;
use lockprof::snapshot::containers::{ContainerTimes, TopContainers};

use crate::common;
use crate::daemon::daemon;
use crate::hosts::{Recording, fleet};
use crate::needs_bpf;
use crate::shape::{Histograms, Shape, TERMS};

/// With every figure about the process, as the formula has it.
const PROCESS: Process = Process {
    cpu_seconds: Some(1.0),
    resident_bytes: Some(2),
    virtual_bytes: Some(3),
    open_fds: Some(4),
    max_fds: Some(5),
    start_seconds: Some(6.0),
};

fn exposed(snapshot: &Snapshot, containers: &Arc<ContainerTimes>, format: Format) -> Vec<u8> {
    let (snapshot, since) = (Arc::new(snapshot.clone()), SystemTime::now());
    render(snapshot, containers.clone(), since, PROCESS, format).expect("it renders")
}

/// Samples in an exposition as text.
fn samples(text: &str) -> u64 {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count() as u64
}

fn samples_of(snapshot: &Snapshot, containers: &Arc<ContainerTimes>) -> u64 {
    samples(&String::from_utf8(exposed(snapshot, containers, Format::Text)).expect("text"))
}

#[test]
fn every_metric_is_in_one_term_of_the_formula() {
    let mut counted: Vec<_> = TERMS.iter().flat_map(|term| term.metrics).copied().collect();
    counted.sort_unstable();
    let mut declared: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
    declared.sort_unstable();
    assert_eq!(counted, declared);
}

#[test]
fn the_formula_gives_the_series_of_every_recorded_host() {
    let all = Recording::all();
    assert!(all.len() >= 3, "only {} recordings", all.len());
    let nodes: BTreeSet<_> = all.iter().map(|r| Shape::of(&r.totals, 0).nodes).collect();
    assert!(nodes.len() >= 3, "{nodes:?} nodes");
    for recording in &all {
        let (shape, none) = (Shape::of(&recording.totals, 0), Arc::default());
        let name = &recording.name;
        let exposed = samples_of(&recording.totals, &none);
        assert_eq!(shape.series(Histograms::Classic), exposed, "{name}: {shape:?}");
        assert!(shape.at_most().series(Histograms::Classic) >= exposed, "{name}");
        let native = shape.series(Histograms::Native);
        assert_eq!(native_series(&exposed_as_protobuf(&recording.totals)), native, "{name}");
    }
}

fn exposed_as_protobuf(snapshot: &Snapshot) -> Vec<u8> {
    exposed(snapshot, &Arc::default(), Format::Protobuf)
}

/// Series as a Prometheus stores them that takes native histograms.
fn native_series(mut body: &[u8]) -> u64 {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::MetricFamily;
    use prost::Message as _;
    let mut series = 0;
    while !body.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut body).expect("a family");
        for metric in &family.metric {
            // What tells a native histogram: `isNativeHistogram` of Prometheus.
            let native = |h: &&_| -> bool {
                let h: &prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::Histogram = h;
                h.zero_threshold > 0.0 || !h.positive_span.is_empty()
            };
            assert!(metric.histogram.iter().all(|h| native(&h)), "{} is not native", family.name);
            series += 1;
        }
    }
    series
}

#[test]
fn containers_add_what_the_formula_says() {
    let recording = Recording::all().pop().expect("there is one");
    let mut top = TopContainers::new(3);
    let mut snapshot = recording.totals.clone();
    top.update(&Arc::new(snapshot.clone()));
    let container = |number: u32| {
        serde_json::json!({"id": 90 + number, "path": "/x",
            "container": {"manager": "docker", "id": format!("{number:064x}")}})
    };
    // Three containers wait from here on.
    for number in 0..3 {
        let mut row = recording.totals.waiters.first().expect("somebody waited").clone();
        let who = serde_json::json!({"party": "task", "task": "x", "cgroup": container(number)});
        row.party = serde_json::from_value(who).expect("a party");
        snapshot.waiters.push(row);
    }
    snapshot.duration_ns += 1_000_000_000;
    let times = top.update(&Arc::new(snapshot.clone()));
    assert_eq!(times.selected.len(), 3);
    let shape = Shape::of(&snapshot, 3);
    assert_eq!(shape.series(Histograms::Classic), samples_of(&snapshot, &times));
}

#[test]
fn a_host_that_goes_on_has_the_same_series_and_its_counters_never_fall() {
    for host in fleet(5, 1, 3) {
        let (first, later) = (host.totals(Duration::ZERO), host.totals(Duration::from_secs(90)));
        assert_eq!(Shape::of(&first, 0), Shape::of(&later, 0));
        assert_eq!(first.locks.len(), later.locks.len());
        for (a, b) in first.locks.iter().zip(&later.locks) {
            let buckets = b.waits.buckets.since(&a.waits.buckets);
            assert_eq!(buckets.total(), b.waits.count - a.waits.count, "{}: {}", host.name, a.lock);
            assert!(a.waits.sum_ns <= b.waits.sum_ns);
        }
        let waited = |s: &Snapshot| s.locks.iter().map(|row| row.waits.sum_ns).sum::<u64>();
        assert!(waited(&first) < waited(&later), "{} has no load", host.name);
    }
}

#[test]
fn the_formula_gives_the_series_of_a_live_daemon() {
    needs_bpf!("the_formula_gives_the_series_of_a_live_daemon");
    let daemon = daemon();
    assert!(common::storm(3).status().expect("storm runs").success());
    let shape = || -> (Shape, u64) {
        let snapshot = daemon.get("/api/v1/snapshot").expect("it answers");
        let shape = Shape::of(&serde_json::from_str(&snapshot).expect("a snapshot"), 0);
        (shape, shape.series(Histograms::Classic))
    };
    // Whoever waits for the first time just then is in one and not in the other.
    for _ in 0..20 {
        let (before, formula) = shape();
        let text = daemon.get("/metrics").expect("it answers");
        if shape().0 != before {
            continue;
        }
        let unlimited = u64::from(!text.contains("\nprocess_max_fds "));
        assert_eq!(samples(&text), formula - unlimited, "{before:?}");
        return;
    }
    panic!("the figures never stood still");
}
