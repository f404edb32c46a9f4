//! The pod, run: the daemon with exactly what the manifest gives it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockprof::who::Hierarchy;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bundle::{self, Secret};
use crate::common::cgroups::Folder;
use crate::common::{self, LOCKPROF};
use crate::manifest;
use crate::needs_bpf;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// As a kubelet with the systemd driver names the cgroup of a container.
const POD: &str = "0d1f8a2c-5a0f-4f7e-9d1e-3c2b1a090807";
const CONTAINER: &str = "5e0f1d2c3b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Who may scrape: `prometheus`, with the password `fleet`.
const WEB: &str = "basic_auth_users:\n  prometheus: \
                   $2b$04$12/gRLl3Gj9xYqq6kKl/zOWV7HerCZ2wAyI.RXfjXHNZPRcOMvmk6\n";
const CREDENTIALS: &str = "Basic cHJvbWV0aGV1czpmbGVldA==";

/// A container of the runtime, gone when dropped.
struct Running {
    runtime: Child,
    state: std::path::PathBuf,
    pid: Pid,
    log: std::path::PathBuf,
}

impl Running {
    /// Starts the bundle in `folder`; else why the runtime could not.
    fn start(folder: &Path) -> Result<Self, String> {
        let (state, file) = (folder.join("state"), folder.join("pid"));
        let log = folder.join("log");
        let to = File::create(&log).expect("it is writable");
        let mut command = Command::new("runc");
        command.arg("--root").arg(&state).args(["run", "--pid-file"]).arg(&file);
        command.arg("--bundle").arg(folder).arg(ID).stdin(Stdio::null());
        let mut runtime = command
            .stdout(to.try_clone().expect("it is open"))
            .stderr(to)
            .spawn()
            .map_err(|error| format!("{error}"))?;
        let deadline = Instant::now() + PATIENCE;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        loop {
            let pid = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                return Ok(Self { runtime, state, pid, log });
            }
            if let Some(status) = runtime.try_wait().expect("it can be awaited") {
                return Err(format!("{status}: {}", said().trim()));
            }
            assert!(Instant::now() < deadline, "no container after {PATIENCE:?}: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A field of the process's status.
    fn status(&self, field: &str) -> String {
        let path = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.expect("a field").trim().to_owned()
    }
}

const ID: &str = "lockprof-test-pod";

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.runtime.wait();
        let mut delete = Command::new("runc");
        let _ = delete.arg("--root").arg(&self.state).args(["delete", "-f", ID]).output();
    }
}

/// What the pod's own network answers to a GET, from within it.
fn get(
    pid: Pid,
    port: u16,
    path: &str,
    credentials: Option<&str>,
) -> Result<(u16, String), String> {
    let (path, credentials) = (path.to_owned(), credentials.map(str::to_owned));
    // A thread of its own: it stays in the network.
    let asked = std::thread::spawn(move || {
        let network = File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))
            .map_err(|e| e.to_string())?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| e.to_string())?;
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut request = agent.get(format!("http://{address}{path}"));
        if let Some(credentials) = credentials {
            request = request.header("Authorization", credentials);
        }
        let mut answer = request.call().map_err(|e| e.to_string())?;
        let body = answer.body_mut().read_to_string().map_err(|e| e.to_string())?;
        Ok((answer.status().as_u16(), body))
    });
    asked.join().expect("it does not panic")
}

