//! Classic and native histograms, scraped from the same daemon, have the same
//! counts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::files::list;
use crate::prometheus::Prometheus;
use crate::proof::wait_until;

/// The histograms that are there on every kernel where lock waits are measured.
const WAITS: &str = "lockprof_lock_wait_seconds";

/// A scrape has read the daemon so long after its timestamp at most: it is given
/// up later.
const SCRAPE_TIMEOUT: f64 = 1.0;

/// Count and sum at a time, in seconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    time: f64,
    count: f64,
    sum: f64,
}

/// A series without its name, as text.
fn labels(series: &Value) -> String {
    let mut labels = series["metric"].as_object().expect("a series has labels").clone();
    labels.remove("__name__");
    Value::Object(labels).to_string()
}

fn number(value: &Value) -> f64 {
    let parsed = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    parsed.unwrap_or_else(|| panic!("no number: {value}"))
}

/// The samples of a classic histogram's `_count` and `_sum`.
fn classic(prometheus: &Prometheus) -> BTreeMap<String, Vec<Sample>> {
    let read = |part: &str| -> BTreeMap<String, Vec<(f64, f64)>> {
        let all = prometheus.query(&format!("{WAITS}_{part}[2m]")).expect("it answers");
        let values = |s: &Value| -> Vec<_> {
            list(&s["values"]).iter().map(|v| (number(&v[0]), number(&v[1]))).collect()
        };
        all.iter().map(|series| (labels(series), values(series))).collect()
    };
    let (counts, mut sums) = (read("count"), read("sum"));
    counts
        .into_iter()
        .map(|(series, counts)| {
            // The two queries are not asked at once: what both have.
            let sums: BTreeMap<u64, f64> = sums
                .remove(&series)
                .unwrap_or_default()
                .into_iter()
                .map(|(t, v)| (t.to_bits(), v))
                .collect();
            let both = counts.into_iter().filter_map(|(time, count)| {
                Some(Sample { time, count, sum: *sums.get(&time.to_bits())? })
            });
            (series, both.collect())
        })
        .collect()
}

/// The samples of a native histogram. Asserts that its buckets are all of it.
fn native(prometheus: &Prometheus) -> BTreeMap<String, Vec<Sample>> {
    let all = prometheus.query(&format!("{WAITS}[2m]")).expect("it answers");
    let sample = |value: &Value| {
        let (time, histogram) = (number(&value[0]), &value[1]);
        let count = number(&histogram["count"]);
        let buckets: f64 =
            list(&histogram["buckets"]).iter().map(|bucket| number(&bucket[3])).sum();
        assert!((buckets - count).abs() < 0.5, "{buckets} in buckets: {histogram}");
        Sample { time, count, sum: number(&histogram["sum"]) }
    };
    let samples = |s: &Value| list(&s["histograms"]).iter().map(sample).collect();
    all.iter().map(|series| (labels(series), samples(series))).collect()
}

/// Asserts it of two that have scraped the same daemon through a storm that is
/// over: what one says of every histogram lies between what the other said just
/// before and just after.
pub(crate) fn have_the_same_counts(by_protobuf: &Prometheus, by_text: &Prometheus) {
    let scraped = |prometheus: &Prometheus, metric: &str, times: usize| {
        let counted = prometheus.query(&format!("count_over_time({metric}[2m])"));
        counted.is_ok_and(|series| series.iter().any(|s| number(&s["value"][1]) >= times as f64))
    };
    // Scrapes of each after the last one of the other, with nothing going on.
    wait_until("both scrape on", || {
        scraped(by_protobuf, WAITS, 20) && scraped(by_text, &format!("{WAITS}_count"), 20)
    });
    let (native, classic) = (native(by_protobuf), classic(by_text));
    assert_eq!(
        native.keys().collect::<Vec<_>>(),
        classic.keys().collect::<Vec<_>>(),
        "the same series"
    );
    let (mut compared, mut equal) = (0, 0);
    for (series, natives) in &native {
        let classics = &classic[series];
        for sample in natives {
            // Both read the same counters, which only grow, but not at once: what
            // the one says lies between what the other said before and after.
            let before = classics.iter().rev().find(|c| c.time + SCRAPE_TIMEOUT <= sample.time);
            let after = classics.iter().find(|c| c.time >= sample.time + SCRAPE_TIMEOUT);
            let (Some(before), Some(after)) = (before, after) else { continue };
            let between =
                |of: fn(&Sample) -> f64| of(before) <= of(sample) && of(sample) <= of(after);
            assert!(
                between(|s| s.count) && between(|s| s.sum),
                "{series}: {sample:?} between {before:?} and {after:?}"
            );
            compared += 1;
            equal +=
                usize::from(before.count > 0.0 && before.count.to_bits() == after.count.to_bits());
        }
    }
    assert!(compared > 0 && equal > 0, "{compared} samples compared, {equal} of them equal");
    // The default of a server that stores native histograms: there are no others.
    let buckets = by_protobuf.query(&format!("{WAITS}_bucket")).expect("it answers");
    assert!(buckets.is_empty(), "classic buckets beside native ones: {}", buckets.len());
}
