//! The daemon's own use of the machine, for the `process_*` metrics.
//!
//! In: `/proc/self/{stat,limits,fd}`. Out: [`Process`].

use std::sync::OnceLock;

use procfs::process::{LimitValue, Process as ProcSelf};

/// What the daemon uses; `None` for what could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// CPU time in user and kernel mode, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Soft limit of open file descriptors; `None` also when unlimited.
    pub max_fds: Option<u64>,
    /// Start, in seconds since the epoch.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// Reads the figures of this process.
    pub fn read() -> Self {
        let Ok(own) = ProcSelf::myself() else { return Self::default() };
        let stat = own.stat().ok();
        let stat = stat.as_ref();
        Self {
            cpu_seconds: stat.map(|s| ticks_to_seconds(s.utime.saturating_add(s.stime))),
            resident_bytes: stat.map(|s| s.rss.saturating_mul(procfs::page_size())),
            virtual_bytes: stat.map(|s| s.vsize),
            open_fds: own.fd_count().ok().and_then(|n| u64::try_from(n).ok()),
            max_fds: own.limits().ok().and_then(|l| match l.max_open_files.soft_limit {
                LimitValue::Value(n) => Some(n),
                LimitValue::Unlimited => None,
            }),
            start_seconds: stat.and_then(|s| Some(boot_seconds()? + ticks_to_seconds(s.starttime))),
        }
    }
}

/// Boot, in seconds since the epoch. Read once: `/proc/stat` walks all CPUs and
/// interrupts, and the kernel shifts `btime` with every step of the clock,
/// which would make the start of the process move.
fn boot_seconds() -> Option<f64> {
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are below 2^53")]
    BOOT.get_or_init(|| procfs::boot_time_secs().ok()).map(|seconds| seconds as f64)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ticks are millions of years")]
fn ticks_to_seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn figures_of_this_process_are_plausible() {
        let own = Process::read();
        let resident = own.resident_bytes.unwrap();
        assert!(resident > 100 << 10 && resident < own.virtual_bytes.unwrap(), "{own:?}");
        assert!(own.open_fds.unwrap() >= 3, "{own:?}");
        assert!(own.cpu_seconds.unwrap() < 3600.0, "{own:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - own.start_seconds.unwrap();
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    }

    #[test]
    fn opening_a_file_adds_a_descriptor() {
        let before = Process::read().open_fds.unwrap();
        let files: Vec<_> =
            (0..50).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        // Other tests of this process open and close a few at the same time.
        assert!(Process::read().open_fds.unwrap() + 25 > before + files.len() as u64);
    }
}
