//! What a fresh installation is.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::super::DEB;
use super::super::guest::Case;
use super::super::kernel::{Capability, Status};
use super::super::system::{SERVICE, System, get, main_pid, read, run, show, systemctl};

pub(super) const CASES: &[Case] = &[
    Case { name: "installing_the_package_starts_and_enables_the_service", run: starts },
    Case { name: "the_service_has_a_user_of_its_own_and_no_way_to_privileges", run: user },
    Case { name: "the_service_gave_up_the_capabilities_that_running_does_not_take", run: dropped },
    Case { name: "the_service_is_exposed_no_more_than_documented", run: exposure },
];

fn starts(system: &mut System) -> Result<()> {
    run("dpkg", &["--install", DEB])?;
    system.running()?;
    ensure!(systemctl(&["is-enabled", SERVICE])?.trim() == "enabled");
    // systemd counts it as running once READY has come.
    ensure!(show("Type")? == "notify" && show("SubState")? == "running");
    ensure!(show("NRestarts")? == "0", "it was started more than once");
    get("/readyz")?;
    Ok(())
}

fn user(system: &mut System) -> Result<()> {
    system.running()?;
    let status = Status::of(main_pid()?)?;
    for (line, flag) in [("Uid", "-u"), ("Gid", "-g")] {
        let id = run("id", &[flag, "lockprof"])?;
        let words = status.words(line)?;
        ensure!(words == [id.trim(); 4], "{line} is {words:?}, and lockprof's {id}");
    }
    ensure!(status.number("NoNewPrivs")? == 1);
    ensure!(status.number("Seccomp")? == 2, "no filter of system calls");
    Ok(())
}

/// What remains is up to the kernel: the daemon finds out, and has to say so.
fn dropped(system: &mut System) -> Result<()> {
    system.running()?;
    let pid = main_pid()?;
    let journal =
        run("journalctl", &["--no-pager", "--quiet", "--output=cat", &format!("_PID={pid}")])?;
    let line = journal.lines().find(|line| line.contains("gave up privileges"));
    let line = line.with_context(|| format!("it says nothing of privileges: {journal}"))?;
    let said: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
    let remaining = said["remaining"].as_str();
    let remaining = remaining.with_context(|| format!("nothing remaining in: {line}"))?;
    let left = match remaining.split_whitespace().next() {
        Some("none") => 0,
        Some("CAP_BPF") => Capability::set(&[Capability::Bpf]),
        _ => bail!("more remains than CAP_BPF: {remaining}"),
    };
    let status = Status::of(pid)?;
    for (line, expected) in [("CapPrm", left), ("CapEff", left), ("CapInh", 0), ("CapAmb", 0)] {
        let has = status.capabilities(line)?;
        ensure!(has == expected, "{line} is {has:x}, and remaining are {remaining}");
    }
    let granted = Capability::set(&[Capability::Bpf, Capability::Perfmon, Capability::Syslog]);
    let bounding = status.capabilities("CapBnd")?;
    ensure!(bounding & !granted == 0, "CapBnd is {bounding:x}, beyond {granted:x}");
    // That it can still measure is what the other tests see.
    Ok(())
}

/// The level that docs/service.md tells is systemd's own figure.
fn exposure(system: &mut System) -> Result<()> {
    system.running()?;
    let page = read("/usr/share/doc/lockprof/service.md")?;
    let text = run("systemd-analyze", &["security", "--no-pager", SERVICE])?;
    let found = level(&text).with_context(|| format!("no level in: {text}"))?;
    let told = level(&page).context("service.md tells no exposure level")?;
    ensure!(found == told, "systemd-analyze says {found}, service.md {told}:\n{text}");
    Ok(())
}

/// `1.9` of `Overall exposure level for lockprof.service: 1.9 OK`.
fn level(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_level_is_what_follows_the_units_name() {
        let text = "x\n→ Overall exposure level for lockprof.service: 1.9 OK 🙂\n";
        assert_eq!(super::level(text), Some("1.9"));
        assert_eq!(super::level("nothing"), None);
    }
}
