//! The container that the path of a cgroup tells of.
//!
//! Runtimes name cgroups in two ways. The systemd driver makes a scope
//! `<prefix>-<id>.scope` in a slice (runc: `docs/systemd.md`, `cgroupsPath` is
//! `slice:prefix:name`); the cgroupfs driver makes the directory that it is
//! told, mostly `<parent>/<id>`. Sources of the names:
//!
//! | who | systemd driver | cgroupfs driver | source |
//! | --- | --- | --- | --- |
//! | docker | `docker-<id>.scope` | `docker/<id>` | moby `daemon/oci_linux.go` (`withCgroups`) |
//! | containerd's CRI | `cri-containerd-<id>.scope` | `<pod>/<id>` | containerd `internal/cri/server/podsandbox/helpers_linux.go` (`getCgroupsPath`) |
//! | containerd without parent | | `<namespace>/<id>` | containerd `pkg/oci/spec_opts.go` (`WithNamespacedCgroup`) |
//! | nerdctl | `nerdctl-<id>.scope` | `<namespace>/<id>` | nerdctl `pkg/cmd/container/run_cgroup_linux.go` (`generateCgroupPath`) |
//! | cri-o | `crio-<id>.scope` | `crio-<id>` | cri-o `internal/config/cgmgr` (conmon: `crio-conmon-<id>`) |
//! | podman | `libpod-<id>.scope` | `libpod-<id>` | podman `libpod/container_internal_linux.go` (conmon: `libpod-conmon-<id>`, or `conmon`) |
//! | kubelet's pods | `kubepods[-<qos>]-pod<uid, dashes as _>.slice` | `kubepods/[<qos>/]pod<uid>` | kubernetes `pkg/kubelet/cm/cgroup_manager_linux.go` (`ToSystemd`) |
//! | buildkit | `system.slice:docker:<id>` in docker | `[docker/]buildkit/<id>` | buildkit `executor/oci/spec.go` (`GenerateSpec`), ids by `identity.NewID` |
//! | LXC | | `lxc.payload.<name>`, `lxc/<name>` | lxc.container.conf(5), `lxc.cgroup.dir` |
//! | Kata's host side | | `kata_<sandbox id>` | kata-containers `docs/design/host-cgroups.md` |
//!
//! A runtime that runs with the cgroupfs driver while it is told names of the
//! systemd driver makes a directory that is called `slice:prefix:name` as a
//! whole; docker's own buildkit does so always. Where containers are nested, the innermost one is meant. Cgroups
//! below a container's (`init.scope` of a systemd in it, crun's `container`)
//! are of that container.

use crate::snapshot::{Container, Name};

/// The container of the cgroup at `path`, which is relative to the root of the
/// hierarchy; `None` for one that is of no container, such as those of conmon
/// or of a pod as a whole.
pub fn container(path: &str) -> Option<Container> {
    innermost(path).map(|(container, _)| container)
}

/// The innermost container, and the part of `path` that is below its cgroup.
pub(super) fn innermost(path: &str) -> Option<(Container, &str)> {
    let mut here = path;
    loop {
        let (above, name) = here.rsplit_once('/')?;
        if let Some(found) = own(above, name) {
            return Some((found, &path[here.len()..]));
        }
        here = above;
    }
}

/// The container whose own cgroup is called `name`, in `above`.
fn own(above: &str, name: &str) -> Option<Container> {
    let parent = above.rsplit('/').next().unwrap_or("");
    // The slice is a part of the name under a mistaken driver.
    let (slice, unit) = match name.split_once(".slice:") {
        Some((slice, unit)) => (Some(slice), unit),
        None => (None, name.strip_suffix(".scope").unwrap_or(name)),
    };
    let (manager, id) = by_prefix(unit)
        .or_else(|| bare(parent, name))
        .or_else(|| Some(("lxc", lxc_name(parent, name)?)))?;
    let pod = match slice {
        Some(slice) => pod_of_slice(slice),
        None => above
            .rsplit('/')
            .find_map(|name| pod_of_slice(name.strip_suffix(".slice")?))
            .or_else(|| pod_of_folders(above)),
    };
    let (uid, qos) = pod.unzip();
    Some(Container {
        manager: manager.into(),
        id: id.into(),
        pod_uid: uid.map(|uid| Name::from(uid.replace('_', "-"))),
        qos: qos.map(Name::from),
    })
}

