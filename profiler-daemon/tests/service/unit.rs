//! The unit file, as far as tests follow it: what they do cannot drift from it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

/// The file.
pub(crate) const SERVICE: &str = include_str!("../../../packaging/systemd/lockprof.service");
/// The socket beside it.
pub(crate) const SOCKET: &str = include_str!("../../../packaging/systemd/lockprof.socket");

/// The folder of the units, where the repository is there.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd")
}

/// Values of `key` in the order of `unit`.
pub(crate) fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let assignments = unit.lines().filter_map(|line| line.split_once('='));
    assignments.filter(|(name, _)| *name == key).map(|(_, value)| value).collect()
}

/// The one value of `key` in the service.
pub(crate) fn value(key: &str) -> &'static str {
    match values(SERVICE, key).as_slice() {
        [value] => value,
        values => panic!("lockprof.service has {} of {key}=", values.len()),
    }
}

/// Arguments of the daemon.
pub(crate) fn arguments() -> Vec<&'static str> {
    let mut words = value("ExecStart").split_whitespace();
    assert_eq!(words.next(), Some("/usr/bin/lockprof"));
    words.collect()
}

/// The capabilities that the daemon starts with.
pub(crate) fn capabilities() -> CapabilitySet {
    let set =
        |key: &str| -> CapabilitySet { value(key).split_whitespace().map(capability).collect() };
    let ambient = set("AmbientCapabilities");
    assert_eq!(set("CapabilityBoundingSet"), ambient, "what is bounded is what is given");
    ambient
}

/// A capability by its name in capabilities(7).
pub(crate) fn capability(name: &str) -> CapabilitySet {
    let short = name.strip_prefix("CAP_").unwrap_or_else(|| panic!("{name} is no capability"));
    CapabilitySet::from_name(short).unwrap_or_else(|| panic!("{name} is unknown"))
}
