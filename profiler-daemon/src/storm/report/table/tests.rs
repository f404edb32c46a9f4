use std::collections::BTreeMap;

use super::*;
use crate::storm::analysis::{Host, Step, steps};
use crate::storm::engine::ErrorCount;
use crate::storm::fixture;
use crate::storm::trial::Calls;

fn fits(text: &str) {
    for line in text.lines() {
        assert!(display_width(line) <= WIDTH, "too wide: {line}");
        assert_eq!(line, line.trim_end());
    }
}

fn measured_trial() -> Trial {
    let mut trial = fixture::trial(
        100.0,
        &[fixture::waits("mount_lock", 2, 4_000), fixture::waits("namespace_sem", 12, 3_000_000)],
    );
    let measured = trial.measured.as_mut().unwrap();
    let calls =
        Calls { count: 40_000, errors: 3, sum_ns: 9_000_000_000, lock_wait_ns: 2_970_000_000 };
    let unshare = Calls { count: 1_000, errors: 0, sum_ns: 700_000_000, lock_wait_ns: 30_000_000 };
    measured.syscalls = BTreeMap::from([("mount".into(), calls), ("unshare".into(), unshare)]);
    measured.superblocks = BTreeMap::from([("overlay".into(), 1_000), ("tmpfs".into(), 9_000)]);
    trial
}

