//! The dashboards against the types that Grafana publishes (`@grafana/schema`).
//! Where npm or its registry is not at hand, `dashboard` still checks what an
//! import needs.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common;
use crate::files::{self, DASHBOARDS};

/// Whether the check is content with the dashboards, and what it said.
fn check(schema: &Path) -> (bool, String) {
    let mut command = Command::new("node");
    command.arg("check.js").args(DASHBOARDS).current_dir(schema);
    let output = command.output().expect("node was there for npm");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// What makes a dashboard wrong.
type Change = fn(&mut Value);

/// Changes `host.json` in a copy of the dashboards.
fn change(folder: &Path, change: Change) {
    let mut dashboard = files::dashboard("host.json");
    change(&mut dashboard);
    std::fs::write(folder.join("host.json"), dashboard.to_string()).expect("it is writable");
}

/// The first panel of this type.
fn panel<'a>(dashboard: &'a mut Value, kind: &str) -> &'a mut Value {
    let panels = dashboard["panels"].as_array_mut().expect("panels");
    panels.iter_mut().find(|panel| panel["type"] == kind).expect("one of this type")
}

#[test]
fn the_dashboards_fit_the_schema_that_grafana_publishes() {
    let name = "the_dashboards_fit_the_schema_that_grafana_publishes";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let schema = folder.path().join("schema");
    std::fs::create_dir(&schema).expect("it is writable");
    let from = files::repository().join("dashboards");
    for file in DASHBOARDS.into_iter().chain([
        "schema/package.json",
        "schema/package-lock.json",
        "schema/check.js",
    ]) {
        std::fs::copy(from.join(file), folder.path().join(file)).expect(file);
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&schema);
    match install.output() {
        Err(error) => return common::skip(name, &format!("npm cannot be run: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            // What is wrong with the files themselves is no reason to skip.
            assert!(!said.contains("EUSAGE") && !said.contains("EJSONPARSE"), "{said}");
            let first = said.lines().find(|line| line.contains("npm error")).unwrap_or("no reason");
            return common::skip(name, &format!("@grafana/schema cannot be had: {first}"));
        }
        Ok(_) => {}
    }
    let (fits, said) = check(&schema);
    assert!(fits, "{said}");

    let wrong: [(&str, Change); 4] = [
        ("an option that is not there", |d| {
            panel(d, "timeseries")["options"]["legend"]["colour"] = json!("red");
        }),
        ("a value that is not there", |d| {
            panel(d, "timeseries")["fieldConfig"]["defaults"]["custom"]["drawStyle"] =
                json!("dots");
        }),
        ("an option that is missing", |d| {
            panel(d, "heatmap")["options"].as_object_mut().expect("options").remove("color");
        }),
        ("a kind of variable that is not there", |d| {
            d["templating"]["list"][0]["type"] = json!("source");
        }),
    ];
    for (what, how) in wrong {
        change(folder.path(), how);
        let (fits, said) = check(&schema);
        assert!(!fits && said.contains("host.ts"), "{what}: {said}");
    }
}
