//! Ends of the daemon, wanted and unwanted.

use anyhow::{Result, ensure};

use super::super::guest::Case;
use super::super::kernel::{links, pinned, processes, programs};
use super::super::system::{
    CONFIG, Journal, SERVICE, System, main_pid, port_is_open, remove_drop_ins, replaced, run,
    scrape, show, start, systemctl, wait,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_daemon_that_stands_still_is_replaced_by_the_watchdog", run: watchdog },
    Case { name: "a_killed_daemon_is_replaced_and_leaves_nothing_attached", run: killed },
    Case { name: "a_stopped_service_leaves_nothing_behind", run: stopped },
    Case { name: "a_service_that_cannot_start_is_not_tried_again_and_says_why", run: refused },
];

fn signal(pid: u32, name: &str) -> Result<()> {
    run("kill", &["-s", name, &pid.to_string()])?;
    Ok(())
}

/// Shorter than the unit has it, and long enough for an emulated machine that
/// shares its processor.
const WATCHDOG: &str = "[Service]\nWatchdogSec=20s\nTimeoutAbortSec=10s\n";

fn watchdog(system: &mut System) -> Result<()> {
    system.running()?;
    system.drop_in(WATCHDOG)?;
    systemctl(&["restart", SERVICE])?;
    let (pid, journal) = (main_pid()?, Journal::now()?);
    signal(pid, "STOP")?;
    replaced(pid)?;
    let text = journal.since()?;
    ensure!(text.to_lowercase().contains("watchdog timeout"), "another reason: {text}");
    scrape()?;
    // The new process is as good as any.
    remove_drop_ins()?;
    system.untouch();
    Ok(())
}

fn killed(system: &mut System) -> Result<()> {
    system.running()?;
    let (pid, old) = (main_pid()?, scrape()?.get("lockprof_start_time_seconds", &[])?);
    let (programs_before, links_before) = (programs()?, links()?);
    ensure!(!programs_before.is_empty(), "nothing was attached");
    signal(pid, "KILL")?;
    replaced(pid)?;
    let new = scrape()?.get("lockprof_start_time_seconds", &[])?;
    ensure!(new > old, "counters began at {old}, and after the restart at {new}");
    // Freed after a grace period, which need not be over.
    wait("the programs of the killed daemon to be gone", || {
        Ok((programs()?.is_disjoint(&programs_before) && links()?.is_disjoint(&links_before))
            .then_some(()))
    })?;
    let (programs_now, links_now) = (programs()?.len(), links()?.len());
    ensure!(programs_now == programs_before.len(), "{programs_now} programs: {programs_before:?}");
    ensure!(links_now == links_before.len(), "{links_now} links, and before: {links_before:?}");
    Ok(())
}

fn stopped(system: &mut System) -> Result<()> {
    system.running()?;
    ensure!(!programs()?.is_empty(), "nothing was attached");
    systemctl(&["stop", SERVICE])?;
    ensure!(show("Result")? == "success", "it ended with {}", show("ExecMainStatus")?);
    ensure!(!port_is_open(), "the port is still open");
    let left = processes()?;
    ensure!(left.is_empty(), "processes are left: {left:?}");
    let left = pinned()?;
    ensure!(left.is_empty(), "pinned: {left:?}");
    wait("all programs and links to be gone", || {
        Ok((programs()?.is_empty() && links()?.is_empty()).then_some(()))
    })
}

fn refused(system: &mut System) -> Result<()> {
    system.running()?;
    systemctl(&["stop", SERVICE])?;
    system.configure(&[("containers = 0", "containers = \"many\"")])?;
    let journal = Journal::now()?;
    let outcome = start("systemctl", &["start", SERVICE])?;
    ensure!(!outcome.status.success(), "systemd says that it runs");
    ensure!(show("ActiveState")? == "failed" && show("ExecMainStatus")? == "2");
    ensure!(show("NRestarts")? == "0", "it was tried again");
    let text = journal.since()?;
    ensure!(text.contains(CONFIG) && text.contains("containers"), "no reason is given: {text}");
    Ok(())
}
