//! What a Prometheus takes to scrape the hosts, to evaluate the rules and to
//! answer the dashboards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::files::{self, Choice, DASHBOARDS, list, text};
use crate::prometheus::Prometheus;

/// How often each query is asked; the median counts.
const TIMES: usize = 3;

/// What is shown in a dashboard when it is opened: the last so many seconds.
const SHOWN: f64 = 300.0;

/// Figures of a Prometheus that has scraped for a while.
pub(crate) struct Load {
    /// Targets that are up.
    pub(crate) up: f64,
    /// Series of the targets, without those of rules.
    pub(crate) scraped: f64,
    /// Series that rules record.
    pub(crate) recorded: f64,
    /// Series in the head block: all.
    pub(crate) head_series: f64,
    /// Samples that were added in a second, over the last minutes.
    pub(crate) samples_per_second: f64,
    /// Resident memory, in bytes.
    pub(crate) resident: f64,
    /// The part of it that is Go's heap in use, in bytes.
    pub(crate) heap: f64,
    /// CPUs, over all of its life.
    pub(crate) cpus: f64,
    /// Durations of scrapes, in seconds: median, 99th percentile, longest.
    pub(crate) scrape: [f64; 3],
    /// Groups of rules with the time that their last evaluation took, in seconds.
    pub(crate) groups: Vec<(String, f64)>,
    /// Rules with the time that their last evaluation took, in seconds, longest
    /// first.
    pub(crate) rules: Vec<(String, f64)>,
}

/// The time that a query of a panel took.
pub(crate) struct Asked {
    pub(crate) place: String,
    pub(crate) is_range: bool,
    pub(crate) series: usize,
    /// Median.
    pub(crate) took: Duration,
}

impl Load {
    /// Of `prometheus`, which started so long ago.
    pub(crate) fn of(prometheus: &Prometheus, age: Duration) -> Self {
        let metrics = prometheus.server.get("/metrics").expect("it answers");
        let own = own(&metrics);
        let one = |expression: &str| number(prometheus, expression);
        let rules = prometheus.ask("rules", &[]).expect("the rules are loaded");
        let groups = list(&rules["groups"]);
        let took = |rule: &Value, key: &str| rule[key].as_f64().expect("a time");
        let mut each: Vec<(String, f64)> = groups
            .iter()
            .flat_map(|group| list(&group["rules"]))
            .map(|rule| (text(rule, "name").to_owned(), took(rule, "evaluationTime")))
            .collect();
        each.sort_by(|a, b| b.1.total_cmp(&a.1));
        Self {
            up: one("sum(up)"),
            scraped: one("sum(scrape_samples_post_metric_relabeling)"),
            recorded: one("count({__name__=~\".+:.+\"}) or vector(0)"),
            head_series: own["prometheus_tsdb_head_series"],
            samples_per_second: one(
                "sum(sum_over_time(scrape_samples_post_metric_relabeling[2m])) / 120",
            ),
            resident: own["process_resident_memory_bytes"],
            heap: own["go_memstats_heap_inuse_bytes"],
            cpus: own["process_cpu_seconds_total"] / age.as_secs_f64(),
            scrape: [0.5, 0.99, 1.0]
                .map(|q| one(&format!("quantile({q}, scrape_duration_seconds)"))),
            groups: groups
                .iter()
                .map(|group| (text(group, "name").to_owned(), took(group, "evaluationTime")))
                .collect(),
            rules: each,
        }
    }
}

/// Asks all queries of the dashboards, about `host` where they are about one.
pub(crate) fn dashboards(prometheus: &Prometheus, host: &str) -> Vec<Asked> {
    let choice = Choice { host, range: "1m", compare: "1m" };
    let queries = DASHBOARDS.into_iter().flat_map(|name| files::queries(name, &choice));
    queries
        .map(|query| {
            let mut took = Vec::new();
            let mut series = 0;
            for _ in 0..TIMES {
                let began = Instant::now();
                let answer = if query.is_range {
                    prometheus.query_range(&query.expression, SHOWN)
                } else {
                    prometheus.query(&query.expression)
                };
                took.push(began.elapsed());
                series = answer.unwrap_or_else(|why| panic!("{}: {why}", query.place)).len();
            }
            took.sort();
            let took = took[TIMES / 2];
            Asked { place: query.place, is_range: query.is_range, series, took }
        })
        .collect()
}

/// The one value of an expression.
pub(crate) fn number(prometheus: &Prometheus, expression: &str) -> f64 {
    let series = prometheus.query(expression).expect("it answers");
    let [one] = &series[..] else { panic!("{expression}: {} series", series.len()) };
    one["value"][1].as_str().and_then(|v| v.parse().ok()).expect("a number")
}

/// Metrics without labels.
fn own(metrics: &str) -> BTreeMap<&str, f64> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(n, v)| Some((n, v.parse().ok()?)))
        .collect()
}
