use proptest::prelude::*;
use proptest::test_runner::TestRng;

use super::*;

const DOUBLING: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

fn fitted(points: &[(u64, f64)]) -> Option<Scaling> {
    fit(points, 0.05)
}

fn law(per_worker: f64, contention: f64, coherency: f64) -> impl Fn(u64) -> f64 {
    move |n| {
        let n = as_f64(n);
        per_worker * n / (1.0 + contention * (n - 1.0) + coherency * n * (n - 1.0))
    }
}

fn simulate(values: &[u64], law: impl Fn(u64) -> f64) -> Vec<(u64, f64)> {
    values.iter().map(|n| (*n, law(*n))).collect()
}

/// Each figure off by up to `share` of itself, the same way in every run.
fn with_noise(rng: &mut TestRng, share: f64, points: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
    let mut noise = || f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    points.into_iter().map(|(n, x)| (n, x * (1.0 + share * noise()))).collect()
}

fn close(found: f64, expected: f64, share: f64) -> bool {
    (found - expected).abs() <= share * expected.abs()
}

proptest! {
    #[test]
    fn known_coefficients_are_recovered(
        g in 0.1..5_000.0f64, s in 0.001..0.9f64, k in 1e-5..0.05f64
    ) {
        let fit = fitted(&simulate(&DOUBLING, law(g, s, k))).unwrap();
        prop_assert!(close(fit.per_worker, g, 1e-6), "{:?}", fit);
        prop_assert!(close(fit.contention, s, 1e-3), "{:?}", fit);
        prop_assert!(close(fit.coherency, k, 1e-3), "{:?}", fit);
        prop_assert!(fit.relative_error < 1e-6 && fit.r_squared > 0.999_999, "{:?}", fit);
        let peak = ((1.0 - s) / k).sqrt().max(1.0);
        prop_assert!(close(fit.peak_concurrency.unwrap(), peak, 1e-2), "{:?}", fit);
        prop_assert!(close(fit.peak_throughput.unwrap(), fit.throughput(peak), 1e-3));
    }

    #[test]
    fn noise_moves_them_little(
        g in 1.0..1_000.0f64, s in 0.05..0.3f64, k in 0.004..0.02f64, noise in 0.02..0.05f64
    ) {
        let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        let points = with_noise(&mut rng, noise, simulate(&DOUBLING, law(g, s, k)));
        let fit = fitted(&points).unwrap();
        prop_assert!(close(fit.per_worker, g, 3.0 * noise), "{:?}", fit);
        prop_assert!(fit.relative_error <= noise * 1.1, "{:?}", fit);
        prop_assert!(fit.r_squared > 0.8, "{:?}", fit);
        let peak = ((1.0 - s) / k).sqrt();
        prop_assert!(close(fit.peak_concurrency.unwrap(), peak, 0.4), "{} {:?}", peak, fit);
    }

    #[test]
    fn a_straight_line_has_neither_peak_nor_limit(g in 0.1..5_000.0f64) {
        let fit = fitted(&simulate(&DOUBLING, law(g, 0.0, 0.0))).unwrap();
        prop_assert_eq!((fit.contention, fit.coherency), (0.0, 0.0));
        prop_assert_eq!((fit.peak_concurrency, fit.peak_throughput), (None, None));
        prop_assert!(close(fit.per_worker, g, 1e-9));
    }

    #[test]
    fn without_crosstalk_it_tends_to_the_limit_of_amdahl(
        g in 0.1..5_000.0f64, s in 0.001..0.95f64
    ) {
        let fit = fitted(&simulate(&DOUBLING, law(g, s, 0.0))).unwrap();
        prop_assert_eq!((fit.coherency, fit.peak_concurrency), (0.0, None));
        prop_assert!(close(fit.peak_throughput.unwrap(), g / s, 1e-3), "{:?}", fit);
    }

    #[test]
    fn whatever_is_measured_the_law_stays_within_bounds(
        points in proptest::collection::vec((0..5_000u64, 0.0..1e6f64), 0..12)
    ) {
        if let Some(fit) = fitted(&points) {
            prop_assert!(fit.per_worker > 0.0 && fit.per_worker.is_finite(), "{:?}", fit);
            prop_assert!((0.0..=1.0).contains(&fit.contention), "{:?}", fit);
            prop_assert!(fit.coherency >= 0.0 && fit.coherency.is_finite(), "{:?}", fit);
            prop_assert!(fit.r_squared <= 1.0 && fit.relative_error.is_finite(), "{:?}", fit);
            prop_assert!(fit.peak_concurrency.is_none_or(|peak| peak >= 1.0), "{:?}", fit);
        }
    }
}

