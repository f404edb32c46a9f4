//! `docs/patterns.md`: a section for every rule, and queries over metrics that
//! exist.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use lockprof::findings::RULES;
use lockprof::serve::metrics::{Kind, METRICS, Metric};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/patterns.md");
    std::fs::read_to_string(path).expect("docs/patterns.md can be read")
}

/// Sections with their text.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let sections = page.split("\n## ").skip(1);
    sections.map(|section| section.split_once('\n').expect("a heading has text below")).collect()
}

/// The bodies of the fenced PromQL blocks.
fn queries(text: &str) -> Vec<&str> {
    let blocks = text.split("\n```promql\n").skip(1);
    blocks.map(|block| block.split("\n```").next().expect("a block ends")).collect()
}

/// Names in `text` that start like a metric of lockprof.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("lockprof_"))
        .collect()
}

#[test]
fn every_rule_has_its_section_and_every_section_its_rule() {
    let page = page();
    let headings: Vec<_> = sections(&page).into_iter().map(|(heading, _)| heading).collect();
    let unique: BTreeSet<_> = headings.iter().copied().collect();
    assert_eq!(unique.len(), headings.len(), "a heading twice: {headings:?}");
    assert_eq!(unique, RULES.iter().map(|rule| rule.name).collect());
}

#[test]
fn every_section_has_the_shape_the_cause_the_next_step_and_a_query() {
    for (heading, text) in sections(&page()) {
        for part in ["**Shape.**", "**Cause.**", "**Next.**"] {
            assert!(text.contains(part), "{heading} lacks {part}");
        }
        assert!(!queries(text).is_empty(), "{heading} has no query");
    }
}

#[test]
fn links_within_the_page_lead_to_a_section() {
    let page = page();
    let targets: BTreeSet<_> = sections(&page).into_iter().map(|(heading, _)| heading).collect();
    let links = page.split("](#").skip(1).map(|rest| rest.split(')').next().expect("a link ends"));
    for link in links {
        assert!(targets.contains(link), "no section #{link}");
    }
}

#[test]
fn the_queries_are_about_metrics_that_exist() {
    let mut known = BTreeSet::new();
    for metric in METRICS {
        match metric.kind {
            Kind::Histogram => known
                .extend(["_bucket", "_count", "_sum"].map(|part| format!("{}{part}", metric.name))),
            _ => known.extend([metric.name.to_owned()]),
        }
    }
    let page = page();
    let used: BTreeSet<_> = queries(&page).into_iter().flat_map(names).collect();
    assert!(used.len() > 10, "{used:?}");
    let unknown: Vec<_> = used.into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}

#[test]
fn the_queries_select_by_labels_that_the_metrics_have() {
    let page = page();
    let mut checked = 0;
    for query in queries(&page) {
        for (name, rest) in query.match_indices("lockprof_").map(|(at, _)| {
            let text = &query[at..];
            let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            text.split_at(end.unwrap_or(text.len()))
        }) {
            let Some((selector, _)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) else {
                continue;
            };
            let parts = ["", "_bucket", "_count", "_sum"];
            let mut metrics = METRICS.iter();
            let is_it =
                |metric: &&Metric| parts.iter().any(|p| format!("{}{p}", metric.name) == name);
            // That it exists is another test's affair.
            let Some(metric) = metrics.find(is_it) else { continue };
            for matcher in selector.split(',') {
                let label = matcher.split(['=', '!']).next().expect("a matcher has a label");
                let known = metric.labels.iter().any(|known| known.name == label);
                assert!(known, "{name} has no label {label}");
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "only {checked} matchers found");
}

#[test]
fn prometheus_accepts_the_queries() {
    let mut rules = String::from("groups:\n- name: patterns\n  rules:\n");
    let page = page();
    // The first is for appending to the others.
    for (number, query) in queries(&page).into_iter().enumerate() {
        let query = query.strip_prefix("and on (instance) ").unwrap_or(query);
        let _ = writeln!(rules, "  - record: pattern_{number}\n    expr: |-");
        query.lines().for_each(|line| {
            let _ = writeln!(rules, "      {line}");
        });
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("patterns.yml");
    std::fs::write(&file, rules).expect("it is writable");
    let Ok(output) = Command::new("promtool").args(["check", "rules"]).arg(&file).output() else {
        let reason = "promtool is not installed; `cargo xtask setup` installs it";
        common::skip("prometheus_accepts_the_queries", reason);
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
