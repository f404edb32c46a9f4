//! The files, read, and what their parts say of each other.

use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) const DAEMONSET: &str = "packaging/kubernetes/daemonset.yaml";
const PODMONITOR: &str = "packaging/kubernetes/podmonitor.yaml";

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The objects in a file.
fn objects(path: &str) -> Vec<Value> {
    let text = read(path);
    let documents = text.split("\n---\n").filter(|text| text.lines().any(|l| !l.starts_with('#')));
    let parse = |text: &str| serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{path}: {e}"));
    documents.map(parse).collect()
}

/// The one object of a kind in the manifest.
pub(crate) fn object(kind: &str) -> Value {
    let mut found = objects(DAEMONSET).into_iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    object
}

/// The pod that the DaemonSet makes.
pub(crate) fn pod() -> Value {
    object("DaemonSet")["spec"]["template"].clone()
}

/// The one container of the pod.
pub(crate) fn container(pod: &Value) -> &Value {
    let [container] = list(&pod["spec"]["containers"]) else { panic!("not one container") };
    container
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

#[test]
fn the_objects_name_each_other_rightly() {
    let (set, pod) = (object("DaemonSet"), pod());
    let labels = &pod["metadata"]["labels"];
    for selector in [
        &set["spec"]["selector"]["matchLabels"],
        &object("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        &objects(PODMONITOR)[0]["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let namespace = &object("Namespace")["metadata"]["name"];
    for object in objects(DAEMONSET).into_iter().chain(objects(PODMONITOR)) {
        // These two are of no namespace.
        let of_cluster = object["kind"] == "Namespace" || object["kind"] == "PriorityClass";
        assert_eq!(
            &object["metadata"]["namespace"] == namespace,
            !of_cluster,
            "{}",
            object["kind"]
        );
    }
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], object("ServiceAccount")["metadata"]["name"]);
    assert_eq!(spec["priorityClassName"], object("PriorityClass")["metadata"]["name"]);
    let port = &list(&container(&pod)["ports"])[0];
    let monitored = &objects(PODMONITOR)[0]["spec"]["podMetricsEndpoints"][0]["port"];
    assert_eq!(&port["name"], monitored);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container(&pod)[probe]["tcpSocket"]["port"], port["name"], "{probe}");
    }
    let config: toml::Table = settings().parse().expect("TOML");
    let listen = config["listen"].as_str().expect("an address");
    assert_eq!(listen.rsplit(':').next(), Some(port["containerPort"].to_string().as_str()));
}

/// The daemon's configuration in the ConfigMap.
pub(crate) fn settings() -> String {
    text(&object("ConfigMap")["data"], "lockprof.toml").to_owned()
}

#[test]
fn the_pod_is_given_no_more_than_it_needs() {
    let pod = pod();
    let spec = &pod["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(object("ServiceAccount")["automountServiceAccountToken"], false);
    for namespace in ["hostNetwork", "hostIPC"] {
        assert_ne!(spec[namespace], true, "{namespace}");
    }
    let security = &container(&pod)["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let added: Vec<_> =
        list(&security["capabilities"]["add"]).iter().map(Value::to_string).collect();
    assert!(added.iter().all(|c| c != "\"SYS_ADMIN\""), "{added:?}");
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    // What is of the host can only be read.
    for mount in list(&container(&pod)["volumeMounts"]) {
        assert_eq!(mount["readOnly"], true, "{mount}");
    }
}
