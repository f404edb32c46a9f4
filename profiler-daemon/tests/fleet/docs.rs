//! `docs/fleet.md`: what it shows as configuration is taken by Prometheus.

use std::fs;
use std::path::Path;

use crate::common;
use crate::files;
use crate::prometheus::promtool;

const PAGE: &str = "docs/fleet.md";

/// The blocks of code in `language`, with the line before each that is not empty.
fn blocks(language: &str) -> Vec<(String, String)> {
    let page = files::read(PAGE);
    let mut found = Vec::new();
    let mut before = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```")
            && !of.is_empty()
        {
            let code: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            if of == language {
                found.push((before.to_owned(), code.join("\n") + "\n"));
            }
        } else if !line.is_empty() {
            before = line;
        }
    }
    found
}

/// Names the files that configurations read: they must be there for the check.
fn surround(folder: &Path) {
    for name in ["password", "ca.crt", "client.crt", "client.key"] {
        fs::write(folder.join(name), "x").expect("it is writable");
    }
    for rules in ["recording.yml", "alerts.yml"] {
        fs::create_dir_all(folder.join("rules")).expect("it is writable");
        fs::write(
            folder.join("rules").join(rules),
            files::read(&format!("dashboards/rules/{rules}")),
        )
        .expect("it is writable");
    }
}

/// Debian's Prometheus is built without the discovery of pods: in its place, a
/// target. The rest is checked, and the discovery itself is what it has to be.
fn without_kubernetes(code: &str) -> String {
    const DISCOVERY: &str = "    kubernetes_sd_configs:
      - role: pod
        namespaces:
          names: [lockprof]
";
    assert_eq!(code.contains("kubernetes_sd_configs"), code.contains(DISCOVERY), "{code}");
    code.replace(DISCOVERY, "    static_configs: [{targets: ['pod:9723']}]\n")
}

#[test]
fn every_configuration_on_the_page_is_one_that_prometheus_takes() {
    let name = "every_configuration_on_the_page_is_one_that_prometheus_takes";
    let all = blocks("yaml");
    assert!(all.len() >= 5, "only {} configurations", all.len());
    for (before, code) in all {
        let folder = tempfile::tempdir().expect("a temporary folder");
        surround(folder.path());
        let checked = without_kubernetes(&code);
        fs::write(folder.path().join("prometheus.yml"), checked).expect("it is writable");
        match promtool(folder.path(), &["check", "config", "prometheus.yml"]) {
            Err(reason) => return common::skip(name, &reason),
            Ok((fine, said)) => assert!(fine, "{before}\n{code}\n{said}"),
        }
        // What promtool lets pass: rules that are not there.
        assert!(!code.contains("rule_files") || code.contains("rules/"), "{before}");
    }
}

/// Metrics and recorded series in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c);
    expression.split(word).filter(|w| w.contains("lockprof_") || matches!(*w, "ALERTS" | "up"))
}

#[test]
fn what_is_kept_of_a_fleet_is_all_that_its_dashboard_asks_for() {
    let configurations = blocks("yaml");
    let kept: Vec<Vec<&str>> = configurations
        .iter()
        .flat_map(|(_, code)| code.lines())
        .filter_map(|line| line.trim().strip_prefix("regex: '.+:.+|")?.strip_suffix('\''))
        .map(|literal| literal.split('|').collect())
        .collect();
    assert!(kept.len() >= 2, "remote write and federation keep {} lists", kept.len());
    for list in &kept {
        for query in files::queries("fleet.json", &files::Choice::ANY) {
            for name in names(&query.expression).filter(|name| !name.contains(':')) {
                assert!(list.contains(&name), "{}: {name} is not in {list:?}", query.place);
            }
        }
    }
}
