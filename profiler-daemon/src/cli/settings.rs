//! What to do, with every default filled in.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::args::{AssumeArgs, DaemonArgs, HookArgs, LockArgs};
use super::backend;
use super::config::{self, ConfigError, ConfigErrors};
use crate::hooks::attribution::Wanted;
use crate::hooks::backend::Backends;
use crate::locks::choices::Choices;

/// Resolved settings of a command that measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to serve.
    pub listen: SocketAddr,
    /// File with TLS, users and passwords for the port.
    pub web_config: Option<PathBuf>,
    /// Whether to listen where others reach the port and nobody is asked.
    pub allow_unauthenticated: bool,
    /// What to log, and how.
    pub log: LogSettings,
    /// Which locks to watch and how to find them. Checked: every name is known,
    /// none is both enabled and disabled.
    pub locks: Choices,
    /// Tasks that may wait or be in a mount call at once; `None` for the default
    /// by number of CPUs (`Layout::default_tasks`).
    pub tasks_in_flight: Option<u32>,
    /// How often mount namespaces and their mounts are counted; `None` for never.
    pub mounts_interval: Option<Duration>,
    /// CPUs to size the kernel's arrays for, instead of the possible ones.
    pub assume_cpus: Option<u32>,
    /// NUMA nodes to size the kernel's arrays for, instead of the possible ones.
    pub assume_nodes: Option<u32>,
    /// How the kernel may be hooked.
    pub backends: Backends,
    /// Who waits, and who makes them wait.
    pub attribution: Wanted,
    /// Samples of a CPU that is in the kernel all the time, in a second; 0 not to
    /// sample.
    pub sampling_hz: u32,
    /// Most containers with series of their own in metrics; 0 for none.
    pub containers: u32,
}

/// What to log, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Form of a line.
    pub format: LogFormat,
    /// Least severe level that is written.
    pub level: LogLevel,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// human on a terminal, else json
    #[default]
    Auto,
    /// for people
    Human,
    /// one JSON object a line
    Json,
}

/// Least severe level of log lines that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the levels of the `tracing` crate, under their own names")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9723)),
            web_config: None,
            allow_unauthenticated: false,
            log: LogSettings::default(),
            locks: Choices::default(),
            tasks_in_flight: None,
            mounts_interval: Some(Duration::from_secs(15)),
            assume_cpus: None,
            assume_nodes: None,
            backends: Backends::default(),
            attribution: Wanted::default(),
            sampling_hz: 99,
            containers: 0,
        }
    }
}

impl Settings {
    /// Settings of the daemon: defaults, then the configuration file, then the
    /// command line. Reads the file anew every time, so SIGHUP calls it again.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with file and command line. A default file that
    /// is not there is no error; a named one is.
    pub fn load(args: &DaemonArgs) -> Result<Self, ConfigErrors> {
        let mut settings = config::read_or_default(args.locks.config.as_deref())?;
        settings.listen = args.listen.unwrap_or(settings.listen);
        if args.web_config.is_some() {
            settings.web_config.clone_from(&args.web_config);
        }
        settings.allow_unauthenticated |= args.allow_unauthenticated;
        settings.log.format = args.log_format.unwrap_or(settings.log.format);
        settings.log.level = args.log_level.unwrap_or(settings.log.level);
        settings.apply(&args.locks, &args.hooks, &args.assume)?;
        Ok(settings)
    }

    /// Settings of a command that measures without serving; as [`Settings::load`].
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn of_measurement(
        locks: &LockArgs,
        hooks: &HookArgs,
        assume: &AssumeArgs,
    ) -> Result<Self, ConfigErrors> {
        let mut settings = config::read_or_default(locks.config.as_deref())?;
        settings.apply(locks, hooks, assume)?;
        Ok(settings)
    }

    /// Whether both have the same programs and arrays: nothing that only serving
    /// is about counts.
    pub fn measures_like(&self, other: &Self) -> bool {
        let sizes = |s: &Self| (s.tasks_in_flight, s.assume_cpus, s.assume_nodes, s.sampling_hz);
        self.locks == other.locks
            && self.backends == other.backends
            && self.attribution == other.attribution
            && self.mounts_interval == other.mounts_interval
            && sizes(self) == sizes(other)
    }

