//! Every expression of every panel and rule: one that Prometheus reads, about
//! metrics, labels and values that exist.

use std::fmt::Write as _;

use crate::common;
use crate::files::{self, Choice, DASHBOARDS, Query};
use crate::labels::Known;
use crate::prometheus::promtool;

/// The expressions of all panels.
fn panels() -> Vec<Query> {
    DASHBOARDS.iter().flat_map(|name| files::queries(name, &Choice::ANY)).collect()
}

#[test]
fn panels_ask_for_metrics_and_labels_that_exist_and_show_labels_that_they_get() {
    let known = Known::all();
    let mut wrong = Vec::new();
    for query in panels() {
        match known.of(&query.expression) {
            Err(why) => wrong.push(format!("{}: {why}", query.place)),
            Ok(labels) if !query.shown.is_subset(&labels) => {
                wrong.push(format!("{}: shows {:?} of {labels:?}", query.place, query.shown));
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn alerts_ask_for_metrics_and_labels_that_exist_and_name_labels_that_they_get() {
    let known = Known::all();
    for rule in files::alerts() {
        let labels = known.of(&rule.expr).unwrap_or_else(|why| panic!("{}: {why}", rule.name()));
        for annotation in rule.annotations.values() {
            for part in annotation.split("$labels.").skip(1) {
                let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &part[..end.unwrap_or(part.len())];
                assert!(labels.contains(name), "{}: no label {name} in {labels:?}", rule.name());
            }
        }
    }
}

#[test]
fn the_dashboard_of_a_host_needs_no_rules() {
    let known = Known::scraped();
    for query in files::queries("host.json", &Choice::ANY) {
        known.of(&query.expression).unwrap_or_else(|why| panic!("{}: {why}", query.place));
    }
}

#[test]
fn prometheus_reads_the_expressions_of_all_panels() {
    let mut rules = String::from("groups:\n- name: panels\n  rules:\n");
    for (number, query) in panels().into_iter().enumerate() {
        let left = query.expression.replace("\"$1\"", "");
        assert!(!left.contains('$'), "{}: a variable is left in {left}", query.place);
        let _ = writeln!(rules, "  - record: panel_{number}\n    expr: |-");
        query.expression.lines().for_each(|line| {
            let _ = writeln!(rules, "      {line}");
        });
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("panels.yml"), rules).expect("it is writable");
    match promtool(folder.path(), &["check", "rules", "panels.yml"]) {
        Err(reason) => common::skip("prometheus_reads_the_expressions_of_all_panels", &reason),
        Ok((fine, said)) => assert!(fine, "{said}"),
    }
}
