//! What the kernel of the machine says of the daemon.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::system::{read, run};

/// Capabilities, by number (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Capability {
    DacReadSearch = 2,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
}

impl Capability {
    /// A set, as `/proc/PID/status` has it.
    pub(super) fn set(all: &[Self]) -> u64 {
        all.iter().fold(0, |set, &one| set | 1 << one as u32)
    }
}

/// `/proc/PID/status`.
pub(super) struct Status(String);

impl Status {
    /// Of a process.
    pub(super) fn of(pid: u32) -> Result<Self> {
        Ok(Self(read(&format!("/proc/{pid}/status"))?))
    }

    /// The words of a line.
    pub(super) fn words(&self, name: &str) -> Result<Vec<&str>> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("the status has no {name}"))?.split_whitespace().collect())
    }

    /// A line that is a number.
    pub(super) fn number(&self, name: &str) -> Result<u64> {
        self.words(name)?.concat().parse().with_context(|| format!("{name} is no number"))
    }

    /// A line that is a set of capabilities.
    pub(super) fn capabilities(&self, name: &str) -> Result<u64> {
        u64::from_str_radix(&self.words(name)?.concat(), 16)
            .with_context(|| format!("{name} is no set of capabilities"))
    }
}

/// The ids of all BPF programs but those that systemd has of its own: on
/// cgroups, for devices and addresses.
pub(super) fn programs() -> Result<BTreeSet<u64>> {
    listed("prog", |program| {
        let kind = program["type"].as_str().unwrap_or_default();
        !kind.starts_with("cgroup") && kind != "lsm"
    })
}

/// The ids of all BPF links but those to cgroups.
pub(super) fn links() -> Result<BTreeSet<u64>> {
    listed("link", |link| link["type"] != "cgroup")
}

fn listed(what: &str, counts: impl Fn(&Value) -> bool) -> Result<BTreeSet<u64>> {
    let text = run("bpftool", &["--json", what, "show"])?;
    let all: Value =
        serde_json::from_str(&text).with_context(|| format!("bpftool {what} printed {text}"))?;
    let all = all.as_array().with_context(|| format!("bpftool {what} printed {text}"))?;
    Ok(all.iter().filter(|one| counts(one)).filter_map(|one| one["id"].as_u64()).collect())
}

/// What is pinned in the BPF file system.
pub(super) fn pinned() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new("/sys/fs/bpf").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?
        {
            let entry = entry.with_context(|| format!("failed to read {}", folder.display()))?;
            let kind = entry.file_type().context("failed to look at what is pinned")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match kind.is_dir() {
                true => folders.push(entry.path()),
                // The kernel's own, on kernels that have them preloaded.
                false if name.ends_with(".debug") => {}
                false => found.push(entry.path().display().to_string()),
            }
        }
    }
    Ok(found)
}

/// Processes whose program is lockprof.
pub(super) fn processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to read /proc")? {
        let path = entry.context("failed to read /proc")?.path();
        // A process may end meanwhile.
        if fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "lockprof") {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}
