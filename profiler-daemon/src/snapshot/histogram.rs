//! Sparse histogram over the buckets of `profiler_common::histogram`.

use profiler_common::histogram::{
    BUCKETS, MAX_VALUE_NS, bucket_index, bucket_of_upper_ns, bucket_upper_ns,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts by bucket, empty buckets left out.
///
/// JSON: `[[upper bound in ns, count], ...]`, ascending, not cumulative. The
/// bound is inclusive; that of the overflow bucket is 2^64 - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// `(bucket index, count)`, ascending, no zero counts.
    counts: Vec<(u16, u64)>,
}

impl Histogram {
    /// From dense counts; `first_bucket` is the bucket that `counts[0]` stands
    /// for.
    pub fn from_dense(counts: &[u64], first_bucket: usize) -> Self {
        let index = |i: usize| u16::try_from(i + first_bucket).unwrap_or(u16::MAX);
        Self {
            counts: counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count != 0)
                .map(|(i, count)| (index(i), *count))
                .collect(),
        }
    }

    /// Of single values in ns, for tests and simulations.
    pub fn from_values_ns(values: impl IntoIterator<Item = u64>) -> Self {
        let mut dense = [0u64; BUCKETS];
        for value in values {
            dense[bucket_index(value)] += 1;
        }
        Self::from_dense(&dense, 0)
    }

    /// `(inclusive upper bound in ns, count)` of every bucket with a count,
    /// ascending.
    pub fn iter_ns(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().map(|(index, count)| (bucket_upper_ns(usize::from(*index)), *count))
    }

    /// All counts together.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Values up to `bound_ns`, which must be an upper bound of a bucket: any
    /// power of two up to 2^36 is one.
    pub fn count_up_to_ns(&self, bound_ns: u64) -> u64 {
        self.iter_ns().take_while(|(upper, _)| *upper <= bound_ns).map(|(_, count)| count).sum()
    }

    /// Upper bound in ns of the highest bucket with a count.
    pub fn highest_ns(&self) -> Option<u64> {
        self.iter_ns().last().map(|(upper, _)| upper)
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, u64::saturating_add);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut window = self.clone();
        window.merge(earlier, u64::saturating_sub);
        window
    }

    fn merge(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (index, count) in &other.counts {
            match self.counts.binary_search_by_key(index, |(i, _)| *i) {
                Ok(at) => self.counts[at].1 = with(self.counts[at].1, *count),
                Err(at) => self.counts.insert(at, (*index, with(0, *count))),
            }
        }
        self.counts.retain(|(_, count)| *count != 0);
    }

    /// Quantiles in ns, at most `max_ns`; 0 for an empty histogram.
    pub fn quantiles_ns<const N: usize>(&self, quantiles: [f64; N], max_ns: u64) -> [u64; N] {
        if self.counts.is_empty() {
            return [0; N];
        }
        // Three digits are finer than a bucket is wide, and twice the largest
        // bound stands in for the overflow bucket.
        let Ok(mut hdr) = hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_VALUE_NS * 2, 3)
        else {
            return [max_ns; N];
        };
        for (upper, count) in self.iter_ns() {
            hdr.saturating_record_n(upper, count);
        }
        quantiles.map(|q| hdr.value_at_quantile(q).min(max_ns))
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter_ns().map(|(upper, count)| [upper, count]))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut dense = [0u64; BUCKETS];
        for (upper, count) in pairs {
            let index = bucket_of_upper_ns(upper)
                .ok_or_else(|| D::Error::custom(format!("no bucket ends at {upper} ns")))?;
            dense[index] += count;
        }
        Ok(Self::from_dense(&dense, 0))
    }
}