    fn apply(
        &mut self,
        args: &LockArgs,
        hooks: &HookArgs,
        assume: &AssumeArgs,
    ) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        if let Err(conflicts) = backend::apply(&hooks.backend, &mut self.backends) {
            errors.extend(conflicts.into_iter().map(|c| ConfigError::of_flag("--backend", c)));
        }
        let flags = [("--lock", &args.lock), ("--no-lock", &args.no_lock)];
        for (flag, name) in
            flags.iter().flat_map(|(flag, names)| names.iter().map(move |n| (flag, n)))
        {
            let alone = Choices { enable: vec![name.clone()], ..Choices::default() };
            let custom = self.locks.custom.iter().any(|lock| &lock.name == name);
            match alone.check() {
                Err(_) if custom => {}
                Err(error) => errors.push(ConfigError::of_flag(flag, error)),
                Ok(()) if args.lock.contains(name) && args.no_lock.contains(name) => {
                    let error = format!("lock `{name}` is both enabled and disabled; remove one");
                    errors.push(ConfigError::of_flag(flag, error));
                }
                Ok(()) => {}
            }
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let Choices { enable, disable, custom, system_map } = &mut self.locks;
        // A lock of the file's own: naming it again changes nothing, and not
        // watching it drops it.
        let is_custom = |name: &String| custom.iter().any(|lock| &lock.name == name);
        let (on, off): (Vec<_>, Vec<_>) = (
            args.lock.iter().filter(|n| !is_custom(n)).cloned().collect(),
            args.no_lock.iter().filter(|n| !is_custom(n)).cloned().collect(),
        );
        disable.retain(|name| !on.contains(name));
        enable.retain(|name| !off.contains(name));
        enable.extend(on);
        disable.extend(off);
        custom.retain(|lock| !args.no_lock.contains(&lock.name));
        if args.system_map.is_some() {
            system_map.clone_from(&args.system_map);
        }
        self.assume_cpus = assume.assume_cpus;
        self.assume_nodes = assume.assume_nodes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::backend::{CallBackend, WaitBackend};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn load(file: &str, args: DaemonArgs) -> Result<Settings, ConfigErrors> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lockprof.toml");
        std::fs::write(&path, file).unwrap();
        let locks = LockArgs { config: Some(path), ..args.locks };
        Settings::load(&DaemonArgs { locks, ..args })
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = "listen = \"127.0.0.1:1\"\nweb_config = \"/a.yml\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n\
                    [resolve]\nsystem_map = \"/a\"\n[locks]\ndisable = [\"tasklist_lock\", \"mount_lock\"]\n";
        let args = DaemonArgs {
            listen: Some("[::1]:2".parse().unwrap()),
            web_config: Some("/b.yml".into()),
            log_level: Some(LogLevel::Warn),
            locks: LockArgs {
                lock: names(&["tasklist_lock", "sb_lock"]),
                no_lock: names(&["rcu_exp_mutex"]),
                system_map: Some("/b".into()),
                config: None,
            },
            ..DaemonArgs::default()
        };
        let settings = load(file, args).unwrap();
        assert_eq!(settings.listen, "[::1]:2".parse().unwrap());
        assert_eq!(settings.web_config, Some("/b.yml".into()));
        assert_eq!(settings.log, LogSettings { format: LogFormat::Json, level: LogLevel::Warn });
        assert_eq!(settings.locks.enable, names(&["tasklist_lock", "sb_lock"]));
        assert_eq!(settings.locks.disable, names(&["mount_lock", "rcu_exp_mutex"]));
        assert_eq!(settings.locks.system_map, Some("/b".into()));
        assert_eq!(settings.locks.check(), Ok(()));
    }

    #[test]
    fn a_lock_of_the_file_can_be_switched_off_by_name() {
        let file = "[[lock]]\nname = \"cgroup\"\nsymbol = \"cgroup_mutex\"\nkind = \"mutex\"\n";
        let off = |no_lock| DaemonArgs {
            locks: LockArgs { no_lock, ..LockArgs::default() },
            ..DaemonArgs::default()
        };
        assert_eq!(load(file, off(vec![])).unwrap().locks.custom.len(), 1);
        let settings = load(file, off(names(&["cgroup"]))).unwrap();
        assert_eq!(settings.locks, Choices::default());
    }

    #[test]
    fn unknown_locks_on_the_command_line_are_all_named() {
        let locks = LockArgs {
            lock: names(&["mount_lok", "sb_lock"]),
            no_lock: names(&["namespace", "sb_lock"]),
            ..LockArgs::default()
        };
        let error = Settings::of_measurement(&locks, &HookArgs::default(), &AssumeArgs::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("--lock: unknown lock `mount_lok`; did you mean `mount_lock`"));
        assert!(
            error.contains("--no-lock: unknown lock `namespace`; did you mean `namespace_sem`")
        );
        assert!(error.contains("`sb_lock` is both enabled and disabled"), "{error}");
    }

    #[test]
    fn a_backend_on_the_command_line_wins_over_the_file_for_its_family_alone() {
        let file = "[hooks]\nwaits = \"raw_tp\"\ncalls = \"kprobe\"\n";
        let with = |backend: &[&str]| DaemonArgs {
            hooks: HookArgs { backend: backend.iter().map(|b| b.parse().unwrap()).collect() },
            ..DaemonArgs::default()
        };
        let of_file = load(file, with(&[])).unwrap();
        let (waits, calls) = (Some(WaitBackend::RawTp), Some(CallBackend::Kprobe));
        assert_eq!(of_file.backends, Backends { waits, calls });
        let changed = load(file, with(&["calls=auto"])).unwrap();
        assert_eq!(changed.backends, Backends { waits, calls: None });
        assert!(!changed.measures_like(&of_file), "a reload has to attach anew");
        let error = load(file, with(&["fentry", "calls=kprobe"])).unwrap_err().to_string();
        assert!(error.starts_with("--backend: calls "), "{error}");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let locks = LockArgs { config: Some("/no/such.toml".into()), ..LockArgs::default() };
        let args = DaemonArgs { locks, ..DaemonArgs::default() };
        let error = Settings::load(&args).unwrap_err().to_string();
        assert!(error.contains("/no/such.toml") && error.contains("lockprof config default"));
    }
}
