//! Whether something grows.

/// Parts whose medians are compared.
const PARTS: usize = 4;

/// How much a figure grows with each round, from its value after every round: the
/// least that it grows from one part to the next. What leaks grows in every part;
/// a large value now and then is no growth, nor is a step, as when a table gets a
/// row that it did not have before.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory are below 2^53")]
pub(crate) fn per_round(values: &[u64]) -> f64 {
    let rounds = values.len() / PARTS;
    let medians: Vec<f64> =
        values.chunks_exact(rounds).take(PARTS).map(|part| median(part) as f64).collect();
    let growth = medians.windows(2).map(|pair| (pair[1] - pair[0]) / rounds as f64);
    growth.min_by(f64::total_cmp).expect("several parts")
}

pub(crate) fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn what_grows_a_little_each_round_is_told_from_what_jumps_about() {
    let jumps = |round: u64| if round.is_multiple_of(7) { 90_000 } else { round % 5 * 4096 };
    let steady: Vec<u64> = (0..3000).map(jumps).collect();
    assert!(per_round(&steady).abs() < 50.0, "{}", per_round(&steady));
    let leak: Vec<u64> = (0..3000).map(|round| jumps(round) + round * 100).collect();
    assert!((80.0..120.0).contains(&per_round(&leak)), "{}", per_round(&leak));
    let steps: Vec<u64> = (0..3000).map(|round| jumps(round) + round / 1100 * 300_000).collect();
    assert!(per_round(&steps).abs() < 50.0, "{}", per_round(&steps));
}