/// How many of a thousand runs with noise pass `test`.
fn of_a_thousand(points: &[(u64, f64)], noise: f64, test: impl Fn(&Scaling) -> bool) -> usize {
    let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut run = || fitted(&with_noise(&mut rng, noise, points.to_vec())).unwrap();
    (0..1000).filter(|_| test(&run())).count()
}

#[test]
fn noise_seldom_bends_a_line() {
    let line = simulate(&DOUBLING, law(40.0, 0.0, 0.0));
    for noise in [0.02, 0.05] {
        let peaks = of_a_thousand(&line, noise, |fit| fit.peak_concurrency.is_some());
        let within =
            of_a_thousand(&line, noise, |fit| fit.peak_concurrency.is_some_and(|n| n < 64.0));
        let limits = of_a_thousand(&line, noise, |fit| fit.contention > 0.0);
        assert!(peaks <= 80, "{peaks} of 1000 lines with {noise} of noise had a peak");
        assert_eq!(within, 0, "and none where it was measured");
        assert!(limits <= 100, "{limits} of 1000 lines with {noise} of noise had a limit");
    }
}

#[test]
fn noise_seldom_hides_a_peak_within_what_was_measured() {
    let peak = (0.97_f64 / 0.003).sqrt();
    let points = simulate(&DOUBLING, law(40.0, 0.03, 0.003));
    let found = of_a_thousand(&points, 0.05, |fit| {
        fit.peak_concurrency.is_some_and(|n| close(n, peak, 0.25))
    });
    assert!(found >= 980, "found near {peak} in {found} of 1000 runs");
}

#[test]
fn noise_leaves_the_limit_of_saturation_near() {
    let points = simulate(&DOUBLING, law(40.0, 0.2, 0.0));
    let found = of_a_thousand(&points, 0.03, |fit| {
        fit.peak_throughput.is_some_and(|x| close(x, 200.0, 0.2))
    });
    assert!(found >= 950, "found near 200 in {found} of 1000 runs");
}

#[test]
fn a_curve_that_only_falls_has_its_peak_at_one() {
    let fit = fitted(&[(1, 100.0), (2, 80.0), (4, 50.0), (8, 27.0), (16, 14.0)]).unwrap();
    assert_eq!(fit.peak_concurrency, Some(1.0), "{fit:?}");
    assert!(close(fit.peak_throughput.unwrap(), 100.0, 0.1), "{fit:?}");
}

#[test]
fn a_host_that_does_not_keep_to_the_law_is_not_taken_for_a_line() {
    let sharp = simulate(&DOUBLING, |n| 40.0 * as_f64(n.min(4)));
    let fit = fitted(&sharp).unwrap();
    assert!(fit.contention > 0.05, "{fit:?}");
    assert!(fit.relative_error > 0.1, "and the error says how far off it is: {fit:?}");
}

#[test]
fn a_level_curve_is_all_contention() {
    let fit = fitted(&simulate(&DOUBLING, |_| 90.0)).unwrap();
    assert!(close(fit.contention, 1.0, 1e-9) && fit.coherency == 0.0, "{fit:?}");
    assert!(close(fit.peak_throughput.unwrap(), 90.0, 1e-9), "{fit:?}");
    assert_eq!(fit.r_squared, 1.0, "nothing is left to explain");
}

#[test]
fn growth_beyond_proportion_is_taken_as_proportion() {
    let fit = fitted(&simulate(&DOUBLING, |n| as_f64(n).powf(1.2))).unwrap();
    assert_eq!((fit.contention, fit.coherency), (0.0, 0.0));
    assert!(fit.relative_error > 0.1, "and the error says so: {fit:?}");
}

#[test]
fn fewer_than_four_values_are_refused() {
    let law = law(10.0, 0.1, 0.01);
    assert_eq!(fitted(&simulate(&[1, 2, 4], &law)), None);
    assert_eq!(fitted(&simulate(&[1, 2, 4, 4, 2], &law)), None, "five points at three values");
    assert_eq!(fitted(&[(1, 1.0), (2, 2.0), (4, 0.0), (8, 5.0)]), None, "a value without starts");
    assert!(fitted(&simulate(&[1, 2, 4, 8], &law)).is_some());
}

#[test]
fn any_four_values_do_and_need_not_begin_at_one() {
    let fit = fitted(&simulate(&[3, 9, 27, 81], law(10.0, 0.1, 0.001))).unwrap();
    assert!(close(fit.contention, 0.1, 1e-4) && close(fit.coherency, 0.001, 1e-4), "{fit:?}");
}
