//! What the package brings beside dashboards and rules, so that nothing has to be
//! written by hand: a Prometheus configuration, and files that Grafana provisions
//! itself from.

use lockprof::cli::Settings;
use serde_json::Value;

use crate::common;
use crate::files;
use crate::prometheus::promtool;

/// Where the package puts dashboards and rules.
const SHARED: &str = "/usr/share/lockprof";

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&files::read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_prometheus_configuration_is_valid_with_the_rules_where_the_package_puts_them() {
    let name = "the_prometheus_configuration_is_valid_with_the_rules_where_the_package_puts_them";
    let text = files::read("packaging/prometheus.yml");
    let rules = files::repository().join("dashboards/rules").canonicalize().expect("they exist");
    let installed = format!("{SHARED}/rules/");
    assert_eq!(text.matches(&installed).count(), 2, "{text}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = text.replace(&installed, &format!("{}/", rules.display()));
    std::fs::write(folder.path().join("prometheus.yml"), here).expect("it is writable");
    match promtool(folder.path(), &["check", "config", "prometheus.yml"]) {
        Ok((fine, said)) => {
            assert!(fine, "{said}");
            assert!(said.contains("2 rule files found"), "{said}");
        }
        Err(reason) => common::skip(name, &reason),
    }
}

#[test]
fn the_prometheus_configuration_scrapes_the_daemon_where_it_listens() {
    let config = yaml("packaging/prometheus.yml");
    let job = &config["scrape_configs"][0];
    assert_eq!(job["job_name"], "lockprof");
    let listen = Settings::default().listen.to_string();
    assert_eq!(job["static_configs"][0]["targets"], serde_json::json!([listen]));
}

#[test]
fn grafana_finds_the_dashboards_and_the_prometheus() {
    let dashboards = yaml("packaging/grafana/provisioning/dashboards/lockprof.yml");
    let provider = &dashboards["providers"][0];
    assert_eq!(provider["options"]["path"], format!("{SHARED}/dashboards"));
    assert_eq!(dashboards["apiVersion"], 1);
    let source = &yaml("packaging/grafana/provisioning/datasources/lockprof.yml")["datasources"][0];
    assert_eq!(source["type"], "prometheus");
    // Rates in the dashboards are over four of these.
    let interval = &yaml("packaging/prometheus.yml")["global"]["scrape_interval"];
    assert_eq!(&source["jsonData"]["timeInterval"], interval);
    for name in files::DASHBOARDS {
        // What is provisioned is not imported: no question is asked about inputs.
        assert!(files::dashboard(name).get("__inputs").is_none(), "{name}");
        assert!(!files::text(&files::dashboard(name), "uid").is_empty(), "{name}");
    }
}
