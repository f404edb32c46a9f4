//! From figures to places on an axis.

/// An axis of a plot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Places of the lowest and the highest figure.
    from: f64,
    to: f64,
}

impl Scale {
    /// From 0 to at least `high`, on an even scale.
    pub(super) fn from_zero(high: f64, from: f64, to: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        Self { low: 0.0, high, logarithmic: false, from, to }
    }

    /// For `values`, ascending: logarithmic where they span more than a factor of
    /// eight and have no 0, as values that double do.
    pub(super) fn of_values(values: &[f64], from: f64, to: f64) -> Self {
        let low = values.first().copied().unwrap_or(0.0);
        let high = values.last().copied().unwrap_or(1.0);
        let logarithmic = low > 0.0 && high / low > 8.0;
        // A single value stands in the middle.
        let (low, high) = if low < high { (low, high) } else { (low - 1.0, low + 1.0) };
        Self { low, high, logarithmic, from, to }
    }

    pub(super) const fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    /// Where `value` is.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// The value at `share` of the axis.
    pub(super) fn value(&self, share: f64) -> f64 {
        if self.logarithmic {
            self.low * (self.high / self.low).powf(share)
        } else {
            self.low + (self.high - self.low) * share
        }
    }
}

/// From 0 up to the first at or above `high`, about five, by 1, 2 or 5 times a
/// power of ten.
pub(super) fn ticks(high: f64) -> Vec<f64> {
    let high = if high > 0.0 && high.is_finite() { high } else { 1.0 };
    let power = 10_f64.powf((high / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = step.into_iter().find(|step| high / step <= 5.0).unwrap_or(10.0 * power);
    let mut ticks = vec![0.0];
    while ticks.last().is_some_and(|last| *last < high * (1.0 - 1e-9)) && ticks.len() < 8 {
        ticks.push(step * ticks.len() as f64);
    }
    ticks
}

/// A tick without zeros at its end: `0.2`, `10`.
pub(super) fn label(tick: f64) -> String {
    let text = format!("{tick:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_figures_up_to_the_highest() {
        assert_eq!(ticks(412.0), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!(ticks(1.0).len(), 6);
        assert_eq!(ticks(0.0).last(), Some(&1.0), "an axis of nothing still has a length");
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(
            ticks(1.0).into_iter().map(label).collect::<Vec<_>>(),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!([10.0, 2_000.0].map(label), ["10", "2000"]);
    }

    #[test]
    fn values_that_double_have_a_logarithmic_axis() {
        let scale = Scale::of_values(&[1.0, 2.0, 4.0, 8.0, 16.0], 0.0, 400.0);
        assert!(scale.is_logarithmic());
        assert_eq!([1.0, 4.0, 16.0].map(|value| scale.place(value).round()), [0.0, 200.0, 400.0]);
        assert!(!Scale::of_values(&[0.0, 10.0, 1_000.0], 0.0, 400.0).is_logarithmic());
        assert_eq!(Scale::of_values(&[7.0], 0.0, 400.0).place(7.0), 200.0);
    }

    proptest! {
        #[test]
        fn every_tick_and_figure_is_on_the_axis(high in 1e-9..1e12f64, share in 0.0..1.0f64) {
            let ticks = ticks(high);
            let top = *ticks.last().unwrap();
            prop_assert!((3..=7).contains(&ticks.len()) && top >= high * (1.0 - 1e-9), "{:?}", ticks);
            let place = Scale::from_zero(top, 300.0, 0.0).place(high * share);
            prop_assert!((0.0..=300.0).contains(&place));
        }

        #[test]
        fn a_value_goes_there_and_back(low in 0.1..10.0f64, span in 1.1..1e4f64, share in 0.0..1.0f64) {
            let scale = Scale::of_values(&[low, low * span], 50.0, 650.0);
            prop_assert!((scale.place(scale.value(share)) - (50.0 + 600.0 * share)).abs() < 1e-6);
        }
    }
}
