//! What this process may do.
//!
//! In: `/proc/self/status`. Out: which of the capabilities that lockprof can
//! need are effective.

use std::fs;
use std::io;
use std::path::Path;

/// A capability that lockprof can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Load programs and create maps (5.8 and later).
    Bpf,
    /// Attach tracing programs, read kernel memory from them.
    Perfmon,
    /// See addresses in `/proc/kallsyms`.
    Syslog,
    /// All of it on older kernels; mounting, for load generation.
    SysAdmin,
}

impl Capability {
    /// All, in the order that messages list them.
    pub const ALL: [Self; 4] = [Self::Bpf, Self::Perfmon, Self::Syslog, Self::SysAdmin];

    /// Bit number (include/uapi/linux/capability.h).
    const fn bit(self) -> u32 {
        match self {
            Self::SysAdmin => 21,
            Self::Syslog => 34,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// Name, as in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::Syslog => "CAP_SYSLOG",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        }
    }
}

/// The effective capabilities of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    effective: u64,
}

/// Why the capabilities are not known.
#[derive(Debug, thiserror::Error)]
pub enum CapabilitiesError {
    /// The status file could not be read.
    #[error("failed to read {path}; is procfs mounted?")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has no `CapEff` line that parses.
    #[error("{path} has no valid line `CapEff`")]
    NoCapEff {
        /// Which file.
        path: String,
    },
}

impl Capabilities {
    /// Those of this process, from the procfs mounted at `proc_root`.
    ///
    /// # Errors
    ///
    /// `self/status` there cannot be read or is not what procfs(5) says.
    pub fn read(proc_root: &Path) -> Result<Self, CapabilitiesError> {
        let path = proc_root.join("self/status");
        let shown = path.display().to_string();
        let status = fs::read_to_string(&path)
            .map_err(|source| CapabilitiesError::Read { path: shown.clone(), source })?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .map(|effective| Self { effective })
            .ok_or(CapabilitiesError::NoCapEff { path: shown })
    }

    /// Whether the process has `capability`. `CAP_SYS_ADMIN` includes what was
    /// split off from it: `CAP_BPF` and `CAP_PERFMON` (bpf_capable() and
    /// perfmon_capable() in include/linux/capability.h).
    pub fn has(self, capability: Capability) -> bool {
        let set = |capability: Capability| self.effective & 1 << capability.bit() != 0;
        let implied = matches!(capability, Capability::Bpf | Capability::Perfmon);
        set(capability) || implied && set(Capability::SysAdmin)
    }

    /// Names of those that are missing.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        Capability::ALL.into_iter().filter(move |c| !self.has(*c)).map(Capability::name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mask(line: &str) -> Result<Capabilities, CapabilitiesError> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("self")).unwrap();
        fs::write(root.path().join("self/status"), format!("Name:\tx\n{line}\nSeccomp:\t0\n"))
            .unwrap();
        Capabilities::read(root.path())
    }

    #[test]
    fn a_service_with_three_capabilities_lacks_the_fourth() {
        let capabilities = with_mask("CapEff:\t000000c400000000").unwrap();
        assert_eq!(capabilities.missing().collect::<Vec<_>>(), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn sys_admin_includes_bpf_and_perfmon_but_not_syslog() {
        let capabilities = with_mask("CapEff:\t0000000000200000").unwrap();
        assert_eq!(capabilities.missing().collect::<Vec<_>>(), ["CAP_SYSLOG"]);
    }

    #[test]
    fn an_unprivileged_process_lacks_all() {
        let capabilities = with_mask("CapEff:\t0000000000000000").unwrap();
        assert_eq!(capabilities.missing().count(), Capability::ALL.len());
    }

    #[test]
    fn a_status_without_the_line_is_an_error_that_names_the_file() {
        let error = with_mask("CapPrm:\t0").unwrap_err();
        assert!(error.to_string().contains("self/status"));
    }
}
