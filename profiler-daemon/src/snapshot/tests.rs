use super::*;
use proptest::prelude::*;

fn times(values: &[u64]) -> Times {
    Times {
        count: values.len() as u64,
        sum_ns: values.iter().sum(),
        max_ns: values.iter().copied().max().unwrap_or(0),
        buckets: Histogram::from_values_ns(values.iter().copied()),
    }
}

fn snapshot(duration_ns: u64, values: &[u64]) -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        duration_ns,
        host: Host { kernel: "6.18.0".into(), cpus: 1, ..Host::default() },
        locks: vec![LockWaits {
            lock: "namespace_sem".into(),
            mode: Mode::Read,
            numa_node: 0,
            waits: times(values),
            migrated: 0,
            failed: 0,
        }],
        inflight: vec![],
        holds: vec![LockHolds {
            lock: "namespace_sem".into(),
            mode: Mode::Write,
            numa_node: 0,
            holds: times(values),
        }],
        releases: vec![Releases {
            lock: "namespace_sem".into(),
            unmeasured: values.len() as u64,
            one_of_readers: 0,
        }],
        handoffs: vec![],
        syscalls: vec![],
        syscall_errors: vec![],
        dropped: vec![Dropped { reason: "inflight_full".into(), count: values.len() as u64 }],
        resolved: vec![],
        hooks: vec![],
        ..Snapshot::default()
    }
}

#[test]
fn json_has_the_documented_shape_and_reads_back() {
    let original = snapshot(10, &[250, 300]);
    let json = serde_json::to_value(&original).unwrap();
    assert_eq!(json["locks"][0]["buckets"], serde_json::json!([[256, 1], [320, 1]]));
    assert_eq!(json["locks"][0]["mode"], "read");
    assert_eq!(json["locks"][0]["p50_ns"], 256);
    assert_eq!(json["locks"][0]["p99_ns"], 300, "a quantile is at most the maximum");
    assert_eq!(serde_json::from_value::<Snapshot>(json).unwrap(), original);
}

#[test]
fn lock_waits_of_mountinfo_reads_subtract_and_show_only_what_is_left() {
    let waited = |by_lock: &[(&str, u64)]| Snapshot {
        mountinfo_lock_wait_ns: Some(
            by_lock.iter().map(|(lock, ns)| ((*lock).to_owned(), *ns)).collect(),
        ),
        ..Snapshot::default()
    };
    let now = waited(&[("mount_lock", 7), ("namespace_sem", 50), ("rename_lock", 3)]);
    let window = now.since(&waited(&[("namespace_sem", 20), ("rename_lock", 3)]));
    assert_eq!(window, waited(&[("mount_lock", 7), ("namespace_sem", 30)]));
    // A recording of a lockprof that did not know it.
    assert_eq!(now.since(&Snapshot::default()).mountinfo_lock_wait_ns, now.mountinfo_lock_wait_ns);
}

#[test]
fn a_bucket_bound_that_no_bucket_has_is_refused() {
    let error = serde_json::from_str::<Histogram>("[[257, 1]]").unwrap_err();
    assert!(error.to_string().contains("no bucket ends at 257 ns"), "{error}");
}

#[test]
fn a_window_without_waits_is_empty() {
    let now = snapshot(20, &[100, 200]);
    let window = now.since(&snapshot(10, &[100, 200]));
    assert_eq!(window.duration_ns, 10);
    assert_eq!(window.locks[0].waits, Times::default());
    assert_eq!(window.holds[0].holds, Times::default());
    assert_eq!(window.releases[0].unmeasured, 0);
    assert_eq!(window.dropped_total(), 0);
}

#[test]
fn a_value_beyond_the_range_survives_json() {
    let beyond = times(&[100_000_000_000]);
    let json = serde_json::to_string(&beyond).unwrap();
    assert_eq!(serde_json::from_str::<Times>(&json).unwrap(), beyond);
    assert_eq!(beyond.quantiles_ns([0.5]), [100_000_000_000]);
}

proptest! {
    #[test]
    fn figures_of_a_window_fit_each_other(
        before in proptest::collection::vec(1u64..100_000_000_000, 0..50),
        during in proptest::collection::vec(1u64..100_000_000_000, 0..50),
    ) {
        let after: Vec<u64> = before.iter().chain(&during).copied().collect();
        let window = snapshot(2, &after).since(&snapshot(1, &before)).locks.remove(0).waits;
        prop_assert_eq!(window.count, during.len() as u64);
        prop_assert_eq!(window.sum_ns, during.iter().sum::<u64>());
        prop_assert_eq!(window.buckets.total(), window.count);
        prop_assert!(window.max_ns <= window.sum_ns);
        prop_assert!(window.max_ns >= during.iter().copied().max().unwrap_or(0));
        let [p50, p90, p99] = window.quantiles_ns([0.5, 0.9, 0.99]);
        prop_assert!(p50 <= p90 && p90 <= p99 && p99 <= window.max_ns);
    }

    #[test]
    fn adding_then_subtracting_gives_back_the_histogram(
        a in proptest::collection::vec(any::<u64>(), 0..50),
        b in proptest::collection::vec(any::<u64>(), 0..50),
    ) {
        let (a, b) = (Histogram::from_values_ns(a), Histogram::from_values_ns(b));
        let mut sum = a.clone();
        sum.add(&b);
        prop_assert_eq!(sum.total(), a.total() + b.total());
        prop_assert_eq!(sum.since(&b), a);
    }
}
