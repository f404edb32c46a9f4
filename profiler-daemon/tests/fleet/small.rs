//! A small fleet, scraped every second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common;
use crate::files::{self, Choice};
use crate::hosts::{Host, fleet};
use crate::prometheus::Prometheus;
use crate::shape::{Histograms, Shape};
use crate::targets::Targets;

const HOSTS: usize = 40;

/// The host that has the most to do.
const WORST: usize = 17;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn instance(host: &Host) -> String {
    format!("{}:9723", host.name)
}

/// Values by `instance`.
fn by_instance(series: &[Value]) -> BTreeMap<String, Vec<f64>> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for one in series {
        let name = one["metric"]["instance"].as_str().expect("of an instance").to_owned();
        let value = one["value"][1].as_str().and_then(|v| v.parse().ok()).expect("a number");
        values.entry(name).or_default().push(value);
    }
    values
}

#[test]
fn forty_hosts_are_scraped_recorded_and_ranked() {
    let name = "forty_hosts_are_scraped_recorded_and_ranked";
    if let Some(reason) = Prometheus::missing() {
        return common::skip(name, &reason);
    }
    let fleet = fleet(HOSTS, WORST, 6);
    let targets = Targets::serve(&fleet);
    let prometheus = Prometheus::with(&targets.configuration("1s", true), &[]);
    let instances: BTreeSet<String> = fleet.iter().map(|host| instance(host)).collect();
    let of_all = |expression: &str| -> Option<BTreeMap<String, Vec<f64>>> {
        let values = by_instance(&prometheus.query(expression).expect("it answers"));
        values.keys().eq(&instances).then_some(values)
    };
    let wait_for = |what: &str, expression: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(values) = of_all(expression) {
                return values;
            }
            assert!(Instant::now() < deadline, "{what}: not of all hosts after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(300));
        }
    };
    // The last rule of the group that is about hosts, evaluated in order, and
    // some scrapes more, so that the rates are about them.
    let waited = "instance:lockprof_lock_wait_seconds_sum:rate5m";
    wait_for("scrapes", "count_over_time(up[1m]) >= 8");
    wait_for("rules", &format!("{waited} offset 3s"));

    for (host, up) in of_all("up").expect("all are known") {
        assert_eq!(up, [1.0], "{host}");
    }
    let measured = of_all("scrape_samples_scraped").expect("all are scraped");
    for host in &fleet {
        let formula = Shape::of(&host.recording.totals, 0).series(Histograms::Classic);
        assert_eq!(measured[&instance(host)], [formula as f64], "{}", host.name);
    }

    // Every rule by host alone gives one series for each; the others at least one.
    let mut of_hosts = 0;
    for rule in files::recording().into_iter().filter(|rule| !rule.is_of_native_histograms()) {
        let series = prometheus.query(rule.name()).expect("it answers");
        // Whose kernel does not tell is not there, and who did nothing of the sort.
        let partly = ["mountinfo_opens", "mountinfo_read_seconds"];
        if partly.iter().any(|part| rule.name().contains(part)) {
            continue;
        }
        assert!(!series.is_empty(), "{} gives nothing", rule.name());
        if rule.name().starts_with("instance:") && !rule.name().contains("container_starts") {
            let values = by_instance(&series);
            assert!(values.keys().eq(&instances), "{}: {} hosts", rule.name(), values.len());
            assert!(values.values().all(|of_one| of_one.len() == 1), "{}", rule.name());
            of_hosts += 1;
        }
    }
    assert!(of_hosts >= 2, "only {of_hosts} rules are by host");
    let kernels: BTreeSet<_> = fleet.iter().map(|h| &h.recording.totals.host.kernel).collect();
    let hosts = prometheus.query("kernel:lockprof_hosts:count").expect("it answers");
    assert_eq!(hosts.len(), kernels.len(), "{hosts:?}");

    let worst = instance(&fleet[WORST]);
    let choice = Choice { host: &worst, range: "10s", compare: "1s" };
    let tables = files::queries("fleet.json", &choice).into_iter();
    let mut asked = 0;
    for query in tables.filter(|query| query.place.starts_with("fleet.json: Worst hosts (")) {
        let first = query.expression.replace("topk(10,", "topk(1,");
        assert_ne!(first, query.expression, "{}: the variable `top` is gone", query.place);
        let series = prometheus.query(&first).expect("it answers");
        let named: BTreeSet<_> = series.iter().map(|s| s["metric"]["instance"].as_str()).collect();
        // What a kernel does not tell is not there for a host that runs it.
        assert!(
            named.is_empty() || named == BTreeSet::from([Some(&*worst)]),
            "{}: {named:?}",
            query.place
        );
        asked += named.len();
    }
    assert!(asked >= 4, "only {asked} columns name a host");
}
