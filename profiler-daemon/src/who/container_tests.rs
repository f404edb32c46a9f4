use super::*;

const ID: &str = "3f4c6cb8a7d1e0c5b2a98f7e6d5c4b3a291807f6e5d4c3b2a190807060504030";
const INNER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const UID: &str = "72f7f152-440c-66ac-9084-e0fc1d8a910c";
const STATIC_UID: &str = "0c5b2a98f7e6d5c4b3a291807f6e5d4c";
const BUILD: &str = "k1x9t0q3wz5v7b2n4m6p8r0s1";

/// `{id}`, `{uid}`, `{_uid}`, `{static}`, `{inner}` and `{build}` filled in.
fn fill(path: &str) -> String {
    path.replace("{id}", ID)
        .replace("{inner}", INNER)
        .replace("{uid}", UID)
        .replace("{_uid}", &UID.replace('-', "_"))
        .replace("{static}", STATIC_UID)
        .replace("{build}", BUILD)
}

fn told(path: &str) -> Option<(String, String, Option<String>, Option<String>)> {
    let owned = |name: Name| name.as_str().to_owned();
    container(&fill(path)).map(|found| {
        (owned(found.manager), owned(found.id), found.pod_uid.map(owned), found.qos.map(owned))
    })
}

#[test]
fn containers_outside_of_pods() {
    for (path, manager, id) in [
        ("/system.slice/docker-{id}.scope", "docker", ID),
        ("/docker/{id}", "docker", ID),
        ("/docker.slice/docker-{id}.scope", "docker", ID),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope",
            "docker",
            ID,
        ),
        ("/my-parent/{id}", "unknown", ID),
        ("/actions_job/{id}", "unknown", ID),
        ("/ecs/{static}/{id}", "unknown", ID),
        ("/k8s.io/{id}", "containerd", ID),
        ("/default/{id}", "containerd", ID),
        ("/system.slice/nerdctl-{id}.scope", "containerd", ID),
        ("/system.slice/cri-containerd-{id}.scope", "containerd", ID),
        ("/system.slice/crio-{id}.scope", "crio", ID),
        ("/machine.slice/libpod-{id}.scope", "podman", ID),
        ("/machine.slice/libpod-{id}.scope/container", "podman", ID),
        ("/machine.slice/machine-libpod_pod_{inner}.slice/libpod-{id}.scope", "podman", ID),
        ("/libpod_parent/libpod-{id}", "podman", ID),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
            "podman",
            ID,
        ),
        ("/system.slice/system.slice:docker:{build}", "buildkit", BUILD),
        ("/system.slice/docker-{build}.scope", "buildkit", BUILD),
        ("/docker/buildkit/{build}", "buildkit", BUILD),
        ("/buildkit/{build}", "buildkit", BUILD),
        ("/lxc.payload.mail/system.slice/postfix.service", "lxc", "mail"),
        ("/lxc.payload/mail", "lxc", "mail"),
        ("/lxc/101/ns/init.scope", "lxc", "101"),
    ] {
        let expected = Some((manager.to_owned(), id.to_owned(), None, None));
        assert_eq!(told(path), expected, "{path}");
    }
}

#[test]
fn containers_of_pods() {
    let slices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_uid}.slice";
    for (path, manager, uid, qos) in [
        (&*format!("{slices}/cri-containerd-{{id}}.scope"), "containerd", UID, "burstable"),
        (&format!("{slices}/crio-{{id}}.scope"), "crio", UID, "burstable"),
        (&format!("{slices}/crio-{{id}}.scope/container"), "crio", UID, "burstable"),
        (&format!("{slices}/docker-{{id}}.scope"), "docker", UID, "burstable"),
        (&format!("{slices}/kata_{{id}}"), "unknown", UID, "burstable"),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_uid}.slice/\
             cri-containerd-{id}.scope",
            "containerd",
            UID,
            "besteffort",
        ),
        ("/kubepods.slice/kubepods-pod{_uid}.slice/crio-{id}.scope", "crio", UID, "guaranteed"),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{static}.slice/\
             cri-containerd-{id}.scope",
            "containerd",
            STATIC_UID,
            "burstable",
        ),
        ("/kubepods/burstable/pod{uid}/{id}", "unknown", UID, "burstable"),
        ("/kubepods/besteffort/pod{uid}/{id}", "unknown", UID, "besteffort"),
        ("/kubepods/pod{uid}/{id}", "unknown", UID, "guaranteed"),
        ("/kubepods/pod{static}/{id}", "unknown", STATIC_UID, "guaranteed"),
        ("/kubepods/burstable/pod{uid}/crio-{id}", "crio", UID, "burstable"),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
             kubelet-kubepods-besteffort-pod{_uid}.slice/cri-containerd-{id}.scope",
            "containerd",
            UID,
            "besteffort",
        ),
        ("/kubelet/kubepods/burstable/pod{uid}/{id}", "unknown", UID, "burstable"),
        (
            "/system.slice/containerd.service/kubepods-pod{_uid}.slice:cri-containerd:{id}",
            "containerd",
            UID,
            "guaranteed",
        ),
        (
            "/kubepods-besteffort-pod{_uid}.slice:cri-containerd:{id}",
            "containerd",
            UID,
            "besteffort",
        ),
        ("/kata_overhead/kubepods/burstable/pod{uid}/kata_{id}", "unknown", UID, "burstable"),
    ] {
        let expected =
            Some((manager.to_owned(), ID.to_owned(), Some(uid.to_owned()), Some(qos.to_owned())));
        assert_eq!(told(path), expected, "{path}");
    }
}

