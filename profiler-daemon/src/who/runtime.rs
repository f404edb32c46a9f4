//! The container runtime that a task belongs to.
//!
//! The task's name decides first, its cgroup if the name says nothing. The
//! kernel keeps 15 bytes of a name, so the shims of containerd
//! (`containerd-shim-runc-v2`, `-runsc-v1`, `-kata-v2`) are all
//! `containerd-shim`. A task of any name, such as `unpigz`, in the cgroup of a
//! runtime's own service is that runtime's; in a container that is below this
//! cgroup it is not. What has execed a copy of itself is called `exe` or a
//! number until it names itself, and is told by its cgroup alone.
//!
//! Names: runc `libcontainer/nsenter/nsexec.c` (`runc:[1:CHILD]`), youki
//! `crates/libcontainer/src/process` (`youki:[2:INIT]`), crun and runc
//! `cloned_binary.c` (a memfd; its name is the task's from Linux 6.14,
//! `begin_new_exec` in fs/exec.c), systemd `src/core/exec-invoke.c` and
//! `src/basic/process-util.c` (names in parentheses until exec), podman
//! `pkg/rootless/rootless_linux.c` (`podman pause`), gVisor
//! `runsc/sandbox/sandbox.go` (`runsc-sandbox`, `runsc-gofer`).

use super::container::innermost;
use crate::snapshot::Runtime;

/// The runtime of tasks named `comm` (up to a NUL) in the cgroup at `path`,
/// empty where it is not known.
pub fn runtime(comm: &[u8], path: &str) -> Runtime {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    by_name(name).or_else(|| by_cgroup(path)).unwrap_or_default()
}

fn by_name(name: &[u8]) -> Option<Runtime> {
    Some(match name {
        b"runc" | b"buildkit-runc" | b"docker-runc" | b"memfd:runc_clon" => Runtime::Runc,
        [b'r', b'u', b'n', b'c', b':', ..] => Runtime::Runc,
        b"crun" | b"memfd:crun_clon" => Runtime::Crun,
        b"youki" => Runtime::Youki,
        _ if name.starts_with(b"youki:") => Runtime::Youki,
        b"containerd" => Runtime::Containerd,
        b"containerd-shim" => Runtime::ContainerdShim,
        b"conmon" | b"conmonrs" => Runtime::Conmon,
        b"podman" | b"podman pause" => Runtime::Podman,
        b"dockerd" => Runtime::Dockerd,
        b"crio" => Runtime::Crio,
        b"kubelet" => Runtime::Kubelet,
        b"systemd" => Runtime::Systemd,
        _ if name.starts_with(b"systemd-") || name.starts_with(b"(sd-") => Runtime::Systemd,
        [b'(', .., b')'] => Runtime::Systemd,
        b"runsc" | b"gofer" => Runtime::Runsc,
        _ if name.starts_with(b"runsc-") => Runtime::Runsc,
        _ if name.starts_with(b"kata-") => Runtime::Kata,
        _ => return None,
    })
}

/// The innermost cgroup that is a runtime's own, of those below the innermost
/// container.
fn by_cgroup(path: &str) -> Option<Runtime> {
    let below = match innermost(path) {
        // The host's side of a sandbox: virtual machine, its file server.
        Some((_, below)) if is_kata(&path[..path.len() - below.len()]) => {
            return Some(Runtime::Kata);
        }
        Some((_, below)) => below,
        None if is_kata(path) => return Some(Runtime::Kata),
        None => path,
    };
    below.rsplit('/').find_map(by_unit)
}

/// Whether `path` is below `kata_overhead`, or its last part is a sandbox's.
fn is_kata(path: &str) -> bool {
    path.split('/').any(|name| name == "kata_overhead")
        || path.rsplit('/').next().is_some_and(|name| name.starts_with("kata_"))
}

