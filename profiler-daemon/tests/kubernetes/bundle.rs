//! From the pod in the manifest to a bundle for an OCI runtime, as a node makes
//! one: what the manifest does not give, the container does not have.
//!
//! Source: containerd's CRI plugin (internal/cri/server/container_create.go,
//! internal/cri/opts) and the OCI runtime specification 1.0.2.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::LOCKPROF;
use crate::containerfile::Image;
use crate::manifest::{container, list, object, text};

/// What CRI runtimes hide and protect unless `procMount` says otherwise
/// (`defaultMaskedPaths` in pkg/securitycontext of Kubernetes).
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A file of a Secret that the cluster's administrator makes.
pub(crate) struct Secret<'a> {
    pub(crate) name: &'a str,
    pub(crate) file: &'a str,
    pub(crate) content: &'a str,
}

/// Makes the bundle in `folder`.
pub(crate) fn make(folder: &Path, pod: &Value, secret: &Secret<'_>) {
    let image = Image::read();
    fill(&folder.join("rootfs"), &image);
    let spec = &pod["spec"];
    let config = json!({
        "ociVersion": "1.0.2",
        "process": process(pod, &image),
        "root": { "path": "rootfs", "readonly": of_container(pod, "readOnlyRootFilesystem") == true },
        "hostname": "lockprof-node",
        "mounts": mounts(folder, pod, secret),
        "linux": {
            "namespaces": namespaces(spec),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "rootfsPropagation": "rprivate",
        },
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("it is writable");
}

/// A field of the container's security context.
fn of_container<'a>(pod: &'a Value, field: &str) -> &'a Value {
    &container(pod)["securityContext"][field]
}

fn process(pod: &Value, image: &Image) -> Value {
    let added = list(&of_container(pod, "capabilities")["add"]).iter();
    let dropped = list(&of_container(pod, "capabilities")["drop"]);
    assert_eq!(dropped, [json!("ALL")], "else the runtime's own would be left");
    let capabilities: Vec<_> =
        added.map(|name| format!("CAP_{}", name.as_str().expect("a name"))).collect();
    let user = &pod["spec"]["securityContext"];
    let given = list(&container(pod)["args"]).iter().map(|a| a.as_str().expect("text").to_owned());
    let arguments: Vec<_> = image.entrypoint.iter().cloned().chain(given).collect();
    json!({
        "user": { "uid": user["runAsUser"], "gid": user["runAsGroup"] },
        "args": arguments,
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "noNewPrivileges": of_container(pod, "allowPrivilegeEscalation") == false,
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
        },
    })
}

/// All, but those of the host that the pod asks for.
fn namespaces(spec: &Value) -> Value {
    let own = [("pid", "hostPID"), ("network", "hostNetwork"), ("ipc", "hostIPC")]
        .into_iter()
        .filter(|(_, host)| spec[host] != true)
        .map(|(kind, _)| kind)
        .chain(["uts", "mount", "cgroup"]);
    own.map(|kind| json!({ "type": kind })).collect()
}

fn mounts(folder: &Path, pod: &Value, secret: &Secret<'_>) -> Vec<Value> {
    let system = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    for mount in list(&container(pod)["volumeMounts"]) {
        let volume = list(&pod["spec"]["volumes"]).iter().find(|v| v["name"] == mount["name"]);
        let volume = volume.unwrap_or_else(|| panic!("no volume {}", mount["name"]));
        let destination = text(mount, "mountPath");
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        let source = source(folder, volume, secret).join(mount["subPath"].as_str().unwrap_or(""));
        if source == Path::new("/sys/kernel/tracing") && !source.join("events").exists() {
            // systemd mounts it on every node; here nobody has.
            mounts.push(system(destination, "tracefs", &["nosuid", "noexec", "nodev", access]));
            continue;
        }
        mounts.push(json!({
            "destination": destination,
            "type": "bind",
            "source": source,
            "options": ["rbind", "rprivate", access],
        }));
    }
    mounts
}

/// What a volume is made from, on the node.
fn source(folder: &Path, volume: &Value, secret: &Secret<'_>) -> PathBuf {
    if let Some(path) = volume["hostPath"]["path"].as_str() {
        return path.into();
    }
    let files = folder.join(format!("volume-{}", text(volume, "name")));
    fs::create_dir_all(&files).expect("it is writable");
    let write = |name: &str, content: &str| {
        fs::write(files.join(name), content).expect("it is writable");
    };
    if volume["secret"]["secretName"] == secret.name {
        write(secret.file, secret.content);
    } else if volume["configMap"]["name"] == object("ConfigMap")["metadata"]["name"] {
        for (name, content) in object("ConfigMap")["data"].as_object().expect("files") {
            write(name, content.as_str().expect("text"));
        }
    } else {
        panic!("nothing is known of {volume}");
    }
    files
}

/// The image: the binary, and where the tests' one is not static, its libraries.
fn fill(root: &Path, image: &Image) {
    let below = |path: &Path| root.join(path.strip_prefix("/").expect("absolute"));
    let copy = |from: &Path, to: &Path| {
        let to = below(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("it is writable");
        fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("it is ours");
    };
    copy(Path::new(LOCKPROF), &image.binary);
    let output = Command::new("ldd").arg(LOCKPROF).output().expect("ldd can be run");
    for library in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if library.starts_with('/') {
            copy(Path::new(library), Path::new(library));
        }
    }
    for folder in ["/proc", "/dev", "/sys"] {
        fs::create_dir_all(below(Path::new(folder))).expect("it is writable");
    }
}