/// Prefixes of scopes and of directories, and whose they are.
const PREFIXES: [(&str, &str); 6] = [
    ("docker", "docker"),
    ("cri-containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("crio", "crio"),
    ("libpod", "podman"),
    ("kata", "unknown"),
];

/// `<prefix>-<id>`, `<prefix>:<id>` or, of Kata, `kata_<id>`.
fn by_prefix(unit: &str) -> Option<(&'static str, &str)> {
    PREFIXES.iter().find_map(|(prefix, manager)| {
        let id = unit.strip_prefix(prefix)?.strip_prefix(['-', ':', '_'])?;
        match *manager {
            // The builds of docker's own buildkit have docker's prefix.
            "docker" if is_build_id(id) => Some(("buildkit", id)),
            manager => is_id(id).then_some((manager, id)),
        }
    })
}

/// A directory that is called like its container.
fn bare<'a>(parent: &str, name: &'a str) -> Option<(&'static str, &'a str)> {
    match parent {
        "buildkit" if is_build_id(name) => Some(("buildkit", name)),
        _ if !is_id(name) => None,
        "docker" => Some(("docker", name)),
        // Namespaces of containerd: of its CRI, and the one that its clients
        // use when they are told none.
        "k8s.io" | "default" => Some(("containerd", name)),
        _ => Some(("unknown", name)),
    }
}

fn lxc_name<'a>(parent: &str, name: &'a str) -> Option<&'a str> {
    let named = match name.strip_prefix("lxc.payload.") {
        Some(named) => named,
        None if matches!(parent, "lxc" | "lxc.payload") => name,
        None => return None,
    };
    (!named.is_empty()).then_some(named)
}

/// Ids of containers: 64 hexadecimal digits, by all that are known here.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

/// Ids of buildkit's: 25 digits of base 36.
fn is_build_id(text: &str) -> bool {
    text.len() == 25 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// UIDs of pods: UUIDs, and hashes of 32 digits for those from a file
/// (`applyDefaults` in kubernetes `pkg/kubelet/config/common.go`).
fn is_pod_uid(text: &str) -> bool {
    match text.len() {
        32 => text.bytes().all(is_hex),
        36 => text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => matches!(byte, b'-' | b'_'),
            _ => is_hex(byte),
        }),
        _ => false,
    }
}

/// UID and class of a pod from its slice, without `.slice`. The kubelet puts its
/// cgroup root before it, if it is told one: `kubelet-kubepods-...`.
fn pod_of_slice(slice: &str) -> Option<(&str, &'static str)> {
    let (parents, uid) = slice.rsplit_once("-pod")?;
    let class = match parents.rsplit_once('-') {
        Some((above, "burstable")) if is_root(above, '-') => "burstable",
        Some((above, "besteffort")) if is_root(above, '-') => "besteffort",
        _ if is_root(parents, '-') => "guaranteed",
        _ => return None,
    };
    is_pod_uid(uid).then_some((uid, class))
}

/// UID and class of the innermost pod among directories of the cgroupfs driver.
fn pod_of_folders(path: &str) -> Option<(&str, &'static str)> {
    let mut here = path;
    loop {
        let (above, name) = here.rsplit_once('/')?;
        if let Some(uid) = name.strip_prefix("pod").filter(|uid| is_pod_uid(uid)) {
            return match above.rsplit_once('/') {
                Some((above, "burstable")) if is_root(above, '/') => Some((uid, "burstable")),
                Some((above, "besteffort")) if is_root(above, '/') => Some((uid, "besteffort")),
                _ if is_root(above, '/') => Some((uid, "guaranteed")),
                _ => None,
            };
        }
        here = above;
    }
}

/// Whether the last of `names` is that of the cgroup above all pods
/// (`defaultNodeAllocatableCgroupName` in kubernetes `pkg/kubelet/cm`).
fn is_root(names: &str, separator: char) -> bool {
    names.rsplit(separator).next() == Some("kubepods")
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
