//! From the buckets of a snapshot to those of Prometheus.
//!
//! In: a [`Histogram`] with H2 buckets over ns. Out: classic buckets, which are
//! exact, and native buckets of schema 3, which are off by a known amount.

use std::sync::LazyLock;

use profiler_common::histogram::{BUCKETS, MAX_VALUE_NS, OVERFLOW_BUCKET, bucket_upper_ns};

use super::metrics::seconds;
use crate::snapshot::Histogram;

/// Finite `le` bounds in ns: 256 ns to 68.7 s in steps of 4. Every power of two
/// is a bound of the H2 buckets, so the counts below each are exact.
pub(super) const CLASSIC_NS: [u64; 15] = {
    let mut bounds = [0; 15];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = 1 << (8 + 2 * i);
        i += 1;
    }
    bounds
};
const _: () = assert!(CLASSIC_NS[CLASSIC_NS.len() - 1] == MAX_VALUE_NS);

/// Classic buckets: `(upper bound in seconds, count)`, not cumulative, the last
/// one up to infinity. The counts add up to [`Histogram::total`].
pub(super) fn classic(histogram: &Histogram) -> [(f64, u64); CLASSIC_NS.len() + 1] {
    let mut buckets = [(f64::INFINITY, 0); CLASSIC_NS.len() + 1];
    for (bucket, bound) in buckets.iter_mut().zip(CLASSIC_NS) {
        bucket.0 = seconds(bound);
    }
    for (upper, count) in histogram.iter_ns() {
        buckets[CLASSIC_NS.partition_point(|bound| *bound < upper)].1 += count;
    }
    buckets
}

/// Resolution of the native buckets: bucket `i` ends at `2^(i / 8)` seconds.
pub(super) const NATIVE_SCHEMA: i32 = 3;
/// Width of the zero bucket, the default of Prometheus client libraries. It
/// stays empty, and tells a scraper that a histogram without counts is native.
pub(super) const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// Native buckets in the form of the exposition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Native {
    /// `(gap to the end of the span before, length)`; for the first span the
    /// index of its first bucket.
    pub(super) spans: Vec<(i32, u32)>,
    /// Count of each bucket in the spans, less the count of the one before.
    pub(super) deltas: Vec<i64>,
}

/// Native buckets of schema 3.
///
/// The count of an H2 bucket goes to the native bucket that holds its upper
/// bound. Above 16 ns an H2 bucket ends at most 12.5 % above its lower bound
/// and a native bucket 9.1 %, so the upper bound of the native bucket is never
/// below a value it counts, and less than 22.7 % above it. Up to 16 ns H2
/// buckets hold one value each, and the 9.1 % are all. Values beyond 2^36 ns
/// (68.7 s) count in the bucket that ends at 76.1 s, whatever their size. The
/// counts add up to [`Histogram::total`].
pub(super) fn native(histogram: &Histogram) -> Native {
    let mut native = Native::default();
    let mut open: Option<(i32, u64)> = None;
    let mut before = 0;
    for (upper, count) in histogram.iter_ns() {
        let index = native_index(upper);
        match &mut open {
            Some((at, sum)) if *at == index => *sum += count,
            _ => {
                if let Some((at, sum)) = open.replace((index, count)) {
                    native.push(at, sum, &mut before);
                }
            }
        }
    }
    if let Some((at, sum)) = open {
        native.push(at, sum, &mut before);
    }
    native
}

impl Native {
    /// Adds the bucket at `index`, which lies above all before it. `before` is
    /// the count of the last one.
    fn push(&mut self, index: i32, count: u64, before: &mut u64) {
        let end = self.spans.iter().fold(0, |end, (gap, length)| end + gap + length.cast_signed());
        match self.spans.last_mut() {
            Some((_, length)) if index == end => *length += 1,
            _ => self.spans.push((index - end, 1)),
        }
        // Wrapping is what the format means: the reader adds the same way.
        self.deltas.push(count.wrapping_sub(*before).cast_signed());
        *before = count;
    }
}

/// Native bucket that holds `upper_ns`, which must be an upper bound of an H2
/// bucket.
fn native_index(upper_ns: u64) -> i32 {
    static INDEX: LazyLock<[i32; BUCKETS]> = LazyLock::new(|| {
        std::array::from_fn(|bucket| {
            if bucket == OVERFLOW_BUCKET {
                return log2_index(MAX_VALUE_NS) + 1;
            }
            log2_index(bucket_upper_ns(bucket))
        })
    });
    INDEX[profiler_common::histogram::bucket_index(upper_ns)]
}

