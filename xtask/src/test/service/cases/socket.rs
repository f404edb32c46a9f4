//! Socket activation.

use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::super::guest::Case;
use super::super::system::{
    SERVICE, SOCKET, System, get, main_pid, replaced, show, show_of, systemctl,
};

pub(super) const CASES: &[Case] = &[Case {
    name: "with_the_socket_a_connection_starts_the_service_and_a_restart_refuses_nobody",
    run: activated,
}];

/// Scrapes on both sides of a restart and in it.
const SCRAPES: usize = 12;

fn activated(system: &mut System) -> Result<()> {
    system.running()?;
    systemctl(&["stop", SERVICE])?;
    systemctl(&["enable", "--now", SOCKET])?;
    let outcome = with_socket();
    // Whatever came of it, the port is the service's own again.
    systemctl(&["disable", "--now", SOCKET])?;
    system.touch();
    outcome
}

fn with_socket() -> Result<()> {
    ensure!(show("ActiveState")? == "inactive", "the service runs before anybody asked");
    get("/readyz").context("the first connection was not answered")?;
    ensure!(show("ActiveState")? == "active");
    let pid = main_pid()?;
    thread::scope(|scope| {
        let restart = scope.spawn(|| systemctl(&["restart", SERVICE]));
        for scrape in 0..SCRAPES {
            get("/metrics").with_context(|| format!("scrape {scrape} of {SCRAPES} was refused"))?;
        }
        restart.join().ok().context("the thread that restarts panicked")?
    })?;
    replaced(pid)?;
    get("/metrics").context("refused after the restart")?;
    ensure!(show_of(SOCKET, "ActiveState")? == "active", "the port was closed");
    Ok(())
}
