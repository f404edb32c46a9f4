//! Events that the kernel did not deliver: it does not run a tracing program
//! inside itself on one CPU, and counts what it skips for that reason.

use std::fs;
use std::os::fd::RawFd;

/// The loaded programs.
pub(super) struct Misses {
    fdinfo: Vec<String>,
}

impl Misses {
    pub(super) fn new(programs: Vec<(String, RawFd)>) -> Self {
        Self {
            fdinfo: programs.into_iter().map(|(_, fd)| format!("/proc/self/fdinfo/{fd}")).collect(),
        }
    }

    /// Skipped events of all programs (`recursion_misses` in the program's
    /// fdinfo, Linux 5.12; 0 before).
    pub(super) fn total(&self) -> u64 {
        self.fdinfo.iter().filter_map(|path| misses(&fs::read_to_string(path).ok()?)).sum()
    }
}

fn misses(fdinfo: &str) -> Option<u64> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::misses;

    #[test]
    fn misses_are_read_from_fdinfo() {
        let fdinfo =
            "pos:\t0\nprog_type:\t26\nrun_cnt:\t0\nrecursion_misses:\t42\nverified_insns:\t9\n";
        assert_eq!(misses(fdinfo), Some(42));
        assert_eq!(misses("prog_type:\t26\n"), None, "before Linux 5.12");
    }
}