#[test]
fn one_storm_shows_what_the_hooks_saw_of_a_start() {
    let text = of_trial(&measured_trial());
    fits(&text);
    insta::assert_snapshot!(text, @r"
    storm: 4 at a time, 2 pollers, 10.0 s
      starts                 1000   100.0/s
      start latency    p50 9.00 ms, p99 31.00 ms, max 45.00 ms
      mount calls           40000
      umount calls           1000
      root changed by  pivot_root
      mountinfo reads           0   0 bytes
      failed starts             0
      errors                    0

    LOCK WAITS         MODE   NODE      COUNT  PER START      TOTAL  PER START        P99        MAX
    namespace_sem      write     0      12000       12.0      3.00s     3.00ms     3.00ms     3.00ms
    mount_lock         write     0       2000       2.00     4.00ms     4.00us     4.00us     4.00us

    CALLS              ERRORS           COUNT  PER START      TOTAL  PER START  LOCK WAIT
    mount                   3           40000       40.0      9.00s     9.00ms        33%
    unshare                 0            1000       1.00      700ms      700us         4%

    superblocks per start: overlay 1.00, tmpfs 9.00
    ");
}

#[test]
fn one_storm_says_what_was_not_seen() {
    let mut trial = measured_trial();
    trial.measured =
        Some(Measured { dropped: [("unmatched_end".to_owned(), 7)].into(), ..Measured::default() });
    let text = of_trial(&trial);
    assert!(text.contains("\nno waits for watched locks\n"), "{text}");
    assert!(text.contains("not booked: 7 unmatched_end"), "{text}");
    trial.measured = None;
    assert_eq!(of_trial(&trial), trial.summary.to_string());
}

#[test]
fn a_storm_without_starts_has_no_figures_per_start() {
    let mut trial = measured_trial();
    trial.summary.starts = 0;
    assert!(of_trial(&trial).contains("superblocks per start: overlay -, tmpfs -"));
}

#[test]
fn a_comparison_shows_medians_and_ratios() {
    let text = text(&fixture::comparison());
    fits(&text);
    insta::assert_snapshot!(text, @r"
    storm on 7.0.3, 8 CPUs, 2 NUMA nodes; medians of 3 trials, with the least and the largest
    below the name of a lock: time waited for it per start

    STRATEGY              STARTS/S       MIN TO MAX        P50       P99  namespace_sem  mount_lock
    legacy                     290       281 to 296     9.00ms    31.0ms         9.10ms      13.5us
    open-tree-namespace        412       400 to 420     9.00ms    31.0ms         2.80ms      13.5us

    open-tree-namespace against legacy: 1.39 x starts per second (1.38 to 1.49); wait per start:
      namespace_sem 0.31 x (0.31 to 0.31), mount_lock 1.00 x (1.00 to 1.00)

    waits of tasks outside the storm are in the figures as well
    ");
}

#[test]
fn a_sweep_shows_each_curve_with_its_knee_and_law() {
    let text = text(&fixture::sweep());
    fits(&text);
    insta::assert_snapshot!(text, @r"
    storm on 7.0.3, 8 CPUs, 2 NUMA nodes; medians of 3 trials, with the least and the largest

    legacy
    below the name of a lock: time waited for it per start
    CONCURRENCY   STARTS/S       MIN TO MAX X PREVIOUS        P50       P99  namespace_sem  mount_lock
              1       62.0     60.1 to 63.2          -     9.00ms    31.0ms         90.0us      10.0us
              2        117       114 to 120     1.89 x     9.00ms    31.0ms          360us      40.0us
              4        207       201 to 211     1.77 x     9.00ms    31.0ms         1.44ms       160us
              8        315       306 to 321     1.52 x     9.00ms    31.0ms         5.76ms       640us
             16        366       355 to 373     1.16 x     9.00ms    31.0ms         23.0ms      2.56ms
             32        304       295 to 310     0.83 x     9.00ms    31.0ms         92.2ms      10.2ms
             64        196       190 to 200     0.64 x     9.00ms    31.0ms          369ms      41.0ms
    this host stops gaining at concurrency 16 (366 starts/s)
    USL: 62.0 starts/s per worker, contention 0.050, coherency 0.0040, peak at 15.4 (366 starts/s), R2
      1.00, error 0 %

    fd
    below the name of a lock: time waited for it per start
    CONCURRENCY   STARTS/S       MIN TO MAX X PREVIOUS        P50       P99  namespace_sem  mount_lock
              1       62.0     60.1 to 63.2          -     9.00ms    31.0ms         11.2us      1.25us
              2        122       118 to 124     1.96 x     9.00ms    31.0ms         45.0us      5.00us
              4        234       227 to 239     1.92 x     9.00ms    31.0ms          180us      20.0us
              8        435       422 to 444     1.86 x     9.00ms    31.0ms          720us      80.0us
             16        763       740 to 778     1.75 x     9.00ms    31.0ms         2.88ms       320us
             32       1225     1188 to 1249     1.60 x     9.00ms    31.0ms         11.5ms      1.28ms
             64       1756     1703 to 1791     1.43 x     9.00ms    31.0ms         46.1ms      5.12ms
    no knee up to concurrency 64: it still gains
    USL: 62.0 starts/s per worker, contention 0.020, coherency 0, no peak, limit 3100 starts/s, R2 1.00,
      error 0 %

    fd against legacy, ratios of starts/s and of waits per start
    CONCURRENCY   STARTS/S       MIN TO MAX  namespace_sem  mount_lock
              1     0.98 x     0.97 to 1.05         0.12 x      0.12 x
              2     1.02 x     1.01 to 1.09         0.12 x      0.12 x
              4     1.11 x     1.10 to 1.19         0.12 x      0.12 x
              8     1.35 x     1.34 to 1.45         0.12 x      0.12 x
             16     2.04 x     2.02 to 2.19         0.12 x      0.12 x
             32     3.94 x     3.90 to 4.23         0.12 x      0.12 x
             64     8.80 x     8.70 to 9.44         0.12 x      0.12 x
    ");
}

#[test]
fn long_names_and_what_went_wrong_fit_as_well() {
    let long = "layers=500+idmap=per-layer+masks=96+shared-tmpfs+propagation=shared";
    let names = ["legacy", long, "beneath"].map(str::to_owned);
    let run = |step: Step| {
        let mut trial = fixture::trial(
            [20.0, 0.0][step.strategy],
            &[fixture::waits("a_lock_of_the_configuration_with_a_long_name", 1, 5_000)],
        );
        if step.strategy == 1 {
            trial.summary.failed_starts = 12;
            trial.summary.lost_processes = 1;
            trial.summary.killed = true;
            let message = "No space left on device".to_owned();
            trial.summary.errors = vec![ErrorCount { step: "bind", errno: 28, message, count: 12 }];
        }
        (step, trial)
    };
    let ran: Vec<_> = steps(2, 2, 1).map(run).collect();
    let host = Host { kernel: "6.18.0".to_owned(), cpus: 1, numa_nodes: 1 };
    let report = Report::new(host, None, &names, &ran, true, Vec::new());
    let text = text(&report);
    fits(&text);
    insta::assert_snapshot!(text, @r"
    storm on 6.18.0, 1 CPU, 1 NUMA node; medians of 2 trials, with the least and the largest

    STRATEGY                   STARTS/S       MIN TO MAX        P50       P99
    legacy                         20.0     20.0 to 20.0     9.00ms    31.0ms
    layers=500+idmap=per-layer+masks=96+shared-tmpfs+propagation=shared
                                      0           0 to 0          -         -

    layers=500+idmap=per-layer+masks=96+shared-tmpfs+propagation=shared against legacy: 0.00 x starts
      per second (0.00 to 0.00)

    interrupted: trials are missing
    layers=500+idmap=per-layer+masks=96+shared-tmpfs+propagation=shared: 24 failed starts (bind: No
      space left on device), 2 processes killed by something else, starts that did not end in time were
      killed
    beneath: no trial was run
    ");
}

#[test]
fn a_sweep_of_costs_says_where_they_bend() {
    let values = vec![0, 100, 200, 400, 600, 800];
    let report = |each: [u64; 6]| {
        #[expect(clippy::cast_precision_loss, reason = "small figures")]
        let run = |step: Step| (step, fixture::trial(1e4 / each[step.value] as f64, &[]));
        let ran: Vec<_> = steps(3, 1, 6).map(run).collect();
        let axis = Axis { name: "host-mounts".to_owned(), values: values.clone() };
        let host = Host { kernel: "6.18.0".to_owned(), cpus: 2, numa_nodes: 1 };
        text(&Report::new(host, Some(axis), &["legacy".to_owned()], &ran, false, Vec::new()))
    };
    let bent = report([20, 20, 20, 20, 60, 100]);
    assert!(
        bent.ends_with(
            "beyond host-mounts 400 (500 starts/s), each further one costs at least twice as much as \
             before\n"
        ),
        "{bent}"
    );
    let even = report([20, 30, 40, 60, 80, 100]);
    assert!(
        even.ends_with(
            "no knee from host-mounts 0 to 800: starts/s go from 500 to 100 without a bend\n"
        ),
        "{even}"
    );
    fits(&bent);
    fits(&even);
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let host = Host { kernel: "6.18\u{1b}[31m".to_owned(), cpus: 2, numa_nodes: 1 };
    let report =
        Report::new(host, None, &["a\u{7}".to_owned()], &[], false, vec!["x\u{202e}".to_owned()]);
    let text = text(&report);
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
}