#[test]
fn of_nested_containers_the_innermost_is_meant() {
    for (path, manager, id) in [
        ("/system.slice/docker-{id}.scope/init.scope", "docker", ID),
        ("/system.slice/docker-{id}.scope/system.slice/sshd.service", "docker", ID),
        ("/docker/{id}/docker/{inner}", "docker", INNER),
        ("/docker/{id}/system.slice/containerd.service", "docker", ID),
        ("/lxc.payload.c1/system.slice/docker-{inner}.scope", "docker", INNER),
    ] {
        let (found_manager, found_id, pod, _) = told(path).expect(path);
        assert_eq!((&*found_manager, &*found_id, pod), (manager, id, None), "{path}");
    }
    let kind = "/docker/{id}/kubelet.slice/kubelet-kubepods.slice/\
                kubelet-kubepods-pod{_uid}.slice/cri-containerd-{inner}.scope";
    let (manager, id, pod, qos) = told(kind).expect(kind);
    assert_eq!((&*manager, &*id), ("containerd", INNER));
    assert_eq!((pod.as_deref(), qos.as_deref()), (Some(UID), Some("guaranteed")));
}

#[test]
fn what_is_of_no_container() {
    for path in [
        "",
        "/",
        "/init.scope",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/machine.slice/libpod-conmon-{id}.scope",
        "/libpod_parent/conmon",
        "/kubepods.slice/kubepods-pod{_uid}.slice/crio-conmon-{id}.scope",
        "/kubepods/burstable/pod{uid}/crio-conmon-{id}",
        "/kubepods.slice/kubepods-pod{_uid}.slice",
        "/kubepods/pod{uid}",
        "/system.slice/docker-deadbeef.scope",
        "/system.slice/docker-{id}0.scope",
        "/system.slice/docker-.scope",
        "/system.slice/var-lib-docker-overlay2-{id}-merged.mount",
        "/lxc.monitor.mail",
        "/lxc.monitor/mail",
        "/lxc",
        "/lxc.payload.",
        "/buildkit/web",
        "/user.slice/user-1000.slice/session-3.scope",
        "…",
    ] {
        assert_eq!(told(path), None, "{path}");
    }
}

#[test]
fn what_only_looks_like_a_pod_is_none() {
    for path in [
        "/pod{uid}/{id}",
        "/kubepods/mine/pod{uid}/{id}",
        "/kubepods/podcast/{id}",
        "/my-pod{_uid}.slice/docker-{id}.scope",
        "/notkubepods-pod{_uid}.slice/docker-{id}.scope",
    ] {
        let (_, id, pod, qos) = told(path).expect(path);
        assert_eq!((&*id, pod, qos), (ID, None, None), "{path}");
    }
}

#[test]
fn a_hostile_name_is_escaped() {
    let (manager, id, ..) = told("/lxc/\x1b]0;x\x07\"").expect("a container");
    assert_eq!((&*manager, &*id), ("lxc", "\\x1b]0;x\\x07\""));
}

proptest::proptest! {
    #[test]
    fn no_path_breaks_it(path in "\\PC{0,40}(/(docker-|pod|lxc|kubepods|:|\\.slice:|é){0,4}){0,6}") {
        let found = innermost(&path);
        proptest::prop_assert!(found.is_none_or(|(_, below)| path.ends_with(below)));
    }
}
