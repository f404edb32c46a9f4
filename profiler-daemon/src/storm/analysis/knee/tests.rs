use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;

const DOUBLING: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
const MOUNTS: [u64; 8] = [0, 100, 200, 300, 400, 600, 800, 1_000];

fn exact(values: &[u64], curve: impl Fn(f64) -> f64) -> Vec<Measured> {
    let point = |value: &u64| {
        let median = curve(as_f64(*value));
        (*value, Spread { median, min: median, max: median })
    };
    values.iter().map(point).collect()
}

/// Three trials at each value, each off by up to `share` of itself.
fn noisy(
    rng: &mut TestRng,
    share: f64,
    values: &[u64],
    curve: impl Fn(f64) -> f64,
) -> Vec<Measured> {
    let mut noise = || f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    let mut trials =
        |value: &u64| [(); 3].map(|()| curve(as_f64(*value)) * (1.0 + share * noise()));
    values.iter().map(|value| (*value, Spread::of(trials(value)).unwrap())).collect()
}

fn value(knee: Option<Knee>) -> Option<u64> {
    knee.map(|knee| knee.value)
}

#[test]
fn a_plateau_begins_at_the_knee() {
    let knee = of_gains(&exact(&DOUBLING, |n| 50.0 * n.min(8.0)));
    assert_eq!(knee, Some(Knee { value: 8, starts_per_second: 400.0 }));
}

#[test]
fn a_curve_that_falls_again_has_its_knee_at_the_top() {
    let fall = exact(&DOUBLING, |n| if n <= 16.0 { 50.0 * n } else { 12_000.0 / n });
    assert_eq!(value(of_gains(&fall)), Some(16));
}

#[test]
fn a_dip_before_the_top_is_no_knee() {
    let dip = exact(&DOUBLING, |n| if n == 4.0 { 90.0 } else { 50.0 * n.min(16.0) });
    assert_eq!(value(of_gains(&dip)), Some(16));
}

#[test]
fn what_never_gains_stops_at_the_first_value() {
    assert_eq!(value(of_gains(&exact(&DOUBLING, |_| 80.0))), Some(1));
    assert_eq!(value(of_gains(&exact(&DOUBLING, |n| 80.0 / n))), Some(1));
}

#[test]
fn what_still_grows_has_no_knee() {
    assert_eq!(of_gains(&exact(&DOUBLING, |n| 50.0 * n)), None);
    let saturating = |n: f64| 50.0 * n / (1.0 + 0.05 * (n - 1.0));
    assert_eq!(of_gains(&exact(&DOUBLING, saturating)), None, "23 % more with the last doubling");
    let fine: Vec<u64> = (1..=64).collect();
    assert_eq!(of_gains(&exact(&fine, |n| 50.0 * n)), None, "though 62 to 64 is 3 % only");
}

#[test]
fn a_knee_at_the_last_value_cannot_be_seen() {
    assert_eq!(of_gains(&exact(&[1, 2, 4, 8], |n| 50.0 * n.min(8.0))), None);
    assert_eq!(of_gains(&[]), None);
    assert_eq!(of_gains(&exact(&[4], |_| 50.0)), None);
}

#[test]
fn gains_within_the_noise_of_the_host_are_none() {
    // 100, 108, 108, ...: a gain of 8 %, on a host whose trials differ by 20 %.
    let mut points = exact(&DOUBLING, |n| if n == 1.0 { 100.0 } else { 108.0 });
    assert_eq!(value(of_gains(&points)), Some(2));
    for (_, spread) in &mut points {
        (spread.min, spread.max) = (0.9 * spread.median, 1.1 * spread.median);
    }
    assert_eq!(value(of_gains(&points)), Some(1));
}

#[test]
fn values_without_starts_do_not_count() {
    let mut points = exact(&DOUBLING, |n| 50.0 * n.min(8.0));
    points[6].1 = Spread::default();
    assert_eq!(value(of_gains(&points)), Some(8));
    assert_eq!(of_costs(&exact(&MOUNTS, |_| 0.0)), None);
}

