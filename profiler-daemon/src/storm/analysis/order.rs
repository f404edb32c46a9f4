//! Which trial runs when.

/// One trial of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// From 0.
    pub round: u32,
    /// Index of the strategy.
    pub strategy: usize,
    /// Index of the value of the axis; 0 without one.
    pub value: usize,
}

/// Every strategy at every value in every round; `values` is 1 without an axis.
///
/// A machine drifts while a run goes on: caches fill, the CPU heats up, others
/// come and go. So that this does not pass for a difference:
///
/// - strategies take turns, A B A B, at one value after the other: what is
///   compared ran right after each other, and ratios are taken round by round;
/// - values go up in one round and down in the next: what drifts steadily lifts
///   as much at one end of the curve in one round as at the other in the next.
///
/// Every round has all of them, so that a run that is cut short has whole rounds
/// but the last.
pub fn steps(rounds: u32, strategies: usize, values: usize) -> impl Iterator<Item = Step> {
    (0..rounds).flat_map(move |round| {
        (0..values).flat_map(move |turn| {
            let value = if round % 2 == 0 { turn } else { values - 1 - turn };
            (0..strategies).map(move |strategy| Step { round, strategy, value })
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strategies_take_turns() {
        let order: Vec<_> = steps(3, 2, 1).map(|step| (step.round, step.strategy)).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)], "A B A B A B");
    }

    #[test]
    fn values_go_up_and_down_with_all_strategies_at_each() {
        let order: Vec<_> = steps(2, 2, 3).map(|step| (step.value, step.strategy)).collect();
        let up = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)];
        let down = [(2, 0), (2, 1), (1, 0), (1, 1), (0, 0), (0, 1)];
        assert_eq!(order, [up, down].concat());
    }

    proptest! {
        #[test]
        fn every_trial_runs_once(rounds in 0..6u32, strategies in 0..5usize, values in 0..9usize) {
            let all: Vec<_> = steps(rounds, strategies, values).collect();
            prop_assert_eq!(all.len(), rounds as usize * strategies * values);
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
            prop_assert!(all.is_sorted_by_key(|step| step.round));
        }

        #[test]
        fn a_steady_drift_is_the_same_at_every_value(pairs in 1..4u32, values in 1..9usize) {
            let mut when = vec![0; values];
            for (time, step) in steps(pairs * 2, 1, values).enumerate() {
                when[step.value] += time;
            }
            prop_assert!(when.iter().all(|sum| *sum == when[0]), "{:?}", when);
        }
    }
}
