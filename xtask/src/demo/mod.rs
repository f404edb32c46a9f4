//! `cargo xtask demo`: from a fresh machine to a table of lock waits.
//!
//! Sets up, builds, starts the daemon on loopback, and lets `lockprof stat`
//! measure while a storm of mounts and real container starts run; then shows
//! what a scrape of the daemon gives. Everything that it starts is stopped on
//! any exit, Ctrl-C and SIGTERM included.

mod bundle;
mod daemon;
mod http;
pub(crate) mod load;
mod metrics;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Interrupt};
use crate::{build, setup, shell};
use daemon::Daemon;

/// Runs the demo.
pub(crate) fn run() -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?;
    if setup::ensure()? == setup::Outcome::Asked {
        return Ok(ExitCode::FAILURE);
    }
    println!("== build");
    let lockprof = build::release()?;

    println!("\n== daemon");
    let daemon = Daemon::start(&lockprof, &interrupt)?;
    println!("lockprof daemon answers at http://{}", daemon.address());

    println!("\n== ten seconds of mounts, and container starts among them");
    let this = std::env::current_exe().context("failed to find the running xtask")?;
    let mut stat = Command::new(&lockprof);
    stat.args(["stat", "--"]).arg(this).arg("demo-load").arg("--lockprof").arg(&lockprof);
    stat.env("PATH", shell::path());
    let status = process::run(&mut stat, &interrupt)?;
    if interrupt.came() {
        println!("stopped");
        return Ok(ExitCode::FAILURE);
    }
    if !status.success() {
        bail!(
            "`lockprof stat` failed ({status}); `{} doctor` tells what is missing",
            lockprof.display()
        );
    }

    println!("\n== what Prometheus scrapes meanwhile (a few of the lines)");
    let scrape = http::get(daemon.address(), "/metrics")?;
    for line in metrics::telling(&scrape) {
        println!("{line}");
    }
    drop(daemon);

    // As short as it can be typed from here.
    let here = std::env::current_dir().unwrap_or_default();
    let lockprof = lockprof.strip_prefix(&here).unwrap_or(&lockprof).display();
    println!(
        "\n== how to go on (the daemon of this demo is stopped)\n\
         {lockprof} doctor                  what this kernel allows, and what stays invisible\n\
         {lockprof} stat --duration 10s     the same tables, for your own load\n\
         {lockprof} stat -- COMMAND         ... while a command runs\n\
         {lockprof} daemon                  serve Prometheus on 127.0.0.1:9723\n\
         {lockprof} storm --help            loads to try\n\
         docs/metrics.md tells what each metric means, docs/principles.md how it is measured."
    );
    Ok(ExitCode::SUCCESS)
}