#[test]
fn costs_that_rise_at_once_have_a_knee_there() {
    // 2 ms, and beyond 400 mounts 10 us for each.
    let cliff = |mounts: f64| 1e3 / (2.0 + 0.01 * (mounts - 400.0).max(0.0));
    assert_eq!(
        of_costs(&exact(&MOUNTS, cliff)),
        Some(Knee { value: 400, starts_per_second: 500.0 })
    );
    let steeper = |mounts: f64| 1e3 / (2.0 + 0.001 * mounts + 0.01 * (mounts - 600.0).max(0.0));
    assert_eq!(value(of_costs(&exact(&MOUNTS, steeper))), Some(600));
}

#[test]
fn costs_that_are_the_same_for_each_have_no_knee() {
    let even = |mounts: f64| 1e3 / (2.0 + 0.01 * mounts);
    assert_eq!(of_costs(&exact(&MOUNTS, even)), None);
    assert_eq!(of_costs(&exact(&DOUBLING, even)), None);
    assert_eq!(of_costs(&exact(&MOUNTS, |_| 500.0)), None, "nor those that are nothing");
    assert_eq!(of_costs(&exact(&MOUNTS, |mounts| 500.0 - 0.4 * mounts)), None, "a falling line");
}

#[test]
fn costs_that_rise_ever_less_have_no_knee() {
    assert_eq!(of_costs(&exact(&MOUNTS, |mounts| 1e3 / (2.0 + mounts.sqrt()))), None);
}

#[test]
fn too_few_values_have_no_bend() {
    for n in 0..4 {
        let points = exact(&MOUNTS[..n], |mounts| 1e3 / (2.0 + (mounts - 100.0).max(0.0)));
        assert_eq!(of_costs(&points), None, "{n} values");
    }
}

proptest! {
    #[test]
    fn a_line_that_grows_has_no_knee_whatever_the_noise(
        per_worker in 1.0..1e3f64, noise in 0.0..0.05f64, step in 1..9u64
    ) {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let even: Vec<u64> = (1..=12).map(|n| n * step).collect();
        for values in [&DOUBLING[..], &even] {
            let points = noisy(&mut rng, noise, values, |n| per_worker * n);
            prop_assert_eq!(of_gains(&points), None, "{:?}", points);
        }
    }

    #[test]
    fn even_costs_have_no_knee_whatever_the_noise(
        start_ms in 0.5..50.0f64, each in 0.0..0.02f64, noise in 0.0..0.05f64
    ) {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let points = noisy(&mut rng, noise, &MOUNTS, |n| 1e3 / (start_ms * (1.0 + each * n)));
        prop_assert_eq!(of_costs(&points), None, "{:?}", points);
    }

    #[test]
    fn a_plateau_is_found_within_a_doubling(at in 1..5usize, noise in 0.0..0.04f64) {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let knee = as_f64(DOUBLING[at]);
        let points = noisy(&mut rng, noise, &DOUBLING, |n| 40.0 * n.min(knee));
        let found = value(of_gains(&points)).unwrap();
        prop_assert!(found == DOUBLING[at] || found == DOUBLING[at + 1], "{} {:?}", found, points);
    }

    #[test]
    fn a_cliff_is_found_within_a_value(at in 2..6usize, noise in 0.0..0.04f64) {
        let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let knee = as_f64(MOUNTS[at]);
        let curve = |n: f64| 1e3 / (2.0 + 0.02 * (n - knee).max(0.0));
        let found = value(of_costs(&noisy(&mut rng, noise, &MOUNTS, curve))).unwrap();
        prop_assert!(MOUNTS[at - 1..=at + 1].contains(&found), "{} not {}", found, MOUNTS[at]);
    }
}
