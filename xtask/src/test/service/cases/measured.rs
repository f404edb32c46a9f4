//! What the service measures, without root.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::guest::Case;
use super::super::system::{SERVICE, System, read, run, scrape, start, systemctl, wait, write};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_scrape_shows_waits_and_mount_calls_that_grow_under_a_storm", run: grows },
    Case { name: "without_root_the_service_attaches_and_samples_as_root_does", run: attaches },
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

/// Runs `test` where CAP_PERFMON is enough for perf events: above 2, which only some
/// distributions' kernels know and have by default, they take CAP_SYS_ADMIN, and the
/// service goes without samples of CPUs and tracepoints of calls.
pub(super) fn with_perf_events(test: impl FnOnce() -> Result<()>) -> Result<()> {
    const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
    let setting = read(PARANOID)?;
    write(PARANOID, "2")?;
    let outcome = test();
    write(PARANOID, &setting)?;
    outcome
}

fn attaches(system: &mut System) -> Result<()> {
    system.running()?;
    with_perf_events(|| {
        systemctl(&["restart", SERVICE])?;
        as_root_does()
    })
}

fn as_root_does() -> Result<()> {
    let output = start("lockprof", &["doctor", "--json"])?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("doctor printed {}", String::from_utf8_lossy(&output.stdout)))?;
    let hooks = report["hooks"].as_array().context("doctor lists no hooks")?;
    let by_root: BTreeMap<_, _> = hooks
        .iter()
        .filter_map(|hook| Some((hook["hook"].as_str()?, hook["backend"].as_str()?)))
        .filter(|(_, backend)| *backend != "none")
        .collect();
    ensure!(by_root.get("sys_mount") == Some(&"fentry"), "root attaches {by_root:?}");
    let metrics = scrape()?;
    let in_service = |hook: &str, backend: &str| {
        let labels = [format!("hook=\"{hook}\""), format!("backend=\"{backend}\"")];
        metrics.sum("lockprof_hook_attached", &[&labels[0], &labels[1]]) == Some(1.0)
    };
    let missing: Vec<_> =
        by_root.iter().filter(|(hook, backend)| !in_service(hook, backend)).collect();
    ensure!(missing.is_empty(), "only root attaches {missing:?}");
    wait("samples of CPUs", || {
        let samples = scrape()?.sum("lockprof_kernel_samples_total", &[]);
        Ok(samples.is_some_and(|samples| samples > 0.0).then_some(()))
    })
}