fn by_unit(name: &str) -> Option<Runtime> {
    Some(match name {
        "containerd.service" | "snap.microk8s.daemon-containerd.service" => Runtime::Containerd,
        "docker.service" | "snap.docker.dockerd.service" => Runtime::Dockerd,
        "crio.service" => Runtime::Crio,
        "kubelet.service" | "snap.microk8s.daemon-kubelite.service" => Runtime::Kubelet,
        // The kubelet is a part of these.
        "k3s.service" | "k3s-agent.service" => Runtime::Kubelet,
        "rke2-server.service" | "rke2-agent.service" => Runtime::Kubelet,
        "podman.service" => Runtime::Podman,
        "conmon" => Runtime::Conmon,
        "init.scope" => Runtime::Systemd,
        _ if name.starts_with("libpod-conmon-") => Runtime::Conmon,
        _ if name.starts_with("crio-conmon-") => Runtime::Conmon,
        _ if name.starts_with("podman-") && name.ends_with(".scope") => Runtime::Podman,
        // What runs in the services of systemd-nspawn are containers.
        _ if name.starts_with("systemd-nspawn@") => return None,
        _ if name.starts_with("systemd-") && name.ends_with(".service") => Runtime::Systemd,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4c6cb8a7d1e0c5b2a98f7e6d5c4b3a291807f6e5d4c3b2a190807060504030";

    /// As the kernel keeps it: cut to 15 bytes, filled with NULs to 16.
    fn comm(name: &str) -> [u8; 16] {
        let mut comm = [0; 16];
        let kept = name.len().min(15);
        comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        comm
    }

    #[test]
    fn a_name_tells_the_runtime_wherever_the_task_is() {
        for (name, expected) in [
            ("runc", Runtime::Runc),
            ("runc:[0:PARENT]", Runtime::Runc),
            ("runc:[1:CHILD]", Runtime::Runc),
            ("runc:[2:INIT]", Runtime::Runc),
            ("buildkit-runc", Runtime::Runc),
            ("memfd:runc_cloned:/proc/self/exe", Runtime::Runc),
            ("crun", Runtime::Crun),
            ("memfd:crun_cloned:/proc/self/exe", Runtime::Crun),
            ("youki", Runtime::Youki),
            ("youki:[1:INTER]", Runtime::Youki),
            ("youki:[2:INIT]", Runtime::Youki),
            ("containerd", Runtime::Containerd),
            ("containerd-shim-runc-v2", Runtime::ContainerdShim),
            ("containerd-shim-kata-v2", Runtime::ContainerdShim),
            ("conmon", Runtime::Conmon),
            ("conmonrs", Runtime::Conmon),
            ("podman", Runtime::Podman),
            ("podman pause", Runtime::Podman),
            ("dockerd", Runtime::Dockerd),
            ("crio", Runtime::Crio),
            ("kubelet", Runtime::Kubelet),
            ("systemd", Runtime::Systemd),
            ("systemd-executor", Runtime::Systemd),
            ("systemd-journald", Runtime::Systemd),
            ("(sd-pam)", Runtime::Systemd),
            ("(sd-mkdcredentials)", Runtime::Systemd),
            ("(dockerd)", Runtime::Systemd),
            ("(udev-worker)", Runtime::Systemd),
            ("runsc", Runtime::Runsc),
            ("runsc-sandbox", Runtime::Runsc),
            ("runsc-gofer", Runtime::Runsc),
            ("gofer", Runtime::Runsc),
            ("kata-runtime", Runtime::Kata),
            ("kata-monitor", Runtime::Kata),
        ] {
            let inside = format!("/system.slice/docker-{ID}.scope");
            for path in ["", "/", "/system.slice/containerd.service", &inside] {
                assert_eq!(runtime(&comm(name), path), expected, "{name} in {path}");
            }
        }
    }

    #[test]
    fn a_name_that_only_resembles_one_does_not() {
        for name in [
            "",
            "runcible",
            "run",
            "crunch",
            "containerdx",
            "containerd-stress",
            "conmonitor",
            "dockerd2",
            "systemdx",
            "(",
            "()x",
            "qemu-system-x86_64",
            "virtiofsd",
            "sh",
            "exe",
            "6",
            "runs",
            "kata",
        ] {
            assert_eq!(runtime(&comm(name), "/user.slice"), Runtime::Other, "{name}");
        }
        assert_eq!(runtime(b"\xff\xfe\x1b[2J", ""), Runtime::Other);
        assert_eq!(runtime(b"runc\0junk", ""), Runtime::Runc);
    }

    #[test]
    fn a_task_of_any_name_is_of_the_runtime_whose_cgroup_it_is_in() {
        for (path, expected) in [
            ("/system.slice/containerd.service", Runtime::Containerd),
            ("/system.slice/docker.service", Runtime::Dockerd),
            ("/system.slice/docker.service/init", Runtime::Dockerd),
            ("/system.slice/crio.service", Runtime::Crio),
            ("/system.slice/kubelet.service", Runtime::Kubelet),
            ("/system.slice/k3s.service", Runtime::Kubelet),
            ("/system.slice/podman.service", Runtime::Podman),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-42.scope",
                Runtime::Podman,
            ),
            ("/machine.slice/libpod-conmon-ID.scope", Runtime::Conmon),
            ("/kubepods.slice/crio-conmon-ID.scope", Runtime::Conmon),
            ("/libpod_parent/conmon", Runtime::Conmon),
            ("/init.scope", Runtime::Systemd),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Runtime::Systemd),
            ("/system.slice/docker-ID.scope/init.scope", Runtime::Systemd),
            ("/system.slice/systemd-udevd.service/udev", Runtime::Systemd),
            ("/docker/ID/system.slice/containerd.service", Runtime::Containerd),
            ("/kata_overhead/ID", Runtime::Kata),
            ("/kubepods/pod72f7f152-440c-66ac-9084-e0fc1d8a910c/kata_ID", Runtime::Kata),
        ] {
            let path = path.replace("ID", ID);
            for name in ["exe", "qemu-system-x86_64", "virtiofsd", "mount"] {
                assert_eq!(runtime(&comm(name), &path), expected, "{name} in {path}");
            }
        }
    }

    #[test]
    fn a_task_in_a_container_is_not_of_the_runtime_around_it() {
        for path in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/system.slice/containerd.service/kubepods-podx.slice:cri-containerd:ID",
            "/system.slice/docker.service/docker/ID/app",
            "/machine.slice/libpod-ID.scope/container",
            "/machine.slice/systemd-nspawn@web.service",
            "/user.slice/user-1000.slice/session-1.scope",
            "/lxc.payload.mail/system.slice/postfix.service",
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(runtime(&comm("mount"), &path), Runtime::Other, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_breaks_it_and_what_follows_a_nul_does_not_count(
            name in proptest::collection::vec(1..=u8::MAX, 0..15),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..8),
            path in "\\PC{0,40}(/(docker|crio|system\\.slice|\\.service|-|é){0,4}){0,6}",
        ) {
            let whole = [&name[..], &[0], &rest].concat();
            proptest::prop_assert_eq!(runtime(&whole, &path), runtime(&name, &path));
        }
    }
}
