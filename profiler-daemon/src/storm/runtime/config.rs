//! `config.json` of a bundle, from the strategy.
//!
//! Source: the OCI runtime specification 1.0.2, config.md and config-linux.md.

use serde_json::{Value, json};

use super::image::{PROGRAM, Sources, binds_a_file, bound, masked};
use crate::storm::strategy::{Propagation, Strategy};

/// Its name in a bundle.
pub(super) const FILE: &str = "config.json";

/// Read-only paths that `runc spec`, containerd and Docker give containers.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container with the mounts that `runc spec`, containerd and Docker give
/// one, the strategy's binds and masks, and a process that ends at once.
///
/// It has all namespaces of a container but two: a network namespace costs
/// grace periods that hide what mounts cost, and containers of a pod share one;
/// a user namespace is not usual.
pub(super) fn of(strategy: &Strategy, root: &str, sources: &Sources) -> Value {
    let namespaces = ["pid", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    let masks: Vec<_> = (0..strategy.masks).map(masked).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [PROGRAM],
            "env": ["PATH=/"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": root },
        "hostname": "lockprof-storm",
        "mounts": mounts(strategy, sources),
        "linux": {
            "namespaces": namespaces,
            "rootfsPropagation": strategy.propagation.as_str(),
            "maskedPaths": masks,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn mounts(strategy: &Strategy, sources: &Sources) -> Vec<Value> {
    let system = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let guarded = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        system("/proc", "proc", &guarded),
        system("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        system("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        system("/dev/mqueue", "mqueue", &guarded),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        system("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    let propagation = match strategy.propagation {
        Propagation::Private => "rprivate",
        Propagation::Shared => "rshared",
        Propagation::Slave => "rslave",
    };
    mounts.extend((0..strategy.binds).map(|number| {
        let source = if binds_a_file(number) { &sources.file } else { &sources.directory };
        let access = if number % 2 == 1 { "ro" } else { "rw" };
        json!({
            "destination": bound(number),
            "type": "bind",
            "source": source,
            "options": ["rbind", propagation, access],
        })
    }));
    mounts
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(strategy: &Strategy) -> Value {
        let sources = Sources { directory: PathBuf::from("/s/volume"), file: "/s/hosts".into() };
        of(strategy, "rootfs", &sources)
    }

    #[test]
    fn binds_and_masks_are_as_many_as_the_strategy_says() {
        for (binds, masks) in [(0, 0), (1, 3), (12, 8), (500, 96)] {
            let config = config(&Strategy { binds, masks, ..Strategy::default() });
            let mounts = config["mounts"].as_array().unwrap();
            let bound: Vec<_> = mounts.iter().filter(|mount| mount["type"] == "bind").collect();
            assert_eq!(bound.len(), binds as usize);
            assert_eq!(mounts.len() - bound.len(), 7);
            assert_eq!(config["linux"]["maskedPaths"].as_array().unwrap().len(), masks as usize);
        }
    }

    #[test]
    fn of_files_and_of_directories_every_other_bind_is_read_only() {
        let config = config(&Strategy { binds: 4, ..Strategy::default() });
        let mounts = config["mounts"].as_array().unwrap();
        let found: Vec<_> = mounts[7..]
            .iter()
            .map(|mount| (mount["source"].as_str().unwrap(), mount["options"][2].as_str().unwrap()))
            .collect();
        let want =
            [("/s/volume", "rw"), ("/s/volume", "ro"), ("/s/hosts", "rw"), ("/s/hosts", "ro")];
        assert_eq!(found, want);
    }

    #[test]
    fn propagation_is_that_of_the_root_and_of_the_binds() {
        for (propagation, root, bind) in [
            (Propagation::Private, "private", "rprivate"),
            (Propagation::Shared, "shared", "rshared"),
            (Propagation::Slave, "slave", "rslave"),
        ] {
            let config = config(&Strategy { binds: 1, propagation, ..Strategy::default() });
            assert_eq!(config["linux"]["rootfsPropagation"], root);
            assert_eq!(config["mounts"][7]["options"][1], bind);
        }
    }

    #[test]
    fn no_cgroup_is_named() {
        assert!(config(&Strategy::default())["linux"].get("cgroupsPath").is_none());
        assert!(config(&Strategy::default())["linux"].get("resources").is_none());
    }
}
