//! Log-linear (H2) histogram buckets over nanoseconds.
//!
//! Grouping power 3: every power of two is cut into eight buckets of equal
//! width, so that a bucket is at most 12.5 % wide. Buckets are closed above:
//! bucket `i` counts the values in `(upper(i - 1), upper(i)]`, which makes every
//! power of two an exact Prometheus `le` bound.

/// Every power of two is cut into `1 << GROUPING_POWER` buckets.
pub const GROUPING_POWER: u32 = 3;
/// The largest value that still has a bucket of its own width is
/// `1 << MAX_VALUE_POWER` ns, about 68.7 s.
pub const MAX_VALUE_POWER: u32 = 36;
/// Upper bound of the last bucket before the overflow bucket, in ns.
pub const MAX_VALUE_NS: u64 = 1 << MAX_VALUE_POWER;
/// Buckets with a finite upper bound.
pub const FINITE_BUCKETS: usize =
    ((MAX_VALUE_POWER - GROUPING_POWER + 1) << GROUPING_POWER) as usize;
/// All buckets: the finite ones and one for everything above [`MAX_VALUE_NS`].
pub const BUCKETS: usize = FINITE_BUCKETS + 1;
/// Index of the bucket for values above [`MAX_VALUE_NS`].
pub const OVERFLOW_BUCKET: usize = FINITE_BUCKETS;

const LINEAR_LIMIT: u64 = 1 << (GROUPING_POWER + 1);

/// Bucket of a value in ns. The result is below [`BUCKETS`].
#[inline(always)]
pub const fn bucket_index(value_ns: u64) -> usize {
    if value_ns > MAX_VALUE_NS {
        return OVERFLOW_BUCKET;
    }
    // Closed above: the value 256 belongs to the bucket that ends at 256.
    let v = value_ns.saturating_sub(1);
    if v < LINEAR_LIMIT {
        return v as usize;
    }
    let shift = 63 - v.leading_zeros() - GROUPING_POWER;
    ((shift << GROUPING_POWER) as u64 + (v >> shift)) as usize
}

/// Largest value, in ns, that bucket `index` counts; `u64::MAX` for the
/// overflow bucket and beyond.
#[inline]
pub const fn bucket_upper_ns(index: usize) -> u64 {
    if index >= OVERFLOW_BUCKET {
        return u64::MAX;
    }
    let index = index as u64;
    if index < LINEAR_LIMIT {
        return index + 1;
    }
    let shift = (index >> GROUPING_POWER) - 1;
    let top = index - (shift << GROUPING_POWER);
    (top + 1) << shift
}

/// Bucket whose upper bound is exactly `upper_ns`, or `None` when no bucket
/// ends there. The inverse of [`bucket_upper_ns`].
#[inline]
pub const fn bucket_of_upper_ns(upper_ns: u64) -> Option<usize> {
    if upper_ns == 0 {
        return None;
    }
    let index = bucket_index(upper_ns);
    if bucket_upper_ns(index) == upper_ns { Some(index) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_bucket_starts_right_after_the_one_before_it() {
        let mut lower = 0;
        for index in 0..FINITE_BUCKETS {
            let upper = bucket_upper_ns(index);
            assert!(upper > lower, "bucket {index} is empty");
            assert_eq!(bucket_index(lower + 1), index, "first value of bucket {index}");
            assert_eq!(bucket_index(upper), index, "last value of bucket {index}");
            assert_eq!(bucket_of_upper_ns(upper), Some(index));
            lower = upper;
        }
        assert_eq!(lower, MAX_VALUE_NS);
        assert_eq!(bucket_index(MAX_VALUE_NS + 1), OVERFLOW_BUCKET);
        assert_eq!(bucket_index(u64::MAX), OVERFLOW_BUCKET);
        assert_eq!(bucket_upper_ns(OVERFLOW_BUCKET), u64::MAX);
        assert_eq!(bucket_of_upper_ns(u64::MAX), Some(OVERFLOW_BUCKET));
    }

    #[test]
    fn every_value_up_to_a_million_lies_within_its_bucket() {
        for value in 1..=1_000_000u64 {
            let index = bucket_index(value);
            assert!(value <= bucket_upper_ns(index), "{value}");
            assert!(index == 0 || value > bucket_upper_ns(index - 1), "{value}");
        }
    }

    #[test]
    fn zero_counts_in_the_first_bucket() {
        assert_eq!(bucket_index(0), 0);
        assert_eq!(bucket_of_upper_ns(0), None);
    }

    #[test]
    fn every_power_of_two_is_an_upper_bound() {
        for power in 0..=MAX_VALUE_POWER {
            assert!(bucket_of_upper_ns(1 << power).is_some(), "2^{power}");
        }
    }

    #[test]
    fn the_range_reaches_beyond_a_minute() {
        const { assert!(MAX_VALUE_NS > 60_000_000_000) }
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_an_eighth_wide(value in 17u64..=MAX_VALUE_NS) {
            let index = bucket_index(value);
            let upper = bucket_upper_ns(index);
            let lower = bucket_upper_ns(index - 1);
            prop_assert!(lower < value && value <= upper);
            prop_assert!((upper - lower) * 8 <= upper);
        }

        #[test]
        fn a_larger_value_never_has_a_lower_bucket(a: u64, b: u64) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(bucket_index(low) <= bucket_index(high));
        }
    }
}
