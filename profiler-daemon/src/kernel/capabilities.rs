//! What this process may do.
//!
//! In: `status` of this process and its threads in procfs. Out: which of the
//! capabilities that lockprof can need are effective, and what each thread has.

use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// A capability that lockprof can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Load programs and create maps (5.8 and later).
    Bpf,
    /// Attach tracing programs, read kernel memory from them.
    Perfmon,
    /// See addresses in `/proc/kallsyms`.
    Syslog,
    /// Open a cgroup by its id; read tracefs without being root.
    DacReadSearch,
    /// All of it on older kernels; mounting, for load generation.
    SysAdmin,
}

impl Capability {
    /// All, in the order that messages list them.
    pub const ALL: [Self; 5] =
        [Self::Bpf, Self::Perfmon, Self::Syslog, Self::DacReadSearch, Self::SysAdmin];

    /// As the system calls take it.
    pub const fn set(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF,
            Self::Perfmon => CapabilitySet::PERFMON,
            Self::Syslog => CapabilitySet::SYSLOG,
            Self::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
        }
    }

    /// Name, as in capabilities(7).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::Syslog => "CAP_SYSLOG",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        }
    }
}

/// The effective capabilities of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    effective: CapabilitySet,
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
    /// It has no line with a set, or one that does not parse.
    #[error("{path} has no valid line `{line}`")]
    NoSet {
        /// Which file.
        path: String,
        /// Which line.
        line: &'static str,
    },
}

/// The sets of a thread, capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadSets {
    /// What it may do.
    pub effective: CapabilitySet,
    /// What it may make effective.
    pub permitted: CapabilitySet,
    /// What it may pass on to programs that ask for it.
    pub inheritable: CapabilitySet,
    /// What programs get that it executes.
    pub ambient: CapabilitySet,
}

impl ThreadSets {
    /// Those of every thread of this process, by thread id, from the procfs mounted
    /// at `proc_root`.
    ///
    /// # Errors
    ///
    /// The folder or a file in it cannot be read. A thread that ends meanwhile is
    /// left out.
    pub fn of_all_threads(proc_root: &Path) -> Result<Vec<(String, Self)>, CapabilitiesError> {
        let folder = proc_root.join("self/task");
        let read = |source| CapabilitiesError::Read { path: folder.display().to_string(), source };
        let mut threads = Vec::new();
        for entry in fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            match status(&entry.path().join("status")) {
                Ok((path, status)) => {
                    let id = entry.file_name().to_string_lossy().into_owned();
                    threads.push((id, Self::parse(&path, &status)?));
                }
                Err(CapabilitiesError::Read { source, .. }) if is_gone(&source) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(threads)
    }

    fn parse(path: &str, status: &str) -> Result<Self, CapabilitiesError> {
        let set = |line| set(path, status, line);
        Ok(Self {
            effective: set("CapEff:")?,
            permitted: set("CapPrm:")?,
            inheritable: set("CapInh:")?,
            ambient: set("CapAmb:")?,
        })
    }

    /// Everything that is in one of them.
    pub fn all(self) -> CapabilitySet {
        self.effective | self.permitted | self.inheritable | self.ambient
    }
}

/// A thread that ended between being listed and being read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn status(path: &Path) -> Result<(String, String), CapabilitiesError> {
    let shown = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(status) => Ok((shown, status)),
        Err(source) => Err(CapabilitiesError::Read { path: shown, source }),
    }
}

/// The set of `line` in the text of a status file.
fn set(path: &str, status: &str, line: &'static str) -> Result<CapabilitySet, CapabilitiesError> {
    status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .map(CapabilitySet::from_bits_retain)
        .ok_or_else(|| CapabilitiesError::NoSet { path: path.to_owned(), line })
}

/// Runs `ask` on a thread that has no capability, to see what the kernel allows to
/// anybody.
///
/// # Errors
///
/// The system has no room for another thread, or does not let it give up its
/// capabilities.
pub fn without_any<T: Send>(ask: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("unprivileged".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            let empty = CapabilitySet::empty();
            let none = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
            // Of this thread alone (`sys_capset` in kernel/capability.c).
            set_capabilities(None, none)?;
            Ok(ask())
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Capabilities {
    /// Those of this process, from the procfs mounted at `proc_root`.
    ///
    /// # Errors
    ///
    /// `self/status` there cannot be read or is not what procfs(5) says.
    pub fn read(proc_root: &Path) -> Result<Self, CapabilitiesError> {
        let (path, status) = status(&proc_root.join("self/status"))?;
        Ok(Self { effective: set(&path, &status, "CapEff:")? })
    }

    /// Whether the process has `capability`. `CAP_SYS_ADMIN` includes what was
    /// split off from it: `CAP_BPF` and `CAP_PERFMON` (bpf_capable() and
    /// perfmon_capable() in include/linux/capability.h).
    pub fn has(self, capability: Capability) -> bool {
        let set = |capability: Capability| self.effective.contains(capability.set());
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
    fn a_service_with_three_capabilities_lacks_those_that_it_does_without() {
        let capabilities = with_mask("CapEff:\t000000c400000000").unwrap();
        let missing: Vec<_> = capabilities.missing().collect();
        assert_eq!(missing, ["CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]);
    }

    #[test]
    fn sys_admin_includes_bpf_and_perfmon_but_not_syslog() {
        let capabilities = with_mask("CapEff:\t0000000000200000").unwrap();
        let missing: Vec<_> = capabilities.missing().collect();
        assert_eq!(missing, ["CAP_SYSLOG", "CAP_DAC_READ_SEARCH"]);
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

    #[test]
    fn a_thread_without_capabilities_leaves_those_of_others_as_they_are() {
        let proc_root = Path::new("/proc");
        let own = rustix::thread::capabilities(None).unwrap();
        let asked = without_any(|| ThreadSets::of_all_threads(proc_root)).unwrap();
        assert!(asked.unwrap().iter().any(|(_, sets)| sets.permitted.is_empty()));
        assert_eq!(rustix::thread::capabilities(None).unwrap(), own);
    }

    #[test]
    fn every_thread_is_seen_with_its_own_sets() {
        let root = tempfile::tempdir().unwrap();
        for (id, effective) in [("7", "0"), ("8", "8000000000")] {
            let folder = root.path().join("self/task").join(id);
            fs::create_dir_all(&folder).unwrap();
            let status =
                format!("CapInh:\t0\nCapPrm:\t8000000000\nCapEff:\t{effective}\nCapAmb:\t0\n");
            fs::write(folder.join("status"), status).unwrap();
        }
        let mut threads = ThreadSets::of_all_threads(root.path()).unwrap();
        threads.sort_by(|a, b| a.0.cmp(&b.0));
        let effective: Vec<_> =
            threads.iter().map(|(id, sets)| (id.as_str(), sets.effective)).collect();
        assert_eq!(effective, [("7", CapabilitySet::empty()), ("8", CapabilitySet::BPF)]);
        assert!(threads.iter().all(|(_, sets)| sets.all() == CapabilitySet::BPF));
    }
}