/// The value of the series whose line begins so.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn the_pod_measures_waits_and_names_containers() {
    let name = "the_pod_measures_waits_and_names_containers";
    needs_bpf!("the_pod_measures_waits_and_names_containers");
    let hierarchy = match Hierarchy::find(Path::new("/sys/fs/cgroup")) {
        Ok(hierarchy) => hierarchy,
        Err(why) => return common::skip(name, &why.to_string()),
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pod = manifest::pod();
    let volumes = manifest::list(&pod["spec"]["volumes"]);
    let of_web = volumes.iter().find_map(|volume| volume["secret"]["secretName"].as_str());
    let secret = Secret { name: of_web.expect("a Secret"), file: "web.yml", content: WEB };
    bundle::make(folder.path(), &pod, &secret);
    let mut running = match Running::start(folder.path()) {
        Ok(running) => running,
        Err(why) => return common::skip(name, &format!("runc starts no container here: {why}")),
    };
    let port = manifest::container(&pod)["ports"][0]["containerPort"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).expect("a port");
    let pid = running.pid;
    let ask = |path: &str| get(pid, port, path, Some(CREDENTIALS));
    let deadline = Instant::now() + PATIENCE;
    while !matches!(ask("/readyz"), Ok((200, _))) {
        let ended = running.runtime.try_wait().expect("it can be awaited");
        assert!(ended.is_none(), "it ended: {}", running.said());
        assert!(Instant::now() < deadline, "not ready: {:?}: {}", ask("/readyz"), running.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    // It has the manifest's capabilities at most, and can get no others.
    let allowed = manifest::container(&pod)["securityContext"]["capabilities"]["add"].clone();
    let bounding = u64::from_str_radix(&running.status("CapBnd"), 16).expect("a mask");
    assert!(bounding.count_ones() as usize <= manifest::list(&allowed).len(), "{bounding:x}");
    let permitted = u64::from_str_radix(&running.status("CapPrm"), 16).expect("a mask");
    for (name, bit) in [("CAP_SYSLOG", 34), ("CAP_PERFMON", 38)] {
        assert_eq!(permitted & 1 << bit, 0, "it still has {name}: {permitted:x}");
    }
    assert_eq!(running.status("NoNewPrivs"), "1");

    let slice = format!("kubepods-burstable-pod{}.slice", POD.replace('-', "_"));
    let above = match Folder::at(hierarchy.root.join("lockprof-test-kubernetes")) {
        Ok(folder) => folder,
        Err(why) => return common::skip(name, &format!("no cgroup can be made: {why}")),
    };
    above.add(&slice);
    let (_, scope) = above.add(Path::new(&slice).join(format!("cri-containerd-{CONTAINER}.scope")));
    let script = "echo 0 > \"$1/cgroup.procs\" && shift && exec \"$@\"";
    let storm = || {
        let mut load = Command::new("sh");
        load.args(["-c", script, "sh"]).arg(&scope).args([LOCKPROF, "storm", "--no-measure"]);
        load.args(["--concurrency", "8", "--pollers", "2", "--duration", "2s"]);
        assert!(
            load.stdout(Stdio::null()).status().expect("sh runs").success(),
            "the storm failed"
        );
    };

    let waited = format!(
        "lockprof_container_lock_waiter_seconds_total{{lock=\"namespace_sem\",container=\"{CONTAINER}\"}}"
    );
    let known = format!(
        "lockprof_container_info{{container=\"{CONTAINER}\",manager=\"containerd\",pod_uid=\"{POD}\"}}"
    );
    // A container counts from when it is selected, which takes a scrape.
    let metrics = loop {
        storm();
        let (status, metrics) = ask("/metrics").expect("it answers");
        assert_eq!(status, 200, "{metrics}");
        let is_known = value(&metrics, &known) == Some(1.0);
        if is_known && value(&metrics, &waited).is_some_and(|seconds| seconds > 0.0) {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{waited}, {known}: {}", named(&metrics));
    };
    let of_calls =
        metrics.lines().any(|l| l.starts_with("lockprof_mount_syscall_duration_seconds_count"));
    assert!(of_calls, "no mount call was seen: {}", running.said());

    let refused = get(running.pid, port, "/metrics", None).expect("it answers");
    assert_eq!(refused.0, 401, "without credentials: {}", refused.1);

    kill_process(running.pid, Signal::TERM).expect("it runs");
    let ended = running.runtime.wait().expect("it ends");
    assert!(ended.success(), "{ended}: {}", running.said());
}

/// What a failure is about.
fn named(metrics: &str) -> String {
    metrics
        .lines()
        .filter(|line| line.contains("lockprof_container_"))
        .collect::<Vec<_>>()
        .join("\n")
}
