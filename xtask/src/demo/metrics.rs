//! The lines of a scrape that tell most.

/// Metrics to show, in this order.
const SHOWN: [&str; 5] = [
    "lockprof_lock_wait_seconds_count",
    "lockprof_lock_wait_seconds_sum",
    "lockprof_lock_wait_max_seconds",
    "lockprof_mount_syscall_duration_seconds_count",
    "lockprof_events_dropped_total",
];

/// Lines of each metric.
const EACH: usize = 4;

/// The largest samples of each metric in [`SHOWN`]; zeros only where a metric
/// has nothing else.
pub(super) fn telling(scrape: &str) -> Vec<&str> {
    SHOWN.iter().flat_map(|metric| largest(scrape, metric)).collect()
}

fn largest<'a>(scrape: &'a str, metric: &str) -> Vec<&'a str> {
    let mut samples: Vec<(f64, &str)> = scrape
        .lines()
        .filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| Some((line.rsplit_once(' ')?.1.parse().ok()?, line)))
        .collect();
    samples.sort_by(|a, b| b.0.total_cmp(&a.0));
    let busy = samples.iter().filter(|(value, _)| *value > 0.0).count();
    samples.truncate(busy.clamp(1, EACH));
    samples.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_samples_come_first_and_zeros_only_alone() {
        let scrape = "\
# TYPE lockprof_lock_wait_seconds histogram
lockprof_lock_wait_seconds_count{lock=\"a\"} 0
lockprof_lock_wait_seconds_count{lock=\"b\"} 7
lockprof_lock_wait_seconds_count{lock=\"c d\"} 12
lockprof_lock_wait_seconds_counter 99
lockprof_events_dropped_total{reason=\"x\"} 0
lockprof_events_dropped_total{reason=\"y\"} 0
";
        assert_eq!(
            telling(scrape),
            [
                "lockprof_lock_wait_seconds_count{lock=\"c d\"} 12",
                "lockprof_lock_wait_seconds_count{lock=\"b\"} 7",
                "lockprof_events_dropped_total{reason=\"x\"} 0",
            ]
        );
    }
}