/// `ceil(8 * log2(ns / 1e9))`. No H2 bound is near a power of `2^(1/8)`
/// seconds, so rounding cannot push it over an edge; the tests compare all of
/// them with the buckets that `prometheus-client` chooses.
#[expect(clippy::cast_possible_truncation, reason = "between -240 and 49")]
fn log2_index(ns: u64) -> i32 {
    (seconds(ns).log2() * 8.0).ceil() as i32
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_protobuf;
    use prometheus_client::metrics::histogram::{Histogram as Reference, NativeHistogramConfig};
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;

    use super::*;

    /// `(index, count)` of the buckets, as a scraper reads them.
    fn decode(native: &Native) -> Vec<(i32, u64)> {
        let (mut index, mut count, mut deltas) = (0, 0u64, native.deltas.iter());
        let mut buckets = Vec::new();
        for (gap, length) in &native.spans {
            index += gap;
            for _ in 0..*length {
                count = count.wrapping_add_signed(*deltas.next().unwrap());
                buckets.push((index, count));
                index += 1;
            }
        }
        assert!(deltas.next().is_none(), "more counts than buckets");
        buckets
    }

    #[test]
    fn every_bound_goes_to_the_bucket_that_prometheus_client_chooses() {
        for bucket in 0..OVERFLOW_BUCKET {
            let upper = bucket_upper_ns(bucket);
            let reference = Reference::new_native(NativeHistogramConfig::with_schema(3));
            reference.observe(seconds(upper));
            let mut registry = Registry::default();
            registry.register("h", "h", reference);
            let families = prometheus_protobuf::encode(&registry).unwrap();
            let histogram = families[0].metric[0].histogram.as_ref().unwrap();
            let spans: Vec<_> =
                histogram.positive_span.iter().map(|s| (s.offset, s.length)).collect();
            assert_eq!(spans, native(&Histogram::from_values_ns([upper])).spans, "{upper} ns");
        }
    }

    #[test]
    fn values_beyond_the_range_count_in_the_bucket_after_its_end() {
        let histogram = Histogram::from_values_ns([1 << 36, (1 << 36) + 1, u64::MAX]);
        assert_eq!(decode(&native(&histogram)), [(49, 1), (50, 2)]);
        let classic = classic(&histogram);
        assert_eq!(classic[14].1, 1);
        assert_eq!(classic[15], (f64::INFINITY, 2));
    }

    #[test]
    fn an_empty_histogram_has_no_native_buckets() {
        assert_eq!(native(&Histogram::default()), Native::default());
        assert!(classic(&Histogram::default()).iter().all(|(_, count)| *count == 0));
    }

    proptest! {
        #[test]
        fn classic_and_native_counts_add_up_to_the_total(
            values in proptest::collection::vec((any::<u64>(), 0u32..64), 0..200),
        ) {
            let histogram =
                Histogram::from_values_ns(values.iter().map(|(value, shift)| value >> shift));
            let total = histogram.total();
            prop_assert_eq!(classic(&histogram).iter().map(|(_, n)| n).sum::<u64>(), total);
            let native = decode(&native(&histogram));
            prop_assert_eq!(native.iter().map(|(_, n)| n).sum::<u64>(), total);
            prop_assert!(native.iter().all(|(_, n)| *n > 0));
            prop_assert!(native.windows(2).all(|w| w[0].0 < w[1].0));
        }

        #[test]
        fn classic_counts_below_a_bound_are_exact(
            values in proptest::collection::vec(0u64..1 << 40, 0..200),
        ) {
            let mut below = 0;
            for (bound, count) in classic(&Histogram::from_values_ns(values.iter().copied())) {
                below += count;
                let exact = values.iter().filter(|v| seconds(**v) <= bound).count() as u64;
                prop_assert_eq!(below, exact, "le {}", bound);
            }
        }

        #[test]
        fn a_native_bound_is_above_its_values_by_less_than_the_documented_error(
            value in (1u64..=1 << 36, 0u32..36).prop_map(|(v, shift)| (v >> shift).max(1)),
        ) {
            let buckets = decode(&native(&Histogram::from_values_ns([value])));
            let bound = (f64::from(buckets[0].0) / 8.0).exp2();
            prop_assert!(bound >= seconds(value));
            prop_assert!(bound < seconds(value) * 1.227);
        }
    }
}
