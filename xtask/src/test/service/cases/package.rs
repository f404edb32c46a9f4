//! Upgrading, removing and purging while the service runs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::super::DEB;
use super::super::guest::Case;
use super::super::kernel::{links, processes, programs};
use super::super::system::{
    CONFIG, Journal, SERVICE, System, main_pid, port_is_open, read, replaced, run, scrape, show,
    start, wait,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "an_upgrade_restarts_the_service_once_and_keeps_the_configuration", run: upgrade },
    Case { name: "removing_stops_the_service_and_keeps_the_configuration", run: remove },
    Case { name: "purging_leaves_nothing", run: purge },
];

/// The same package with a later version.
fn later() -> Result<String> {
    const FOLDER: &str = "/var/tmp/later";
    const LATER: &str = "/var/tmp/later.deb";
    run("dpkg-deb", &["--raw-extract", DEB, FOLDER])?;
    let control = format!("{FOLDER}/DEBIAN/control");
    let text = read(&control)?;
    let version = text
        .lines()
        .find(|line| line.starts_with("Version: "))
        .context("the package has no version")?;
    let text = text.replace(version, &format!("{version}+later"));
    fs::write(&control, text).with_context(|| format!("failed to write {control}"))?;
    // Compressing takes long on an emulated machine.
    run("dpkg-deb", &["-Znone", "--build", FOLDER, LATER])?;
    fs::remove_dir_all(FOLDER).with_context(|| format!("failed to remove {FOLDER}"))?;
    Ok(LATER.into())
}

fn upgrade(system: &mut System) -> Result<()> {
    system.running()?;
    system.configure(&[("containers = 0", "containers = 7")])?;
    let later = later()?;
    let (pid, journal) = (main_pid()?, Journal::now()?);
    run("dpkg", &["--install", &later])?;
    replaced(pid)?;
    let text = journal.since()?;
    let starts = text.lines().filter(|line| line.starts_with("Started ")).count();
    ensure!(starts == 1, "started {starts} times: {text}");
    ensure!(read(CONFIG)?.contains("containers = 7"), "the configuration was replaced");
    scrape()?;
    Ok(())
}

fn gone() -> Result<()> {
    ensure!(!port_is_open(), "the port is still open");
    let left = processes()?;
    ensure!(left.is_empty(), "processes are left: {left:?}");
    wait("all programs and links to be gone", || {
        Ok((programs()?.is_empty() && links()?.is_empty()).then_some(()))
    })?;
    for path in ["/usr/bin/lockprof", "/usr/lib/systemd/system/lockprof.service"] {
        ensure!(!Path::new(path).exists(), "{path} is left");
    }
    Ok(())
}

/// With the service as the upgrade has left it.
fn remove(_: &mut System) -> Result<()> {
    ensure!(show("ActiveState")? == "active", "the service does not run");
    run("dpkg", &["--remove", "lockprof"])?;
    gone()?;
    ensure!(Path::new(CONFIG).exists(), "{CONFIG} is gone");
    let known = start("systemctl", &["cat", SERVICE])?;
    ensure!(!known.status.success(), "systemd still knows the unit");
    Ok(())
}

/// The user stays, as Debian has it: files may be left that are theirs.
fn purge(_: &mut System) -> Result<()> {
    run("dpkg", &["--purge", "lockprof"])?;
    gone()?;
    let known = start("dpkg-query", &["--status", "lockprof"])?;
    ensure!(!known.status.success(), "dpkg still knows the package");
    let left = run(
        "find",
        &[
            "/etc",
            "/usr",
            "/var",
            "/run",
            "-xdev",
            "-name",
            "*lockprof*",
            "-not",
            "-name",
            "*lockprof-vm*",
        ],
    )?;
    ensure!(left.trim().is_empty(), "left:\n{left}");
    Ok(())
}
