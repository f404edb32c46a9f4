use super::*;
use crate::storm::analysis::{Knee, steps};
use crate::storm::fixture::{self, trial, waits};

fn host() -> Host {
    Host { kernel: "6.18.0".to_owned(), cpus: 4, numa_nodes: 1 }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn axis(name: &str, values: &[u64]) -> Axis {
    Axis { name: name.to_owned(), values: values.to_vec() }
}

fn spread(median: f64, min: f64, max: f64) -> Spread {
    Spread { median, min, max }
}

#[test]
fn a_spread_is_of_the_middle_and_the_ends() {
    assert_eq!(Spread::of([3.0, 1.0, 9.0]), Some(spread(3.0, 1.0, 9.0)));
    assert_eq!(Spread::of([4.0, 1.0, 9.0, 3.0]), Some(spread(3.5, 1.0, 9.0)));
    assert_eq!(Spread::of([7.0]), Some(spread(7.0, 7.0, 7.0)));
    assert_eq!(Spread::of([]), None);
}

/// Starts per second and ns of `namespace_sem` per start, of A and B by round.
const ROUNDS: [[(f64, u64); 2]; 3] =
    [[(100.0, 800), (150.0, 200)], [(50.0, 1000), (80.0, 300)], [(120.0, 400), (156.0, 200)]];

fn compared() -> Vec<(Step, Trial)> {
    let run = |step: Step| {
        let (rate, wait_ns) = ROUNDS[step.round as usize][step.strategy];
        (step, trial(rate, &[waits("namespace_sem", 2, wait_ns)]))
    };
    steps(3, 2, 1).map(run).collect()
}

#[test]
fn ratios_are_taken_round_by_round() {
    let report =
        Report::new(host(), None, &names(&["legacy", "fd"]), &compared(), false, Vec::new());
    let [comparison] = &report.comparisons[..] else { panic!("{:?}", report.comparisons) };
    assert_eq!((&*comparison.baseline, &*comparison.strategy), ("legacy", "fd"));
    // 1.5, 1.6, 1.3: the host was half as fast in the second round, for both.
    assert_eq!(comparison.starts_ratio, spread(1.5, 1.3, 1.6));
    assert_eq!(comparison.wait_ratio, [("namespace_sem".to_owned(), spread(0.3, 0.25, 0.5))]);
    assert_eq!(report.curves.len(), 2);
    let legacy = &report.curves[0].points[0];
    assert_eq!(legacy.starts_per_second, spread(100.0, 50.0, 120.0));
    assert_eq!(legacy.waits_per_start[0].wait_ns, spread(800.0, 400.0, 1000.0));
    assert_eq!(legacy.waits_per_start[0].count, spread(2.0, 2.0, 2.0));
    assert_eq!((legacy.value, legacy.trials.len()), (None, 3));
    assert_eq!((&report.curves[0].scaling, &report.curves[0].knee), (&None, &None));
}

#[test]
fn nothing_is_divided_by_a_baseline_of_zero() {
    let mut ran = compared();
    ran[0].1 = trial(0.0, &[]);
    ran[2].1.measured.as_mut().unwrap().waits = vec![waits("mount_lock", 1, 0)];
    let report = Report::new(host(), None, &names(&["a", "b"]), &ran, false, Vec::new());
    let comparison = &report.comparisons[0];
    assert_eq!((comparison.starts_ratio.min, comparison.starts_ratio.max), (1.3, 1.6));
    assert!((comparison.starts_ratio.median - 1.45).abs() < 1e-9, "of two rounds");
    assert_eq!(comparison.wait_ratio, [("namespace_sem".to_owned(), spread(0.5, 0.5, 0.5))]);

    for (step, one) in &mut ran {
        if step.strategy == 0 {
            *one = trial(0.0, &[]);
        }
    }
    let report = Report::new(host(), None, &names(&["a", "b"]), &ran, false, Vec::new());
    assert_eq!(report.comparisons, []);
    let text = serde_json::to_string(&report).unwrap();
    assert!(!text.contains("starts_per_second\":null"), "no figure that JSON cannot write: {text}");
}

#[test]
fn a_lock_that_one_trial_did_not_wait_for_was_waited_for_0_ns_in_it() {
    let trials = vec![
        trial(10.0, &[waits("namespace_sem", 1, 600), waits("mount_lock", 1, 900)]),
        trial(10.0, &[waits("namespace_sem", 3, 800)]),
        trial(10.0, &[]),
    ];
    let point = Point::of(Some(4), trials);
    let rows: Vec<_> = point.waits_per_start.iter().map(|row| (&*row.lock, row.wait_ns)).collect();
    let expected =
        [("namespace_sem", spread(600.0, 0.0, 800.0)), ("mount_lock", spread(0.0, 0.0, 900.0))];
    assert_eq!(rows, expected, "the longest wait first");
    assert_eq!(point.waits_per_start[0].count, spread(1.0, 0.0, 3.0));
}

#[test]
fn modes_and_nodes_of_a_lock_are_added_up() {
    let write = waits("namespace_sem", 1, 600);
    let read = crate::storm::Waits { mode: "read".to_owned(), numa_node: 1, ..write.clone() };
    let point = Point::of(None, vec![trial(10.0, &[write, read])]);
    assert_eq!(point.waits_per_start[0].wait_ns.median, 1200.0);
}

#[test]
fn trials_without_starts_have_no_latency_and_no_waits_per_start() {
    let point = Point::of(None, vec![trial(0.0, &[waits("mount_lock", 1, 5)]), trial(10.0, &[])]);
    assert_eq!(point.starts_per_second, spread(5.0, 0.0, 10.0));
    let latency = nanoseconds(point.trials[1].summary.start_latency.p99_ns);
    assert_eq!(point.start_latency_p99_ns, spread(latency, latency, latency));
    assert_eq!(point.waits_per_start, []);
    let none = Point::of(None, vec![trial(0.0, &[])]);
    assert_eq!(none.start_latency_p99_ns, Spread::default());
}

#[test]
fn unmeasured_trials_have_starts_alone() {
    let mut one = trial(10.0, &[]);
    one.measured = None;
    let point = Point::of(None, vec![one]);
    assert_eq!((point.starts_per_second.median, point.waits_per_start), (10.0, Vec::new()));
}

#[test]
fn a_sweep_of_concurrency_is_fitted_and_has_a_knee() {
    let values = [1, 2, 4, 8, 16];
    let run = |step: Step| {
        let rate = [40.0, 80.0, 160.0, 162.0, 161.0][step.value];
        (step, trial(rate * (1.0 + 0.01 * f64::from(step.round)), &[]))
    };
    let ran: Vec<_> = steps(3, 1, values.len()).map(run).collect();
    let concurrency = axis("concurrency", &values);
    let report = Report::new(host(), Some(concurrency), &names(&["legacy"]), &ran, false, vec![]);
    let curve = &report.curves[0];
    assert_eq!(curve.points.iter().map(|p| p.value).collect::<Vec<_>>(), values.map(Some));
    assert_eq!(curve.knee, Some(Knee { value: 4, starts_per_second: 160.0 * 1.01 }));
    assert!(curve.scaling.is_some_and(|fit| fit.contention + fit.coherency > 0.0));
    assert_eq!(report.comparisons, [], "nothing to compare with");

    let layers = axis("layers", &values);
    let report = Report::new(host(), Some(layers), &names(&["legacy"]), &ran, false, vec![]);
    assert_eq!(report.curves[0].scaling, None, "the law is about concurrency alone");
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let values = [1, 2, 4, 8, 16];
    let run = |step: Step| {
        let mut trial = trial(50.0 * [1.0, 2.0][step.strategy], &[]);
        trial.summary.interrupted = step.strategy == 1 && step.value == 1;
        (step, trial)
    };
    // A, B at 1; A, B at 2, where the signal came.
    let ran: Vec<_> = steps(3, 3, values.len())
        .filter(|step| step.strategy < 2 && step.round == 0 && step.value < 2)
        .map(run)
        .collect();
    let notes = vec!["a note".to_owned()];
    let axis = axis("concurrency", &values);
    let report = Report::new(host(), Some(axis), &names(&["a", "b", "c"]), &ran, true, notes);
    assert!(report.interrupted);
    assert_eq!(report.axis.as_ref().unwrap().values, values, "what was asked for");
    let points: Vec<Vec<_>> = report
        .curves
        .iter()
        .map(|curve| curve.points.iter().filter_map(|point| point.value).collect())
        .collect();
    assert_eq!(points, [vec![1, 2], vec![1, 2], vec![]]);
    assert!(report.curves.iter().all(|c| c.scaling.is_none() && c.knee.is_none()));
    let compared: Vec<_> =
        report.comparisons.iter().map(|c| (&*c.strategy, c.value, c.starts_ratio.median)).collect();
    assert_eq!(compared, [("b", Some(1), 2.0), ("b", Some(2), 2.0)]);

    let nothing = Report::new(host(), None, &names(&["a"]), &[], true, Vec::new());
    assert_eq!(nothing.curves[0].points, []);
}

#[test]
fn a_trial_that_was_cut_short_is_shown_and_not_counted_beside_whole_ones() {
    let mut ran = compared();
    ran[5].1.summary.interrupted = true;
    let report = Report::new(host(), None, &names(&["a", "b"]), &ran, true, Vec::new());
    let cut = &report.curves[1].points[0];
    assert_eq!((cut.trials.len(), cut.starts_per_second), (3, spread(115.0, 80.0, 150.0)));
    let ratio = report.comparisons[0].starts_ratio;
    assert_eq!((ratio.min, ratio.max), (1.5, 1.6), "and its round is not compared");
}

/// Paths of all keys, `[]` for the elements of a list.
fn keys(value: &serde_json::Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                keys(value, path.trim_start_matches('.'), found);
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| keys(value, &format!("{path}[]"), found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn the_json_form_has_units_in_its_keys() {
    let mut found = BTreeSet::new();
    keys(&serde_json::to_value(fixture::sweep()).unwrap(), "", &mut found);
    // Those of a trial's own figures are shown where they are counted.
    let shown = |path: &&String| {
        let of_trial = path.strip_prefix("curves[].points[].trials[].");
        of_trial.is_none_or(|rest| rest.starts_with("measured") || rest.starts_with("starts"))
    };
    let shown: Vec<&str> = found.iter().filter(shown).map(String::as_str).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    axis.name
    axis.values[]
    comparisons[].baseline
    comparisons[].starts_ratio.max
    comparisons[].starts_ratio.median
    comparisons[].starts_ratio.min
    comparisons[].strategy
    comparisons[].value
    comparisons[].wait_ratio[][]
    comparisons[].wait_ratio[][].max
    comparisons[].wait_ratio[][].median
    comparisons[].wait_ratio[][].min
    curves[].knee
    curves[].knee.starts_per_second
    curves[].knee.value
    curves[].points[].start_latency_p50_ns.max
    curves[].points[].start_latency_p50_ns.median
    curves[].points[].start_latency_p50_ns.min
    curves[].points[].start_latency_p99_ns.max
    curves[].points[].start_latency_p99_ns.median
    curves[].points[].start_latency_p99_ns.min
    curves[].points[].starts_per_second.max
    curves[].points[].starts_per_second.median
    curves[].points[].starts_per_second.min
    curves[].points[].trials[].measured.waits[].count
    curves[].points[].trials[].measured.waits[].lock
    curves[].points[].trials[].measured.waits[].max_ns
    curves[].points[].trials[].measured.waits[].mode
    curves[].points[].trials[].measured.waits[].numa_node
    curves[].points[].trials[].measured.waits[].p99_ns
    curves[].points[].trials[].measured.waits[].sum_ns
    curves[].points[].trials[].measured.window_ns
    curves[].points[].trials[].starts
    curves[].points[].trials[].starts_per_second
    curves[].points[].value
    curves[].points[].waits_per_start[].count.max
    curves[].points[].waits_per_start[].count.median
    curves[].points[].waits_per_start[].count.min
    curves[].points[].waits_per_start[].lock
    curves[].points[].waits_per_start[].wait_ns.max
    curves[].points[].waits_per_start[].wait_ns.median
    curves[].points[].waits_per_start[].wait_ns.min
    curves[].scaling.coherency
    curves[].scaling.contention
    curves[].scaling.peak_concurrency
    curves[].scaling.peak_throughput
    curves[].scaling.per_worker
    curves[].scaling.r_squared
    curves[].scaling.relative_error
    curves[].strategy
    host.cpus
    host.kernel
    host.numa_nodes
    interrupted
    schema
    ");
}
