//! Whether something grows.

/// How much a figure grows with each round, from its value after every round: the
/// medians of the first and the last third, divided by the rounds between these
/// thirds. A single large value, or a step at the beginning, is no growth.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory are below 2^53")]
pub(crate) fn per_round(values: &[u64]) -> f64 {
    let third = values.len() / 3;
    let (early, late) = (&values[..third], &values[values.len() - third..]);
    let rounds = values.len() - third;
    (median(late) as f64 - median(early) as f64) / rounds as f64
}

pub(crate) fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn what_grows_a_little_each_round_is_told_from_what_jumps_about() {
    let jumps = |round: u64| if round % 7 == 0 { 90_000 } else { round % 5 * 4096 };
    let steady: Vec<u64> = (0..3000).map(jumps).collect();
    assert!(per_round(&steady).abs() < 10.0, "{}", per_round(&steady));
    let leak: Vec<u64> = (0..3000).map(|round| jumps(round) + round * 100).collect();
    assert!((90.0..110.0).contains(&per_round(&leak)), "{}", per_round(&leak));
}
