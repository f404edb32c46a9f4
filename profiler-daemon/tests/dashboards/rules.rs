//! The rules: valid, each tested for when it fires and when it does not, and each
//! finding with its alert.

use std::collections::{BTreeMap, BTreeSet};

use lockprof::findings::RULES;
use serde::Deserialize;

use crate::common;
use crate::files::{self, Choice, DASHBOARDS};
use crate::prometheus::promtool;

/// The files with tests of rules.
const TESTS: [&str; 3] = ["recording_test.yml", "alerts_test.yml", "patterns_test.yml"];

/// An alert without a finding: the symptom, whichever of them is behind it.
const SYMPTOM: &str = "LockprofLockWaitHigh";

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    exp_alerts: Vec<serde_json::Value>,
}

/// Runs promtool in the folder of the rules; `None`, and a skip, without it.
fn in_rules(test: &str, arguments: &[&str]) -> Option<(bool, String)> {
    match promtool(&files::repository().join("dashboards/rules"), arguments) {
        Ok(said) => Some(said),
        Err(reason) => {
            common::skip(test, &reason);
            None
        }
    }
}

#[test]
fn the_rules_are_valid() {
    let files = ["check", "rules", "recording.yml", "alerts.yml"];
    let Some((fine, said)) = in_rules("the_rules_are_valid", &files) else { return };
    assert!(fine, "{said}");
    for rules in [files::recording(), files::alerts()] {
        assert!(said.contains(&format!("{} rules found", rules.len())), "{said}");
    }
}

#[test]
fn the_rules_record_and_fire_what_they_should_and_only_then() {
    let name = "the_rules_record_and_fire_what_they_should_and_only_then";
    let arguments: Vec<_> = ["test", "rules"].into_iter().chain(TESTS).collect();
    let Some((fine, said)) = in_rules(name, &arguments) else { return };
    assert!(fine, "{said}");
}

#[test]
fn every_alert_is_tested_for_firing_and_for_silence() {
    let mut tested: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for file in TESTS {
        let text = files::read(&format!("dashboards/rules/{file}"));
        let file: TestFile =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        for test in file.tests.into_iter().flat_map(|test| test.alert_rule_test) {
            tested.entry(test.alertname).or_default().insert(!test.exp_alerts.is_empty());
        }
    }
    for rule in files::alerts() {
        let both = tested.get(rule.name()).is_some_and(|fired| fired.len() == 2);
        assert!(both, "{}: {:?}", rule.name(), tested.get(rule.name()));
    }
}

#[test]
fn every_recorded_series_is_used_and_tested() {
    let mut users: Vec<String> = files::alerts().into_iter().map(|rule| rule.expr).collect();
    users.extend(files::recording().into_iter().map(|rule| rule.expr));
    for name in DASHBOARDS {
        users.extend(files::queries(name, &Choice::ANY).into_iter().map(|query| query.expression));
    }
    let tests: String =
        TESTS.iter().map(|f| files::read(&format!("dashboards/rules/{f}"))).collect();
    let patterns = files::alerts();
    for rule in files::recording() {
        let name = rule.name();
        assert!(users.iter().any(|user| user.contains(name)), "{name} is used by nothing");
        // An alert that is tested tests what it is made of.
        let by_alert = patterns.iter().any(|alert| alert.expr.contains(name));
        let by_rule = files::recording().iter().any(|other| other.expr.contains(name));
        assert!(tests.contains(name) || by_alert || by_rule, "{name} is tested by nothing");
    }
}

/// A number as rules and labels have it.
fn bound(text: &str) -> f64 {
    text.trim().parse().unwrap_or_else(|_| panic!("no bound: {text}"))
}

#[test]
fn the_buckets_made_of_native_histograms_end_where_the_classic_ones_do() {
    let page = files::read("docs/metrics.md");
    let line = page.lines().find_map(|line| line.strip_prefix("Classic bounds, in seconds: "));
    let classic: Vec<f64> =
        line.expect("the page has them").trim_end_matches('.').split(',').map(bound).collect();
    let mut made = Vec::new();
    for rule in files::recording().into_iter().filter(files::Rule::is_of_native_histograms) {
        let Some(le) = rule.labels.get("le") else { continue };
        let counted = rule.expr.split_once("histogram_fraction(0, ");
        let upper = counted.and_then(|(_, rest)| rest.split_once(',')).map_or("+Inf", |(b, _)| b);
        assert_eq!(upper, le, "{}", rule.expr);
        made.push(bound(le));
    }
    assert_eq!(made, classic);
}

#[test]
fn every_finding_has_its_alert_and_every_alert_leads_to_its_section() {
    let alerts = files::alerts();
    let findings: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    let stood_for: BTreeSet<_> =
        alerts.iter().filter_map(|alert| alert.labels.get("finding")).map(String::as_str).collect();
    assert_eq!(stood_for, findings);
    for alert in &alerts {
        let section = alert.labels.get("finding").map_or("patterns", String::as_str);
        let runbook = alert.annotations.get("runbook_url").map(String::as_str);
        assert_eq!(
            runbook,
            Some(format!("docs/patterns.md#{section}").as_str()),
            "{}",
            alert.name()
        );
        assert_eq!(alert.name() == SYMPTOM, section == "patterns", "{}", alert.name());
        for needed in ["summary", "description"] {
            assert!(alert.annotations.contains_key(needed), "{} has no {needed}", alert.name());
        }
    }
    assert!(files::read("docs/patterns.md").starts_with("# Patterns\n"));
}

#[test]
fn alerts_tell_how_soon_to_look_and_only_what_is_for_now_fires_at_once() {
    for alert in files::alerts() {
        let severity = alert.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{}", alert.name());
        assert_eq!(severity == Some("critical"), alert.for_at_least.is_none(), "{}", alert.name());
    }
}
