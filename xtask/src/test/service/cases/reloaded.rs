//! `systemctl reload` with a changed configuration.

use anyhow::{Result, ensure};

use super::super::guest::Case;
use super::super::system::{Journal, SERVICE, System, main_pid, replaced, scrape, show, systemctl};
use super::measured::storm;

pub(super) const CASES: &[Case] = &[
    Case { name: "a_reload_that_is_about_serving_alone_keeps_the_counters", run: keeps },
    Case { name: "a_reload_with_a_broken_configuration_changes_nothing_and_says_so", run: broken },
    Case { name: "a_reload_that_changes_the_locks_starts_the_service_anew", run: anew },
];

/// When counters began, and how many waits they have.
fn counters() -> Result<(f64, f64)> {
    let metrics = scrape()?;
    Ok((
        metrics.get("lockprof_start_time_seconds", &[])?,
        metrics.sum("lockprof_lock_wait_seconds_count", &[]).unwrap_or(0.0),
    ))
}

fn keeps(system: &mut System) -> Result<()> {
    system.running()?;
    storm()?;
    let (pid, (since, waits)) = (main_pid()?, counters()?);
    ensure!(waits > 0.0, "a storm made no wait");
    let journal = Journal::now()?;
    system.configure(&[
        ("level = \"info\"", "level = \"debug\""),
        ("containers = 0", "containers = 5"),
    ])?;
    systemctl(&["reload", SERVICE])?;
    journal.has("reloaded")?;
    let (still_since, still_waits) = counters()?;
    ensure!(main_pid()? == pid, "the service was started anew");
    ensure!(still_since == since, "counters began at {since} and now at {still_since}");
    ensure!(still_waits >= waits, "{waits} waits became {still_waits}");
    ensure!(
        !scrape()?.values("lockprof_container_lock_waiter_seconds_total", "lock").is_empty(),
        "containers = 5 has no effect"
    );
    Ok(())
}

fn broken(system: &mut System) -> Result<()> {
    system.running()?;
    let (pid, (since, waits)) = (main_pid()?, counters()?);
    let journal = Journal::now()?;
    system.configure(&[("containers = 0", "containers = \"many\"")])?;
    systemctl(&["reload", SERVICE])?;
    journal.has("kept the running configuration")?;
    let text = journal.since()?;
    ensure!(text.contains("containers"), "the key is not named: {text}");
    ensure!(show("ActiveState")? == "active" && main_pid()? == pid);
    let (still_since, still_waits) = counters()?;
    ensure!(still_since == since && still_waits >= waits);
    Ok(())
}

fn anew(system: &mut System) -> Result<()> {
    system.running()?;
    let (pid, (since, _)) = (main_pid()?, counters()?);
    ensure!(scrape()?.sum("lockprof_lock_resolved", &["lock=\"sb_lock\""]).unwrap_or(0.0) == 0.0);
    let journal = Journal::now()?;
    system.configure(&[("enable = []", "enable = [\"sb_lock\"]")])?;
    system.touch();
    systemctl(&["reload", SERVICE])?;
    replaced(pid)?;
    let text = journal.since()?;
    ensure!(text.contains("\"status\":75"), "it did not end with exit status 75: {text}");
    let restarts = show("NRestarts")?;
    ensure!(restarts == "1", "started anew {restarts} times: {text}");
    let metrics = scrape()?;
    ensure!(metrics.get("lockprof_lock_resolved", &["lock=\"sb_lock\""])? == 1.0);
    let now = metrics.get("lockprof_start_time_seconds", &[])?;
    ensure!(now > since, "counters began at {since}, and after the restart at {now}");
    Ok(())
}
