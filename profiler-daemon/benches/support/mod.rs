//! Parts of the benchmark.

pub(crate) mod backends;
pub(crate) mod daemon;
pub(crate) mod events;
pub(crate) mod sampling;
pub(crate) mod storm;

/// The built binary.
pub(crate) const LOCKPROF: &str = env!("CARGO_BIN_EXE_lockprof");

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Possible CPUs of this machine.
pub(crate) fn cpus() -> u32 {
    lockprof::kernel::topology::Topology::read(std::path::Path::new("/sys"))
        .expect("sysfs is mounted")
        .cpus
}

/// The machine in a few words.
pub(crate) fn host() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let virtual_machine = if cpuinfo.contains(" hypervisor") { ", virtual" } else { "" };
    format!(
        "{} x {model}{virtual_machine}, Linux {}",
        cpus(),
        lockprof::kernel::topology::kernel_release()
    )
}
