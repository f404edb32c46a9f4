//! The daemon as its users meet it: over HTTP, by signals, and gone afterwards.

mod common;

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use common::LOCKPROF;
use lockprof::who::Hierarchy;

/// A running daemon, killed when dropped.
struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    fn start(arguments: &[&str]) -> Self {
        let address = free_address();
        let child = Command::new(LOCKPROF)
            .args(["daemon", "--listen", &address.to_string()])
            .args(arguments)
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon can be run");
        let mut daemon = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = daemon.child.try_wait().expect("it can be awaited") {
                let mut said = String::new();
                let stderr = daemon.child.stderr.as_mut().expect("piped");
                stderr.read_to_string(&mut said).expect("text");
                panic!("the daemon ended with {status}: {said}");
            }
            if daemon.try_get("/readyz").is_some_and(|(status, _)| status == 200) {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the daemon was not ready after 30 s");
    }

    fn try_get(&self, path: &str) -> Option<(u16, String)> {
        get(self.address, path, "*/*")
    }

    fn get(&self, path: &str) -> String {
        let (status, body) = self.try_get(path).expect("the daemon answers");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: signals our own child, which is not yet awaited.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Program ids that this daemon holds.
    fn programs(&self) -> Vec<u32> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        std::fs::read_dir(folder)
            .expect("fdinfo of our own child")
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
            .filter_map(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
                line.trim().parse().ok()
            })
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has a free port")
}

/// Status and body of a GET, or `None` without an answer.
fn get(address: SocketAddr, path: &str, accept: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
}

/// Whether the kernel still has one of these programs, after at most 5 s: it
/// frees them in its own time.
fn programs_left(ids: &[u32]) -> Vec<u32> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let loaded: Vec<u32> = loaded_programs().filter_map(|info| Some(info.ok()?.id())).collect();
        let left: Vec<u32> = ids.iter().copied().filter(|id| loaded.contains(id)).collect();
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_drop_counter_is_exported_from_the_first_scrape() {
    needs_bpf!("every_drop_counter_is_exported_from_the_first_scrape");
    let daemon = Daemon::start(&[]);
    let text = daemon.get("/metrics");
    let drops: Vec<_> =
        text.lines().filter(|line| line.starts_with("lockprof_events_dropped_total{")).collect();
    for reason in profiler_common::layout::DROP_NAMES.iter().chain(&["recursion_miss", "task_gone"])
    {
        let wanted = format!("lockprof_events_dropped_total{{reason=\"{reason}\"}} ");
        assert!(drops.iter().any(|line| line.starts_with(&wanted)), "{reason} in {drops:#?}");
    }
    // What began before the programs were attached may have ended since.
    let at_start = ["unmatched_end", "unmatched_syscall", "recursion_miss"];
    for line in drops {
        assert!(line.ends_with(" 0") || at_start.iter().any(|r| line.contains(r)), "{line}");
    }
}

#[test]
fn a_storm_shows_in_every_view() {
    needs_bpf!("a_storm_shows_in_every_view");
    let daemon = Daemon::start(&[]);
    assert!(common::storm(3).status().expect("storm runs").success());
    let snapshot: lockprof::snapshot::Snapshot =
        serde_json::from_str(&daemon.get("/api/v1/snapshot")).expect("the documented JSON");
    let waits: u64 = snapshot
        .locks
        .iter()
        .filter(|row| row.lock == "namespace_sem")
        .map(|row| row.waits.count)
        .sum();
    let mounts: u64 = snapshot
        .syscalls
        .iter()
        .filter(|row| row.syscall == "mount")
        .map(|row| row.calls.count)
        .sum();
    assert!(waits > 0 && mounts > 0, "{waits} waits, {mounts} mount calls");
    let text = daemon.get("/metrics");
    let count = |prefix: &str| -> u64 {
        text.lines()
            .filter(|line| line.starts_with(prefix))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum()
    };
    // The storm is over: the two reads see the same totals.
    assert_eq!(count("lockprof_lock_wait_seconds_count{lock=\"namespace_sem\""), waits);
    assert_eq!(count("lockprof_mount_syscall_duration_seconds_count{syscall=\"mount\""), mounts);
    assert!(!text.contains("ffffffff8"), "kernel addresses stay on the machine");
    assert!(!daemon.get("/api/v1/snapshot").contains("address"));
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    needs_bpf!("promtool_finds_nothing_to_say_about_the_metrics");
    let daemon = Daemon::start(&[]);
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        common::skip(
            "promtool_finds_nothing_to_say_about_the_metrics",
            "promtool is not installed; `cargo xtask setup` installs it",
        );
        return;
    };
    let metrics = daemon.get("/metrics");
    promtool.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn a_killed_daemon_leaves_no_program_behind() {
    needs_bpf!("a_killed_daemon_leaves_no_program_behind");
    let mut daemon = Daemon::start(&[]);
    let programs = daemon.programs();
    assert!(programs.len() >= 4, "{programs:?}");
    daemon.signal(libc::SIGKILL);
    daemon.child.wait().expect("it ends");
    assert_eq!(programs_left(&programs), Vec::<u32>::new());
}

