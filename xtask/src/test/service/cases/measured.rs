//! What the service measures, without root.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::guest::Case;
use super::super::system::{System, run, scrape, start};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_scrape_shows_waits_and_mount_calls_that_grow_under_a_storm", run: grows },
    Case { name: "without_root_the_service_attaches_what_root_attaches", run: attaches },
];

/// Mounts from several tasks at once.
pub(super) fn storm() -> Result<()> {
    run(
        "lockprof",
        &["storm", "--no-measure", "--concurrency", "8", "--pollers", "2", "--duration", "5s"],
    )?;
    Ok(())
}

fn grows(system: &mut System) -> Result<()> {
    const FIGURES: [(&str, &[&str]); 3] = [
        ("lockprof_lock_wait_seconds_count", &[]),
        ("lockprof_lock_wait_seconds_sum", &["lock=\"namespace_sem\""]),
        ("lockprof_mount_syscall_duration_seconds_count", &["syscall=\"mount\""]),
    ];
    system.running()?;
    let before = scrape()?;
    storm()?;
    let after = scrape()?;
    for (name, labels) in FIGURES {
        // A histogram without a value yet may have no series.
        let old = before.sum(name, labels).unwrap_or(0.0);
        let new = after.get(name, labels)?;
        ensure!(new > old, "{name}{labels:?} was {old} and is {new} after a storm");
    }
    Ok(())
}

fn attaches(system: &mut System) -> Result<()> {
    system.running()?;
    let output = start("lockprof", &["doctor", "--json"])?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("doctor printed {}", String::from_utf8_lossy(&output.stdout)))?;
    let hooks = report["hooks"].as_array().context("doctor lists no hooks")?;
    let metrics = scrape()?;
    let by_root: BTreeMap<_, _> = hooks
        .iter()
        .filter_map(|hook| Some((hook["hook"].as_str()?, hook["backend"].as_str()?)))
        .collect();
    ensure!(by_root.get("sys_mount") == Some(&"fentry"), "root attaches {by_root:?}");
    for (hook, backend) in by_root.into_iter().filter(|(_, backend)| *backend != "none") {
        let labels = [format!("hook=\"{hook}\""), format!("backend=\"{backend}\"")];
        let value = metrics.sum("lockprof_hook_attached", &[&labels[0], &labels[1]]);
        ensure!(value == Some(1.0), "{hook} by {backend} is {value:?} in the service");
    }
    Ok(())
}
