//! The Prometheus rules in `dashboards/rules`: valid, firing when they should
//! and only then, and about metrics that exist.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs promtool in the folder of the rules; `None` without promtool.
fn promtool(test: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(repository().join("dashboards/rules"))
        .output();
    let Ok(output) = output else {
        common::skip(test, "promtool is not installed; `cargo xtask setup` installs it");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), said))
}

#[test]
fn the_rules_are_valid() {
    let Some((fine, said)) = promtool("the_rules_are_valid", &["check", "rules", "lockprof.yml"])
    else {
        return;
    };
    assert!(fine && said.contains("5 rules found"), "{said}");
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    let name = "the_alerts_fire_when_they_should_and_only_then";
    let Some((fine, said)) = promtool(name, &["test", "rules", "lockprof_test.yml"]) else {
        return;
    };
    assert!(fine, "{said}");
}

#[test]
fn the_rules_name_only_metrics_of_the_reference() {
    let read = |path: &str| {
        std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let (reference, rules) = (read("docs/metrics.md"), read("dashboards/rules/lockprof.yml"));
    let (known, used) = (names(&reference), names(&rules));
    assert!(used.len() >= 5, "{used:?}");
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
}

/// Words in `text` that start like a metric of lockprof.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("lockprof_"))
        .collect()
}
