//! The drop-ins that the package brings as examples.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::guest::Case;
use super::super::kernel::{Capability, Status};
use super::super::system::{
    SERVICE, SOCKET, System, get, main_pid, read, run, scrape, show, systemctl, wait,
};
use super::measured::{storm, with_perf_events};

pub(super) const CASES: &[Case] = &[
    Case { name: "with_its_drop_in_the_service_names_cgroups_that_are_gone", run: cgroup_names },
    Case { name: "with_its_drop_in_the_service_serves_this_machine_alone", run: loopback_only },
    Case {
        name: "with_its_drop_in_the_service_counts_calls_by_tracepoints",
        run: tracepoint_calls,
    },
    Case {
        name: "with_its_drop_in_the_service_has_no_network_but_its_socket",
        run: port_by_socket,
    },
];

fn snapshot() -> Result<Value> {
    serde_json::from_str(&get("/api/v1/snapshot")?).context("the snapshot is no JSON")
}

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
    ensure!(has & Capability::set(&[Capability::DacReadSearch]) != 0, "CapEff is {has:x}");
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
        let snapshot = snapshot()?;
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

/// How mount(2) is observed.
fn backend_of_mount() -> Result<String> {
    let snapshot = snapshot()?;
    let hooks = snapshot["hooks"].as_array().context("the snapshot has no hooks")?;
    let hook = hooks.iter().find(|hook| hook["hook"] == "sys_mount");
    let backend = hook.and_then(|hook| hook["backend"].as_str());
    Ok(backend.context("the snapshot has no hook of mount(2)")?.to_owned())
}

fn tracepoint_calls(system: &mut System) -> Result<()> {
    system.running()?;
    with_perf_events(|| counted_by_tracepoints(system))
}

fn counted_by_tracepoints(system: &mut System) -> Result<()> {
    const COUNT: &str = "lockprof_mount_syscall_duration_seconds_count";
    system.configure(&[("calls = \"auto\"", "calls = \"tracepoint\"")])?;
    systemctl(&["restart", SERVICE])?;
    let without = backend_of_mount()?;
    ensure!(without == "none", "mount(2) is observed by {without} without the drop-in");
    system.drop_in(&read("/usr/share/lockprof/systemd/tracepoint-calls.conf")?)?;
    systemctl(&["restart", SERVICE])?;
    let backend = backend_of_mount()?;
    ensure!(backend == "tracepoint", "mount(2) is observed by {backend}");
    let has = Status::of(main_pid()?)?.capabilities("CapEff")?;
    ensure!(has & Capability::set(&[Capability::DacReadSearch]) == 0, "CapEff is {has:x}");
    let before = scrape()?.sum(COUNT, &["syscall=\"mount\""]).unwrap_or(0.0);
    storm()?;
    let after = scrape()?.get(COUNT, &["syscall=\"mount\""])?;
    ensure!(after > before, "{before} calls of mount(2) before a storm and {after} after it");
    Ok(())
}

fn port_by_socket(system: &mut System) -> Result<()> {
    system.running()?;
    systemctl(&["stop", SERVICE])?;
    system.drop_in(&read("/usr/share/lockprof/systemd/port-by-socket.conf")?)?;
    let outcome = systemctl(&["start", SERVICE]).and_then(|_| on_the_socket_alone());
    // The next one runs without the drop-in, and has its port itself.
    systemctl(&["stop", SERVICE, SOCKET])?;
    outcome
}

fn on_the_socket_alone() -> Result<()> {
    let network = |process: &str| {
        let link = format!("/proc/{process}/ns/net");
        std::fs::read_link(&link).with_context(|| format!("failed to read {link}"))
    };
    let pid = main_pid()?;
    ensure!(network(&pid.to_string())? != network("self")?, "it is in the machine's network");
    scrape()?;
    Ok(())
}
