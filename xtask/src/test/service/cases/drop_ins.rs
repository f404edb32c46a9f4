//! The drop-ins that the package brings as examples.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::guest::Case;
use super::super::kernel::{Capability, Status};
use super::super::system::{
    SERVICE, System, get, main_pid, read, run, scrape, show, systemctl, wait,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "with_its_drop_in_the_service_names_cgroups_that_are_gone", run: cgroup_names },
    Case { name: "with_its_drop_in_the_service_serves_this_machine_alone", run: loopback_only },
];

fn with(system: &mut System, name: &str) -> Result<()> {
    system.running()?;
    system.drop_in(&read(&format!("/usr/share/lockprof/systemd/{name}"))?)?;
    systemctl(&["restart", SERVICE])?;
    Ok(())
}

fn cgroup_names(system: &mut System) -> Result<()> {
    const GONE: &str = "short-lived-load.service";
    with(system, "cgroup-names.conf")?;
    let has = Status::of(main_pid()?)?.capabilities("CapEff")?;
    let needed = Capability::set(&[Capability::DacReadSearch]);
    ensure!(has & needed != 0, "CapEff is {has:x}");
    run(
        "systemd-run",
        &[
            "--quiet",
            "--wait",
            "--collect",
            "--unit",
            GONE,
            "lockprof",
            "storm",
            "--no-measure",
            "--concurrency",
            "8",
            "--pollers",
            "2",
            "--duration",
            "5s",
        ],
    )?;
    wait("waits of a cgroup with its name", || {
        let snapshot: Value =
            serde_json::from_str(&get("/api/v1/snapshot")?).context("the snapshot is no JSON")?;
        let waiters = snapshot["waiters"].as_array().context("the snapshot has no waiters")?;
        Ok(waiters.iter().any(|row| row.to_string().contains(GONE)).then_some(()))
    })
}

fn loopback_only(system: &mut System) -> Result<()> {
    with(system, "loopback-only.conf")?;
    ensure!(show("IPAddressDeny")?.contains("0.0.0.0/0"), "{}", show("IPAddressDeny")?);
    let programs = run("bpftool", &["--json", "prog", "show"])?;
    ensure!(programs.contains("cgroup_skb"), "systemd filters nothing: {programs}");
    scrape()?;
    Ok(())
}