#[test]
fn ten_rounds_of_start_and_stop_leak_nothing() {
    needs_bpf!("ten_rounds_of_start_and_stop_leak_nothing");
    let mut programs = Vec::new();
    for round in 0..10 {
        let mut daemon = Daemon::start(&[]);
        programs.extend(daemon.programs());
        daemon.signal(if round % 2 == 0 { libc::SIGTERM } else { libc::SIGINT });
        let status = daemon.child.wait().expect("it ends");
        assert!(status.success(), "round {round}: {status}");
    }
    assert!(programs.len() >= 40, "{programs:?}");
    assert_eq!(programs_left(&programs), Vec::<u32>::new());
    let pinned = std::fs::read_dir("/sys/fs/bpf").map_or(0, |entries| {
        entries.filter_map(Result::ok).filter(|e| e.file_name() == "lockprof").count()
    });
    assert_eq!(pinned, 0, "something is pinned");
}

#[test]
fn a_reload_changes_the_watched_locks_and_a_bad_one_changes_nothing() {
    needs_bpf!("a_reload_changes_the_watched_locks_and_a_bad_one_changes_nothing");
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("a plain path").to_owned();
    let mut daemon = Daemon::start(&["--config", &path]);
    let mut log = BufReader::new(daemon.child.stderr.take().expect("piped"));
    let watched = |daemon: &Daemon| daemon.get("/metrics").contains("lock=\"tasklist_lock\"");
    assert!(watched(&daemon));

    file.write_all(b"[locks]\ndisable = [\"tasklist_lock\"]\n").expect("it can be written");
    daemon.signal(libc::SIGHUP);
    wait_for(&mut log, "reloaded");
    assert!(!watched(&daemon));
    assert!(daemon.get("/metrics").contains("lock=\"namespace_sem\""));

    file.write_all(b"nonsense = 1\n").expect("it can be written");
    daemon.signal(libc::SIGHUP);
    let said = wait_for(&mut log, "kept the running configuration");
    assert!(said.contains("nonsense"), "{said}");
    assert!(!watched(&daemon) && daemon.get("/metrics").contains("lock=\"namespace_sem\""));
}

/// A cgroup that is called like a container's, removed in the end.
struct ContainerCgroup(PathBuf);

impl ContainerCgroup {
    fn make(id: &str) -> Result<Self, String> {
        let root = Hierarchy::find(Path::new("/sys/fs/cgroup")).map_err(|e| e.to_string())?.root;
        let folder = root.join(format!("docker-{id}.scope"));
        std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self(folder))
    }

    /// A storm with all its tasks in the cgroup.
    fn storm(&self, seconds: u32) {
        let storm = common::storm(seconds);
        let status = Command::new("sh")
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.0)
            .arg(storm.get_program())
            .args(storm.get_args())
            .stdout(Stdio::null())
            .status()
            .expect("a shell can be run");
        assert!(status.success(), "{status}");
    }
}

impl Drop for ContainerCgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_container_has_series_of_its_own_where_they_are_wanted_and_all_add_up() {
    needs_bpf!("a_container_has_series_of_its_own_where_they_are_wanted_and_all_add_up");
    let name = "a_container_has_series_of_its_own_where_they_are_wanted_and_all_add_up";
    let id = format!("{:064x}", std::process::id());
    let cgroup = match ContainerCgroup::make(&id) {
        Ok(cgroup) => cgroup,
        Err(why) => return common::skip(name, &format!("no cgroup can be made: {why}")),
    };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    // Room for containers of the machine as well: there may be some.
    file.write_all(b"[metrics]\ncontainers = 100\n").expect("it can be written");
    let daemon = Daemon::start(&["--config", file.path().to_str().expect("a plain path")]);
    let of_lock = |text: &str, metric: &str, label: &str| -> f64 {
        let prefix = format!("{metric}{{lock=\"namespace_sem\",");
        text.lines()
            .filter(|line| line.starts_with(&prefix) && line.contains(label))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    };
    let own = format!("container=\"{id}\"");
    // From its first waits on it has series, and what comes then is in them.
    cgroup.storm(2);
    let first = daemon.get("/metrics");
    assert!(first.contains(&own), "{first}");
    cgroup.storm(2);
    let second = daemon.get("/metrics");
    for side in ["waiter", "blocker"] {
        let by_container = format!("lockprof_container_lock_{side}_seconds_total");
        let grown = of_lock(&second, &by_container, &own) - of_lock(&first, &by_container, &own);
        // Kernels that do not tell owners name no blocker.
        if side == "waiter" || second.contains("basis=\"owner\"") {
            assert!(grown > 0.0, "{side}: {grown}");
        }
        let (all, total) = (
            of_lock(&second, &by_container, ""),
            of_lock(&second, &format!("lockprof_lock_{side}_seconds_total"), ""),
        );
        assert!((all - total).abs() < 1e-6, "{side}: {all} s by container, {total} s by runtime");
    }
    let info = format!("lockprof_container_info{{{own},manager=\"docker\",pod_uid=\"\"}} 1");
    assert!(second.contains(&info), "{second}");
}

/// Reads the log up to the line that contains `text`.
fn wait_for(log: &mut impl std::io::BufRead, text: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("text"), 0, "the log ended before `{text}`");
        if line.contains(text) {
            return line;
        }
    }
}

#[test]
fn an_unknown_accept_header_is_answered_with_what_there_is() {
    needs_bpf!("an_unknown_accept_header_is_answered_with_what_there_is");
    let daemon = Daemon::start(&[]);
    let (status, body) =
        get(daemon.address, "/metrics", "application/x-nonsense").expect("the daemon answers");
    assert_eq!(status, 406, "{body}");
    assert!(body.contains("text/plain"), "{body}");
}

#[test]
fn a_port_in_use_is_named_before_anything_is_attached() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let output = Command::new(LOCKPROF)
        .args(["daemon", "--listen", &address.to_string()])
        .output()
        .expect("the daemon can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()) && said.contains("in use"), "{said}");
}
